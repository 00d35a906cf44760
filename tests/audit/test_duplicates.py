"""Penalties that are in `model.losses` more than once."""

import keras
import numpy as np
import pytest
from audit_helpers import (
    AddsLosses,
    FunctionRegularizer,
    compiled,
    data,
    l2,
    mlp,
    penalty_of_each_kernel,
    penalty_of_the_loop_variable,
    square_layers,
    where,
)
from keras import layers, ops

# by regularizers


def test_functions_of_a_loop_variable_are_duplicated():
    model = mlp()
    for layer in model.layers:
        function = lambda w: ops.sum(layer.kernel**2)  # noqa: B023, E731
        layer.kernel.regularizer = FunctionRegularizer(function)
    terms = [float(ops.convert_to_numpy(term)) for term in model.losses]
    assert terms[0] == terms[1]
    assert where(model, "duplicated") == ["hidden/kernel", "out/kernel"]
    for layer in model.layers:
        layer.kernel.regularizer = FunctionRegularizer(lambda w: ops.sum(w**2))
    assert where(model, "duplicated") == []


def test_functions_of_the_same_other_weight_are_duplicated():
    model = mlp()
    bias = model.get_layer("out").bias
    for layer in model.layers:
        layer.kernel.regularizer = FunctionRegularizer(lambda w: ops.sum(bias**2))
    bias.assign([1.0, 2.0])
    assert where(model, "duplicated") == ["hidden/kernel", "out/kernel"]


def test_equal_kernels_are_not_duplicated():
    model = mlp(l2(0.01), l2(0.01))
    for layer in model.layers:
        layer.kernel.regularizer = FunctionRegularizer(lambda w: ops.mean(w**2))
        layer.kernel.assign(ops.ones(layer.kernel.shape))
    assert where(model, "duplicated") == []


def clipped(w):
    return ops.maximum(ops.sum(ops.square(w)), 1e3)


def test_different_penalties_with_equal_values_are_not_duplicated():
    model = mlp(FunctionRegularizer(clipped), FunctionRegularizer(clipped))
    a, b = (float(ops.convert_to_numpy(term)) for term in model.losses)
    assert a == b == 1e3
    assert where(model, "duplicated") == []


def test_distance_between_two_kernels_is_not_duplicated():
    model = square_layers(None, None)
    a, b, _ = model.layers
    distance = FunctionRegularizer(lambda w: ops.sum(ops.square(a.kernel - b.kernel)))
    a.kernel.regularizer = b.kernel.regularizer = distance
    assert where(model, "duplicated") == []


# by `add_loss`


def clipped_penalties(model, x):
    return [ops.maximum(ops.sum(ops.square(d.kernel)), 1e3) for d in (model.a, model.b)]


def functions_of_the_data(model, x):
    return [0.1 * ops.mean(ops.square(model.a(x)))] * 2


def equal_constants(model, x):
    return [ops.convert_to_tensor(0.5), ops.convert_to_tensor(0.5)]


@pytest.mark.parametrize("with_batch", [False, True])
@pytest.mark.parametrize(
    "terms, expected",
    [
        (clipped_penalties, []),
        (functions_of_the_data, []),
        (equal_constants, []),
        (penalty_of_each_kernel, []),
        (penalty_of_the_loop_variable, ["add_loss"]),
    ],
)
def test_losses_are_duplicated_if_they_change_together(terms, expected, with_batch):
    x, y = data()
    model = compiled(AddsLosses(terms))
    model(x)
    model.b.kernel.assign(ops.ones((3, 2)))
    assert where(model, "duplicated", *[x, y] * with_batch) == expected


def test_losses_are_duplicated_after_fit():
    x, y = data()
    for terms, expected in (
        (penalty_of_the_loop_variable, ["add_loss"]),
        (penalty_of_each_kernel, []),
    ):
        model = compiled(AddsLosses(terms))
        model(x)
        assert where(model, "duplicated") == expected
        model.fit(x, y, verbose=0)
        assert where(model, "duplicated", x, y) == expected


def test_activity_regularizer_of_a_shared_layer_is_not_duplicated():
    x, y = data()
    twice = layers.Dense(3, activity_regularizer=l2(0.1), name="twice")
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Dense(2)(twice(a) + twice(b)))
    compiled(model)([x, x])
    terms = [float(ops.convert_to_numpy(term)) for term in model.losses]
    assert len(terms) == 2 and terms[0] == terms[1]
    assert where(model, "duplicated") == []
    assert where(model, "duplicated", [x, x], y) == []


# by a regularizer and `add_loss`


def test_penalty_of_a_regularizer_and_of_add_loss_is_duplicated():
    x, _ = data()
    for strength, expected in ((0.01, ["a/kernel"]), (0.02, [])):
        model = AddsLosses(penalty_of_each_kernel, l2(strength))
        model(x)
        assert where(model, "duplicated") == expected


def test_constant_loss_that_equals_a_penalty_is_not_duplicated():
    model = AddsLosses(equal_constants, l2(0.5))
    model(data()[0])
    model.a.kernel.assign(np.eye(4, 3) / np.sqrt(3.0))
    now = [float(ops.convert_to_numpy(term)) for term in model.losses]
    np.testing.assert_allclose(now, 0.5, rtol=1e-6)
    assert where(model, "duplicated") == []


def test_constant_loss_that_equals_a_clipped_penalty_is_not_duplicated():
    def constant(model, x):
        return [ops.convert_to_tensor(1e3)]

    model = AddsLosses(constant, FunctionRegularizer(clipped))
    model(data()[0])
    assert [float(ops.convert_to_numpy(term)) for term in model.losses] == [1e3, 1e3]
    assert where(model, "duplicated") == []
