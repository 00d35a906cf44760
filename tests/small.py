"""A model whose penalty can be worked out in the head, and data for it."""

import contextlib
import warnings

import keras
import numpy as np
from keras import layers

X = np.ones((8, 4), "float32")
Y = np.ones((8, 2), "float32")


def mlp(**kwargs):
    """Two kernels of ones, 4 x 3 and 3 x 2: their squares add up to 12 and 6."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="a", kernel_initializer="ones", **kwargs),
            layers.Dense(2, name="b", kernel_initializer="ones", **kwargs),
        ]
    )


def sharing():
    """Two models over one layer: squares of 12 in it, 6 and 3 in their own heads."""
    x = keras.Input((4,))
    shared = layers.Dense(3, name="shared", kernel_initializer="ones")(x)
    return [
        keras.Model(x, layers.Dense(n, name=name, kernel_initializer="ones")(shared))
        for n, name in ((2, "first"), (1, "second"))
    ]


def still():
    """An optimizer that leaves the weights as they are."""
    return keras.optimizers.SGD(0.0)


def compiled(model, **kwargs):
    model.compile(still(), "mse", **kwargs)
    return model


def penalty(model):
    """The sum of `model.losses`."""
    return sum(float(keras.ops.convert_to_numpy(term)) for term in model.losses)


def trained_penalty(model, x=X):
    """What one epoch of `fit` adds to the data's loss; compiles what is not compiled.

    The error of the prediction is worked out by NumPy.
    """
    if not model.compiled:
        compiled(model)
    y = model.predict(x, verbose=0)
    return model.fit(x, y, verbose=0).history["loss"][0]


def reloaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


@contextlib.contextmanager
def texts_of_warnings():
    """Within, warnings are collected: their texts are in the list that this gives."""
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(warning.message) for warning in caught]
