"""Pictures (matplotlib): `plot_penalties` over epochs, `plot_path` over strengths.

>>> history = {"penalty/hidden/kernel": [3.0, 2.0, 1.5],
...            "penalty/output/kernel": [1.0, 1.0, 0.5]}
>>> ax = plot_penalties(history)
>>> ax.get_xlabel(), ax.get_ylabel()
('epoch', 'penalty (units of the loss)')
"""

import numpy as np

_PREFIX = "penalty/"
_HATCHES = ("", "///", "...", "\\\\\\", "xxx", "|||", "ooo", "---")
_MARKERS = "os^vDXP*"


def new_axes(ax=None):
    """`ax` itself, or the axes of a new figure of its own.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.

    >>> new_axes().figure.get_size_inches().tolist()
    [6.4, 4.0]
    """
    if ax is not None:
        return ax
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib: pip install 'keras_l2reg[plot]'"
        ) from error
    # Not through pyplot, which would want a screen and keep every figure alive.
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def plot_penalties(history, log=False, ax=None):
    """Each weight's penalty over the epochs, stacked; or as lines on a log scale.

    `band_k(epoch) = penalty_k`, the upper edge of the pile is the whole penalty

    Args:
        history: What `fit` returned with a `PenaltyLogger` among its callbacks, or
            its `.history` dict.
        log: Boolean, whether to draw lines over a logarithmic axis: a pile has no
            meaning there. Defaults to `False`.
        ax: `matplotlib.axes.Axes` to draw on. Defaults to `None`, a new figure.

    Returns:
        The axes; `ax.figure.savefig("penalties.png")` saves the picture.

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
            f"callback `PenaltyLogger` adds. Received the keys: {sorted(history)}"
        )
    ax = new_axes(ax)
    epochs = np.arange(1, 1 + len(next(iter(bands.values()))))
    # From dark to light, so that a print in grey can be read as well.
    shades = np.linspace(0.15, 0.85, len(bands))
    import matplotlib

    colors = matplotlib.colormaps["viridis"](shades)
    if log:
        for k, (name, values) in enumerate(bands.items()):
            marker = _MARKERS[k % len(_MARKERS)]
            ax.plot(epochs, values, color=colors[k], marker=marker, label=name)
        ax.set_yscale("log")
    else:
        piles = ax.stackplot(epochs, *bands.values(), colors=colors, labels=[*bands])
        for pile, hatch in zip(piles, _HATCHES * len(piles), strict=False):
            pile.set(hatch=hatch, edgecolor="white", linewidth=0.5)
        ax.set_ylim(bottom=0)
    ax.set(xlabel="epoch", ylabel="penalty (units of the loss)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) > 1:
        ax.set_xlim(epochs[0], epochs[-1])
    _legend_in_reading_order(ax)
    return ax


def _legend_in_reading_order(ax):
    # A pile grows upwards, so the legend lists its uppermost band first.
    handles, labels = ax.get_legend_handles_labels()
    if len(handles) > 12:
        handles, labels = handles[-12:], labels[-12:]
    ax.legend(handles[::-1], labels[::-1], fontsize="small", frameon=False)
