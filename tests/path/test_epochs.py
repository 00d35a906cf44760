"""The runs of `l2_path` compared with Keras' own `fit` and `evaluate` of the wrapper.

A backend may take the steps of an epoch by itself; the figures must stay those of Keras.
"""

import contextlib

import keras
import models
import numpy as np
import pytest
from keras import layers
from paths import (
    VALIDATION,
    X,
    Y,
    assert_has_metrics,
    assert_same_runs,
    by_keras,
    compiled,
    network,
    path_of,
    state,
)

from keras_l2reg import L2AllWeights, l2_path

# JAX runs `fit`.
IS_FAST = keras.backend.backend() in ("tensorflow", "torch")
WEIGHTS = np.linspace(0.5, 4, 24).astype("float32")


@contextlib.contextmanager
def no_fit(wrapped):
    """In this context, an error is raised if Keras' `fit` of a model is called."""

    def fit(*args, **kwargs):
        raise AssertionError("Keras' `fit` was called")

    # Bypasses Keras, which tracks what is set on a layer.
    object.__setattr__(wrapped, "fit", fit)
    try:
        yield
    finally:
        object.__delattr__(wrapped, "fit")


def variables_of(model):
    return [*model.variables, *model.optimizer.variables]


def values_of(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_runs_are_those_of_keras(
    wrapped, x=X, y=Y, validation=VALIDATION, is_fast=True, rel=1e-6, **arguments
):
    arguments = {"epochs": 3, "batch_size": 9, "verbose": 0, **arguments}
    batch = keras.tree.map_structure(lambda array: array[:2], (x, y))
    wrapped.evaluate(*batch, verbose=0)
    wrapped.optimizer.build(wrapped.trainable_variables)
    start = values_of(variables_of(wrapped))
    with no_fit(wrapped) if is_fast and IS_FAST else contextlib.nullcontext():
        path = l2_path(
            wrapped,
            x,
            y,
            [0.1, 0.01],
            validation,
            seed=3,
            restore_best_weights=False,
            **arguments,
        )
    for run in path.runs:
        for variable, value in zip(variables_of(wrapped), start, strict=True):
            variable.assign(value)
        wrapped.l2 = run["l2"]
        metrics = by_keras(wrapped, x, y, validation, **arguments)
        assert_has_metrics(run, metrics, rel=rel)


def kinds():
    """Models of all kinds; the others are for the slow tests."""
    chosen = {
        "functional_dict_inputs_and_outputs",
        "subclassed_built",
        "normalizations",
        "recurrent",
        "with_embeddings",
    }
    for name, entry in models.MODELS.items():
        marks = () if name in chosen else pytest.mark.slow
        yield pytest.param(entry, id=name, marks=marks)


@pytest.mark.parametrize("entry", [*kinds()])
def test_models_of_all_kinds(entry):
    model = entry.build()
    x = keras.tree.map_structure(lambda a: np.concatenate([a] * 3)[:11], entry.inputs)
    outputs = model(x)
    rng = np.random.default_rng(0)
    y = keras.tree.map_structure(
        lambda t: rng.normal(size=tuple(t.shape)).astype("float32"), outputs
    )
    wrapped = L2AllWeights(model)
    losses = keras.tree.map_structure(lambda _: "mse", y)
    wrapped.compile(keras.optimizers.Adam(1e-3), losses)
    arguments = {"epochs": 2, "batch_size": 4}
    assert_runs_are_those_of_keras(wrapped, x, y, (x, y), **arguments)


def dropout_network():
    return network(dropout=0.3, norm=True)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"batch_size": 8},
        {"shuffle": False},
        {"shuffle": "batch"},
        {"sample_weight": WEIGHTS},
        {"validation": (*VALIDATION, WEIGHTS[:16])},
    ],
    ids=lambda arguments: ", ".join(arguments) or "shuffled",
)
def test_batches_and_their_order(arguments):
    wrapped = compiled(L2AllWeights(dropout_network()))
    assert_runs_are_those_of_keras(wrapped, **arguments)


def test_class_weights():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    wrapped = L2AllWeights(model)
    loss = "sparse_categorical_crossentropy"
    metrics = {"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}
    wrapped.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, **metrics)
    y = np.repeat([0, 1, 2], 8)
    given = {"class_weight": {0: 1.0, 1: 0.5, 2: 4.0}}
    assert_runs_are_those_of_keras(wrapped, X, y, (X[:16], y[:16]), **given)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return X[part], Y[part]


def eager(wrapped):
    wrapped.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    return wrapped


@pytest.mark.parametrize(
    ("prepare", "arguments"),
    [
        (compiled, {"steps_per_epoch": 2}),
        (compiled, {"callbacks": [keras.callbacks.Callback()]}),
        (compiled, {"x": Batches(), "y": None, "batch_size": None}),
        (eager, {}),
    ],
    ids=["steps_per_epoch", "callbacks", "dataset", "eager"],
)
def test_what_only_keras_can_run_is_left_to_it(prepare, arguments):
    wrapped = prepare(L2AllWeights(dropout_network()))
    path_of(wrapped, **{"batch_size": 8, **arguments})
