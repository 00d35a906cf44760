"""find_weights and select_weights: names, roles, attributes, and the rule."""

import keras
import numpy as np
import pytest
from keras import layers
from models import IMAGES, MODELS, SEQUENCES, VECTORS, OwnWeight, Subclassed, around

from keras_l2reg import (
    L2AllWeights,
    attach,
    find_weights,
    print_weights,
    select_weights,
    set_weight_decay,
)

# (layer, inputs, {weight: (role, attribute)}), written from the layers' documentation.
KERNEL = ("kernel", "kernel_regularizer")
BIAS = ("bias", "bias_regularizer")
DEPTHWISE = ("depthwise", "depthwise_regularizer")
LAYERS = [
    (layers.Dense(2), VECTORS, {"kernel": KERNEL, "bias": BIAS}),
    (
        layers.EinsumDense("abc,cd->abd", (None, 2), bias_axes="d"),
        SEQUENCES,
        {"kernel": KERNEL, "bias": BIAS},
    ),
    (layers.Conv1D(2, 2), SEQUENCES, {"kernel": KERNEL, "bias": BIAS}),
    (layers.Conv2DTranspose(2, 2), IMAGES, {"kernel": KERNEL, "bias": BIAS}),
    (layers.DepthwiseConv1D(2), SEQUENCES, {"kernel": DEPTHWISE, "bias": BIAS}),
    (layers.DepthwiseConv2D(2), IMAGES, {"kernel": DEPTHWISE, "bias": BIAS}),
    (
        layers.SeparableConv2D(2, 2),
        IMAGES,
        {
            "depthwise_kernel": DEPTHWISE,
            "pointwise_kernel": ("pointwise", "pointwise_regularizer"),
            "bias": BIAS,
        },
    ),
    (
        layers.LSTMCell(2),
        VECTORS,
        {
            "kernel": KERNEL,
            "recurrent_kernel": ("recurrent", "recurrent_regularizer"),
            "bias": BIAS,
        },
    ),
    (
        layers.Embedding(7, 2),
        np.zeros((2, 3), "int32"),
        {"embeddings": ("embeddings", "embeddings_regularizer")},
    ),
    (
        layers.BatchNormalization(),
        VECTORS,
        {
            "gamma": ("scale", "gamma_regularizer"),
            "beta": ("shift", "beta_regularizer"),
        },
    ),
    (
        layers.LayerNormalization(),
        VECTORS,
        {
            "gamma": ("scale", "gamma_regularizer"),
            "beta": ("shift", "beta_regularizer"),
        },
    ),
    (layers.PReLU(), VECTORS, {"alpha": ("slope", "alpha_regularizer")}),
]


def described(layer):
    return {
        w.name.split("/")[-1]: (w.role, w.config_attribute) for w in find_weights(layer)
    }


@pytest.mark.parametrize(
    "layer, inputs, expected", LAYERS, ids=lambda v: getattr(v, "name", "")
)
def test_role_and_attribute_of_each_kind_of_layer(layer, inputs, expected):
    config = layer.get_config()
    fresh = type(layer).from_config(config)
    if isinstance(layer, layers.LSTMCell):
        fresh.build(inputs.shape)
    else:
        fresh(inputs)
    assert described(fresh) == expected


@pytest.mark.parametrize(
    "name", ["recurrent", "conv_2d", "multi_head_attention", "lora"]
)
def test_every_attribute_is_in_the_config_of_its_layer(name):
    model = MODELS[name].build()
    for weight in find_weights(model):
        if weight.config_attribute:
            assert (
                weight.config_attribute.strip("_") in weight.config_layer.get_config()
            )


@pytest.mark.parametrize(
    "layer", [layers.Dense(2, name="x"), layers.SeparableConv1D(2, 2, name="x")]
)
def test_weights_of_unbuilt_layers_are_those_of_the_built_ones(layer):
    model = keras.Sequential([layer])
    before = [(w.name, w.role, w.config_attribute) for w in find_weights(model)]
    assert all(w.variable is None for w in find_weights(model))
    model.build((None, 5, 6))
    after = [(w.name, w.role, w.config_attribute) for w in find_weights(model)]
    assert sorted(before) == sorted(after)


def test_names_are_unique_and_variables_are_listed_once():
    for name in ("shared_layer", "tied_weights", "custom_weights_of_one_name"):
        model = MODELS[name].build()
        model(MODELS[name].inputs)
        found = find_weights(model)
        assert len({w.name for w in found}) == len(found)
        assert {id(w.variable) for w in found} == {
            id(v) for v in model.trainable_weights
        }
        assert len({id(w.variable) for w in found}) == len(found)


def two_layers():
    return around(
        layers.Dense(4, name="hidden"), layers.Dense(2, name="output"), shape=(6,)
    )


@pytest.mark.parametrize(
    "rule, expected",
    [
        ({}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        ({"layers": "out*"}, {"output/kernel": 1.0}),
        ({"layers": ["out*", "hid*"]}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        ({"layers": layers.Dense}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        (
            {"layers": "*/kernel", "biases": True},
            {"hidden/kernel": 1, "output/kernel": 1},
        ),
        (
            {"multipliers": {"*": 0.5, "output/*": 2}},
            {"hidden/kernel": 0.5, "output/kernel": 2.0},
        ),
        (
            {"multipliers": {"output/*": 2, "*": 0.5}},
            {"hidden/kernel": 0.5, "output/kernel": 0.5},
        ),
        ({"multipliers": {"hidden/*": 0}}, {"output/kernel": 1.0}),
        (
            {"biases": True, "multipliers": {"*/bias": 0.1, "hidden/bias": 0}},
            {"hidden/kernel": 1.0, "output/kernel": 1.0, "output/bias": 0.1},
        ),
        ({"exclude": "out*"}, {"hidden/kernel": 1.0}),
        ({"exclude": ["out*", "*/bias"]}, {"hidden/kernel": 1.0}),
        ({"exclude": []}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        ({"layers": layers.Dense, "exclude": "hid*"}, {"output/kernel": 1.0}),
        (
            {"biases": True, "exclude": "hid*", "multipliers": {"*/bias": 0.1}},
            {"output/kernel": 1.0, "output/bias": 0.1},
        ),
    ],
)
def test_the_rule_selects_weights_and_multipliers(rule, expected):
    assert {w.name: m for w, m in select_weights(two_layers(), **rule)} == expected


def test_a_layer_class_matches_all_weights_inside_its_layers():
    model = MODELS["bidirectional"].build()
    by_class = select_weights(model, layers=layers.Bidirectional)
    assert len(by_class) == 4


@pytest.mark.parametrize(
    "rule",
    [
        {"layers": "nothing*"},
        {"layers": layers.Conv2D},
        {"multipliers": {"nothing*": 1}},
        {"multipliers": {"*": 0}},
        {"layers": []},
        {"exclude": "nothing*"},
        {"exclude": layers.Conv2D},
        {"exclude": "*"},
        {"exclude": layers.Dense},
    ],
)
def test_a_rule_that_matches_nothing_is_an_error(rule):
    with pytest.raises(ValueError, match=r"Received"):
        select_weights(two_layers(), **rule)


def test_weights_have_the_same_names_in_a_wrapper():
    model = two_layers()
    names = [w.name for w in find_weights(model)]
    assert [w.name for w in find_weights(L2AllWeights(model))] == names


@pytest.mark.parametrize("pattern", [layers.Dense, "*/kernel"])
def test_a_wrapper_narrowed_by_layers_can_be_loaded(pattern, tmp_path):
    wrapped = L2AllWeights(two_layers(), layers=[pattern])
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.losses) == 2


def test_the_class_of_the_model_itself_matches_its_weights():
    own = [w.name for w, _ in select_weights(OwnWeight(), layers=OwnWeight)]
    assert own == ["w", "head/kernel"]
    model = Subclassed()
    model(VECTORS)
    both = ["hidden/kernel", "head/kernel"]
    assert [w.name for w, _ in select_weights(model, layers=Subclassed)] == both
    wrapped = L2AllWeights(model, layers=Subclassed)
    assert [w.name for w, _ in select_weights(wrapped, layers=Subclassed)] == both


# --- exclude, wherever the rule goes ---------------------------------------------


def penalized(model):
    return [w.name for w in find_weights(model) if w.regularizer]


def test_attach_leaves_out_excluded_weights():
    assert penalized(attach(two_layers(), 0.1, exclude="out*")) == ["hidden/kernel"]


@pytest.mark.parametrize("exclude", ["output/*", [layers.Conv2D, "output/*"]])
def test_exclude_of_a_wrapper_is_saved(exclude, tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(2, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(4, name="hidden"),
            layers.Dense(2, name="output"),
        ]
    )
    wrapped = L2AllWeights(model, 0.1, exclude=exclude)
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    convolution = [] if isinstance(exclude, list) else ["conv/kernel"]
    assert penalized(loaded) == penalized(wrapped) == [*convolution, "hidden/kernel"]
    assert len(loaded.losses) == len(penalized(loaded))


def test_exclude_follows_automatic_names_through_a_save(tmp_path):
    model = MODELS["subclassed_with_nameless_layers"].build()
    model(VECTORS)
    first = find_weights(model)[0]
    wrapped = L2AllWeights(model, 0.1, exclude=first.name)
    wrapped(VECTORS)
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded(VECTORS)
    found = [w for w in find_weights(loaded) if w.role == "kernel"]
    assert [w.regularizer is not None for w in found] == [False, True]


def test_a_config_without_exclude_can_be_loaded():
    config = L2AllWeights(two_layers(), 0.1).get_config()
    del config["rule"]["exclude"]
    assert len(L2AllWeights.from_config(config).losses) == 2


def test_weight_decay_leaves_out_excluded_weights():
    model, optimizer = two_layers(), keras.optimizers.SGD(0.5)
    before = {v.path: keras.ops.convert_to_numpy(v) for v in model.variables}
    optimizer = set_weight_decay(optimizer, model, 0.1, exclude="out*")
    model.compile(optimizer, "mse")
    optimizer.build(model.trainable_variables)
    optimizer.apply([keras.ops.zeros(v.shape) for v in model.trainable_variables])
    for v in model.variables:
        # w -= learning_rate * rate * w
        left = 0.95 if v.path.endswith("hidden/kernel") else 1.0
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(v), left * before[v.path], rtol=1e-6
        )


# --- Errors that say what to do --------------------------------------------------


def with_table():
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Embedding(7, 4, name="table"),
            layers.Flatten(),
            layers.Dense(2, name="head"),
        ]
    )


@pytest.mark.parametrize(
    "rule, advice",
    [
        ({"layers": layers.Embedding}, "embeddings=True"),
        ({"layers": "table/*"}, "embeddings=True"),
        ({"layers": ["head/*", layers.Embedding]}, "embeddings=True"),
        ({"multipliers": {"table/*": 0.1}}, "embeddings=True"),
        ({"layers": "*/bias"}, "biases=True"),
        ({"multipliers": {"*/bias": 0.1}}, "biases=True"),
        ({"layers": "head"}, "'head/*'"),
    ],
)
def test_error_names_the_argument_that_would_cover_the_weights(rule, advice):
    with pytest.raises(ValueError, match="Hint") as error:
        select_weights(with_table(), **rule)
    assert advice in str(error.value).partition("Hint")[2]


def test_error_names_the_flag_of_a_model_of_embeddings_only():
    model = keras.Sequential([keras.Input((5,)), layers.Embedding(7, 4)])
    for rule in ({}, {"layers": layers.Embedding}):
        with pytest.raises(ValueError, match="embeddings=True"):
            select_weights(model, **rule)


def test_error_of_an_unbuilt_model_says_to_build_it():
    with pytest.raises(ValueError, match="build or call the model first"):
        select_weights(MODELS["custom_bare_weight_unbuilt"].build(), layers="bare/*")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Layer")
@pytest.mark.parametrize(
    "rule", [{}, {"layers": "*/kernel"}, {"biases": True, "layers": "*/kernel"}]
)
@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_error_of_a_quantized_model_mentions_quantization(mode, rule):
    model = two_layers()
    model.quantize(mode)
    for function in (select_weights, attach, L2AllWeights):
        with pytest.raises(ValueError, match=r"\['hidden', 'output'\] are quantized"):
            function(model, **rule)
    # What the message advises.
    for layer in model.layers[1:]:
        layer.enable_lora(1)
    assert len(attach(model, 0.1).losses) == 4


@pytest.mark.filterwarnings("ignore:Layer")
def test_a_float8_model_is_not_called_quantized():
    model = two_layers()
    model.quantize("float8")
    with pytest.raises(ValueError) as error:
        select_weights(model, layers="nothing*")
    assert "quantized" not in str(error.value)


def test_error_of_a_large_model_is_short():
    model = around(*[layers.Dense(6) for _ in range(50)], shape=(6,))
    with pytest.raises(ValueError, match="and 30 more") as error:
        select_weights(model, layers="nothing*")
    assert len(str(error.value)) < 1500


# --- print_weights ---------------------------------------------------------------


def printed(capsys, model, **rule):
    """The table by weight: (role, covered, multiplier, regularizer, why)."""
    capsys.readouterr()
    print_weights(model, **rule)
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()]
    assert [cell.strip() for cell in rows[0]] == [
        *("weight", "role", "covered", "multiplier", "regularizer", "why")
    ]
    return {row[0].strip(): tuple(c.strip() for c in row[1:]) for row in rows[2:]}


class Choice(layers.Layer):
    def build(self, input_shape):
        self.mix = self.add_weight(shape=(input_shape[-1],) * 2, name="mix")
        self.token = self.add_weight(shape=(1, 6), name="token")

    def call(self, inputs):
        return inputs


def test_print_weights_shows_for_every_weight_whether_it_is_covered_and_why(capsys):
    lora = layers.Dense(6, use_bias=False, name="lora")
    model = around(
        Choice(name="own"),
        layers.Dense(6, kernel_regularizer=keras.regularizers.L1(0.5), name="a"),
        layers.BatchNormalization(name="norm"),
        layers.Dense(6, use_bias=False, trainable=False, name="ice"),
        layers.Dense(6, use_bias=False, name="out"),
        layers.Dense(6, use_bias=False, name="nil"),
        lora,
        shape=(6,),
    )
    lora.enable_lora(1)
    rule = {"exclude": "out/*", "multipliers": {"*": 2, "a/*": 0.1, "nil/*": 0}}
    assert printed(capsys, model, **rule) == {
        "own/mix": ("kernel", "yes", "2", "-", "role, a guess, multipliers['*']"),
        "own/token": ("embeddings", "no", "-", "-", "embeddings=False"),
        "a/kernel": ("kernel", "yes", "0.1", "l1=0.5", "role, multipliers['a/*']"),
        "a/bias": ("bias", "no", "-", "-", "biases=False"),
        "norm/gamma": ("scale", "no", "-", "-", "role"),
        "norm/beta": ("shift", "no", "-", "-", "role"),
        "ice/kernel": ("kernel", "yes", "2", "-", "role, multipliers['*'], frozen"),
        "out/kernel": ("kernel", "no", "-", "-", "exclude='out/*'"),
        "nil/kernel": ("kernel", "no", "-", "-", "role, multipliers['nil/*']"),
        "lora/lora_kernel_a": ("kernel", "yes", "2", "-", "role, multipliers['*']"),
        "lora/lora_kernel_b": ("kernel", "yes", "2", "-", "role, multipliers['*']"),
        "lora/kernel": ("kernel", "no", "-", "-", "base of LoRA, frozen"),
    }


def test_print_weights_shows_which_weights_layers_matches(capsys):
    shown = printed(capsys, two_layers(), layers=["out*"])
    assert shown["hidden/kernel"] == ("kernel", "no", "-", "-", "not in layers")
    assert shown["output/kernel"] == ("kernel", "yes", "1", "-", "role, layers='out*'")


def test_print_weights_of_a_wrapper_shows_its_own_rule(capsys):
    wrapped = L2AllWeights(two_layers(), 0.1, exclude="out*")
    shown = printed(capsys, wrapped)
    assert shown["hidden/kernel"][1:4] == ("yes", "1", "l2=0.1")
    assert shown["output/kernel"][1:4] == ("no", "-", "-")


def test_print_weights_shows_the_selection_of_select_weights(capsys):
    for name, entry in MODELS.items():
        model = entry.build()
        model(entry.inputs)
        shown = printed(capsys, model, **entry.rule)
        covered = [w.name for w, _ in select_weights(model, **entry.rule)]
        assert [n for n, row in shown.items() if row[1] == "yes"] == covered, name


def test_print_weights_prints_names_in_brackets_as_they_are(capsys):
    names = ["[red]a", "b[relu]", "enc[", "x]"]
    model = around(*[layers.Dense(6, name=name) for name in names], shape=(6,))
    shown = printed(capsys, model, exclude="enc[[]*")
    assert list(shown) == [f"{n}/{part}" for n in names for part in ("kernel", "bias")]
    assert shown["enc[/kernel"][4] == "exclude='enc[[]*'"
    print_weights(model, title="[bold]")
    assert "[bold]" in capsys.readouterr().out


def test_print_weights_of_an_empty_table_says_what_to_do(capsys):
    print_weights(keras.Sequential([]))
    assert "build the model" in capsys.readouterr().out
    print_weights(keras.Sequential([keras.Input((5,)), layers.Embedding(7, 4)]))
    assert "embeddings=False" in capsys.readouterr().out
