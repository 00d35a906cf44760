"""Plots (matplotlib) of penalties over epochs, metrics over strengths, and norms.

>>> history = {"penalty/hidden/kernel": [3.0, 2.0, 1.5],
...            "penalty/output/kernel": [1.0, 1.0, 0.5]}
>>> ax = plot_penalties(history)
>>> ax.get_xlabel(), ax.get_ylabel()
('epoch', 'penalty (units of the loss)')

`plot_norms` plots norms and updates over epochs, `plot_path` the result of `l2_path`,
`plot_weights` the norms of the weights before and after training; `save_picture` saves
any of these plots. In a notebook, the returned object is displayed if it is the last
expression of a cell. The plots are readable in black and white.
"""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_l2reg._figures import (
    LEGEND,
    LEGEND_ABOVE,
    new_axes,
    new_figure,
    save_picture,
)
from keras_l2reg._path.plot import plot_path
from keras_l2reg._selection import select_weights
from keras_l2reg._sums import sum_of_squares

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

__all__ = [
    "plot_norms",
    "plot_path",
    "plot_penalties",
    "plot_weights",
    "save_picture",
    "weight_norms",
]

_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "|||", "ooo", "---")
_MARKERS = "os^vDXP*"


# ------------------------------------------------------------------- penalties


def plot_penalties(
    history: keras.callbacks.History | Mapping[str, Sequence[float]],
    log: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Plot each weight's penalty over the epochs, stacked or as lines on a log scale.

    In the stack, each weight is a band, and the upper edge is the total penalty. If
    there are more than 12 weights, the smallest penalties are summed in one band.

    Args:
        history: What `fit` returned with a `PenaltyLogger` among its callbacks, or
            its `.history` dict.
        log: Boolean, whether to draw lines on a logarithmic axis, where a stack
            would be meaningless. Defaults to `False`.
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
    """
    series = _largest(_series(history, "penalty/", "PenaltyLogger()"), 12)
    ax = new_axes() if ax is None else ax
    if log:
        _draw_lines(series, ax, [*series])
    else:
        _draw_stack(series, ax)
    ax.set(xlabel="epoch", ylabel="penalty (units of the loss)")
    locator: Any = ax.xaxis.get_major_locator()
    locator.set_params(integer=True, min_n_ticks=1)
    epochs = len(next(iter(series.values())))
    ax.set_xlim(*((1, epochs) if epochs > 1 else (0.5, 1.5)))
    # The legend has the order of the stack, whose first band is at the bottom.
    handles, names = ax.get_legend_handles_labels()
    # Outside, where it covers nothing.
    ax.legend(
        handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1, 1), **LEGEND
    )
    return ax


def _series(history: Any, prefix: str, needed: str = "") -> dict[str, Any]:
    """The values of each epoch, by the name of the weight.

    Args:
        history: As for `plot_penalties`.
        prefix: What precedes the names in the keys.
        needed: The callback that logs them, for an error if there are none. Defaults
            to none, no error.
    """
    history = getattr(history, "history", history)
    series = {
        key.removeprefix(prefix): values
        for key, values in history.items()
        if key.startswith(prefix)
    }
    if not series and needed:
        raise ValueError(
            f"Expected a history with keys such as '{prefix}hidden/kernel', which the "
            f"callback `PenaltyLogger` adds. Received: the keys {sorted(history)}; "
            f"train with `fit(..., callbacks=[{needed}])`"
        )
    return series


def _largest(series: dict[str, Any], count: int) -> dict[str, Any]:
    """At most `count` series; if there are more, the smallest are summed in one."""
    if len(series) <= count:
        return series
    by_size = sorted(series, key=lambda name: np.nanmax(series[name]), reverse=True)
    kept = {name: series[name] for name in series if name in by_size[: count - 1]}
    others = [series[name] for name in by_size[count - 1 :]]
    return {f"{len(others)} others": np.sum(others, axis=0), **kept}


def _draw_lines(series: dict[str, Any], ax: "Axes", names: list[str]) -> None:
    """Draw lines on a log scale, in the style of their position among `names`."""
    colors = _shades(len(names))
    for name, values in series.items():
        k = names.index(name)
        ax.plot(
            np.arange(1, 1 + len(values)),
            values,
            color=colors[k],
            label=name,
            marker=_MARKERS[k % len(_MARKERS)],
            markevery=max(1, len(values) // 20),
        )
    ax.set_yscale("log")


def _draw_stack(series: dict[str, Any], ax: "Axes") -> None:
    values = np.array([*series.values()])
    epochs = np.arange(1, 1 + values.shape[1])
    if len(epochs) == 1:
        # A single epoch would have no width.
        epochs, values = np.array([0.5, 1.5]), np.repeat(values, 2, axis=1)
    bands = ax.stackplot(epochs, values, colors=_shades(len(series)), labels=[*series])
    for k, band in enumerate(bands):
        band.set(hatch=_HATCHES[k % len(_HATCHES)], edgecolor="white", linewidth=0.5)
    ax.set_ylim(bottom=0)


def _shades(count: int) -> Any:
    """`count` colors from dark to light, which stay distinct in black and white."""
    import matplotlib

    return matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, count))


# ----------------------------------------------------------------------- norms


def plot_norms(
    history: keras.callbacks.History | Mapping[str, Sequence[float]],
    figure: "Figure | SubFigure | None" = None,
) -> "Figure | SubFigure":
    """Plot each weight's norm and its relative update over the epochs, on log scales.

    A third panel shows the effective learning rates, if there are any. If there are
    more than 12 weights, those of the largest norms are drawn.

    Args:
        history: What `fit` returned with a `PenaltyLogger(norms=True)` among its
            callbacks, or its `.history` dict.
        figure: `matplotlib.figure.Figure` or `SubFigure` to draw on, best with
            `layout="constrained"`. Defaults to `None`, a new figure.

    Returns:
        The figure; `save_picture(figure, "norms.png")` saves the picture.

    Raises:
        ValueError: the history has no `norm/...` keys.
        ImportError: matplotlib is missing.

    Example:

    >>> figure = plot_norms({"norm/out/kernel": [2.0, 1.0],
    ...                      "update/out/kernel": [0.5, 0.1]})
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['norm, ||w||', 'update, ||w - w_before|| / ||w||']

    References:
        - van Laarhoven, [L2 Regularization versus Batch and Weight Normalization](
          https://arxiv.org/abs/1706.05350), 2017 (the effective learning rate).
    """
    panels = {
        "norm, ||w||": _series(history, "norm/", "PenaltyLogger(norms=True)"),
        "update, ||w - w_before|| / ||w||": _series(history, "update/"),
        "effective rate, lr / ||w||²": _series(history, "effective_rate/"),
    }
    panels = {label: series for label, series in panels.items() if series}
    figure = new_figure(1.0 + 2.4 * len(panels)) if figure is None else figure
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    # The same style in all panels; only some weights have an effective rate.
    norms = panels["norm, ||w||"]
    names = sorted(norms, key=lambda name: np.nanmax(norms[name]), reverse=True)[:12]
    for ax, (label, series) in zip(axes, panels.items(), strict=True):
        _draw_lines({k: v for k, v in series.items() if k in names}, ax, names)
        ax.set_ylabel(label)
    axes[-1].set_xlabel("epoch")
    axes[-1].get_xaxis().get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes[0].legend(loc="upper left", bbox_to_anchor=(1, 1), **LEGEND)
    figure.align_ylabels()
    return figure


# --------------------------------------------------------------------- weights


def weight_norms(model: keras.Model) -> dict[str, float]:
    """The current norm of each weight that a penalty covers by default.

    `norm_k = sqrt(sum(w_k**2))`

    Args:
        model: A built `keras.Model`, wrapped or bare.

    Returns:
        Dict from weight names to floats.

    Raises:
        ValueError: the model has no such weights, or is not built.

    Example:

    >>> import keras
    >>> layer = keras.layers.Dense(4, kernel_initializer="ones", name="out")
    >>> weight_norms(keras.Sequential([keras.Input((4,)), layer]))
    {'out/kernel': 4.0}
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


def plot_weights(
    norms: Mapping[str, Mapping[str, float]], ax: "Axes | None" = None
) -> "Axes":
    """Plot the norm of each weight at several times, or for several models.

    Args:
        norms: Dict from labels to what `weight_norms` returned:
            `{"before": ..., "after": ...}`.
        ax: `matplotlib.axes.Axes` to draw on. Defaults to `None`, a new figure.

    Returns:
        The axes; `save_picture(ax, "norms.png")` saves the picture.

    Raises:
        ValueError: there are no norms to plot.
        ImportError: matplotlib is missing.

    Example:

    >>> before, after = {"out/kernel": 3.0}, {"out/kernel": 2.0}
    >>> ax = plot_weights({"before": before, "after": after})
    >>> [float(bar.get_width()) for bar in ax.patches]
    [3.0, 2.0]
    """
    names = [*dict.fromkeys(name for values in norms.values() for name in values)]
    if not names:
        raise ValueError(
            "Expected norms such as {'before': {'hidden/kernel': 29.8}}. "
            f"Received: {norms!r}; `weight_norms(model)` returns the current norms"
        )
    if ax is None:
        ax = new_axes(1.2 + 0.25 * len(names) * (1 + len(norms)))
    thickness = 0.8 / len(norms)
    shades = _shades(len(norms))
    for k, (label, values) in enumerate(norms.items()):
        ax.barh(
            np.arange(len(names)) + (k - (len(norms) - 1) / 2) * thickness,
            [values.get(name, math.nan) for name in names],
            thickness,
            color=shades[k],
            edgecolor="white",
            hatch=_HATCHES[k % len(_HATCHES)],
            label=label,
        )
    ax.set_yticks(range(len(names)), names)
    # The first weight is at the top.
    ax.set_ylim(len(names) - 0.4, -0.6)
    ax.set(xlabel="norm, sqrt(sum(w²)) (units of the weights)", ylabel="weight")
    ax.legend(**LEGEND_ABOVE)
    return ax
