"""Which weights have a penalty, and which should."""

import keras
import pytest
from audit_helpers import (
    AddsLosses,
    LayerWithoutRegularizer,
    bare_or_wrapped,
    codes,
    compiled,
    data,
    l2,
    mlp,
    penalty_of_each_kernel,
    regularized,
    where,
)
from keras import layers, ops

from keras_l2reg import L2, L2AllWeights, attach, audit

# last-layer-only and uncovered


def test_penalty_on_the_last_layer_only():
    assert where(mlp(None, l2(0.01)), "last-layer-only") == ["out/kernel"]
    assert "last-layer-only" not in codes(mlp(l2(0.01), None))
    assert codes(regularized()) == []
    alone = keras.Sequential(
        [keras.Input((4,)), layers.Dense(2, kernel_regularizer="l2")]
    )
    assert codes(alone) == []


def test_penalty_on_some_kernels_only():
    assert where(mlp(l2(0.01), None), "uncovered") == ["out/kernel"]
    assert where(regularized(), "uncovered") == where(mlp(), "uncovered") == []


def test_frozen_kernel_needs_no_penalty():
    model = mlp(None, l2(0.01))
    model.get_layer("hidden").trainable = False
    assert codes(model) == []


class ModelWithKernel(keras.Model):
    """A model that has a penalized kernel itself, not in one of its layers."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(4, 4), name="w", regularizer=l2(0.01))
        self.head = layers.Dense(2, kernel_regularizer=l2(0.01), name="head")

    def call(self, inputs):
        return self.head(ops.matmul(inputs, self.w))


@bare_or_wrapped
def test_kernel_that_belongs_to_the_model_itself(wrap):
    x, y = data()
    model = ModelWithKernel()
    model(x)
    model = compiled(wrap(model))
    model.fit(x, y, verbose=0)
    assert {f.severity for f in audit(model, x, y) if f.code != "lost-on-save"} == set()
    model = ModelWithKernel()
    model.head.kernel_regularizer = None
    model(x)
    assert where(model, "uncovered") == ["head/kernel"]


# partly-covered


@pytest.mark.filterwarnings("ignore:These weights already have a penalty")
def test_wrapper_whose_strength_does_not_reach_all_kernels():
    assert where(L2AllWeights(mlp(None, l2(1e-4))), "partly-covered") == ["out/kernel"]
    assert where(L2AllWeights(mlp()), "partly-covered") == []
    for existing in ("replace", "add"):
        wrapped = L2AllWeights(mlp(None, l2(1e-4)), existing=existing)
        assert where(wrapped, "partly-covered") == []
    halved = L2AllWeights(mlp(), multipliers={"out/*": 0.5})
    assert where(halved, "partly-covered") == []
    fixed = L2AllWeights(mlp(None, l2(1e-4)), regularizer="l1")
    assert where(fixed, "partly-covered") == []
    # A kernel without a penalty is `uncovered` instead.
    body = L2AllWeights(mlp(), layers="hidden/*")
    assert where(body, "partly-covered") == []


@pytest.mark.filterwarnings("ignore:These weights already have a penalty")
@pytest.mark.filterwarnings("ignore:This strength is a variable")
def test_live_strength_of_attach_that_does_not_reach_all_kernels():
    def live():
        return L2(keras.Variable(0.1))

    model = attach(mlp(None, l2(1e-4)), live())
    assert where(model, "partly-covered") == ["out/kernel"]
    assert where(attach(mlp(), live()), "partly-covered") == []
    assert where(attach(mlp(None, l2(1e-4)), 0.1), "partly-covered") == []
    # Two live strengths, each for some of the kernels, are intended.
    two = attach(attach(mlp(), live(), layers="hidden/*"), live())
    assert where(two, "partly-covered") == []


@pytest.mark.filterwarnings("ignore:These weights already have a penalty")
def test_kernel_with_the_live_strength_of_another_wrapper():
    shared = layers.Dense(3, name="shared")
    first = L2AllWeights(keras.Sequential([keras.Input((4,)), shared]))
    inputs = keras.Input((4,))
    second = L2AllWeights(keras.Model(inputs, layers.Dense(2)(shared(inputs))))
    assert where(second, "partly-covered") == ["shared/kernel"]
    assert where(first, "partly-covered") == []


# norm-or-bias


def test_penalty_on_biases_and_normalizations():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, bias_regularizer="l2", name="d"),
            layers.BatchNormalization(
                gamma_regularizer="l2", beta_regularizer="l2", name="bn"
            ),
        ]
    )
    assert where(model, "norm-or-bias") == ["d/bias", "bn/gamma", "bn/beta"]
    assert where(regularized(), "norm-or-bias") == []


# frozen


def test_penalty_of_a_frozen_weight():
    model = regularized()
    model.get_layer("hidden").trainable = False
    assert where(model, "frozen") == ["hidden/kernel"]
    assert len(model.losses) == 1
    assert where(regularized(), "frozen") == []


# no-penalty


def test_model_without_a_penalty():
    assert codes(mlp()) == ["no-penalty"]
    assert where(mlp(), "no-penalty") == ["hidden/kernel", "out/kernel"]
    assert where(compiled(mlp(), "adam"), "no-penalty") != []
    assert codes(keras.Sequential([layers.Dense(3), layers.Dense(2)])) == ["no-penalty"]
    for sound in (regularized(), attach(mlp(), 0.1), L2AllWeights(mlp(), l2=0.0)):
        assert where(sound, "no-penalty") == []


def test_model_that_is_not_built():
    model = keras.Sequential([LayerWithoutRegularizer(name="custom")], name="later")
    assert where(model, "no-penalty") == ["later"]
    model(data()[0])
    assert where(model, "no-penalty") == ["custom/w"]
    assert codes(keras.Sequential([keras.Input((4,)), layers.ReLU()])) == []


def test_other_regularization_is_not_a_missing_penalty():
    assert "no-penalty" in codes(mlp(activity_regularizer=None))
    assert "no-penalty" not in codes(mlp(activity_regularizer="l2"))
    x, y = data()
    model = compiled(AddsLosses(penalty_of_each_kernel))
    model(x)
    assert where(model, "no-penalty") == where(model, "no-penalty", x, y) == []
    assert where(compiled(mlp(), "adamw"), "no-penalty") == []


def test_frozen_model_needs_no_penalty():
    frozen = mlp()
    frozen.trainable = False
    assert codes(frozen) == []


def test_model_with_a_penalty_on_a_frozen_weight_only():
    model = mlp(l2(0.01))
    model.get_layer("hidden").trainable = False
    assert codes(model) == ["frozen", "no-penalty"]
