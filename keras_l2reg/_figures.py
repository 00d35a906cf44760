"""Figures of matplotlib that pyplot does not know of, and that are saved whole.

>>> import tempfile
>>> file = pathlib.Path(tempfile.mkdtemp(), "empty.png")
>>> save_picture(new_figure(), file)
>>> file.read_bytes()[1:4]
b'PNG'
"""

import functools
import io
import pathlib

from keras_l2reg._io import write_whole


def new_figure(height=4.0):
    """A figure of its own, `height` inches high, that pyplot does not know of.

    Raises:
        ImportError: matplotlib is missing; the message names the extra.

    >>> new_figure().get_size_inches().tolist()
    [6.4, 4.0]
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Pictures need matplotlib: pip install 'keras_l2reg[plot]'"
        ) from error
    # pyplot would want a screen, and keep every figure alive.
    return _shown_in_notebooks(Figure(figsize=(6.4, height), layout="constrained"))


def new_axes(height=4.0):
    """The only axes of a new figure.

    >>> new_axes().figure.axes
    [<Axes: >]
    """
    return _shown_in_notebooks(new_figure(height).add_subplot())


def _shown_in_notebooks(picture):
    """Give the picture what IPython asks an object for, to show it.

    matplotlib has its figures shown by pyplot, which does not know of this one.
    """
    picture._repr_png_ = functools.partial(_png, picture)
    return picture


def _png(picture):
    content = io.BytesIO()
    picture.figure.savefig(content, format="png")
    return content.getvalue()


def save_picture(picture, file, **arguments):
    """Save a picture; a full disk leaves what was there, no half of a file.

    Args:
        picture: What `plot_penalties`, `plot_path` or `plot_weights` returned, or
            any other matplotlib axes or figure.
        file: The path to write to; its suffix tells the format, `.png` or `.pdf`
            for example.
        **arguments: Further arguments of `matplotlib.figure.Figure.savefig`, such
            as `dpi`.

    Raises:
        ValueError: the suffix is no format that matplotlib knows.
        OSError: the file can't be written.

    Example:

    >>> import tempfile
    >>> ax = new_figure().add_subplot()
    >>> save_picture(ax, pathlib.Path(tempfile.mkdtemp(), "empty.pdf"))

    Source: `matplotlib.figure.Figure.savefig`.
    """
    arguments.setdefault("format", pathlib.Path(file).suffix[1:] or "png")
    # By way of memory: matplotlib's PDF writer meets a full disk with an error that
    # does not tell of it.
    content = io.BytesIO()
    # Axes may sit in a subfigure; a figure's figure is itself.
    picture.figure.figure.savefig(content, **arguments)
    write_whole(file, content.getvalue())
