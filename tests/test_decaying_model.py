"""`L2AllWeights(model, weight_decay=...)`: decoupled decay by the rule of the wrapper.

References: Keras' own AdamW with its exclusions, on the bare model.
"""

import pickle

import keras
import numpy as np
import pytest
from keras import layers

from keras_l2reg import (
    L2AllWeights,
    StrengthScheduler,
    attach,
    audit,
    detach,
    set_weight_decay,
)
from keras_l2reg.optimizers import WeightDecayOptimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 4)).astype("float32")
Y = RNG.normal(size=(32, 2)).astype("float32")


def two_layers():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "tanh", name="hidden"),
            layers.Dense(2, name="out"),
        ]
    )


def fit(model, epochs=3, **arguments):
    return model.fit(X, Y, 8, epochs, shuffle=False, verbose=0, **arguments).history


def decaying(rate=0.1, **arguments):
    keras.utils.set_random_seed(0)
    model = L2AllWeights(two_layers(), weight_decay=rate, **arguments)
    model.compile(keras.optimizers.Adam(0.05), "mse")
    return model


def adamw(rate=0.1):
    """Keras' own way to the same decay."""
    keras.utils.set_random_seed(0)
    model, optimizer = two_layers(), keras.optimizers.AdamW(0.05, weight_decay=rate)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    return model


def assert_same_weights(model, other, atol=1e-6):
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=atol)


def test_the_wrapper_decays_as_keras_adamw_with_exclusions():
    model, bare = decaying(), adamw()
    history = fit(model)
    np.testing.assert_allclose(history["loss"], fit(bare)["loss"], rtol=1e-5)
    assert_same_weights(model, bare)
    assert history["penalty"] == [0.0, 0.0, 0.0], "nothing is in the loss"
    assert model.losses == []


def test_multipliers_act_on_the_rate():
    model = decaying(multipliers={"hidden/*": 0.5, "out/*": 0})
    keras.utils.set_random_seed(0)
    bare = two_layers()
    bare.compile(keras.optimizers.Adam(0.05), "mse")
    set_weight_decay(bare.optimizer, bare, 0.05, layers="hidden/*")
    fit(model)
    fit(bare)
    assert_same_weights(model, bare)


def test_a_penalty_and_decay_act_together_only_if_both_are_given():
    with pytest.raises(ValueError, match="L2 strength"):
        _ = decaying().l2
    both = decaying(l2=0.01)
    assert (both.l2, both.weight_decay, len(both.losses)) == (0.01, 0.1, 2)
    assert "double-decay" in {finding.code for finding in audit(both)}
    bare = attach(adamw(), 0.01)
    fit(both)
    fit(bare)
    assert_same_weights(both, bare)


@pytest.mark.parametrize("is_compiled", [True, False])
def test_the_rate_is_live(is_compiled):
    model = L2AllWeights(two_layers(), weight_decay=0.1)
    if is_compiled:
        model.compile(keras.optimizers.Adam(0.05), "mse")
    model.weight_decay = 0.2
    assert model.weight_decay == 0.2
    for nonsense in (-1.0, np.nan, np.inf, 1e300):
        with pytest.raises(ValueError, match="weight_decay"):
            model.weight_decay = nonsense
    with pytest.raises(TypeError, match="weight_decay"):
        model.weight_decay = "0.1"
    assert model.weight_decay == 0.2
    model.compile(keras.optimizers.Adam(0.05), "mse")
    assert model.optimizer.weight_decay == 0.2


def test_an_optimizer_that_decays_already_gets_the_rate_and_weights_of_the_wrapper():
    optimizer = WeightDecayOptimizer(keras.optimizers.SGD(0.1), 0.5, [])
    model = L2AllWeights(two_layers(), weight_decay=0.2)
    model.compile(optimizer, "mse")
    assert model.weight_decay == optimizer.weight_decay == 0.2
    assert [m for _, m in optimizer.get_config()["multipliers"]] == [1, 0, 1, 0]


def test_a_schedule_of_the_rate_follows_keras_adamw_without_a_new_trace():
    count = []

    class Counting(layers.Layer):
        def call(self, x):
            count.append(1)
            return x

    def model_with(wrap):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(2)])
        return wrap(model)

    model = model_with(lambda m: L2AllWeights(m, weight_decay=0.1))
    model.compile(keras.optimizers.Adam(0.05), "mse")
    fit(model, 1)
    traced = len(count)
    double = StrengthScheduler(weight_decay=lambda epoch: 0.2 * 2**epoch)
    history = fit(model, 2, callbacks=[double])
    assert history["weight_decay"] == pytest.approx([0.2, 0.4])
    if keras.backend.backend() != "torch":  # which runs the Python at each step
        assert len(count) == traced
    bare = model_with(lambda m: m)
    bare.compile(keras.optimizers.AdamW(0.05, weight_decay=0.1), "mse")
    bare.optimizer.exclude_from_weight_decay(var_names=["bias"])
    for rate in (0.1, 0.2, 0.4):
        bare.optimizer.weight_decay = rate
        bare.make_train_function(force=True)
        fit(bare, 1)
    assert_same_weights(model, bare)


def loaded(model, path):
    model.save(path / "model.keras")
    return keras.saving.load_model(path / "model.keras")


def pickled(model, path):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.slow
@pytest.mark.parametrize("copy", [loaded, pickled])
def test_a_copy_goes_on_as_if_it_was_never_saved(copy, tmp_path):
    model = decaying(multipliers={"out/*": 0.5})
    fit(model)
    model.weight_decay = 0.3
    again = copy(model, tmp_path)
    assert again.weight_decay == 0.3
    assert fit(again)["loss"] == pytest.approx(fit(model)["loss"], rel=1e-6)
    assert_same_weights(again, model)


def test_a_clone_decays_once_it_is_compiled():
    clone = keras.models.clone_model(decaying(multipliers={"out/*": 0.5}))
    clone.compile(keras.optimizers.Adam(0.05), "mse")
    assert clone.weight_decay == 0.1
    rows = {path[-10:]: m for path, m in clone.optimizer.get_config()["multipliers"]}
    assert rows["out/kernel"] == 0.5


def test_a_compiled_and_trained_model_keeps_its_moments():
    keras.utils.set_random_seed(0)
    bare = two_layers()
    bare.compile(keras.optimizers.Adam(0.05), "mse")
    fit(bare)
    moments = [np.array(v) for v in bare.optimizer.variables]
    model = L2AllWeights(bare, weight_decay=0.1)
    for kept, moment in zip(
        model.optimizer.inner_optimizer.variables, moments, strict=True
    ):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(kept), moment)


def test_a_model_that_is_built_by_its_first_fit_decays_its_kernels():
    keras.utils.set_random_seed(0)
    model = L2AllWeights(
        keras.Sequential([layers.Dense(3, "tanh"), layers.Dense(2)]), weight_decay=0.1
    )
    model.compile(keras.optimizers.SGD(0.0), "mse")
    fit(model, 1)
    multipliers = [m for _, m in model.optimizer.get_config()["multipliers"]]
    assert multipliers == [1.0, 0.0, 1.0, 0.0]


@pytest.mark.parametrize("strip", [False, True])
def test_unwrap_leaves_the_decay_or_removes_it(strip):
    inner = decaying().unwrap(strip=strip)
    before = inner.get_weights()[0]
    x = np.zeros((8, 4), "float32")
    # The gradient is 0, so that only the decay acts: 0.05 * 0.1 of each weight.
    inner.fit(x, np.zeros((8, 2), "float32"), verbose=0)
    expected = before if strip else (1 - 0.005) * before
    np.testing.assert_allclose(inner.get_weights()[0], expected, rtol=1e-6)


def test_without_a_rate_there_is_nothing_to_set():
    model = L2AllWeights(two_layers(), 0.1)
    with pytest.raises(ValueError, match=r"weight_decay=0\.01"):
        model.weight_decay = 0.1
    with pytest.raises(ValueError, match="weight decay is towards zero"):
        L2AllWeights(two_layers(), weight_decay=0.1, towards_start=True)
    with pytest.raises(ValueError, match="matches nothing"):
        L2AllWeights(two_layers(), weight_decay=0.1, layers="nothing/*")
    for nonsense in (-1.0, np.nan):
        with pytest.raises(ValueError, match="weight_decay"):
            L2AllWeights(two_layers(), weight_decay=nonsense)


def test_detach_does_not_touch_the_decay():
    model = decaying(l2=0.1)
    detach(model.wrapped_model)
    assert model.losses == []
    assert model.weight_decay == 0.1
