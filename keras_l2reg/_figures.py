"""matplotlib figures without pyplot: create, show in notebooks, and save them.

>>> import tempfile
>>> file = pathlib.Path(tempfile.mkdtemp(), "empty.png")
>>> save_picture(new_figure(), file)
>>> file.read_bytes()[1:4]
b'PNG'
"""

import functools
import io
import os
import pathlib
from typing import TYPE_CHECKING, Any, TypeVar

from keras_l2reg._io import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    Picture = Axes | Figure | SubFigure

T = TypeVar("T")

# Arguments of `Axes.legend`.
LEGEND: dict[str, Any] = {"fontsize": "small", "frameon": False}
LEGEND_ABOVE = {**LEGEND, "loc": "lower left", "bbox_to_anchor": (0, 1), "ncols": 2}


def new_figure(height: float = 4.0) -> "Figure":
    """A new figure that pyplot does not manage.

    Args:
        height: Float, in inches. Defaults to `4.0`.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.

    >>> new_figure().get_size_inches().tolist()
    [6.4, 4.0]
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Plots need matplotlib: pip install 'keras_l2reg[plot]'"
        ) from error
    # Not by pyplot, which may need a display, and keeps every figure alive.
    return _shown_in_notebooks(Figure(figsize=(6.4, height), layout="constrained"))


def new_axes(height: float = 4.0) -> "Axes":
    """The only axes of a new figure.

    >>> new_axes().figure.axes
    [<Axes: >]
    """
    return _shown_in_notebooks(new_figure(height).add_subplot())


def _shown_in_notebooks(picture: T) -> T:
    """Add the method that IPython calls to show an object.

    IPython shows figures through pyplot, which does not manage this one.
    """
    vars(picture)["_repr_png_"] = functools.partial(_png, picture)
    return picture


def _png(picture: Any) -> bytes:
    content = io.BytesIO()
    picture.figure.savefig(content, format="png")
    return content.getvalue()


def save_picture(
    picture: "Picture", file: str | os.PathLike[str], **arguments: Any
) -> None:
    """Save a picture, atomically: on failure, the old file is kept.

    Args:
        picture: What `plot_penalties`, `plot_path` or `plot_weights` returned, or
            any other matplotlib axes or figure.
        file: The path to write to; its suffix sets the format, for example `.png` or
            `.pdf`. Without a suffix, the format is PNG.
        **arguments: Further arguments of `matplotlib.figure.Figure.savefig`, such
            as `dpi`.

    Raises:
        ValueError: matplotlib does not know the format.
        OSError: the file can't be written.

    Example:

    >>> import tempfile
    >>> ax = new_figure().add_subplot()
    >>> save_picture(ax, pathlib.Path(tempfile.mkdtemp(), "empty.pdf"))
    """
    arguments.setdefault("format", pathlib.Path(file).suffix[1:] or "png")
    # In memory first: on a full disk, the PDF writer of matplotlib raises an error that
    # does not mention the disk.
    content = io.BytesIO()
    # Axes may be in a subfigure; a figure's `figure` is itself.
    figure: Any = picture.figure
    figure.figure.savefig(content, **arguments)
    write_atomically(file, content.getvalue())
