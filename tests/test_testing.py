"""check_model as users call it: it reports every failure, and of what.

What the checks find on this package's own models is in `test_battery.py`.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_l2reg import testing
from keras_l2reg.testing import (
    CHECKS,
    Subject,
    check_clone,
    check_from_config,
    check_logs,
    check_model,
    check_save,
    check_terms,
    check_wrapper_pickle,
    check_wrapper_save,
    run_check,
)

SAVING = [check_wrapper_save, check_wrapper_pickle, check_save, check_from_config]


def dense():
    return keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="plain")


def check_nothing(subject):
    raise ValueError("no such thing")


def check_less(subject):
    testing._expect_equal("number", 1, 2)


def test_every_failure_is_reported_with_its_traceback():
    done = []

    def check_last(subject):
        done.append(subject.build_model())

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


def test_an_interrupt_is_no_failure():
    def check_interrupted(subject):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_model(dense, checks=[check_interrupted])


def test_the_models_that_arguments_are_checked_on_are_used():
    built = []

    def build():
        built.append(dense())
        return built[-1]

    check_model(build, checks=[check_terms, check_terms, check_terms])
    assert len(built) == 3


def test_an_error_of_building_is_the_users_own():
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
def test_the_class_that_is_not_registered_is_named(build, check):
    if (build, check) == (UnregisteredModel, check_from_config):
        pytest.skip("its class is at hand")
    name = "Unregistered" if build is unregistered else "UnregisteredModel"
    with pytest.raises(AssertionError) as caught:
        run_check(check, Subject(build, np.ones((2, 4), "float32")))
    message = str(caught.value)
    assert f"Could not locate class '{name}'" in message
    assert "register_keras_serializable" in message
    assert "L2AllWeights" not in message and "config=" not in message


def test_a_scope_stands_in_for_a_registration():
    with keras.saving.custom_object_scope({"Unregistered": Unregistered}):
        check_model(unregistered, checks=SAVING)


def with_lambda():
    return keras.Sequential(
        [keras.Input((4,)), layers.Lambda(lambda x: 2 * x), layers.Dense(2)]
    )


def test_a_lambda_passes_without_safe_mode():
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
def test_stateful_layers_start_alike(name):
    check_model(stateful(STATEFUL[name]), checks=[*SAVING, check_logs])


@keras.saving.register_keras_serializable(package="test_check_model")
class AddsRows(layers.Layer):
    def call(self, x):
        return x + keras.ops.ones((3, 4))


def test_a_fixed_batch_size_has_no_smaller_last_batch():
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
