"""plot_path: plot the metrics of a path against the strength, with matplotlib."""

import math
from typing import TYPE_CHECKING

from keras_l2reg._figures import LEGEND_ABOVE, new_figure
from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.records import Record, is_mixed, ratio_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from keras_l2reg._path.result import L2Path

_COLORS = ("black", "tab:orange", "tab:purple", "tab:gray", "tab:green")
_MARKERS = "os^vDXP"


def plot_path(
    path: "L2Path", figure: "Figure | SubFigure | None" = None
) -> "Figure | SubFigure":
    """Plot the validation loss and metrics of a path against the strength.

    Each metric has a panel with `mean(l2) ± se(l2)`, on a shared logarithmic axis; of a
    path with `l1_ratio`, a line for each ratio, over the strength `l1 + l2`.

    Vertical lines mark the best strength and the strongest one within one standard
    error of it. Crosses at the lower edge mark strengths with runs that diverged,
    triangles those where only this metric is not finite. A strength of 0 is drawn to
    the left of the others; from 0 to the weakest the axis is linear.

    Args:
        path: The `L2Path` that `l2_path` returned.
        figure: `matplotlib.figure.Figure` or `SubFigure` to draw on, best with
            `layout="constrained"`. Defaults to `None`, a new figure.

    Returns:
        The figure; its `axes` are those of the monitored metric, then of the others.
        `save_picture(figure, "path.png")` saves it.

    Raises:
        ValueError: the path has no runs.
        ImportError: matplotlib is missing.

    Example:

    >>> from keras_l2reg import L2Path
    >>> figure = plot_path(L2Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 2.5},
    ...                          {"l2": 0.1, "repeat": 0, "val_data_loss": 1.5}]))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['val_data_loss\\n(units of the loss)']

    References:
        - The plots of `cv.glmnet` in [glmnet](https://glmnet.stanford.edu)
    """
    if not path.records:
        raise ValueError(
            f"Expected a path with at least one run. Received: {path!r}; `l2_path` "
            "returns one with a run for each strength"
        )
    keys = _drawn_keys(path)
    figure = new_figure(1.5 + 2.1 * len(keys)) if figure is None else figure
    axes = figure.subplots(len(keys), sharex=True, squeeze=False)[:, 0]
    _scale_strengths(path, axes[-1])
    for ax, key in zip(axes, keys, strict=True):
        _draw_metric(path, key, ax)
        _mark_strengths(path, ax)
    # One legend for all panels, since some marks may be in a lower panel only.
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    is_narrow = figure.bbox.width < 6 * figure.dpi
    style = {**LEGEND_ABOVE, "ncols": 1 if is_narrow else 2}
    if is_mixed(path.records):
        style |= {"title": _averaged(path), "title_fontsize": "small"}
    axes[0].legend([*entries.values()], [*entries], **style)
    figure.align_ylabels()
    return figure


def _drawn_keys(path: "L2Path") -> list[str]:
    """The monitored metric, then the other validation metrics."""
    record = path.records[0]
    measured = [key for key in record if f"{key}_se" in record]
    metrics = [
        key
        for key in measured
        if key.startswith("val_") and key not in ("val_loss", "val_penalty")
    ]
    return [*dict.fromkeys([path.monitor, *metrics])]


def _draw_metric(path: "L2Path", key: str, ax: "Axes") -> None:
    lines: dict[float | None, list[Record]] = {}
    for record in path.records:
        lines.setdefault(ratio_of(record), []).append(record)
    for index, (ratio, records) in enumerate(lines.items()):
        label = _averaged(path) if ratio is None else f"l1_ratio = {ratio:g}"
        # The colors are also of different lightness, for black and white.
        color = _COLORS[index % len(_COLORS)]
        marker = _MARKERS[index % len(_MARKERS)]
        _draw_line(records, key, label, color, marker, ax)
    if not any(math.isfinite(r[key]) for r in path.records):
        ax.set_yticks([])
    ax.set_ylabel(key + _unit(key))


def _averaged(path: "L2Path") -> str:
    """What is drawn: the mean of how many folds or runs."""
    of = "folds" if any("folds" in r for r in path.records) else "repeats"
    count = max(r[of] for r in path.records)
    name = {"folds": "fold", "repeats": "run"}[of]
    return f"mean ± standard error of {count} {name}s" if count > 1 else f"one {name}"


def _draw_line(
    records: list[Record], key: str, label: str, color: str, marker: str, ax: "Axes"
) -> None:
    """Draw a metric at the strengths of one ratio."""
    finite = [r for r in records if math.isfinite(r[key])]
    x, y = [point_of(r).strength for r in finite], [r[key] for r in finite]
    errors = [r[f"{key}_se"] for r in finite]
    ax.plot(x, y, color=color, marker=marker, label=label)
    ax.errorbar(x, y, errors, fmt="none", ecolor=color, capsize=5)
    others = [r for r in records if not math.isfinite(r[key])]
    for name, mark, diverged in [("diverged", "x", True), ("not finite", "^", False)]:
        marked = [
            point_of(r).strength for r in others if bool(r["diverged"]) is diverged
        ]
        _mark_edge(marked, name, mark, color, ax)


def _mark_edge(
    strengths: list[float], label: str, marker: str, color: str, ax: "Axes"
) -> None:
    """Mark strengths at the lower edge of the panel."""
    if strengths:
        ax.plot(
            strengths,
            [0.0] * len(strengths),
            label=label,
            color=color,
            linestyle="none",
            marker=marker,
            markersize=9,
            markerfacecolor="white",
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            zorder=3,
        )


def _unit(key: str) -> str:
    if key.endswith(("loss", "penalty")):
        return "\n(units of the loss)"
    return "\n(share, 0 to 1)" if key.endswith("accuracy") else ""


def _mark_strengths(path: "L2Path", ax: "Axes") -> None:
    names: dict[Point, list[str]] = {}
    for name in ("best", "one_standard_error"):
        if record := getattr(path, name):
            names.setdefault(point_of(record), []).append(name.replace("_", " "))
    for point, style in zip(names, ("--", ":"), strict=False):
        separator = " " if point.l1_ratio is None else "\n"
        what = str(point).replace("=", " = ")
        label = f"{', '.join(names[point])}:{separator}{what}"
        ax.axvline(
            point.strength, color="tab:blue", linestyle=style, zorder=1, label=label
        )


_MIXED_LABEL = "strength l1 + l2\n(units of the loss per |weight| and weight²)"
_LABELS = {
    "l2": "strength l2 (units of the loss per squared weight)",
    "weight_decay": "weight_decay (per step and unit of the learning rate)",
}


def _scale_strengths(path: "L2Path", ax: "Axes") -> None:
    strengths = [point_of(r).strength for r in path.records]
    positive = [l2 for l2 in strengths if l2 > 0] or [1.0]
    low, high = min(positive), max(positive)
    if 0 in strengths:
        ax.set_xscale("symlog", linthresh=low)
    else:
        ax.set_xscale("log")
        # The default limits of matplotlib fail for a single strength.
        ax.set_xlim(low / 1.5, 1.5 * high)
    # The default ticks of matplotlib may be between 0 and the weakest strength.
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    decades = [10.0**k for k in range(first, last + 1)] or [low, high]
    ax.set_xticks([*[0.0] * (0 in strengths), *decades])
    between = [n * 10.0**k for k in range(first - 1, last + 1) for n in range(2, 10)]
    between = [l2 for l2 in between if low < l2 < high]
    ax.set_xticks(between, [""] * len(between), minor=True)
    label = _LABELS[point_of(path.records[0]).name]
    ax.set_xlabel(_MIXED_LABEL if is_mixed(path.records) else label)
