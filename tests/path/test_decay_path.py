"""`l2_path(strength="weight_decay")`: paths of decoupled weight decay.

Reference: `fit` of the bare model with Keras' AdamW at each rate.
"""

import math

import keras
import numpy as np
import pytest
from keras import layers

from keras_l2reg import L2AllWeights, L2Grid, L2Path, l2_path

RNG = np.random.default_rng(0)
X, X_VAL = RNG.normal(size=(2, 48, 4)).astype("float32")
Y, Y_VAL = X[:, :1] - X[:, 1:2], X_VAL[:, :1] - X_VAL[:, 1:2]
RATES = [1.0, 0.1, 0.0]


def compiled(rate=0.004):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(5, "tanh"), layers.Dense(1)]
    )
    optimizer = keras.optimizers.AdamW(0.05, weight_decay=rate)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model.compile(optimizer, "mse")
    return model


def path_of(model, rates=RATES, **arguments):
    arguments = {"epochs": 3, "shuffle": False, "verbose": 0, **arguments}
    if "cv" not in arguments:
        arguments["validation_data"] = (X_VAL, Y_VAL)
    return l2_path(model, X, Y, rates, strength="weight_decay", **arguments)


def by_keras(rate):
    model = compiled(rate)
    model.fit(X, Y, epochs=3, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize(
    "wrap", [lambda m: m, lambda m: L2AllWeights(m, weight_decay=0.5)]
)
def test_each_rate_gives_what_keras_adamw_gives(wrap):
    path = path_of(wrap(compiled()))
    assert [record["weight_decay"] for record in path.records] == RATES
    for record in path.records:
        loss = by_keras(record["weight_decay"]).evaluate(X_VAL, Y_VAL, verbose=0)
        assert record["val_data_loss"] == pytest.approx(loss, rel=1e-5)


@pytest.mark.slow
def test_the_model_is_left_with_the_best_rate_and_weights():
    model = compiled()
    path = path_of(model)
    assert model.optimizer.weight_decay == path.best["weight_decay"]
    theirs = by_keras(path.best["weight_decay"])
    for ours, expected in zip(model.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_a_model_that_is_not_tuned_keeps_its_optimizer():
    model = compiled(0.004)
    optimizer = model.optimizer
    path_of(model, restore_best_weights=False)
    assert model.optimizer is optimizer
    assert optimizer.weight_decay == 0.004


def test_a_wrapper_keeps_its_penalty():
    wrapped = L2AllWeights(compiled(), 0.02, weight_decay=0.5)
    path = path_of(wrapped)
    assert wrapped.l2 == 0.02
    assert wrapped.weight_decay == path.best["weight_decay"]
    assert all(record["penalty"] > 0 for record in path.records)


@pytest.mark.slow
def test_a_rate_may_be_chosen_by_cross_validation():
    path = path_of(compiled(), cv=3)
    assert [record["folds"] for record in path.records] == [3, 3, 3]
    assert path.one_standard_error["weight_decay"] >= path.best["weight_decay"]


@pytest.mark.slow
def test_all_rates_share_one_trace():
    count = []

    class Counting(layers.Layer):
        def call(self, x):
            count.append(1)
            return x

    model = keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(1)])
    model.compile("adam", "mse")
    path_of(model, [0.1], restore_best_weights=False)
    one = len(count)
    count.clear()
    path_of(model, [1.0, 0.1, 0.01, 0.0], restore_best_weights=False)
    if keras.backend.backend() != "torch":  # which runs the Python at each step
        assert len(count) <= one


@pytest.mark.slow
def test_the_default_grid_starts_where_decay_alone_would_shrink_by_exp_10():
    path = path_of(compiled(), L2Grid(count=3, span=100.0), epochs=2, batch_size=16)
    top = 10 / (0.05 * 2 * math.ceil(48 / 16))
    rates = [record["weight_decay"] for record in path.records]
    np.testing.assert_allclose(rates, [top, top / 10, top / 100, 0], rtol=1e-2)


def test_the_table_the_plot_and_the_file_name_the_rate(tmp_path):
    path = path_of(compiled())
    assert str(path).lstrip().startswith("weight_decay")
    assert "weight_decay=" in repr(path)
    assert "weight_decay" in path.plot().axes[-1].get_xlabel()
    path.to_csv(tmp_path / "path.csv")
    assert (tmp_path / "path.csv").read_text().startswith("weight_decay,")
    assert L2Path(path.runs).records == path.records


def test_bad_arguments_are_refused_and_change_nothing():
    model = compiled()
    with pytest.raises(ValueError, match="'l2' or 'weight_decay'"):
        l2_path(model, X, Y, RATES, (X_VAL, Y_VAL), strength="rate")
    with pytest.raises(ValueError, match="`l1_ratio`"):
        path_of(model, l1_ratio=0.5)
    with pytest.raises(ValueError, match=r"weight_decay=0\.01"):
        path_of(L2AllWeights(compiled(), 0.1))
    with pytest.raises(ValueError, match="choose the rates yourself"):
        model.compile(keras.optimizers.AdamW(0.0), "mse")
        path_of(model, L2Grid())
    assert model.losses == []
    assert model.optimizer.weight_decay == 0.004
