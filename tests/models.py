"""The table of models that the battery runs on.

Each `Entry` names the weights that the default rule must cover, written by hand from
the layers' documentation: the reference that the selection is held against.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import layers, ops

RANDOM = np.random.default_rng(1)
VECTORS = RANDOM.uniform(-1, 1, (4, 6)).astype("float32")
SEQUENCES = RANDOM.uniform(-1, 1, (4, 5, 6)).astype("float32")
IMAGES = RANDOM.uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
TOKENS = RANDOM.integers(0, 7, (4, 5)).astype("int32")


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of the table: how to make it, what to feed it, what is covered."""

    build: Callable
    inputs: object
    covered: list
    rule: dict = dataclasses.field(default_factory=dict)


MODELS = {}


def entry(inputs, covered, **rule):
    """Add the decorated function that builds a model to the table, by its name."""

    def add(build):
        MODELS[build.__name__] = Entry(build, inputs, covered, rule)
        return build

    return add


def around(*stack, shape):
    """A functional model of one stack of layers."""
    x = inputs = keras.Input(shape)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


# --- Kinds of models -------------------------------------------------------------


@entry(VECTORS, ["hidden/kernel", "output/kernel"])
def sequential_with_input():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, "relu", name="hidden"),
            layers.Dense(2, name="output"),
        ]
    )


@entry(VECTORS, ["hidden/kernel", "output/kernel"])
def sequential_unbuilt():
    return keras.Sequential(
        [layers.Dense(4, "relu", name="hidden"), layers.Dense(2, name="output")]
    )


@entry(
    {"left": VECTORS, "right": VECTORS[:, :3]},
    ["a/kernel", "b/kernel", "first/kernel", "second/kernel"],
)
def functional_dict_inputs_and_outputs():
    left, right = keras.Input((6,), name="left"), keras.Input((3,), name="right")
    x = layers.concatenate(
        [layers.Dense(4, name="a")(left), layers.Dense(4, name="b")(right)]
    )
    return keras.Model(
        {"left": left, "right": right},
        {
            "first": layers.Dense(2, name="first")(x),
            "second": layers.Dense(1, name="second")(x),
        },
    )


@entry([VECTORS, VECTORS[:, :3]], ["a/kernel", "b/kernel"])
def functional_several_inputs_and_outputs():
    inputs = [keras.Input((6,)), keras.Input((3,))]
    a, b = layers.Dense(4, name="a")(inputs[0]), layers.Dense(4, name="b")(inputs[1])
    return keras.Model(inputs, [layers.add([a, b]), b])


@keras.saving.register_keras_serializable(__name__)
class Subclassed(keras.Model):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = layers.Dense(units, "relu", name="hidden")
        self.drop = layers.Dropout(0.5)
        self.head = layers.Dense(2, name="head")

    def call(self, inputs, training=False):
        return self.head(self.drop(self.hidden(inputs), training=training))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@entry(VECTORS, ["hidden/kernel", "head/kernel"])
def subclassed_unbuilt():
    return Subclassed()


@entry(VECTORS, ["hidden/kernel", "head/kernel"])
def subclassed_built():
    model = Subclassed()
    model(VECTORS)
    return model


@keras.saving.register_keras_serializable(__name__)
class Nameless(keras.Model):
    """Its layers are in a list and have the names that Keras gives them."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [layers.Dense(4) for _ in range(2)]

    def call(self, inputs):
        for block in self.blocks:
            inputs = block(inputs)
        return inputs


@entry(VECTORS, None)
def subclassed_with_nameless_layers():
    return Nameless()


@entry(VECTORS, None, layers=layers.Dense)
def nameless_layers_by_class():
    return Nameless()


@entry(VECTORS, ["inner/hidden/kernel", "inner/output/kernel", "head/kernel"])
def nested():
    inner = sequential_with_input()
    inner.name = "inner"
    return around(inner, layers.Dense(3, name="head"), shape=(6,))


@entry(
    VECTORS,
    ["body/inner/hidden/kernel", "body/inner/head/kernel", "head/kernel"],
)
def nested_twice_with_subclass():
    body = keras.Sequential([Subclassed(name="inner")], name="body")
    return around(body, layers.Dense(3, name="head"), shape=(6,))


@entry(VECTORS, ["twice/kernel"])
def shared_layer():
    twice = layers.Dense(6, name="twice")
    return around(twice, twice, shape=(6,))


@entry([VECTORS, VECTORS], ["tower/hidden/kernel", "tower/output/kernel"])
def shared_model():
    tower = sequential_with_input()
    tower.name = "tower"
    a, b = keras.Input((6,)), keras.Input((6,))
    return keras.Model([a, b], layers.subtract([tower(a), tower(b)]))


@keras.saving.register_keras_serializable(__name__)
class Transposed(layers.Layer):
    """Multiplies with a variable that belongs to another layer, and tracks it too."""

    def __init__(self, variable, **kwargs):
        super().__init__(**kwargs)
        self.tied = variable

    def call(self, inputs):
        return ops.matmul(inputs, ops.transpose(self.tied))


@keras.saving.register_keras_serializable(__name__)
class Autoencoder(keras.Model):
    """The decoder's kernel is the encoder's, transposed."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.encoder = layers.Dense(4, name="encoder")

    def build(self, input_shape):
        self.encoder.build(input_shape)
        self.decoder = Transposed(self.encoder.kernel, name="decoder")

    def call(self, inputs):
        return self.decoder(self.encoder(inputs))


@entry(VECTORS, ["encoder/kernel"])
def tied_weights():
    return Autoencoder()


@entry(VECTORS, ["hidden/kernel", "output/kernel"])
def frozen_layer():
    model = sequential_with_input()
    model.layers[0].trainable = False
    return model


@entry(VECTORS, ["inner/hidden/kernel", "inner/output/kernel", "head/kernel"])
def frozen_inner_model():
    model = nested()
    model.get_layer("inner").trainable = False
    return model


@entry(VECTORS, ["hidden/kernel", "output/kernel"])
def compiled():
    model = sequential_with_input()
    model.compile("adam", "mse", metrics=["mae"])
    return model


@entry(VECTORS, ["hidden/kernel", "output/kernel"])
def trained():
    model = sequential_with_input()
    model.compile("adam", "mse", run_eagerly=True)
    model.fit(VECTORS, VECTORS[:, :2], verbose=0)
    return model


@entry(VECTORS, ["hidden/kernel", "output/kernel"])
def mixed_float16():
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, "relu", dtype="mixed_float16", name="hidden"),
            layers.Dense(2, dtype="mixed_float16", name="output"),
        ]
    )
    model.dtype_policy = keras.DTypePolicy("mixed_float16")
    return model


@entry(VECTORS, ["plain/kernel", "l1/kernel"])
def regularized_before():
    return around(
        layers.Dense(4, name="plain"),
        layers.Dense(4, kernel_regularizer="l1", name="l1"),
        layers.ActivityRegularization(0.1),
        shape=(6,),
    )


# --- Rules -----------------------------------------------------------------------


@entry(
    VECTORS,
    ["hidden/kernel", "hidden/bias", "output/bias"],
    biases=True,
    multipliers={"*": 0.5, "output/*": 0, "output/bias": 2.0},
)
def with_biases_and_multipliers():
    return sequential_with_input()


@entry(TOKENS, ["table/embeddings", "head/kernel"], embeddings=True)
def with_embeddings():
    return around(
        layers.Embedding(7, 4, mask_zero=True, name="table"),
        layers.GlobalAveragePooling1D(),
        layers.Dense(2, name="head"),
        shape=(5,),
    )


@entry(VECTORS, ["output/kernel"], layers=["out*"])
def narrowed_by_glob():
    return sequential_with_input()


@entry(IMAGES, ["conv/kernel"], layers=layers.Conv2D)
def narrowed_by_class():
    return around(
        layers.Conv2D(2, 3, name="conv"),
        layers.Flatten(),
        layers.Dense(2, name="head"),
        shape=(8, 8, 3),
    )


# --- Kinds of layers -------------------------------------------------------------


@entry(SEQUENCES, ["einsum/kernel"])
def einsum_dense():
    layer = layers.EinsumDense("abc,cd->abd", (None, 3), bias_axes="d", name="einsum")
    return around(layer, shape=(5, 6))


@entry(
    TOKENS,
    [
        "table/lora_embeddings_a",
        "table/lora_embeddings_b",
        "einsum/lora_kernel_a",
        "einsum/lora_kernel_b",
        "dense/lora_kernel_a",
        "dense/lora_kernel_b",
    ],
    embeddings=True,
)
def lora():
    return around(
        layers.Embedding(7, 4, lora_rank=2, name="table"),
        layers.EinsumDense("abc,cd->abd", (None, 3), lora_rank=2, name="einsum"),
        layers.Dense(2, lora_rank=1, name="dense"),
        shape=(5,),
    )


@entry(VECTORS, ["dense/lora_kernel_a", "dense/lora_kernel_b", "head/kernel"])
def lora_enabled_later():
    model = around(
        layers.Dense(4, name="dense"), layers.Dense(2, name="head"), shape=(6,)
    )
    model.get_layer("dense").enable_lora(2)
    return model


@entry(
    SEQUENCES,
    [
        f"{layer}/{cell}/{weight}"
        for layer, cell in (
            ("simple", "simple_rnn_cell"),
            ("lstm", "lstm_cell"),
            ("gru", "gru_cell"),
        )
        for weight in ("kernel", "recurrent_kernel")
    ],
)
def recurrent():
    return around(
        layers.SimpleRNN(3, return_sequences=True, name="simple"),
        layers.LSTM(3, return_sequences=True, name="lstm"),
        layers.GRU(3, name="gru"),
        shape=(5, 6),
    )


@entry(
    RANDOM.uniform(-1, 1, (4, 3, 6, 6, 2)).astype("float32"),
    ["conv/conv_lstm_cell/kernel", "conv/conv_lstm_cell/recurrent_kernel"],
)
def conv_lstm():
    return around(layers.ConvLSTM2D(2, 3, name="conv"), shape=(3, 6, 6, 2))


@entry(
    SEQUENCES,
    [
        f"rnn/stack/{cell}/{weight}"
        for cell in ("a", "b")
        for weight in ("kernel", "recurrent_kernel")
    ],
)
def stacked_cells():
    cells = [layers.LSTMCell(3, name="a"), layers.GRUCell(2, name="b")]
    stack = layers.StackedRNNCells(cells, name="stack")
    return around(layers.RNN(stack, name="rnn"), shape=(5, 6))


@entry(
    SEQUENCES,
    [
        f"both/{way}_lstm/lstm_cell/{weight}"
        for way in ("forward", "backward")
        for weight in ("kernel", "recurrent_kernel")
    ],
)
def bidirectional():
    layer = layers.Bidirectional(layers.LSTM(3, name="lstm"), name="both")
    return around(layer, shape=(5, 6))


@entry(SEQUENCES, ["each/dense/kernel"])
def time_distributed():
    dense = layers.Dense(3, name="dense")
    return around(layers.TimeDistributed(dense, name="each"), shape=(5, 6))


ATTENTION = [
    f"attention/{part}/kernel" for part in ("query", "key", "value", "attention_output")
]


def self_attention(layer):
    x = keras.Input((5, 6))
    return keras.Model(x, layer(x, x))


@entry(SEQUENCES, ATTENTION)
def multi_head_attention():
    return self_attention(layers.MultiHeadAttention(2, 3, name="attention"))


@entry(
    SEQUENCES, ["attention/key/kernel"], multipliers={"*": 0, "attention/key/*": 0.5}
)
def multi_head_attention_in_part():
    return multi_head_attention()


@entry(SEQUENCES, ATTENTION)
def grouped_query_attention():
    return self_attention(layers.GroupQueryAttention(3, 4, 2, name="attention"))


@entry(SEQUENCES, ["conv/kernel", "transpose/kernel", "depth/kernel"])
def conv_1d():
    return around(
        layers.Conv1D(3, 2, name="conv"),
        layers.Conv1DTranspose(3, 2, name="transpose"),
        layers.DepthwiseConv1D(2, name="depth"),
        shape=(5, 6),
    )


@entry(
    IMAGES,
    [
        "conv/kernel",
        "transpose/kernel",
        "depth/kernel",
        "separable/depthwise_kernel",
        "separable/pointwise_kernel",
    ],
)
def conv_2d():
    return around(
        layers.Conv2D(2, 3, name="conv"),
        layers.Conv2DTranspose(2, 3, name="transpose"),
        layers.DepthwiseConv2D(3, name="depth"),
        layers.SeparableConv2D(2, 3, name="separable"),
        shape=(8, 8, 3),
    )


@entry(
    SEQUENCES,
    ["separable/depthwise_kernel", "separable/pointwise_kernel"],
)
def separable_conv_1d():
    return around(layers.SeparableConv1D(2, 3, name="separable"), shape=(5, 6))


@entry(
    RANDOM.uniform(-1, 1, (4, 4, 4, 4, 2)).astype("float32"),
    ["conv/kernel", "transpose/kernel"],
)
def conv_3d():
    return around(
        layers.Conv3D(2, 2, name="conv"),
        layers.Conv3DTranspose(2, 2, name="transpose"),
        shape=(4, 4, 4, 2),
    )


@keras.saving.register_keras_serializable(__name__)
class LanguageModel(keras.Model):
    def __init__(self, tie_weights=True, **kwargs):
        super().__init__(**kwargs)
        self.tie_weights = tie_weights
        self.table = layers.ReversibleEmbedding(
            7, 4, tie_weights=tie_weights, name="table"
        )
        self.dense = layers.Dense(4, name="dense")

    def call(self, inputs):
        return self.table(self.dense(self.table(inputs)), reverse=True)

    def get_config(self):
        return {**super().get_config(), "tie_weights": self.tie_weights}


@entry(TOKENS, ["table/embeddings", "dense/kernel"], embeddings=True)
def reversible_embedding():
    return LanguageModel()


@entry(
    TOKENS,
    ["table/embeddings", "table/reverse_embeddings", "dense/kernel"],
    embeddings=True,
)
def reversible_embedding_untied():
    return LanguageModel(tie_weights=False)


@entry(VECTORS, ["dense/kernel"])
def normalizations():
    return around(
        layers.Dense(4, name="dense"),
        layers.BatchNormalization(),
        layers.LayerNormalization(),
        layers.GroupNormalization(2),
        layers.UnitNormalization(),
        layers.RMSNormalization(),
        layers.PReLU(),
        shape=(6,),
    )


@entry(VECTORS, ["spectral/dense/kernel"])
def spectral_normalization():
    dense = layers.Dense(4, name="dense")
    return around(layers.SpectralNormalization(dense, name="spectral"), shape=(6,))


# --- Custom layers ---------------------------------------------------------------


@keras.saving.register_keras_serializable(__name__)
class Bare(layers.Layer):
    """Makes its weights without regularizers."""

    def build(self, input_shape):
        self.w = self.add_weight(shape=(input_shape[-1], 3), name="w")
        self.gain = self.add_weight(shape=(3,), initializer="ones", name="gain")
        self.my_bias = self.add_weight(shape=(3,), name="my_bias")

    def call(self, inputs):
        return ops.matmul(inputs, self.w) * self.gain + self.my_bias


@entry(VECTORS, ["bare/w", "head/kernel"])
def custom_bare_weight():
    return around(Bare(name="bare"), layers.Dense(2, name="head"), shape=(6,))


@entry(VECTORS, ["bare/w", "head/kernel"])
def custom_bare_weight_unbuilt():
    return keras.Sequential([Bare(name="bare"), layers.Dense(2, name="head")])


@keras.saving.register_keras_serializable(__name__)
class Twins(layers.Layer):
    """Two weights of the same name, which Keras allows."""

    def build(self, input_shape):
        self.a = self.add_weight(shape=(input_shape[-1], 3), name="kernel")
        self.b = self.add_weight(shape=(input_shape[-1], 3), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.a) + ops.matmul(inputs, self.b)


@entry(VECTORS, ["twins/kernel", "twins/kernel_1"])
def custom_weights_of_one_name():
    return around(Twins(name="twins"), shape=(6,))


@keras.saving.register_keras_serializable(__name__)
class Regularized(layers.Layer):
    """Has a `kernel_regularizer`, as the layers of Keras do."""

    def __init__(self, kernel_regularizer=None, **kwargs):
        super().__init__(**kwargs)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape):
        self.kernel = self.add_weight(
            shape=(input_shape[-1], 3),
            name="kernel",
            regularizer=self.kernel_regularizer,
        )

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)

    def get_config(self):
        regularizer = keras.regularizers.serialize(self.kernel_regularizer)
        return {**super().get_config(), "kernel_regularizer": regularizer}


@entry(VECTORS, ["own/kernel"])
def custom_with_regularizer():
    return keras.Sequential([Regularized(name="own")])


@keras.saving.register_keras_serializable(__name__)
class Residual(layers.Layer):
    """A layer that holds a layer and a weight, both made in `build`."""

    def build(self, input_shape):
        self.inner = layers.Dense(input_shape[-1], name="inner")
        self.inner.build(input_shape)
        self.mix = self.add_weight(shape=(input_shape[-1],) * 2, name="mix")

    def call(self, inputs):
        return inputs + self.inner(ops.matmul(inputs, self.mix))


@entry(VECTORS, ["block/mix", "block/inner/kernel"])
def custom_composite():
    return keras.Sequential([Residual(name="block")])


@entry(VECTORS, ["w", "head/kernel"])
def model_with_own_weight():
    return OwnWeight()


@keras.saving.register_keras_serializable(__name__)
class OwnWeight(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.w = self.add_weight(shape=(6, 4), name="w")
        self.head = layers.Dense(2, name="head")

    def call(self, inputs):
        return self.head(ops.matmul(inputs, self.w))
