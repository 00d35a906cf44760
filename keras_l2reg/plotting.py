"""Pictures (matplotlib) of penalties over epochs, metrics over strengths, norms.

>>> history = {"penalty/hidden/kernel": [3.0, 2.0, 1.5],
...            "penalty/output/kernel": [1.0, 1.0, 0.5]}
>>> ax = plot_penalties(history)
>>> ax.get_xlabel(), ax.get_ylabel()
('epoch', 'penalty (units of the loss)')

`plot_path` draws what `l2_path` measured, `plot_weights` the norms of the weights
before and after; `save_picture` saves what any of them returned. In a notebook, what
they return shows itself as the last expression of a cell. All of them can be read in a
print without colours.
"""

import math

import numpy as np

from keras_l2reg._figures import new_axes, new_figure, save_picture
from keras_l2reg._selection import select_weights
from keras_l2reg._squares import sum_of_squares

__all__ = [
    "plot_path",
    "plot_penalties",
    "plot_weights",
    "save_picture",
    "weight_norms",
]

_PREFIX = "penalty/"
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "|||", "ooo", "---")
_MARKERS = "os^vDXP*"
_LEGEND = {"fontsize": "small", "frameon": False}
_ABOVE = {**_LEGEND, "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}


# ------------------------------------------------------------------- penalties


def plot_penalties(history, log=False, ax=None):
    """Each weight's penalty over the epochs, stacked; or as lines on a log scale.

    `band_k(epoch) = penalty_k`, the upper edge of the pile is the whole penalty;
    of more than 12 weights, those with the smallest penalties are one band

    Args:
        history: What `fit` returned with a `PenaltyLogger` among its callbacks, or
            its `.history` dict.
        log: Boolean, whether to draw lines over a logarithmic axis: a pile has no
            meaning there. Defaults to `False`.
        ax: `matplotlib.axes.Axes` to draw on. Defaults to `None`, a new figure.

    Returns:
        The axes; `save_picture(ax, "penalties.png")` saves the picture.

    Raises:
        ValueError: the history has no `penalty/...` keys.
        ImportError: matplotlib is missing.

    Example:

    >>> ax = plot_penalties({"penalty/out/kernel": [2.0, 1.0]}, log=True)
    >>> ax.get_yscale()
    'log'

    Source: `matplotlib.axes.Axes.stackplot`.
    """
    history = getattr(history, "history", history)
    bands = {
        key.removeprefix(_PREFIX): values
        for key, values in history.items()
        if key.startswith(_PREFIX)
    }
    if not bands:
        raise ValueError(
            "Expected a history with keys such as 'penalty/hidden/kernel', which the "
            f"callback `PenaltyLogger` adds. Received: the keys {sorted(history)}; "
            "train with `fit(..., callbacks=[PenaltyLogger()])`"
        )
    bands = _largest(bands, 12)
    ax = new_axes() if ax is None else ax
    epochs = np.arange(1, 1 + len(next(iter(bands.values()))))
    colors = _shades(len(bands))
    if log:
        spaced = max(1, len(epochs) // 20)
        for k, (name, values) in enumerate(bands.items()):
            style = {"marker": _MARKERS[k % len(_MARKERS)], "markevery": spaced}
            ax.plot(epochs, values, color=colors[k], label=name, **style)
        ax.set_yscale("log")
    else:
        if len(epochs) == 1:
            # A pile of one epoch would have no width.
            epochs = np.array([0.5, 1.5])
            bands = {name: [*values, *values] for name, values in bands.items()}
        piles = ax.stackplot(epochs, *bands.values(), colors=colors, labels=[*bands])
        for pile, hatch in zip(piles, _HATCHES * len(piles), strict=False):
            pile.set(hatch=hatch, edgecolor="white", linewidth=0.5)
        ax.set_ylim(bottom=0)
    ax.set(xlabel="epoch", ylabel="penalty (units of the loss)")
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    ax.set_xlim(*(epochs[[0, -1]] if len(epochs) > 1 else (0.5, 1.5)))
    # A pile grows upwards, so the legend lists its uppermost band first; it stands
    # outside, where it hides nothing.
    handles, names = (entries[::-1] for entries in ax.get_legend_handles_labels())
    ax.legend(handles, names, loc="upper left", bbox_to_anchor=(1, 1), **_LEGEND)
    return ax


def _largest(bands, count):
    """As many bands, the smallest of them summed up in one if there are more."""
    if len(bands) <= count:
        return bands
    by_size = sorted(bands, key=lambda name: np.nanmax(bands[name]), reverse=True)
    kept = {name: bands[name] for name in bands if name in by_size[: count - 1]}
    others = [bands[name] for name in by_size[count - 1 :]]
    return {f"{len(others)} others": np.sum(others, axis=0), **kept}


def _shades(count):
    """So many colours from dark to light, which a print in grey keeps apart."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, count))


# ------------------------------------------------------------------------ path


def plot_path(path, figure=None):
    """The validation loss and metrics of a path against the strength.

    `mean(l2) ± se(l2)` of each metric, one above the other, over one log axis

    Vertical lines mark the best strength and the strongest within one standard
    error of it; crosses at the lower edge mark strengths with runs that diverged,
    triangles those where the metric alone is not finite. If a strength is 0, it stands
    left of the weakest of the others, on an axis that is linear between the two.

    Args:
        path: The `L2Path` that `l2_path` returned.
        figure: `matplotlib.figure.Figure` or `SubFigure` to draw on, best with
            `layout="constrained"`. Defaults to `None`, a new one.

    Returns:
        The figure; its `axes` are the validation loss, then a metric each.
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

    Source: the plots of glmnet's `cv.glmnet`, https://glmnet.stanford.edu
    """
    if not path.records:
        raise ValueError(
            f"Expected a path with at least one run. Received: {path!r}; the first "
            "value that `l2_path` returns is one"
        )
    keys = _drawn_keys(path)
    figure = new_figure(1.5 + 2.1 * len(keys)) if figure is None else figure
    axes = figure.subplots(len(keys), sharex=True, squeeze=False)[:, 0]
    _scale_strengths(path, axes[-1])
    for ax, key in zip(axes, keys, strict=True):
        _draw_metric(path, key, ax)
        _mark_strengths(path, ax)
    # A mark may be in one of the lower panels only.
    entries = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    axes[0].legend(entries.values(), entries.keys(), **_ABOVE)
    figure.align_ylabels()
    return figure


def _drawn_keys(path):
    """The monitored metric, then what else was measured on validation data."""
    record = path.records[0]
    measured = [key for key in record if f"{key}_se" in record]
    metrics = [
        key
        for key in measured
        if key.startswith("val_") and key not in ("val_loss", "val_penalty")
    ]
    return [*dict.fromkeys([path.monitor, *metrics])]


def _draw_metric(path, key, ax):
    sound = [r for r in path.records if math.isfinite(r[key])]
    lost = [r for r in path.records if not math.isfinite(r[key])]
    repeats = max(r["repeats"] for r in path.records)
    label = f"mean ± standard error of {repeats} runs" if repeats > 1 else "one run"
    x, y = [r["l2"] for r in sound], [r[key] for r in sound]
    errors = [r[f"{key}_se"] for r in sound]
    ax.plot(x, y, color="black", marker="o", label=label)
    ax.errorbar(x, y, errors, fmt="none", ecolor="black", capsize=5)
    at_the_edge = {"transform": ax.get_xaxis_transform(), "clip_on": False}
    for label, marker, has_diverged in (("diverged", "x", 1), ("not finite", "^", 0)):
        marked = [r["l2"] for r in lost if bool(r["diverged"]) == has_diverged]
        style = {"linestyle": "none", "marker": marker, "markersize": 9, **at_the_edge}
        style |= {"markerfacecolor": "white", "zorder": 3}
        if marked:
            zeros = [0.0] * len(marked)
            ax.plot(marked, zeros, color="black", label=label, **style)
    if not sound:
        ax.set_yticks([])
    ax.set_ylabel(key + _unit(key))


def _unit(key):
    if key.endswith(("loss", "penalty")):
        return "\n(units of the loss)"
    return "\n(share, 0 to 1)" if key.endswith("accuracy") else ""


def _mark_strengths(path, ax):
    names = {}
    for name in ("best", "one_standard_error"):
        if record := getattr(path, name):
            names.setdefault(record["l2"], []).append(name.replace("_", " "))
    for l2, style in zip(names, ("--", ":"), strict=False):
        label = f"{', '.join(names[l2])}: l2 = {l2:.4g}"
        ax.axvline(l2, color="tab:blue", linestyle=style, zorder=1, label=label)


def _scale_strengths(path, ax):
    strengths = [r["l2"] for r in path.records]
    positive = [l2 for l2 in strengths if l2 > 0] or [1.0]
    low, high = min(positive), max(positive)
    if 0 in strengths:
        ax.set_xscale("symlog", linthresh=low)
    else:
        ax.set_xscale("log")
        # Limits of our own: matplotlib's fail for a single strength.
        ax.set_xlim(low / 1.5, 1.5 * high)
    # Ticks of our own: matplotlib's may stand between 0 and the weakest strength.
    first, last = math.ceil(math.log10(low)), math.floor(math.log10(high))
    decades = [10.0**k for k in range(first, last + 1)] or [low, high]
    ax.set_xticks([*[0.0] * (0 in strengths), *decades])
    between = [n * 10.0**k for k in range(first - 1, last + 1) for n in range(2, 10)]
    between = [l2 for l2 in between if low < l2 < high]
    ax.set_xticks(between, [""] * len(between), minor=True)
    ax.set_xlabel("strength l2 (units of the loss per squared weight)")


# --------------------------------------------------------------------- weights


def weight_norms(model):
    """The norm of each weight that L2 covers by default, as it is now.

    `norm_k = sqrt(sum(w_k**2))`

    Args:
        model: A built `keras.Model`, wrapped or bare.

    Returns:
        Dict from weight names to floats.

    Raises:
        ValueError: the model has no such weights, or not yet.

    Example:

    >>> import keras
    >>> layer = keras.layers.Dense(4, kernel_initializer="ones", name="out")
    >>> weight_norms(keras.Sequential([keras.Input((4,)), layer]))
    {'out/kernel': 4.0}

    Source: `numpy.linalg.norm`.
    """
    weights = [weight for weight, _ in select_weights(model)]
    unbuilt = [weight.name for weight in weights if weight.variable is None]
    if unbuilt:
        raise ValueError(
            "Expected a built model. Received: a model with the unbuilt weights "
            f"{unbuilt}; call it on a batch of data, or `model.build(input_shape)`, "
            "first"
        )
    return {w.name: math.sqrt(float(sum_of_squares(w.variable))) for w in weights}


def plot_weights(norms, ax=None):
    """The norm of each weight at two or more moments, or in two or more models.

    Args:
        norms: Dict from what to call the moment to what `weight_norms` returned
            then: `{"before": ..., "after": ...}`.
        ax: `matplotlib.axes.Axes` to draw on. Defaults to `None`, a new figure.

    Returns:
        The axes; `save_picture(ax, "norms.png")` saves the picture.

    Raises:
        ValueError: there is no norm to draw.
        ImportError: matplotlib is missing.

    Example:

    >>> before, after = {"out/kernel": 3.0}, {"out/kernel": 2.0}
    >>> ax = plot_weights({"before": before, "after": after})
    >>> [float(bar.get_width()) for bar in ax.patches]
    [3.0, 2.0]

    Source: `matplotlib.axes.Axes.barh`.
    """
    names = [*dict.fromkeys(name for moment in norms.values() for name in moment)]
    if not names:
        raise ValueError(
            "Expected norms such as {'before': {'hidden/kernel': 29.8}}. "
            f"Received: {norms!r}; `weight_norms(model)` gives those of a moment"
        )
    if ax is None:
        ax = new_axes(1.2 + 0.25 * len(names) * (1 + len(norms)))
    thickness = 0.8 / len(norms)
    shades = _shades(len(norms))
    for k, (moment, values) in enumerate(norms.items()):
        ax.barh(
            np.arange(len(names)) + (k - (len(norms) - 1) / 2) * thickness,
            [values.get(name, math.nan) for name in names],
            thickness,
            color=shades[k],
            edgecolor="white",
            hatch=_HATCHES[k % len(_HATCHES)],
            label=moment,
        )
    ax.set_yticks(range(len(names)), names)
    # The first layer on top.
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set(xlabel="norm, sqrt(sum(w²)) (units of the weights)", ylabel="weight")
    ax.legend(**_ABOVE)
    return ax
