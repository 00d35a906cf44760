"""Sound models of many kinds, in which the audit should find no errors or warnings.

Each builder returns a model, inputs and targets. The test compiles a model that is not
compiled with SGD and the mean squared error. `above_info` lists the codes of findings
that are true of the model nevertheless.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_l2reg import set_weight_decay

RANDOM = np.random.default_rng(3)


def numbers(*shape: int) -> np.ndarray:
    return RANDOM.normal(size=(8, *shape)).astype("float32")


VECTORS, SEQUENCES, IMAGES = numbers(6), numbers(5, 6), numbers(8, 8, 3)
TOKENS = RANDOM.integers(0, 7, (8, 5)).astype("int32")
Y = numbers(2)


@dataclasses.dataclass(frozen=True)
class Sound:
    """A sound model.

    Args:
        build: Returns the model, inputs and targets.
        above_info: The codes of its warnings once a penalty is attached.
        has_custom_step: Whether it overrides `train_step` or `compute_loss`, which
            the wrapper does not accept.
    """

    build: Callable[[], tuple[keras.Model, Any, Any]]
    above_info: frozenset[str]
    has_custom_step: bool


SOUND: dict[str, Sound] = {}


def sound(*above_info: str, has_custom_step: bool = False) -> Callable:
    """Add the decorated builder to `SOUND`."""

    def add(build):
        SOUND[build.__name__] = Sound(build, frozenset(above_info), has_custom_step)
        return build

    return add


def stacked(
    *stack: layers.Layer, shape: tuple[int, ...], dtype: str | None = None
) -> keras.Model:
    x = inputs = keras.Input(shape, dtype=dtype)
    for layer in stack:
        x = layer(x)
    return keras.Model(inputs, x)


def dense_stack(**kwargs: Any) -> keras.Model:
    return stacked(
        layers.Dense(4, "relu", **kwargs), layers.Dense(2, **kwargs), shape=(6,)
    )


def compiled(model: keras.Model, optimizer: Any = "sgd", **kwargs: Any) -> keras.Model:
    model.compile(optimizer, kwargs.pop("loss", "mse"), **kwargs)
    return model


# --- Architectures ---------------------------------------------------------------


@sound()
def mlp():
    return dense_stack(), VECTORS, Y


@sound()
def sequential_built_by_fit():
    return keras.Sequential([layers.Dense(4, "relu"), layers.Dense(2)]), VECTORS, Y


@sound()
def convolutions_with_batch_norm():
    stack = [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU()]
    stack += [layers.MaxPooling2D(), layers.Flatten(), layers.Dense(2)]
    return stacked(*stack, shape=(8, 8, 3)), IMAGES, Y


@sound()
def residual_network():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, padding="same")(inputs)
    for _ in range(2):
        y = layers.BatchNormalization()(x)
        y = layers.Conv2D(4, 3, padding="same")(layers.ReLU()(y))
        x = layers.Add()([x, y])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(2)(x)), IMAGES, Y


@sound()
def depthwise_separable_network():
    stack = [layers.SeparableConv2D(4, 3), layers.DepthwiseConv2D(3)]
    stack += [layers.GlobalAveragePooling2D(), layers.Dense(2)]
    return stacked(*stack, shape=(8, 8, 3)), IMAGES, Y


@sound()
def u_net():
    inputs = keras.Input((8, 8, 3))
    down = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    low = layers.Conv2D(8, 3, strides=2, padding="same")(down)
    low = layers.GroupNormalization(2)(low)
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same")(low)
    merged = layers.Concatenate()([up, down])
    return keras.Model(inputs, layers.Conv2D(3, 1)(merged)), IMAGES, IMAGES


@sound()
def stacked_recurrent():
    stack = [
        layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.2)),
        layers.GRU(3),
        layers.Dense(2),
    ]
    return stacked(*stack, shape=(5, 6)), SEQUENCES, Y


@sound()
def recurrent_convolutions():
    stack = [layers.ConvLSTM1D(2, 3), layers.Flatten(), layers.Dense(2)]
    return stacked(*stack, shape=(3, 5, 2)), numbers(3, 5, 2), Y


@sound()
def time_distributed():
    stack = [layers.TimeDistributed(layers.Dense(3)), layers.Flatten()]
    return stacked(*stack, layers.Dense(2), shape=(5, 6)), SEQUENCES, Y


@sound()
def transformer_encoder():
    inputs = keras.Input((5, 6))
    x = layers.MultiHeadAttention(2, 3, dropout=0.1)(inputs, inputs)
    x = layers.LayerNormalization()(x + inputs)
    y = layers.Dense(6)(layers.Dense(8, "gelu")(x))
    x = layers.LayerNormalization()(x + y)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2)(x)), SEQUENCES, Y


@sound()
def grouped_query_attention():
    inputs = keras.Input((5, 6))
    x = layers.GroupQueryAttention(3, 2, 1)(inputs, inputs)
    x = layers.RMSNormalization()(x)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), SEQUENCES, Y


@sound()
def text_classifier():
    stack = [layers.Embedding(7, 4), layers.GlobalAveragePooling1D(), layers.Dense(2)]
    return stacked(*stack, shape=(5,), dtype="int32"), TOKENS, Y


@sound()
def mixer():
    inputs = keras.Input((5, 6))
    y = layers.Permute((2, 1))(layers.LayerNormalization()(inputs))
    x = inputs + layers.Permute((2, 1))(layers.Dense(5)(layers.Dense(4, "gelu")(y)))
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x))), SEQUENCES, Y


@sound()
def autoencoder():
    encoder = stacked(layers.Dense(3), shape=(6,))
    decoder = stacked(layers.Dense(6), shape=(3,))
    return keras.Sequential([keras.Input((6,)), encoder, decoder]), VECTORS, VECTORS


@sound()
def siamese():
    tower = dense_stack()
    a, b = keras.Input((6,)), keras.Input((6,))
    return keras.Model([a, b], tower(a) - tower(b)), [VECTORS, VECTORS], Y


@sound()
def shared_layer_with_activity_penalty():
    twice = layers.Dense(6, activity_regularizer="l2")
    model = stacked(twice, twice, layers.Dense(2), shape=(6,))
    return model, np.zeros_like(VECTORS), Y


@sound()
def many_inputs_and_outputs():
    inputs = {"a": keras.Input((6,), name="a"), "b": keras.Input((5, 6), name="b")}
    x = layers.Concatenate()([inputs["a"], layers.SimpleRNN(3)(inputs["b"])])
    outputs = {"p": layers.Dense(2, name="p")(x), "q": layers.Dense(1, name="q")(x)}
    model = compiled(keras.Model(inputs, outputs), loss={"p": "mse", "q": "mae"})
    return model, {"a": VECTORS, "b": SEQUENCES}, {"p": Y, "q": Y[:, :1]}


@sound()
def nested_with_a_frozen_backbone():
    backbone = dense_stack()
    backbone.trainable = False
    return stacked(backbone, layers.Dense(2), shape=(6,)), VECTORS, Y


@sound()
def activity_and_orthogonal_penalties():
    recurrent = layers.SimpleRNN(
        3, recurrent_regularizer="orthogonal_regularizer", activity_regularizer="l1"
    )
    return stacked(recurrent, layers.Dense(2), shape=(5, 6)), SEQUENCES, Y


@sound()
def spectral_normalization():
    stack = [layers.SpectralNormalization(layers.Dense(4)), layers.PReLU()]
    return stacked(*stack, layers.Dense(2), shape=(6,)), VECTORS, Y


@sound()
def constrained():
    kwargs = {"kernel_constraint": "max_norm", "bias_constraint": "non_neg"}
    return dense_stack(**kwargs), VECTORS, Y


# --- Subclassed models, whose config does not contain their layers' regularizers ---


class Mixture(keras.Model):
    """A mixture of experts with a loss that balances their load."""

    def __init__(self):
        super().__init__()
        self.gate = layers.Dense(3, "softmax")
        self.experts = [layers.Dense(2) for _ in range(3)]

    def call(self, x):
        gates = self.gate(x)
        self.add_loss(0.1 * 3 * ops.sum(ops.square(ops.mean(gates, axis=0))))
        outputs = ops.stack([expert(x) for expert in self.experts], axis=-1)
        return ops.sum(outputs * ops.expand_dims(gates, 1), axis=-1)


@sound("lost-on-save")
def mixture_of_experts():
    model = Mixture()
    model(VECTORS)
    return model, VECTORS, Y


class VAE(keras.Model):
    def __init__(self):
        super().__init__()
        self.mean, self.log_var = layers.Dense(2), layers.Dense(2)
        self.decoder = layers.Dense(6)
        self.seed = keras.random.SeedGenerator(0)

    def call(self, x):
        mean, log_var = self.mean(x), self.log_var(x)
        noise = keras.random.normal(ops.shape(mean), seed=self.seed)
        kl = ops.square(mean) + ops.exp(log_var) - log_var - 1
        self.add_loss(0.5 * ops.mean(ops.sum(kl, axis=-1)))
        return self.decoder(mean + ops.exp(0.5 * log_var) * noise)


@sound("lost-on-save")
def variational_autoencoder():
    model = VAE()
    model(VECTORS)
    return model, VECTORS, VECTORS


class CustomStep(keras.Model):
    """A model with a `train_step`, which here just calls Keras' own."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(4, "relu"), layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))

    def train_step(self, *args):
        return super().train_step(*args)


@sound("lost-on-save", has_custom_step=True)
def custom_training_step():
    model = CustomStep()
    model(VECTORS)
    return model, VECTORS, Y


class Adversarial(keras.Model):
    """A GAN whose `compute_loss` is the loss of generator and discriminator."""

    def __init__(self):
        super().__init__()
        self.generator, self.discriminator = layers.Dense(6), layers.Dense(1)

    def call(self, x):
        return self.discriminator(self.generator(x)), self.discriminator(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, **kwargs):
        fake, real = y_pred
        loss = ops.mean(ops.softplus(fake) + ops.softplus(-real))
        return ops.add(loss, sum(self.losses)) if self.losses else loss


@sound("lost-on-save", has_custom_step=True)
def adversarial():
    model = Adversarial()
    model(VECTORS)
    return model, VECTORS, None


class Distilled(keras.Model):
    def __init__(self):
        super().__init__()
        self.student, self.teacher = layers.Dense(2), layers.Dense(2, trainable=False)

    def call(self, x):
        outputs = self.student(x)
        self.add_loss(ops.mean(ops.square(outputs - self.teacher(x))))
        return outputs


@sound("lost-on-save")
def distillation():
    model = Distilled()
    model(VECTORS)
    return model, VECTORS, Y


class Tied(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = layers.Dense(3)

    def call(self, x):
        return ops.matmul(self.encoder(x), ops.transpose(self.encoder.kernel))


@sound("lost-on-save")
def tied_autoencoder():
    model = Tied()
    model(VECTORS)
    return model, VECTORS, VECTORS


# --- Dtypes and LoRA ---------------------------------------------------------------


@sound()
def low_rank_adapted():
    model = dense_stack()
    for layer in model.layers[1:]:
        layer.enable_lora(2)
    return model, VECTORS, Y


@sound()
def low_rank_adapted_embedding():
    model, x, y = text_classifier()
    model.layers[1].enable_lora(2)
    return model, x, y


@sound()
def quantized_body():
    body = dense_stack()
    body.quantize("int8")
    return stacked(body, layers.Dense(2), shape=(6,)), VECTORS, Y


@sound()
def mixed_float16():
    return dense_stack(dtype="mixed_float16"), VECTORS, Y


@sound()
def mixed_bfloat16():
    return dense_stack(dtype="mixed_bfloat16"), VECTORS, Y


@sound()
def float64():
    # The loss is in the dtype of the last layer, Keras' default.
    wide = layers.Dense(4, "relu", dtype="float64", trainable=False)
    return stacked(wide, layers.Dense(2), shape=(6,)), VECTORS, Y


# --- Optimizers and ways of training -----------------------------------------------


@sound()
def loss_scaling():
    adam = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam())
    return compiled(dense_stack(dtype="mixed_float16"), adam), VECTORS, Y


@sound()
def accumulated_gradients():
    optimizer = keras.optimizers.SGD(gradient_accumulation_steps=2)
    return compiled(dense_stack(), optimizer, metrics=["mae"]), VECTORS, Y


@sound()
def averaged_weights():
    optimizer = keras.optimizers.Adam(use_ema=True, ema_overwrite_frequency=2)
    return compiled(dense_stack(), optimizer), VECTORS, Y


@sound()
def several_steps_per_execution():
    # The torch backend supports one step per execution only.
    steps = 1 if keras.backend.backend() == "torch" else 2
    return compiled(dense_stack(), steps_per_execution=steps), VECTORS, Y


@sound()
def run_eagerly():
    return compiled(dense_stack(), "rmsprop", run_eagerly=True), VECTORS, Y


@sound("double-decay")  # penalty and decay
def decay_of_kernels():
    model = compiled(dense_stack(), keras.optimizers.AdamW())
    set_weight_decay(model.optimizer, model, 0.01)
    return model, VECTORS, Y


@sound("double-decay", "decays-bias-or-norm")  # Keras decays every weight
def decay_of_everything():
    return compiled(dense_stack(), keras.optimizers.AdamW()), VECTORS, Y
