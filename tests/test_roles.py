"""The role of a weight, inferred from its name and shape by one table."""

import inspect
import pathlib

import keras
import numpy as np
import pytest
from keras import layers
from models import SEQUENCES, around

from keras_l2reg import (
    L2AllWeights,
    Weight,
    attach,
    find_weights,
    select_weights,
)
from keras_l2reg._roles import KERNEL_ROLES, ROLES, as_markdown, role_of


def test_no_word_stands_for_two_roles():
    words = [word for role in ROLES.values() for word in role.words]
    names = [name for role in ROLES.values() for name in role.names]
    assert len(set(words)) == len(words)
    assert len(set(names)) == len(names)


def test_what_covers_a_role_is_an_argument_of_the_rule():
    flags = {role.covered for role in ROLES.values()} - {True, False}
    assert flags == {"biases", "embeddings"}
    for function in (select_weights, attach, L2AllWeights):
        assert flags < set(inspect.signature(function).parameters)


def test_kernel_roles_are_the_four_kinds_of_kernel():
    assert KERNEL_ROLES == ("kernel", "recurrent", "depthwise", "pointwise")


def test_the_docs_show_the_table():
    # If this fails, copy what `as_markdown()` returns to the page.
    page = pathlib.Path(__file__).parent.parent / "docs" / "which-weights.md"
    assert as_markdown() in page.read_text()


# What the weights of known architectures are, from their papers and code:
# (name, shape, role, whether the name leaves it a guess).
KNOWN = [
    # Vision transformers: tokens, positions, masks (ViT, DeiT, DINO, BEiT, SAM, Swin).
    ("class_token", (1, 1, 8), "embeddings", False),
    ("cls", (1, 1, 8), "embeddings", False),
    ("register_tokens", (1, 4, 8), "embeddings", False),
    ("dist_token", (1, 1, 8), "embeddings", False),
    ("mask_token", (1, 8), "embeddings", False),
    ("mask_emb", (1, 1, 8), "embeddings", False),
    ("pos_embed", (1, 7, 7, 8), "embeddings", False),
    ("posEmbed", (1, 49, 8), "embeddings", False),
    ("absolute_pos_embed", (1, 49, 8), "embeddings", False),
    ("rel_pos_h", (13, 8), "embeddings", True),
    ("rel_pos_w", (13, 8), "embeddings", True),
    ("relative_position_bias_table", (169, 4), "embeddings", False),
    ("relative_position_bias", (4, 49, 49), "bias", False),
    ("probe", (1, 1, 8), "embeddings", False),
    ("lambda1", (8,), "scale", False),
    # Language models.
    ("position_embeddings", (5, 8), "embeddings", False),
    ("segment_encoding", (2, 4, 8), "embeddings", False),
    ("content_attention_bias", (4, 8), "bias", False),
    ("soft_prompt", (20, 8), "embeddings", False),
    ("output_kernel", (8, 50), "kernel", False),
    ("gate_up_proj", (4, 8, 16), "kernel", False),
    ("gate_up_proj_bias", (4, 16), "bias", False),
    ("expert_feedforward_gate_dense", (4, 8, 16), "kernel", False),
    ("sinks", (4,), "other", False),
    ("A_log", (16, 8), "other", False),
    ("dt_bias", (4,), "bias", False),
    ("in_proj_weight", (24, 8), "kernel", False),
    ("in_proj_bias", (24,), "bias", False),
    ("bias_k", (1, 1, 8), "bias", True),
    ("weight_hh_l0", (32, 8), "kernel", True),
    # Perceiver, Set Transformer, VQ-VAE, RBF and prototype networks.
    ("latents", (32, 8), "embeddings", False),
    ("pooling_attention_query", (4, 8), "embeddings", False),
    ("learned_queries", (4, 8), "embeddings", False),
    ("inducing_points", (16, 8), "embeddings", True),
    ("seed_vectors", (1, 4, 8), "embeddings", True),
    ("codebook", (64, 8), "embeddings", False),
    ("codebooks", (4, 64, 8), "embeddings", False),
    ("prototypes", (10, 8), "embeddings", False),
    ("centers", (10, 8), "embeddings", False),
    # Normalizations and gates as others write them.
    ("gamma", (1, 8), "scale", False),
    ("layer_gamma", (1, 1, 8), "scale", False),
    ("group_bias", (1, 8), "bias", False),
    ("weight", (8,), "scale", True),
    ("logit_scale", (), "scale", False),
    ("kernel_scale", (1, 8), "scale", False),
    ("beta", (1, 1, 8), "shift", False),
    # Quantizers.
    ("bits", (8, 4), "other", False),
    ("bit_width", (8, 4), "other", True),
    ("kernel_amax_history", (1024,), "other", False),
    # Kernels that a search for parts of words misses.
    ("debiased_kernel", (8, 4), "kernel", False),
    ("embedding_projection_kernel", (8, 4), "kernel", False),
    ("token_mixing_weights", (8, 8), "kernel", False),
    ("query_kernel", (8, 8), "kernel", False),
    ("pos_proj", (8, 8), "kernel", False),
    ("recurrent_weights", (8, 8), "recurrent", False),
    ("depthwise_weight", (3, 3, 8, 1), "depthwise", False),
    # Kernels of one input or one output.
    ("kernel", (8, 1), "kernel", False),
    ("kernel", (1, 8), "kernel", False),
    ("lora_kernel_a", (8, 1), "kernel", False),
    ("w", (8, 4), "kernel", False),
    ("W1", (8, 4), "kernel", False),
    ("w", (8, 1), "kernel", False),
    ("w", (8,), "other", False),
    ("weight", (1, 8), "kernel", True),
    # Hand-written biases; but a matrix B is a kernel, as in state space models.
    ("b", (4,), "bias", False),
    ("b", (1, 4), "bias", False),
    ("B", (8, 4), "kernel", True),
    # The shape alone decides.
    ("mix", (8, 8), "kernel", True),
    ("mix", (1, 8), "other", True),
    ("mix", (8,), "other", False),
    ("ядро", (8, 8), "kernel", True),
    ("tokens/0", (1, 8), "embeddings", False),
    ("params/Dense_0/kernel", (8, 4), "kernel", False),
]


@pytest.mark.parametrize("name, shape, role, is_guess", KNOWN)
def test_role_of_known_weights(name, shape, role, is_guess):
    assert role_of(name, shape) == (role, is_guess)


def test_a_query_beside_a_key_is_a_kernel_like_the_key():
    siblings = ["Query", "Key", "Value"]
    roles = {role_of(name, (8, 8), siblings)[0] for name in siblings}
    assert roles == {"kernel"}
    assert role_of("query", (4, 8), ["query", "out_kernel"])[0] == "embeddings"


# --- Custom layers ---------------------------------------------------------------


def layer_of(*weights, base=layers.Layer):
    """A layer with weights of these names and shapes, held by no attribute."""

    class Custom(base):
        def build(self, input_shape):
            for name, shape in weights:
                self.add_weight(shape=shape, name=name)

        def call(self, inputs):
            return inputs

    return Custom(name="own")


CUSTOM = {
    "linear": ([("w", (6, 3)), ("b", (3,))], ["w"]),
    "regression": ([("w", (6, 1)), ("b", (1,))], ["w"]),
    "attention": (
        [(name, (6, 6)) for name in ("query", "key", "value", "out")],
        ["query", "key", "value", "out"],
    ),
    "attention_by_letters": ([(n, (6, 6)) for n in ("Wq", "Wk")], ["Wq", "Wk"]),
    "low_rank": (
        [("down_proj", (6, 2)), ("up_proj", (2, 6))],
        ["down_proj", "up_proj"],
    ),
    "gated": ([("gate_kernel", (6, 6)), ("gate_bias", (1, 6))], ["gate_kernel"]),
    "perceiver": ([("latents", (4, 6)), ("read_kernel", (6, 6))], ["read_kernel"]),
    "patches": (
        [("patch_kernel", (12, 6)), ("pos_table", (9, 6)), ("cls_token", (1, 1, 6))],
        ["patch_kernel"],
    ),
    "quantizer": ([("codebook", (16, 6)), ("bits", (6, 3))], []),
    "norm": ([("gain", (1, 1, 6)), ("offset", (1, 1, 6))], []),
    "mixture": (
        [("expert_weights", (4, 6, 6)), ("expert_biases", (4, 6))],
        ["expert_weights"],
    ),
    "noisy": ([("kernel_mu", (6, 3)), ("kernel_sigma", (6, 3))], ["kernel_mu"]),
    "state_space": ([("A_log", (6, 4)), ("B", (6, 4)), ("D", (6,))], ["B"]),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_kernels_of_custom_layers(name):
    weights, kernels = CUSTOM[name]
    layer = layer_of(*weights)
    layer.build((None, 6))
    found = find_weights(layer)
    assert [w.name for w in found] == [name for name, _ in weights]
    assert [w.name for w in found if w.role in KERNEL_ROLES] == kernels


def test_tokens_and_positions_get_a_penalty_with_embeddings_only():
    model = around(layer_of(*CUSTOM["patches"][0]), shape=(6,))
    assert [w.name for w, _ in select_weights(model)] == ["own/patch_kernel"]
    assert len(select_weights(model, embeddings=True)) == 3


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have")
@pytest.mark.parametrize("name", ["float8", "stft"])
def test_weights_that_keras_adds_to_a_layer_are_not_kernels(name):
    if name == "float8":
        model = around(layers.Dense(3, name="a"), shape=(6,))
        model.quantize("float8")
        kernels = ["a/kernel"]
    else:
        # Its kernels are the fixed bases of the transform, unless made trainable.
        layer = layers.STFTSpectrogram(
            frame_length=4, frame_step=2, fft_length=4, trainable=True, name="a"
        )
        model, kernels = (
            around(layer, shape=(16, 1)),
            ["a/real_kernel", "a/imag_kernel"],
        )
    assert [w.name for w, _ in select_weights(model)] == kernels


# --- Names -----------------------------------------------------------------------


class Unnamed(layers.Layer):
    """Weights without names, in public and private attributes, lists and dicts."""

    def build(self, input_shape):
        width = input_shape[-1]
        self.projection = self.add_weight(shape=(width, 3))
        self._b = self.add_weight(shape=(3,))
        self.tokens = [self.add_weight(shape=(2, 3)) for _ in range(2)]
        self.parts = {"in": {"kernel": self.add_weight(shape=(width, 1))}}
        self.add_weight(shape=(3, 3))
        self.add_weight(shape=(3, 3))
        self.named = self.add_weight(shape=(3, 3), name="its_own")

    def call(self, inputs):
        return inputs


UNNAMED = {
    "x/projection": "kernel",
    "x/b": "bias",
    "x/tokens/0": "embeddings",
    "x/tokens/1": "embeddings",
    "x/parts/in/kernel": "kernel",
    "x/variable": "kernel",
    "x/variable_1": "kernel",
    "x/its_own": "kernel",
}


def test_unnamed_weights_have_the_same_names_at_every_build():
    for _ in range(2):
        model = around(Unnamed(name="x"), shape=(6,))
        assert {w.name: w.role for w in find_weights(model)} == UNNAMED


def test_the_penalty_of_unnamed_weights_survives_a_save(tmp_path):
    register = keras.saving.register_keras_serializable(__name__)
    model = around(register(Unnamed)(name="x"), shape=(6,))
    wrapped = L2AllWeights(model, 0.1, layers=["x/proj*", "x/variable_1"])
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    penalized = [w.name for w in find_weights(loaded) if w.regularizer]
    assert penalized == ["x/projection", "x/variable_1"]


def test_repr_is_one_line_without_the_array():
    layer = layer_of(("rel_pos_h", (400, 3)), ("kernel", (400, 3)))
    layer.build((None, 6))
    guess, sure = map(repr, find_weights(layer))
    assert sure == "<Weight name=kernel, role=kernel, shape=(400, 3)>"
    assert guess == "<Weight name=rel_pos_h, role=embeddings (a guess), shape=(400, 3)>"
    (kernel, _) = find_weights(keras.Sequential([layers.Dense(2, name="a")]))
    assert repr(kernel) == "<Weight name=a/kernel, role=kernel, shape=None>"


@pytest.mark.filterwarnings("ignore:The configuration of")
def test_a_vision_transformer_is_covered_like_weight_decay_in_timm():
    # timm leaves out of decay: pos_embed, cls_token, and all vectors.
    class Patches(layers.Layer):
        def build(self, input_shape):
            width = input_shape[-1]
            self.cls_token = self.add_weight(shape=(1, 1, width))
            self.pos_embed = self.add_weight(shape=(1, input_shape[1] + 1, width))
            self.proj = layers.Dense(width, name="proj")
            self.proj.build(input_shape)

        def call(self, inputs):
            token = keras.ops.repeat(self.cls_token, len(SEQUENCES), axis=0)
            x = keras.ops.concatenate([token, self.proj(inputs)], axis=1)
            return x + self.pos_embed

    inputs = keras.Input((5, 6), batch_size=len(SEQUENCES))
    x = Patches(name="patches")(inputs)
    x = x + layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.Dense(2, name="head")(layers.LayerNormalization(name="norm")(x)[:, 0])
    model = attach(keras.Model(inputs, x), 0.5)
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    assert len(kernels) == 6
    expected = sum(0.5 * np.sum(keras.ops.convert_to_numpy(k) ** 2.0) for k in kernels)
    total = sum(float(loss) for loss in model.losses)
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_the_docstring_of_weight_names_every_role():
    assert [role for role in ROLES if f'`"{role}"`' not in Weight.__doc__] == []
