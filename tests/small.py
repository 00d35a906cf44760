"""Small models whose penalties can be worked out in the head, and data for them."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator

import keras
import numpy as np
from keras import layers

X = np.ones((8, 4), "float32")
Y = np.ones((8, 2), "float32")


def mlp(**kwargs) -> keras.Sequential:
    """Two kernels of ones, 4 x 3 and 3 x 2: the sums of squares are 12 and 6.

    Args:
        **kwargs: Further arguments of both `Dense` layers.
    """
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="a", kernel_initializer="ones", **kwargs),
            layers.Dense(2, name="b", kernel_initializer="ones", **kwargs),
        ]
    )


def sharing() -> list[keras.Model]:
    """Two models that share a layer: squares sum to 12 there, 6 and 3 in the heads."""
    x = keras.Input((4,))
    shared = layers.Dense(3, name="shared", kernel_initializer="ones")(x)
    return [
        keras.Model(x, layers.Dense(n, name=name, kernel_initializer="ones")(shared))
        for n, name in ((2, "first"), (1, "second"))
    ]


def still() -> keras.optimizers.Optimizer:
    """An optimizer that leaves the weights as they are."""
    return keras.optimizers.SGD(0.0)


def compiled(model: keras.Model, **kwargs) -> keras.Model:
    """The model, compiled with `still()` and the mean squared error."""
    model.compile(still(), "mse", **kwargs)
    return model


def penalty(model: keras.Model) -> float:
    """The sum of `model.losses`."""
    return sum(float(keras.ops.convert_to_numpy(term)) for term in model.losses)


def trained_penalty(model: keras.Model, x: np.ndarray = X) -> float:
    """The loss of one epoch of `fit` with the predictions as targets: the penalty.

    Compiles a model that is not compiled.
    """
    if not model.compiled:
        compiled(model)
    y = model.predict(x, verbose=0)
    return model.fit(x, y, verbose=0).history["loss"][0]


def reloaded(model: keras.Model, tmp_path: pathlib.Path) -> keras.Model:
    """The model, saved to a file and loaded from it."""
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


@contextlib.contextmanager
def texts_of_warnings() -> Iterator[list[str]]:
    """Within, warnings are collected; after, the list yielded has their texts."""
    texts: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield texts
    texts += [str(warning.message) for warning in caught]
