"""A progress bar, in a terminal and in a notebook."""

import contextlib
import html
import time

from keras_l2reg._notebook import in_notebook


def progress_bar(label, total, visible=True):
    """A bar of `total` units, as a context; yields a function that advances it.

    Args:
        label: String that says what is counted.
        total: Integer, how many units there are.
        visible: Boolean, `False` shows nothing. Defaults to `True`.

    Example:

    >>> with progress_bar("fits", 3, visible=False) as advance:
    ...     advance(2)
    """
    if not visible:
        return contextlib.nullcontext(lambda count: None)
    # rich's bar is a widget in a notebook, and nothing at all without ipywidgets.
    return _html_bar(label, total) if in_notebook() else _rich_bar(label, total)


@contextlib.contextmanager
def _rich_bar(label, total):
    # rich comes with Keras, which prints its summaries with it.
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda count: progress.advance(bar, count)


@contextlib.contextmanager
def _html_bar(label, total):
    from IPython.display import display

    bar = _Bar(label, total)
    shown = display(bar, display_id=True)

    def advance(count):
        bar.done += count
        if bar.is_due():
            shown.update(bar)

    try:
        yield advance
    finally:
        shown.update(bar)


class _Bar:
    """The state of a bar, as a notebook shows it."""

    def __init__(self, label, total):
        self.label, self.total, self.done = label, total, 0
        self._started = self._shown = time.monotonic()

    def is_due(self, interval=0.1):
        """Whether it was last shown so long ago that a reader sees a difference."""
        now = time.monotonic()
        if now - self._shown < interval:
            return False
        self._shown = now
        return True

    def __repr__(self):
        text = f"{self.label} {self.done}/{self.total}"
        if 0 < self.done < self.total:
            elapsed = time.monotonic() - self._started
            left = elapsed / self.done * (self.total - self.done)
            text += f", {left // 60:.0f}:{left % 60:02.0f} left"
        return text

    def _repr_html_(self):
        bar = f'<progress max="{self.total}" value="{self.done}"></progress>'
        return f"{bar} {html.escape(repr(self))}"
