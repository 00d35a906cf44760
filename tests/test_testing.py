"""check_model and parametrize_with_checks as users call them.

The checks themselves run on many models in `integration/test_battery.py`.
"""

import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_l2reg._testing.case import run_check
from keras_l2reg._testing.checks import (
    check_clone,
    check_from_config,
    check_logs,
    check_save,
    check_terms,
    check_wrapper_pickle,
    check_wrapper_save,
)
from keras_l2reg._testing.expect import expect_equal
from keras_l2reg.testing import CHECKS, Case, check_model, parametrize_with_checks

SAVING = [check_wrapper_save, check_wrapper_pickle, check_save, check_from_config]


def dense():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="plain")


def check_nothing(case):
    raise ValueError("no such thing")


def check_less(case):
    expect_equal("number", 1, 2)


def test_every_failure_is_reported_with_its_traceback():
    done = []

    def check_last(case):
        done.append(case.build_model())

    checks = [check_nothing, check_terms, check_less, check_last]
    with pytest.raises(AssertionError) as caught:
        check_model(dense, checks=checks)
    assert str(caught.value) == (
        "2 of 4 checks failed.\n\n"
        "check_nothing: ValueError: no such thing\n\n"
        "check_less: number: expected 1, received 2"
    )
    assert len(done) == 1
    group = caught.value.__cause__
    assert isinstance(group, ExceptionGroup)
    assert [type(e.__cause__) for e in group.exceptions] == [ValueError, AssertionError]


def test_an_interrupt_is_not_caught():
    def check_interrupted(case):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_model(dense, checks=[check_interrupted])


def test_the_two_models_built_to_check_arguments_are_used_for_checks():
    built = []

    def build():
        built.append(dense())
        return built[-1]

    check_model(build, checks=[check_terms, check_terms, check_terms])
    assert len(built) == 3


def test_an_error_in_build_model_is_raised_as_it_is():
    def build():
        raise OSError("no disk")

    with pytest.raises(OSError, match="no disk"):
        check_model(build)


class Unregistered(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def build(self, input_shape):
        self.dense.build(input_shape)

    def call(self, x):
        return self.dense(x)


class UnregisteredModel(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3)

    def call(self, x):
        return self.dense(x)


def unregistered():
    return keras.Sequential([keras.Input((4,)), Unregistered(), layers.Dense(2)])


@pytest.mark.parametrize("check", SAVING, ids=lambda check: check.__name__)
@pytest.mark.parametrize("build", [unregistered, UnregisteredModel])
def test_a_failed_load_names_the_class_that_is_not_registered(build, check):
    if (build, check) == (UnregisteredModel, check_from_config):
        pytest.skip("`from_config` is called on the class itself")
    name = "Unregistered" if build is unregistered else "UnregisteredModel"
    with pytest.raises(AssertionError) as caught:
        run_check(check, Case(build, np.ones((2, 4), "float32")))
    message = str(caught.value)
    assert f"Could not locate class '{name}'" in message
    assert "register_keras_serializable" in message
    assert "L2AllWeights" not in message and "config=" not in message


def test_custom_objects_may_be_given_by_a_scope():
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        check_model(unregistered, checks=SAVING)


def with_lambda():
    return keras.Sequential(
        [keras.Input((4,)), layers.Lambda(lambda x: 2 * x), layers.Dense(2)]
    )


def test_a_lambda_layer_passes_only_without_safe_mode():
    check_model(with_lambda, checks=[*SAVING, check_clone], safe_mode=False)
    with pytest.raises(AssertionError, match="pass `safe_mode=False` to `check_model`"):
        check_model(with_lambda, checks=SAVING)


def stateful(layer):
    return lambda: keras.Sequential(
        [keras.Input(batch_shape=(4, 5, 3)), layer(), layers.Dense(2)]
    )


STATEFUL = {
    "lstm": lambda: layers.LSTM(4, stateful=True),
    "gru": lambda: layers.GRU(4, stateful=True, return_sequences=True),
    "bidirectional": lambda: layers.Bidirectional(layers.GRU(4, stateful=True)),
    "cells": lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], stateful=True),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_stateful_layers_pass_the_checks_that_compare_outputs(name):
    check_model(stateful(STATEFUL[name]), checks=[*SAVING, check_logs])


@keras.saving.register_keras_serializable(package="test_check_model")
class AddsRows(layers.Layer):
    def call(self, x):
        return x + keras.ops.ones((3, 4))


def test_a_model_of_fixed_batch_size_passes_every_check():
    def build():
        return keras.Sequential(
            [
                keras.Input(batch_shape=(3, 4)),
                AddsRows(),
                layers.Dense(2),
            ]
        )

    check_model(build)


@pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="there Keras can't train a stateful LSTM that was called before",
)
def test_all_checks_pass_on_a_stateful_model_with_lambda():
    def build():
        return keras.Sequential(
            [
                keras.Input(batch_shape=(4, 5, 3)),
                layers.Lambda(lambda x: 2 * x),
                layers.LSTM(4, stateful=True),
            ]
        )

    assert len(CHECKS) > 10
    check_model(build, safe_mode=False)


# --- parametrize_with_checks -----------------------------------------------------


def unbuilt():
    return keras.Sequential([layers.Dense(2)])


@parametrize_with_checks(
    [dense, Case(unbuilt, np.ones((2, 4), "float32"), {"biases": True})],
    checks=[check_terms, check_save],
)
def test_a_decorated_test_runs_a_check_on_a_model(model, check):
    check(model)


@parametrize_with_checks(
    [dense, unbuilt],
    checks=[check_terms, check_less],
    expected_failures={
        "check_less": "one is not two",
        "unbuilt": {"check_terms": "no inputs are given"},
    },
)
def test_failures_are_expected_by_the_names_of_model_and_check(model, check):
    check(model)


def pairs_of(mark):
    """`{id: marks}` of each test that a parametrization makes."""
    return {pair.id: [m.name for m in pair.marks] for pair in mark.args[1]}


def test_the_ids_name_each_model_and_check():
    models = [dense, lambda: dense(), lambda: dense(), Case(dense), unbuilt]
    mark = parametrize_with_checks(models, checks=[check_terms])
    assert pairs_of(mark) == {
        "dense-check_terms": [],
        "lambda-check_terms": [],
        "lambda_1-check_terms": [],
        "dense_1-check_terms": [],
        "unbuilt-check_terms": [],
    }
    assert len(pairs_of(parametrize_with_checks([dense]))) == len(CHECKS)


def test_only_expected_failures_are_marked_as_such():
    expected = {"unbuilt": {"check_save": "no"}, "check_clone": "neither"}
    mark = parametrize_with_checks(
        [dense, unbuilt],
        checks=[check_save, check_clone],
        expected_failures=expected,
    )
    assert pairs_of(mark) == {
        "dense-check_save": [],
        "dense-check_clone": ["xfail"],
        "unbuilt-check_save": ["xfail"],
        "unbuilt-check_clone": ["xfail"],
    }
    for pair in mark.args[1]:
        assert all(m.kwargs["strict"] for m in pair.marks)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"models": dense}, TypeError, "Expected a list of functions"),
        ({"models": []}, TypeError, r"models=\[\]"),
        ({"models": ["dense"]}, TypeError, "argument `build_model`"),
        ({"models": [dense()]}, TypeError, "`lambda: ...`"),
        ({"checks": []}, ValueError, "argument `checks`"),
        (
            {"expected_failures": {"check_trems": "typo"}},
            ValueError,
            "name of a check.*did you mean 'check_terms'",
        ),
        (
            {"expected_failures": {"dens": {"check_terms": "typo"}}},
            ValueError,
            "name of a model.*did you mean 'dense'",
        ),
        (
            {"expected_failures": {"dense": {"check_trems": "typo"}}},
            ValueError,
            "did you mean 'check_terms'",
        ),
    ],
)
def test_an_invalid_argument_is_refused_before_any_test_runs(arguments, error, said):
    with pytest.raises(error, match=said):
        parametrize_with_checks(**{"models": [dense], **arguments})


def test_without_pytest_an_error_says_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pytest", None)
    with pytest.raises(ImportError, match="pip install pytest"):
        parametrize_with_checks([dense])
