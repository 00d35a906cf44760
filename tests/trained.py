"""A small network and data, to compare how models train step by step."""

import keras
import numpy as np
from keras import layers, ops

RNG = np.random.default_rng(0)
# 21 samples in batches of 8: the last one has 5.
X = RNG.normal(size=(21, 4)).astype("float32")
Y = RNG.normal(size=(21, 2)).astype("float32")

OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "adam": lambda: keras.optimizers.Adam(0.01),
    "rmsprop": lambda: keras.optimizers.RMSprop(0.01),
}


def network(a=None, b=None, c=None, **kwargs) -> keras.Sequential:
    """Layers `a`, `b` and `c`, whose kernels have the given regularizers."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, "tanh", name="a", kernel_regularizer=a, **kwargs),
            layers.Dense(3, "tanh", name="b", kernel_regularizer=b, **kwargs),
            layers.Dense(2, name="c", kernel_regularizer=c, **kwargs),
        ]
    )


def fitted(model: keras.Model, optimizer="sgd", x=X, y=Y, **kwargs) -> list[float]:
    """The losses of three epochs of `fit`; compiles the model."""
    model.compile(OPTIMIZERS[optimizer](), "mse", **kwargs)
    fit = {"batch_size": 8, "epochs": 3, "shuffle": False, "verbose": 0}
    return model.fit(x, y, **fit).history["loss"]


def assert_train_alike(model, reference, optimizer="sgd", atol=1e-6, **kwargs):
    """From the weights of `reference`, both reach the same weights, by the same losses.

    Args:
        model: A model whose weights were those of `reference` when it was made.
        reference: A model, not trained yet.
        optimizer: String, of `OPTIMIZERS`.
        atol: Float, the largest distance of a weight.
        **kwargs: Further arguments of `compile`.
    """
    before = [np.array(w) for w in reference.get_weights()]
    losses = [fitted(m, optimizer, **kwargs) for m in (model, reference)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    moved = False
    for ours, theirs, start in zip(
        model.get_weights(), reference.get_weights(), before, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)
        moved |= np.abs(theirs - start).max() > 1e-2
    assert moved, "it trains"


def with_weights_of(model: keras.Model, other: keras.Model) -> keras.Model:
    """`model`, with the weights of `other`."""
    model.set_weights(other.get_weights())
    return model


def float64(tensor) -> np.ndarray:
    """A tensor or variable as a float64 array."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")), "float64")
