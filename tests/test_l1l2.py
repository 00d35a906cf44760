"""L1L2 and the two live strengths of a wrapper, against Keras and scikit-learn."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers
from sklearn.linear_model import ElasticNet
from small import mlp, penalty, reloaded, still
from trained import (
    OPTIMIZERS,
    X,
    Y,
    assert_train_alike,
    fitted,
    float64,
    network,
    with_weights_of,
)

from keras_l2reg import L1L2, L2AllWeights, Scaled, attach, audit, print_penalties
from keras_l2reg._live_model import _KEYS

BACKEND = keras.backend.backend()
regularizers = keras.regularizers
# On torch, inductor calls a C++ compiler, which takes half a minute.
SLOW_ON_TORCH = [pytest.mark.slow] if BACKEND == "torch" else []


def sums(model):
    """`sum(|w|)` and `sum(w**2)` over the kernels, by NumPy."""
    kernels = [float64(layer.kernel) for layer in model.layers]
    absolutes = sum(np.abs(w).sum() for w in kernels)
    return absolutes, sum(np.square(w).sum() for w in kernels)


# --- Against Keras and scikit-learn ----------------------------------------------


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    "way",
    [
        lambda model: L2AllWeights(model, l2=0.02, l1=0.01),
        pytest.param(
            lambda model: L2AllWeights(
                model, regularizer=regularizers.L1L2(0.01, 0.02)
            ),
            marks=pytest.mark.slow,
        ),
        lambda model: attach(model, L1L2(l1=0.01, l2=0.02)),
    ],
    ids=["wrapper", "wrapper_of_keras", "attach"],
)
def test_it_trains_as_the_built_in_regularizer(way, optimizer):
    reference = network(*[regularizers.L1L2(0.01, 0.02)] * 3)
    model = way(with_weights_of(network(), reference))
    assert_train_alike(model, reference, optimizer)


MODES = {
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "steps_per_execution": {"steps_per_execution": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode",
    [
        "eager",
        pytest.param("jit", marks=SLOW_ON_TORCH),
        pytest.param(
            "steps_per_execution",
            marks=pytest.mark.skipif(
                BACKEND == "torch", reason="Keras does not support it on torch"
            ),
        ),
    ],
)
def test_modes_of_execution_train_as_the_built_in_regularizer(mode):
    reference = network(*[regularizers.L1L2(0.01, 0.02)] * 3)
    model = L2AllWeights(with_weights_of(network(), reference), 0.02, l1=0.01)
    assert_train_alike(model, reference, **MODES[mode])


def test_multipliers_scale_both_strengths():
    factors = {"a/*": 0.5, "c/*": 3.0}
    reference = network(
        *[regularizers.L1L2(0.01 * m, 0.02 * m) for m in (0.5, 1.0, 3.0)]
    )
    model = with_weights_of(network(), reference)
    model = L2AllWeights(model, 0.02, l1=0.01, multipliers=factors)
    assert_train_alike(model, reference)


def test_it_converges_to_the_elastic_net_of_scikit_learn():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 8))
    y = x @ np.array([2.0, -1.0, 0, 0, 0.5, 0, 0, 0]) + 0.1 * rng.normal(size=60)
    alpha, l1_ratio = 0.2, 0.4
    reference = ElasticNet(alpha=alpha, l1_ratio=l1_ratio, tol=1e-12, max_iter=100_000)
    reference.fit(x, y)
    assert (reference.coef_ == 0).any() and (reference.coef_ != 0).any()

    model = keras.Sequential([keras.Input((8,)), layers.Dense(1)])
    l1, l2 = 2 * alpha * l1_ratio, alpha * (1 - l1_ratio)
    wrapper = L2AllWeights(model, l2, l1=l1)
    # In steps of `l1`, weights alternate about zero: the steps get smaller.
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 90, 0.5)
    wrapper.compile(keras.optimizers.SGD(schedule), "mse")
    steps = [np.tile(a.astype("float32"), (900, 1)) for a in (x, y[:, None])]
    wrapper.fit(*steps, batch_size=60, shuffle=False, verbose=0)
    kernel, bias = model.get_weights()
    np.testing.assert_allclose(kernel[:, 0], reference.coef_, rtol=0, atol=1e-4)
    np.testing.assert_allclose(bias[0], reference.intercept_, rtol=0, atol=1e-4)
    assert np.all(kernel != 0), "what gradients can't do"


# --- Both strengths are live -----------------------------------------------------


class CountingTraces(L2AllWeights):
    traces = 0

    def compute_loss(self, *args, **kwargs):
        type(self).traces += 1
        return super().compute_loss(*args, **kwargs)


def test_both_strengths_act_at_once_without_a_new_trace():
    model = CountingTraces(network(), 0.02, l1=0.0)
    model.compile(still(), "mse")
    fit = {"batch_size": 8, "epochs": 1, "verbose": 0}
    model.fit(X, Y, **fit)
    model.fit(X, Y, **fit)
    absolutes, squares = sums(model)
    CountingTraces.traces = 0
    for l1, l2 in ((0.5, 0.02), (0.5, 0.25), (0.0, 0.0), (1e-3, 2)):
        model.l1, model.l2 = l1, l2
        assert (model.l1, model.l2) == (l1, l2)
        logs = model.fit(X, Y, **fit).history
        expected = l1 * absolutes + l2 * squares
        assert logs["penalty"][0] == pytest.approx(expected, rel=1e-6)
        total = logs["data_loss"][0] + logs["penalty"][0]
        assert total == pytest.approx(logs["loss"][0], rel=1e-5)
    if BACKEND != "torch":  # which runs step by step
        assert CountingTraces.traces == 0


class SetsL1(keras.callbacks.Callback):
    def __init__(self, wrapper, strengths):
        super().__init__()
        self.wrapper, self.strengths, self.seen = wrapper, strengths, []

    def on_train_batch_begin(self, batch, logs=None):
        self.wrapper.l1 = self.strengths[batch]

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append((self.wrapper.l1, self.wrapper.l2))


def test_l1_can_be_set_between_batches():
    model = L2AllWeights(mlp(), 0.5, l1=1.0)
    # On ones, each step subtracts 0.01 * (l1 + 2 * l2 * w).
    model.compile(keras.optimizers.SGD(0.01))
    callback = SetsL1(model, [1.0, 0.0, 3.0])
    model.fit(
        np.ones((24, 4), "float32"), batch_size=8, verbose=0, callbacks=[callback]
    )
    assert callback.seen == [(1.0, 0.5), (0.0, 0.5), (3.0, 0.5)]
    w = 1.0
    for l1 in (1.0, 0.0, 3.0):
        w -= 0.01 * (l1 + w)
    np.testing.assert_allclose(model.get_weights()[0], w, rtol=1e-6)


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -0.1, 1e-60, 1e60, "0.1", None, True]
)
@pytest.mark.parametrize("name", ["l1", "l2"])
def test_an_invalid_strength_leaves_the_old_one(name, value):
    model = L2AllWeights(mlp(), 0.5, l1=0.25)
    with pytest.raises((TypeError, ValueError), match=f"argument `{name}`"):
        setattr(model, name, value)
    assert (model.l1, model.l2) == (0.25, 0.5)
    with pytest.raises((TypeError, ValueError), match=f"argument `{name}`"):
        setattr(model, name, keras.Variable(float("nan")))
    assert (model.l1, model.l2) == (0.25, 0.5)
    if value is not None:
        inner = mlp()
        with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
            L2AllWeights(inner, **{name: value})
        assert inner.losses == []


def test_a_wrapper_without_l1_says_how_to_have_one():
    model = L2AllWeights(mlp(), 0.5)
    for call in (lambda: model.l1, lambda: setattr(model, "l1", 0.1)):
        with pytest.raises(ValueError, match=r"L2AllWeights\(model, l2=0.5, l1=0.0\)"):
            call()
    assert model.l2 == 0.5 and penalty(model) == pytest.approx(9.0)
    model.unwrap(strip=True)
    removed = L2AllWeights(mlp(), 0.5, l1=0.1)
    removed.unwrap(strip=True)
    with pytest.raises(ValueError, match="`l1` has no effect"):
        removed.l1 = 0.2


def test_variables_of_the_user_are_the_live_strengths():
    l1, l2 = keras.Variable(0.1), keras.Variable(0.2, dtype="float16")
    model = L2AllWeights(mlp(), regularizer=L1L2(l1, l2))
    assert not l1.trainable
    assert penalty(model) == pytest.approx(0.1 * 18 + float(float64(l2)) * 18, rel=1e-6)
    l1.assign(0.5)
    model.l2 = 0.25
    assert (model.l1, float(float64(l2))) == (0.5, 0.25)
    model.compile(still(), "mse")
    logs = model.fit(X, Y, verbose=0).history
    assert logs["penalty"][0] == pytest.approx(0.75 * 18, rel=1e-6)
    with pytest.raises(ValueError, match="float16"):
        model.l2 = 1e-9
    mixed = L2AllWeights(mlp(), regularizer=L1L2(l1, 0.125))
    mixed.l1, mixed.l2 = 0.25, 0.75
    assert float(float64(l1)) == 0.25
    assert penalty(mixed) == pytest.approx(18.0)


# --- Saved and loaded ------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("how", ["keras", "pickle", "weights", "h5"])
def test_both_strengths_are_saved_and_loaded(how, tmp_path):
    model = L2AllWeights(network(), 0.5, l1=0.25, multipliers={"a/*": 0.5})
    model.compile(OPTIMIZERS["adam"](), keras.losses.MeanSquaredError())
    model.fit(X, Y, verbose=0)
    model.l1, model.l2 = 0.75, 0.125
    if how == "pickle":
        again = pickle.loads(pickle.dumps(model))
    elif how == "weights":
        model.save_weights(tmp_path / "w.weights.h5")
        again = L2AllWeights(network(), 1.0, l1=1.0, multipliers={"a/*": 0.5})
        again.load_weights(tmp_path / "w.weights.h5")
    elif how == "h5":
        model.save(tmp_path / "model.h5")
        again = keras.saving.load_model(tmp_path / "model.h5")
    else:
        again = reloaded(model, tmp_path)
    assert (again.l1, again.l2) == (0.75, 0.125)
    assert penalty(again) == pytest.approx(penalty(model), rel=1e-6)
    again.l1 = 0.0
    assert penalty(again) < penalty(model)
    again.compile(still(), "mse")
    twice = reloaded(again, tmp_path)
    np.testing.assert_allclose(fitted(again), fitted(twice), rtol=1e-6)


def test_files_without_l1_keep_the_current_one(tmp_path):
    bare = mlp()
    bare.save_weights(tmp_path / "bare.weights.h5")
    L2AllWeights(mlp(), 0.5).save_weights(tmp_path / "l2.weights.h5")
    model = L2AllWeights(mlp(), 0.25, l1=0.125)
    model.load_weights(tmp_path / "bare.weights.h5")
    assert (model.l1, model.l2) == (0.125, 0.25)
    model.load_weights(tmp_path / "l2.weights.h5")
    assert (model.l1, model.l2) == (0.125, 0.5)
    # The names in files of earlier versions.
    assert _KEYS["l2"] == "0"
    # The other way round: models without l1 ignore it.
    model.save_weights(tmp_path / "l1.weights.h5")
    bare.load_weights(tmp_path / "l1.weights.h5")
    other = L2AllWeights(mlp(), 0.75)
    other.load_weights(tmp_path / "l1.weights.h5")
    assert other.l2 == 0.5


def test_unwrap_gives_built_in_regularizers_of_the_current_strengths():
    model = L2AllWeights(mlp(), 0.5, l1=0.25, multipliers={"b/*": 0.5})
    model.l1 = 0.125
    inner = model.unwrap()
    found = [layer.kernel_regularizer for layer in inner.layers]
    assert all(type(r) is regularizers.L1L2 for r in found)
    configs = [r.get_config() for r in found]
    assert configs == [{"l1": 0.125, "l2": 0.5}, {"l1": 0.0625, "l2": 0.25}]
    assert audit(inner) == ()


# --- What L1 by gradient can't do ------------------------------------------------


def test_the_table_has_the_share_near_zero_only_if_there_is_an_l1(capsys):
    model = mlp()
    kernel = np.ones((4, 3), "float32")
    # 5 of 12: the limit is 1e-4 of the largest.
    kernel.flat[:5] = [0, 1e-4, -1.9e-4, 1e-30, -1e-5]
    kernel.flat[5] = -2
    kernel.flat[6] = 2.1e-4
    model.layers[0].kernel.assign(kernel)
    model.layers[1].kernel.assign(np.zeros((3, 2)))
    print_penalties(attach(model, 0.5))
    assert "near zero" not in capsys.readouterr().out
    print_penalties(attach(model, {"a/*": Scaled(L1L2(l1=0.5), 0.1), "b/*": 0.1}))
    head, _, a, b = capsys.readouterr().out.splitlines()
    assert head.split("|")[-1].strip() == "near zero"
    assert a.split("|")[-1].strip() == "42%"
    assert b.split("|")[-1].strip() == "100%"
    print_penalties(L2AllWeights(mlp(), 0.5, l1=0.0))
    assert "near zero" not in capsys.readouterr().out
