"""The rules know `L1L2`, a regularizer for each part, and `towards_start`."""

import keras
import pytest
from audit_helpers import data, mlp
from keras import layers

from keras_l2reg import L1L2, L2, L2AllWeights, Sum, attach, audit
from keras_l2reg._audit.facts import l2_of, l2_to_zero_of
from keras_l2reg._towards_start import TowardsStart


def codes(model, *batch):
    return {finding.code: finding.where for finding in audit(model, *batch)}


def test_the_strength_of_the_l2_part_is_seen_in_each_of_them():
    start = keras.Variable([1.0])
    for regularizer, whole, to_zero in (
        (L1L2(0.5, 0.25), 0.25, 0.25),
        (L1L2(0.5), 0.0, 0.0),
        (TowardsStart(L2(0.25), start), 0.25, 0.0),
        (TowardsStart(L1L2(0.5), start), 0.0, 0.0),
        (Sum([L2(0.5), TowardsStart(L1L2(0.5, 0.25), start)]), 0.75, 0.5),
        (lambda w: 0.0, 0.0, 0.0),
    ):
        assert l2_of(regularizer) == whole
        assert l2_to_zero_of(regularizer) == to_zero


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: L2AllWeights(model, 1e-3, l1=1e-3),
        lambda model: L2AllWeights(model, regularizer={"*": 1e-3, "out/*": "l1"}),
        lambda model: L2AllWeights(model, 1e-3, towards_start="hidden/*"),
        lambda model: L2AllWeights(model, 1e-3, towards_start=True),
    ],
    ids=["l1", "parts", "backbone", "all"],
)
def test_a_sound_model_has_no_findings(wrap):
    model = wrap(mlp())
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = data()
    model.fit(x, y, verbose=0)
    assert audit(model) == () and audit(model, x, y) == ()


def test_a_part_with_a_number_is_not_partly_covered():
    strength = keras.Variable(0.1)
    parts = {"*": L2(strength), "out/*": 0.1}
    assert "partly-covered" not in codes(L2AllWeights(mlp(), regularizer=parts))
    # But a kernel that kept what it had before is.
    model = L2AllWeights(
        mlp(None, "l2"), regularizer={**parts, "out/*": 0.2}, existing="keep"
    )
    assert codes(model)["partly-covered"] == ("out/kernel",)
    earlier = attach(mlp(), {"out/*": 0.1})
    model = L2AllWeights(
        keras.Sequential([keras.Input((4,)), *earlier.layers]), 0.1, existing="keep"
    )
    assert codes(model)["partly-covered"] == ("out/kernel",)


def normalized():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, use_bias=False, name="hidden"),
            layers.BatchNormalization(),
            layers.Dense(2, name="out"),
        ]
    )


def test_the_distance_from_the_start_is_not_cancelled_by_a_normalization():
    # `f(a * w) = f(w)`, but turning `w` away from its start is penalized.
    assert codes(L2AllWeights(normalized(), 0.1, l1=0.1))["scale-invariant"] == (
        "hidden/kernel",
    )
    wrapper = L2AllWeights(normalized(), 0.1, towards_start="hidden/*")
    assert "scale-invariant" not in codes(wrapper)


@pytest.mark.parametrize("towards_start", [False, True])
def test_weight_decay_beside_any_l2_is_double_decay(towards_start):
    for strengths, expected in (
        ({"l2": 0.1, "l1": 0.1}, ("hidden/kernel", "out/kernel")),
        ({"l2": 0.0, "l1": 0.1}, None),
    ):
        model = L2AllWeights(mlp(), **strengths, towards_start=towards_start)
        model.compile(keras.optimizers.AdamW(weight_decay=0.01), "mse")
        found = codes(model)
        assert found.get("double-decay") == expected
        # Weight decay is to zero, so it can't replace a penalty towards the start.
        is_coupled = expected is not None and not towards_start
        assert ("coupled-adaptive" in found) == is_coupled


def test_equal_distances_are_not_duplicated():
    ones = {"kernel_initializer": "ones", "use_bias": False}
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, **ones), layers.Dense(4, **ones)]
    )
    wrapper = L2AllWeights(model, 0.1, l1=0.1, towards_start=True)
    assert "duplicated" not in codes(wrapper)


def test_a_penalty_towards_the_start_is_part_of_what_dominates():
    model = L2AllWeights(mlp(), 10.0, towards_start=True)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x, y = data()
    assert "dominates" not in codes(model, x, y)
    model.set_weights([w + 1 for w in model.get_weights()])
    assert "dominates" in codes(model, x, y)


def test_half_precision_overflows_in_keras_only():
    def build(**kwargs):
        return keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(
                    40_000,
                    dtype="float16",
                    kernel_initializer="ones",
                    name="a",
                    **kwargs,
                ),
            ]
        )

    assert "half-precision" in codes(build(kernel_regularizer=keras.regularizers.L1(1)))
    for wrapper in (
        L2AllWeights(build(), 1.0, l1=1.0),
        L2AllWeights(build(), regularizer={"a/*": keras.regularizers.L1(1)}),
        L2AllWeights(build(), 1.0, towards_start=True),
    ):
        wrapper.set_weights([w + 1 for w in wrapper.get_weights()])
        assert "half-precision" not in codes(wrapper)
