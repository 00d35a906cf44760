"""The networks to measure, and the rivals: ways to penalize all their weights."""

import keras

from keras_l2reg import L2, L2AllWeights, attach, set_weight_decay


def seed_network(regularizer=None):
    return dense_network([784, 1024, 10], regularizer)


def dense_network(widths, regularizer=None):
    layers = [keras.Input((widths[0],))]
    for width in widths[1:]:
        layers.append(keras.layers.Dense(width, "relu", kernel_regularizer=regularizer))
    return keras.Sequential(layers)


def tabular_network(regularizer=None):
    return dense_network([30, 64, 64, 1], regularizer)


def deep_network(regularizer=None):
    return dense_network([256] * 51, regularizer)


def wide_network(regularizer=None):
    return dense_network([4096, 4096], regularizer)


def resnet(regularizer=None):
    model = keras.applications.ResNet50(
        input_shape=(64, 64, 3), weights=None, classes=10
    )
    if regularizer is None:
        return model
    for layer in model.layers:
        if hasattr(layer, "kernel_regularizer"):
            layer.kernel_regularizer = regularizer
    return keras.Model.from_config(model.get_config())


# name: builder, input shape, batch, steps per timed run
NETWORKS = {
    "seed 784-1024-10": (seed_network, (784,), 128, 60),
    "deep 50 x 256": (deep_network, (256,), 128, 20),
    "wide 4096 x 4096": (wide_network, (4096,), 128, 10),
    "ResNet50 at 64x64": (resnet, (64, 64, 3), 16, 4),
    "small 30-64-64-1": (tabular_network, (30,), 64, 200),
}


class ByHand(keras.Model):
    """The original answer: add `tf.nn.l2_loss` of each weight matrix to the loss."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        for variable in self.trainable_variables:
            if variable.name == "kernel":
                loss = loss + self.term(variable)
        return loss

    def term(self, variable):
        return 2e-4 * half_sum_of_squares(variable)


class GradientAlone(ByHand):
    """Terms with the gradient of the penalty and no value.

    Where the backend adds up the gradients of all terms, no penalty can do less.
    """

    def term(self, variable):
        return no_value(variable.value)


@keras.ops.custom_gradient
def no_value(w):
    def gradient(*args, upstream=None):
        return 2e-4 * (args[0] if upstream is None else upstream) * w

    return keras.ops.zeros(()), gradient


class Decayed(keras.Model):
    """Decays all kernels in its optimizer."""

    def compile(self, *args, **kwargs):
        super().compile(*args, **kwargs)
        set_weight_decay(self.optimizer, self, 2e-4)


def half_sum_of_squares(variable):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.l2_loss(variable.value)
    return keras.ops.sum(keras.ops.square(variable)) / 2


def of_layers(model_class, model):
    return model_class(model.inputs, model.outputs)


class Around(keras.Model):
    """A model that only calls another one: what a wrapper costs that does nothing."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.output_shape = model.output_shape

    def call(self, x, training=None):
        return self.model(x, training=training)


class Live(Around):
    """Keras' L2 with its strength in a variable, that can change between steps."""

    def __init__(self, build):
        live = LiveL2(1e-4)
        super().__init__(build(live))
        self.l2 = live.l2


class LiveL2(keras.regularizers.L2):
    def __init__(self, l2):
        self.l2 = keras.Variable(l2, trainable=False, name="l2")


class Logged(Around):
    """Logs the data loss and the penalty by two of Keras' own means."""

    def __init__(self, model):
        super().__init__(model)
        self.means = [keras.metrics.Mean(name) for name in ("data", "penalty")]

    def compute_loss(self, x=None, y=None, y_pred=None, *args, **kwargs):
        loss = super().compute_loss(x, y, y_pred, *args, **kwargs)
        penalty = sum(self.losses)
        count = keras.ops.shape(x)[0]
        for mean, value in zip(self.means, (loss - penalty, penalty), strict=True):
            mean.update_state(value, sample_weight=count)
        return loss


RIVALS = {
    "no penalty": lambda build: (build(), None),
    "keras.regularizers.L2": lambda build: (build(keras.regularizers.L2(1e-4)), None),
    "Keras' L2, logged": lambda build: (
        Logged(build(keras.regularizers.L2(1e-4))),
        None,
    ),
    "Keras' L2, live": lambda build: (Live(build), None),
    "by hand": lambda build: (of_layers(ByHand, build()), None),
    "gradient alone": lambda build: (of_layers(GradientAlone, build()), None),
    "in a Keras model": lambda build: (Around(build()), None),
    "weight_decay": lambda build: (build(), 2e-4),
    "set_weight_decay": lambda build: (of_layers(Decayed, build()), None),
    "decay of L2AllWeights": lambda build: (
        L2AllWeights(build(), weight_decay=2e-4),
        None,
    ),
    "attach": lambda build: (attach(build(), L2(1e-4)), None),
    "L2AllWeights": lambda build: (L2AllWeights(build(), l2=1e-4), None),
}

# XLA takes half a minute to compile a large network.
LARGE = ("ResNet50 at 64x64",)
RIVALS_IF_LARGE = (
    *("no penalty", "keras.regularizers.L2", "gradient alone", "L2AllWeights"),
)


def rivals_for(network):
    """The names of the rivals to measure on a network."""
    return RIVALS_IF_LARGE if network in LARGE else tuple(RIVALS)
