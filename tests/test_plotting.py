"""The plots: matplotlib's artists compared with the data; labels, legends, files."""

import sys

import keras
import numpy as np
import pandas
import pytest
from disk import full_disk
from keras import layers
from matplotlib import pyplot
from matplotlib.figure import Figure
from PIL import Image

from keras_l2reg import L2AllWeights, L2Path, PenaltyLogger, l2_path
from keras_l2reg.plotting import (
    plot_norms,
    plot_path,
    plot_penalties,
    plot_weights,
    save_picture,
    weight_norms,
)

EPOCHS = 5
PENALTIES = {
    f"penalty/layer_{k}/kernel": [(k + 1) / (epoch + 1) for epoch in range(EPOCHS)]
    for k in range(8)
}
NORMS = {
    "before": {"hidden/kernel": 4.0, "output/kernel": 2.0},
    "after": {"hidden/kernel": 3.0, "output/kernel": 1.0},
}


def path_of(strengths=(1.0, 0.1, 0.01), repeats=3, metrics=("accuracy",), diverged=()):
    """A path with its best at 0.1, and 1.0 within one standard error of that."""
    rng = np.random.default_rng(0)
    runs = []
    for l2 in strengths:
        for repeat in range(repeats):
            noise = (repeat - (repeats - 1) / 2) * (1 + l2)
            loss = 2 + 0.2 * abs(np.log10(l2 + 1e-4) + 1) + noise
            values = {"data_loss": 1.0, "val_data_loss": loss, "val_loss": loss + 1}
            values |= {f"val_{name}": rng.uniform() for name in metrics}
            if l2 in diverged:
                values = dict.fromkeys(values, float("nan"))
            runs.append({"l2": l2, "repeat": repeat, **values})
    return L2Path(runs)


def every_picture():
    return {
        "stack": plot_penalties(PENALTIES),
        "lines": plot_penalties(PENALTIES, log=True),
        "path": plot_path(path_of(diverged=[1.0])),
        "weights": plot_weights(NORMS),
    }


def grey(color):
    """The luminance of a color in black and white (ITU-R 601)."""
    return float(np.dot(color[:3], [0.299, 0.587, 0.114]))


def legend_of(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


# ------------------------------------------------------------------- penalties


def test_the_stack_adds_up_the_penalties():
    ax = plot_penalties(PENALTIES)
    edges = np.cumsum([np.zeros(EPOCHS), *PENALTIES.values()], axis=0)
    assert len(ax.collections) == len(PENALTIES)
    for k, band in enumerate(ax.collections):
        corners = band.get_paths()[0].vertices
        for epoch in range(EPOCHS):
            y = corners[corners[:, 0] == epoch + 1, 1]
            np.testing.assert_allclose(
                [y.min(), y.max()], edges[k : k + 2, epoch], rtol=1e-12
            )
    assert ax.get_xlim() == (1, EPOCHS)
    assert ax.get_ylim()[0] == 0


def test_lines_on_a_log_scale_show_the_penalties():
    ax = plot_penalties(PENALTIES, log=True)
    assert ax.get_yscale() == "log"
    for line, values in zip(ax.lines, PENALTIES.values(), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, EPOCHS + 1))
        np.testing.assert_array_equal(line.get_ydata(), values)


@pytest.mark.parametrize("log", [False, True])
def test_the_plot_of_penalties_has_labels_and_units(log):
    ax = plot_penalties(PENALTIES, log=log)
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "penalty (units of the loss)"
    # From top to bottom, in the order of the stack.
    assert legend_of(ax) == [f"layer_{k}/kernel" for k in reversed(range(8))]


@pytest.mark.parametrize("log", [False, True])
def test_the_penalties_of_a_single_epoch_are_visible(log):
    ax = plot_penalties({"penalty/a/kernel": [2.0]}, log=log)
    assert ax.get_xlim() == (0.5, 1.5)
    assert [t for t in ax.get_xticks() if 0.5 <= t <= 1.5] == [1]
    if not log:
        corners = ax.collections[0].get_paths()[0].vertices
        np.testing.assert_array_equal(np.ptp(corners, axis=0), [1, 2])


def test_of_many_weights_the_smallest_penalties_are_summed():
    history = {f"penalty/w{k}": [1.0 + k, 2.0 + k] for k in range(30)}
    ax = plot_penalties(history, log=True)
    assert legend_of(ax) == [f"w{k}" for k in range(29, 18, -1)] + ["19 others"]
    others = np.sum([history[f"penalty/w{k}"] for k in range(19)], axis=0)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), others)


def test_the_history_of_a_fit_is_plotted():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="out")])
    wrapped = L2AllWeights(model, 0.01)
    wrapped.compile("sgd", "mse")
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    history = wrapped.fit(x, y, epochs=2, verbose=0, callbacks=[PenaltyLogger()])
    ax = plot_penalties(history, log=True)
    np.testing.assert_array_equal(
        ax.lines[0].get_ydata(), history.history["penalty/out/kernel"]
    )
    assert legend_of(ax) == ["out/kernel"]


def test_a_history_without_penalties_is_refused():
    with pytest.raises(ValueError, match=r"PenaltyLogger.*Received.*'loss'"):
        plot_penalties({"loss": [1.0]})


# ------------------------------------------------------------------------ path


def test_a_path_is_drawn_with_the_means_and_errors_of_pandas():
    path = path_of(strengths=[1.0, 0.1, 0.01, 0.0])
    groups = pandas.DataFrame(path.runs).groupby("l2")
    axes = plot_path(path).axes
    for ax, key in zip(axes, ["val_data_loss", "val_accuracy"], strict=True):
        mean, error = groups[key].mean(), groups[key].sem()
        x, y = ax.lines[0].get_data()
        np.testing.assert_array_equal(x, mean.index[::-1])
        np.testing.assert_allclose(y, mean.to_numpy()[::-1], rtol=1e-12)
        bars = np.array(ax.collections[0].get_segments())
        np.testing.assert_array_equal(bars[:, :, 0], np.stack([x, x], 1))
        ends = np.stack([mean - error, mean + error], 1)[::-1]
        np.testing.assert_allclose(bars[:, :, 1], ends, rtol=1e-12)


def test_the_plot_of_a_path_has_labels_and_units():
    axes = plot_path(path_of(metrics=["accuracy", "auc"])).axes
    assert [ax.get_ylabel() for ax in axes] == [
        "val_data_loss\n(units of the loss)",
        "val_accuracy\n(share, 0 to 1)",
        "val_auc",
    ]
    assert axes[-1].get_xlabel() == "strength l2 (units of the loss per squared weight)"
    assert axes[-1].get_xscale() == "log"


def test_without_metrics_there_is_one_panel():
    assert len(plot_path(path_of(metrics=[])).axes) == 1


def test_the_monitored_metric_comes_first():
    path = L2Path(path_of().runs, "val_accuracy", "max")
    labels = [ax.get_ylabel() for ax in plot_path(path).axes]
    assert labels[0].startswith("val_accuracy")
    assert labels[1].startswith("val_data_loss")


def test_best_and_one_standard_error_are_marked():
    for ax in plot_path(path_of()).axes:
        best, one_error = ax.lines[-2:]
        assert best.get_xdata() == [0.1, 0.1]
        assert one_error.get_xdata() == [1.0, 1.0]
        # Distinct from each other and from the curve in black and white.
        styles = {line.get_linestyle() for line in (ax.lines[0], best, one_error)}
        assert styles == {"-", "--", ":"}
    assert legend_of(plot_path(path_of()).axes[0]) == [
        "mean ± standard error of 3 runs",
        "best: l2 = 0.1",
        "one standard error: l2 = 1",
    ]


def test_the_best_strength_may_be_that_within_one_standard_error():
    ax = plot_path(path_of([0.1, 0.01])).axes[0]
    assert legend_of(ax)[1:] == ["best, one standard error: l2 = 0.1"]


def test_a_single_run_has_no_error_bar():
    ax = plot_path(path_of(repeats=1)).axes[0]
    assert legend_of(ax) == ["one run", "best: l2 = 0.1"]
    # matplotlib does not draw a bar whose ends are NaN.
    bars = ax.collections[0].get_segments()
    assert not np.isfinite([end for bar in bars for end in bar]).any()


def test_strength_0_is_drawn_to_the_left_of_the_others():
    strengths = [1.0, 0.1, 0.003, 0.0]
    figure = plot_path(path_of(strengths))
    ax = figure.axes[-1]
    figure.draw_without_rendering()
    at = ax.transAxes.inverted().transform(
        ax.transData.transform([[l2, 0.5] for l2 in strengths])
    )[:, 0]
    assert (np.diff(at) < -0.1).all(), "apart"
    assert at.min() > 0 and at.max() < 1, "inside"
    low, high = ax.get_xlim()
    ticks = [t for t in ax.get_xticks() if low <= t <= high]
    np.testing.assert_allclose(ticks, [0, 0.01, 0.1, 1])
    assert ax.get_xticklabels()[0].get_text() in ("0", r"$\mathdefault{0}$")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("strengths", [[0.0], [0.02], [0.03, 0.02], [0.01, 0.0]])
def test_few_strengths_are_inside_the_axes(strengths):
    figure = plot_path(path_of(strengths))
    figure.draw_without_rendering()
    low, high = figure.axes[0].get_xlim()
    assert low < min(strengths) <= max(strengths) < high


def test_diverged_strengths_are_marked_with_crosses():
    for ax in plot_path(path_of(diverged=[1.0])).axes:
        curve = ax.lines[0]
        (crosses,) = (line for line in ax.lines if line.get_label() == "diverged")
        assert list(curve.get_xdata()) == [0.1, 0.01]
        assert np.isfinite(curve.get_ydata()).all()
        assert list(crosses.get_xdata()) == [1.0]
        assert (crosses.get_marker(), crosses.get_linestyle()) == ("x", "None")
        low, high = ax.get_xlim()
        assert low < 1.0 < high
    assert "diverged" in legend_of(plot_path(path_of(diverged=[1.0])).axes[0])


def test_a_metric_that_is_not_finite_is_not_marked_as_diverged():
    path = path_of()
    for run in path.runs:
        if run["l2"] == 0.01:
            run["val_accuracy"] = float("nan")
    loss, accuracy = plot_path(path).axes
    assert [line.get_label() for line in loss.lines].count("not finite") == 0
    (mark,) = (line for line in accuracy.lines if line.get_label() == "not finite")
    assert list(mark.get_xdata()) == [0.01]
    # The legend has an entry for a mark that is in the lower panel only.
    assert "not finite" in legend_of(loss) and "diverged" not in legend_of(loss)
    assert len(legend_of(loss)) == len({*legend_of(loss)})


@pytest.mark.filterwarnings("error")
def test_a_path_whose_runs_all_diverged_is_plotted(tmp_path):
    figure = plot_path(path_of(diverged=[1.0, 0.1, 0.01]))
    save_picture(figure, tmp_path / "path.png")
    assert legend_of(figure.axes[0])[1:] == ["diverged"]


def test_the_path_of_a_model_plots_itself():
    x = np.linspace(-1, 1, 16, dtype="float32")[:, None]
    model = keras.Sequential([keras.Input((1,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"])
    path = l2_path(model, x, x, [1.0, 0.0], (x, x), epochs=1, repeats=2, verbose=0)
    axes = path.plot().axes
    for ax, key in zip(axes, ["val_data_loss", "val_mae"], strict=True):
        drawn = [[r["l2"], r[key]] for r in path.records]
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), drawn)


def test_a_path_is_drawn_on_a_given_figure(tmp_path):
    left, right = Figure(figsize=(10, 4), layout="constrained").subfigures(1, 2)
    assert plot_path(path_of(), figure=right) is right
    assert len(right.axes) == 2 and not left.axes
    save_picture(right.axes[0], tmp_path / "both.png")
    with Image.open(tmp_path / "both.png") as image:
        assert image.size == (1000, 400)


@pytest.mark.parametrize("width", [5, 6.4])
@pytest.mark.parametrize("strengths", [(1.0, 0.1, 0.01), (0.1, 0.01)])
def test_the_legend_of_a_path_is_not_cut_off(width, strengths):
    whole = Figure(figsize=(2 * width, 4), layout="constrained")
    figure = plot_path(path_of(strengths, diverged=[1.0]), whole.subfigures(1, 2)[1])
    whole.draw_without_rendering()
    legend = figure.axes[0].get_legend().get_window_extent()
    assert figure.bbox.x0 <= legend.x0 and legend.x1 <= figure.bbox.x1


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="at least one run"):
        plot_path(L2Path([]))


# --------------------------------------------------------------------- weights


def watched(weights=3, epochs=4):
    names = [f"layer_{k}/kernel" for k in range(weights)]
    falling = np.geomspace(1.0, 0.1, epochs)
    history = {f"norm/{n}": (k + 1) * falling for k, n in enumerate(names)}
    history |= {f"update/{n}": falling / (k + 2) for k, n in enumerate(names)}
    return history | {f"effective_rate/{names[0]}": 0.1 / falling**2}


def test_norms_updates_and_effective_rates_have_a_panel_each():
    history = watched()
    norms, updates, rates = plot_norms(history).axes
    for ax, prefix in ((norms, "norm/"), (updates, "update/")):
        drawn = {line.get_label(): line.get_ydata() for line in ax.lines}
        assert len(drawn) == 3
        for name, values in drawn.items():
            np.testing.assert_array_equal(values, history[prefix + name])
    (rate,) = rates.lines
    style = {line.get_label(): line.get_color() for line in norms.lines}
    assert list(rate.get_color()) == list(style[rate.get_label()])
    assert all(ax.get_ylabel() for ax in (norms, updates, rates))


def test_of_many_weights_the_largest_norms_are_drawn():
    norms, *_ = plot_norms(watched(weights=20)).axes
    drawn = {line.get_label() for line in norms.lines}
    assert drawn == {f"layer_{k}/kernel" for k in range(8, 20)}


def test_a_history_without_norms_is_refused():
    with pytest.raises(ValueError, match=r"PenaltyLogger\(norms=True\)"):
        plot_norms({"penalty/out/kernel": [1.0]})


def test_norms_equal_those_of_numpy():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, name="conv"),
            layers.Flatten(),
            layers.Dense(2, name="out", dtype="float16"),
        ]
    )
    kernels = {
        f"{name}/kernel": np.asarray(
            keras.ops.convert_to_numpy(model.get_layer(name).kernel), "float64"
        )
        for name in ("conv", "out")
    }
    assert weight_norms(L2AllWeights(model)) == pytest.approx(
        {name: np.linalg.norm(kernel) for name, kernel in kernels.items()}, rel=1e-6
    )


def test_the_norms_of_an_unbuilt_model_are_refused():
    with pytest.raises(ValueError, match=r"built.*dense/kernel"):
        weight_norms(keras.Sequential([layers.Dense(2, name="dense")]))


def test_the_norms_of_a_weight_are_drawn_side_by_side():
    ax = plot_weights(NORMS)
    assert [bar.get_width() for bar in ax.patches] == [4.0, 2.0, 3.0, 1.0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["hidden/kernel", "output/kernel"]
    bottom, top = ax.get_ylim()
    assert bottom > top, "the first weight is on top"
    tops = [round(bar.get_y(), 6) for bar in ax.patches]
    assert sorted(tops) == [tops[0], tops[2], tops[1], tops[3]]
    assert legend_of(ax) == ["before", "after"]
    assert ax.get_xlabel() == "norm, sqrt(sum(w²)) (units of the weights)"
    assert ax.get_ylabel() == "weight"


def test_a_weight_missing_at_one_time_leaves_a_gap():
    ax = plot_weights({"before": {"a": 1.0}, "after": {"a": 2.0, "b": 3.0}})
    widths = [bar.get_width() for bar in ax.patches]
    np.testing.assert_array_equal(widths, [1, np.nan, 2, 3])


@pytest.mark.parametrize("norms", [{}, {"before": {}}])
def test_empty_norms_are_refused(norms):
    with pytest.raises(ValueError, match="Expected norms such as"):
        plot_weights(norms)


# ------------------------------------------------------------------- all plots


def test_plots_can_be_read_in_black_and_white():
    pictures = every_picture()
    bands = pictures["stack"].collections
    assert len({band.get_hatch() for band in bands}) == len(bands)
    shades = [grey(band.get_facecolor()[0]) for band in bands]
    assert (np.diff(shades) > 0.02).all()
    lines = pictures["lines"].lines
    assert len({line.get_marker() for line in lines}) == len(lines)
    before, after = (bars.patches[0] for bars in pictures["weights"].containers)
    assert before.get_hatch() != after.get_hatch()
    assert abs(grey(before.get_facecolor()) - grey(after.get_facecolor())) > 0.3


def test_pyplot_does_not_keep_the_figures():
    known = pyplot.get_fignums()
    every_picture()
    assert pyplot.get_fignums() == known


def test_plots_are_drawn_on_given_axes():
    axes = Figure().subplots(1, 2)
    assert plot_penalties(PENALTIES, ax=axes[0]) is axes[0]
    assert plot_weights(NORMS, ax=axes[1]) is axes[1]


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot_penalties(PENALTIES),
        lambda: plot_path(path_of()),
        lambda: plot_weights(NORMS),
    ],
)
def test_without_matplotlib_the_error_names_the_extra(monkeypatch, draw):
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'keras_l2reg\[plot\]'"):
        draw()


# ---------------------------------------------------------------------- saving


def test_saved_pictures_are_not_blank(tmp_path):
    for name, picture in every_picture().items():
        file = tmp_path / f"{name}.png"
        save_picture(picture, file, dpi=50)
        with Image.open(file) as image:
            assert image.format == "PNG"
            width, height = picture.figure.get_size_inches() * 50
            assert image.size == (int(width), int(height))
            assert len(np.unique(np.asarray(image.convert("L")))) > 10
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("suffix, start", [("pdf", b"%PDF"), ("svg", b"<?xml")])
def test_the_suffix_sets_the_format(tmp_path, suffix, start):
    save_picture(plot_weights(NORMS), tmp_path / f"norms.{suffix}")
    assert (tmp_path / f"norms.{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_on_a_full_disk_save_picture_keeps_the_old_file(tmp_path, suffix):
    file = tmp_path / f"path.{suffix}"
    file.write_text("old")
    figure = plot_path(path_of())
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        save_picture(figure, file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_an_unknown_format_creates_no_file(tmp_path):
    with pytest.raises(ValueError, match="'docx' is not supported"):
        save_picture(plot_weights(NORMS), tmp_path / "norms.docx")
    assert not list(tmp_path.iterdir())
