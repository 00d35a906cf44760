"""Models and shorthands for the tests of `audit`."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import L2AllWeights, audit

BACKEND = keras.backend.backend()
l2 = keras.regularizers.L2

needs_compiled_steps = pytest.mark.skipif(BACKEND == "torch", reason="torch is eager")


def mlp(hidden: Any = None, out: Any = None, **kwargs: Any) -> keras.Sequential:
    """Two `Dense` layers, "hidden" and "out", with the given kernel regularizers."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "relu", kernel_regularizer=hidden, name="hidden", **kwargs),
            layers.Dense(2, kernel_regularizer=out, name="out"),
        ]
    )


def regularized() -> keras.Sequential:
    """`mlp` with the same L2 penalty on both kernels."""
    return mlp(l2(0.01), l2(0.01))


def square_layers(*regularizers: Any) -> keras.Sequential:
    """Kernels of the same shape, so that a trace differs only in which one it uses."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            *[
                layers.Dense(4, use_bias=False, kernel_regularizer=r)
                for r in regularizers
            ],
            layers.Dense(2),
        ]
    )


def wrap_and_replace(model: keras.Model) -> L2AllWeights:
    """A wrapper that also covers weights with a penalty."""
    return L2AllWeights(model, existing="replace")


bare_or_wrapped = pytest.mark.parametrize(
    "wrap", [lambda model: model, wrap_and_replace], ids=["bare", "wrapped"]
)


def data(n: int = 8, shape: tuple[int, ...] = (4,)) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    return (
        generator.normal(size=(n, *shape)).astype("float32"),
        generator.normal(size=(n, 2)).astype("float32"),
    )


def compiled(model: keras.Model, optimizer: Any = "sgd") -> keras.Model:
    model.compile(optimizer, "mse")
    return model


def codes(model: keras.Model, *batch: Any) -> list[str]:
    """The codes of the findings."""
    return [finding.code for finding in audit(model, *batch)]


def where(model: keras.Model, code: str, *batch: Any, **kwargs: Any) -> list[str]:
    """The names in the findings with this code."""
    found = audit(model, *batch, **kwargs)
    return [name for f in found if f.code == code for name in f.where]


class LayerWithoutRegularizer(layers.Layer):
    """A layer whose config has no place for a regularizer."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2), name="w")

    def call(self, x):
        return x @ self.w


class FunctionRegularizer(keras.Regularizer):
    """A regularizer from a function; Keras accepts plain functions as of 3.15."""

    def __init__(self, function: Callable[[Any], Any]):
        self.function = function

    def __call__(self, w):
        return self.function(w)


class AddsLosses(keras.Model):
    """A model that calls `add_loss` with each of `terms(model, x)`."""

    def __init__(self, terms: Callable[..., list[Any]], regularizer: Any = None):
        super().__init__()
        self.terms = terms
        self.a = layers.Dense(3, kernel_regularizer=regularizer, name="a")
        self.b = layers.Dense(2, name="b")

    def call(self, x):
        outputs = self.b(self.a(x))
        for term in self.terms(self, x):
            self.add_loss(term)
        return outputs


def penalty_of_each_kernel(model: AddsLosses, x: Any) -> list[Any]:
    return [0.01 * ops.sum(ops.square(d.kernel)) for d in (model.a, model.b)]


def penalty_of_the_loop_variable(model: AddsLosses, x: Any) -> list[Any]:
    """The mistake: all functions see the last layer."""
    terms = [lambda: 0.01 * ops.sum(d.kernel**2) for d in (model.a, model.b)]  # noqa: B023
    return [term() for term in terms]
