"""Paths over mixes of L1 and L2, `l1_ratio=`: compared with scikit-learn and Keras."""

import keras
import numpy as np
import pandas
import pytest
from keras import layers
from paths import (
    Fail,
    X,
    Y,
    assert_has_metrics,
    assert_same_runs,
    assert_same_state,
    by_keras,
    compiled,
    full_batches,
    network,
    path_of,
    state,
)
from sklearn.linear_model import ElasticNetCV
from sklearn.model_selection import KFold

from keras_l2reg import L2AllWeights, L2Grid, L2Path
from keras_l2reg._path.grid import grid_from_data
from keras_l2reg._path.points import Point
from keras_l2reg.plotting import plot_path

RATIOS = [0.0, 0.5, 1.0]


def wrapper(**arguments):
    return compiled(L2AllWeights(network(), 0.7, l1=0.2, **arguments))


# ------------------------------------------------------- compared with others


@pytest.mark.slow
def test_the_scores_of_the_folds_are_those_of_elastic_net_cv():
    rng = np.random.default_rng(5)
    x = rng.normal(size=(60, 4)).astype("float32")
    y = x[:, :1] - 0.5 * x[:, 1:2] + 2 * rng.normal(size=(60, 1))
    y = y.astype("float32")
    folds = KFold(5, shuffle=True, random_state=0)
    alphas, ratios = [0.4, 0.1, 0.03], [0.3, 1.0]
    net = ElasticNetCV(
        l1_ratio=ratios, alphas=alphas, cv=folds, fit_intercept=False, tol=1e-8
    ).fit(x.astype("float64"), y[:, 0].astype("float64"))
    zeros = layers.Dense(1, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((4,)), zeros])
    # The steps shrink, so that the weights near 0 come to rest.
    rate = keras.optimizers.schedules.ExponentialDecay(0.15, 40, 0.6)
    model.compile(keras.optimizers.SGD(rate), "mse")
    errors = {}
    # scikit-learn halves the squares, but not the absolute values: its mix is ours at
    # another strength and another ratio.
    for ratio, of_ratio in zip(ratios, net.mse_path_, strict=True):
        path = path_of(
            model,
            [alpha * (1 + ratio) for alpha in alphas],
            x,
            y,
            cv=full_batches(folds, x, steps=300),
            l1_ratio=2 * ratio / (1 + ratio),
            validation_data=None,
            epochs=1,
            batch_size=48,
            shuffle=False,
            restore_best_weights=False,
        )
        by_path = np.reshape([run["val_data_loss"] for run in path.runs], (3, 5))
        np.testing.assert_allclose(by_path, of_ratio, rtol=1e-2)
        for alpha, record in zip(alphas, path.records, strict=True):
            assert record["l1"] == pytest.approx(2 * alpha * ratio)
            assert record["l2"] == pytest.approx(alpha * (1 - ratio))
            errors[alpha, ratio] = record["val_data_loss"]
    assert min(errors, key=errors.get) == (net.alpha_, net.l1_ratio_) == (0.1, 1.0)


@pytest.mark.slow
def test_each_run_equals_that_of_a_new_model_with_keras_l1l2():
    model = network()
    start = model.get_weights()
    path = path_of(compiled(model), [0.3], l1_ratio=RATIOS, seed=3)
    assert [record["l1_ratio"] for record in path.records] == RATIOS
    for record in path.records:
        l1 = record["strength"] * record["l1_ratio"]
        l2 = record["strength"] * (1 - record["l1_ratio"])
        assert (record["l1"], record["l2"]) == pytest.approx((l1, l2))
        rebuilt = network()
        for layer in rebuilt.layers:
            layer.kernel.regularizer = keras.regularizers.L1L2(l1, l2)
        compiled(rebuilt).set_weights(start)
        assert_has_metrics(record, by_keras(rebuilt))


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_default_grid_begins_where_the_mixed_penalty_pulls_ten_times_as_hard(ratio):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    kernel, bias = (np.array(w, "float64") for w in model.get_weights())
    data = X.T @ (X @ kernel + bias - Y) * 2 / Y.size
    penalty = ratio * np.sign(kernel) + (1 - ratio) * 2 * kernel
    expected = 10 * np.linalg.norm(data) / np.linalg.norm(penalty)
    top = grid_from_data(L2AllWeights(model, l1=0.0), X, Y, l1_ratio=ratio)[0]
    assert top == pytest.approx(expected, rel=6e-3)


@pytest.mark.slow
def test_each_ratio_has_a_grid_of_its_own():
    model, grid = wrapper(), L2Grid(2)
    expected = [
        [ratio, strength]
        for ratio in (0.0, 1.0)
        for strength in grid_from_data(model, X, Y, grid=grid, l1_ratio=ratio)
    ]
    path = path_of(model, grid, l1_ratio=[1, 0], epochs=1)
    assert [[r["l1_ratio"], r["strength"]] for r in path.records] == expected
    assert expected[0][1] != expected[3][1]


# ------------------------------------------------------------ one path, one trace


@keras.saving.register_keras_serializable(__name__)
class RatioCounter(layers.Layer):
    """Counts how often Python runs it: once for each trace on TensorFlow and JAX."""

    calls = 0

    def call(self, x):
        RatioCounter.calls += 1
        return x


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has no trace")
def test_all_ratios_are_traced_once():
    def calls(**arguments):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(2), RatioCounter()])
        before = RatioCounter.calls
        path_of(compiled(model), **arguments)
        return RatioCounter.calls - before

    assert calls(l2=[0.3]) == calls(l2=[0.3, 0.1], l1_ratio=RATIOS)


@pytest.mark.slow
def test_the_paths_of_warm_starts_begin_anew_at_each_ratio():
    model = wrapper()
    arguments = {"l2": [0.3, 0.03], "warm": True, "restore_best_weights": False}
    together = path_of(model, l1_ratio=[0.2, 0.7], **arguments)
    alone = [path_of(model, l1_ratio=ratio, **arguments).runs for ratio in (0.2, 0.7)]
    assert together.runs == [*alone[0], *alone[1]]


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False])
def test_workers_give_the_same_mixes_as_this_process(warm):
    from concurrent.futures import ThreadPoolExecutor

    model = wrapper()
    arguments = {"l2": [0.3, 0.03], "l1_ratio": [0, 1], "warm": warm, "epochs": 1}
    arguments |= {"restore_best_weights": False, "cv": 3, "validation_data": None}
    with ThreadPoolExecutor(2) as executor:
        there = path_of(model, executor=executor, **arguments)
    assert_same_runs(path_of(model, **arguments), there)
    assert len(there.runs) == 12


# ------------------------------------------------------------------ the model after


@pytest.mark.slow
def test_the_model_is_left_with_the_best_mix():
    model = compiled(network(0.7))
    path = path_of(model, [0.3, 0.03], l1_ratio=[0.2, 0.7])
    regularizer = model.layers[0].kernel_regularizer
    assert type(regularizer) is keras.regularizers.L1L2
    best = path.best["l1"], path.best["l2"]
    assert (regularizer.l1, regularizer.l2) == pytest.approx(best)
    wrapped = wrapper()
    best = path_of(wrapped, [0.3, 0.03], l1_ratio=[0.2, 0.7]).best
    assert (wrapped.l1, wrapped.l2) == pytest.approx((best["l1"], best["l2"]))


@pytest.mark.slow
def test_without_restore_best_weights_the_strengths_are_left_as_they_were():
    wrapped = wrapper()
    wrapped.fit(X, Y, 8, verbose=0)
    before = state(wrapped)
    path_of(wrapped, [0.3], l1_ratio=RATIOS, restore_best_weights=False)
    assert_same_state(wrapped, before)
    assert (wrapped.l1, wrapped.l2) == pytest.approx((0.2, 0.7))


@pytest.mark.parametrize("l1_ratio", [0, 0.0, [0], np.float32(0)])
def test_at_ratio_0_alone_only_l2_is_varied(l1_ratio):
    wrapped = wrapper()
    path = path_of(wrapped, [0.3], l1_ratio=l1_ratio, epochs=1)
    assert (wrapped.l1, wrapped.l2) == pytest.approx((0.2, 0.3))
    assert [*path.records[0]][:3] == ["l2", "repeats", "diverged"]


# --------------------------------------------------------------------- the result


def made_up(losses):
    """A path of made-up runs: `{(strength, ratio): [loss of each fold]}`."""
    return L2Path(
        [
            {**Point(*point).keys(), "fold": fold, "repeat": 0, "val_data_loss": loss}
            for point, folds in losses.items()
            for fold, loss in enumerate(folds)
        ]
    )


LOSSES = {
    (1.0, 0.0): [2.5, 3.0],
    (0.1, 0.0): [3.0, 4.0],
    (2.0, 0.5): [8.0, 9.0],
    (1.0, 0.5): [2.6, 3.2],
    (0.1, 0.5): [1.0, 3.0],
    (0.0, 0.5): [2.5, 2.7],
}


def test_one_standard_error_is_at_the_ratio_of_the_best():
    path = made_up(LOSSES)
    assert (path.best["strength"], path.best["l1_ratio"]) == (0.1, 0.5)
    one = path.one_standard_error
    assert (one["strength"], one["l1_ratio"]) == (1.0, 0.5)
    # The other ratio's would be stronger in L2.
    assert path.records[0]["val_data_loss"] <= 3


def test_the_table_and_the_file_have_the_ratio(tmp_path):
    path = made_up(LOSSES)
    assert str(path).splitlines() == [
        "strength | l1_ratio | val_data_loss |",
        "---------+----------+---------------+-------------------",
        "       1 |        0 |    2.75 ±0.25 |",
        "     0.1 |        0 |      3.5 ±0.5 |",
        "       2 |      0.5 |      8.5 ±0.5 |",
        "       1 |      0.5 |      2.9 ±0.3 | one standard error",
        "     0.1 |      0.5 |          2 ±1 | best",
        "       0 |      0.5 |      2.6 ±0.1 |",
        "no penalty at all is within one standard error of the best",
    ]
    assert repr(path) == "<L2Path of 6 strengths, best strength=0.1, l1_ratio=0.5>"
    path.to_csv(tmp_path / "path.csv")
    table = pandas.read_csv(tmp_path / "path.csv")
    assert [*table.columns][:5] == ["strength", "l1_ratio", "l1", "l2", "folds"]
    np.testing.assert_allclose(table["l1"], table["strength"] * table["l1_ratio"])
    np.testing.assert_allclose(table["l1"] + table["l2"], table["strength"])


def test_the_table_says_if_the_best_is_at_the_edge_of_its_ratio():
    assert "try stronger" in str(made_up({(1.0, 0.0): [3, 3], (0.5, 1.0): [1, 2]}))
    edge = {(1.0, 0.0): [3, 3], (0.5, 1.0): [3, 3], (0.4, 1.0): [1, 2]}
    assert "try weaker" in str(made_up(edge))
    assert "try stronger" not in str(made_up(edge))


@pytest.mark.slow
def test_an_error_says_which_mixes_are_missing():
    with pytest.raises(RuntimeError, match="no memory") as caught:
        path_of(wrapper(), [0.3, 0.1], l1_ratio=[0, 0.5, 1], callbacks=[Fail(4)])
    (note,) = caught.value.__notes__
    assert "3 of 6 runs" in note
    assert "l2=[0.1], l1_ratio=0.5; l2=[0.3, 0.1], l1_ratio=1.0" in note


def test_the_plot_has_a_line_for_each_ratio():
    path = made_up(LOSSES)
    (ax,) = plot_path(path).axes
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == [
        "l1_ratio = 0",
        "l1_ratio = 0.5",
        "best:\nstrength = 0.1, l1_ratio = 0.5",
        "one standard error:\nstrength = 1, l1_ratio = 0.5",
    ]
    assert ax.get_legend().get_title().get_text() == (
        "mean ± standard error of 2 folds"
    )
    lines = {line.get_label(): line for line in ax.lines}
    for ratio in (0.0, 0.5):
        drawn = [
            [r["strength"], r["val_data_loss"]]
            for r in path.records
            if r["l1_ratio"] == ratio
        ]
        np.testing.assert_allclose(lines[f"l1_ratio = {ratio:g}"].get_xydata(), drawn)
    first, second = (lines[name] for name in legend[:2])
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()


def test_the_plot_of_a_mixed_path_fits_into_a_small_figure():
    from matplotlib.figure import Figure

    for size in ((4.5, 4), (9, 6)):
        figure = plot_path(made_up(LOSSES), Figure(size, layout="constrained"))
        figure.draw_without_rendering()
        (ax,) = figure.axes
        for part in (ax.get_legend(), ax.xaxis.label, ax.yaxis.label):
            box = part.get_window_extent()
            assert box.x0 >= 0 and box.x1 <= figure.bbox.x1


# -------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("model", "l1_ratio", "error", "message"),
    [
        (None, 1.5, ValueError, r"in \[0, 1\].*l1_ratio=1.5"),
        (None, -0.1, ValueError, "l1_ratio=-0.1"),
        (None, "0.5", TypeError, "without quotes"),
        (None, True, TypeError, "l1_ratio=True"),
        (None, None, TypeError, "l1_ratio=None"),
        (None, [], ValueError, r"l1_ratio=\[\]"),
        (None, [0.5, float("nan")], ValueError, "l1_ratio=nan"),
        (lambda: L2AllWeights(network(), 0.7), 0.5, ValueError, r"l2=0.*, l1=0\.0\)"),
    ],
)
def test_a_bad_ratio_is_refused_before_anything_is_changed(
    model, l1_ratio, error, message
):
    model = compiled(network(0.7) if model is None else model())
    config = model.get_config()
    with pytest.raises(error, match=message):
        path_of(model, l1_ratio=l1_ratio)
    assert not model.optimizer.built
    assert model.get_config() == config
