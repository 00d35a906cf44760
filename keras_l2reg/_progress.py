"""A progress bar, in a terminal or a notebook."""

import contextlib
import html
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import rich.progress

from keras_l2reg._notebook import in_notebook

Advance = Callable[[int], None]


def progress_bar(
    label: str, total: int, visible: bool = True
) -> AbstractContextManager[Advance]:
    """A context with a progress bar; yields a callback that advances the bar.

    Args:
        label: String, what is counted.
        total: Integer, the count at the end.
        visible: Boolean, whether to show the bar. Defaults to `True`.

    Returns:
        A context manager. Its callback takes the number of units to advance by.

    Example:

    >>> with progress_bar("fits", 3, visible=False) as advance:
    ...     advance(2)
    """
    if not visible:
        return contextlib.nullcontext(lambda count: None)
    # In a notebook, rich's bar is a widget, which is not shown without ipywidgets.
    return _html_bar(label, total) if in_notebook() else _rich_bar(label, total)


@contextlib.contextmanager
def _rich_bar(label: str, total: int) -> Iterator[Advance]:
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns) as progress:
        bar = progress.add_task(label, total=total)
        yield lambda count: progress.advance(bar, count)


@contextlib.contextmanager
def _html_bar(label: str, total: int) -> Iterator[Advance]:
    from IPython.display import display

    bar = _Bar(label, total)
    shown: Any = display(bar, display_id=True)

    def advance(count: int) -> None:
        bar.done += count
        if bar.is_due():
            bar.shown_at = time.monotonic()
            shown.update(bar)

    try:
        yield advance
    finally:
        shown.update(bar)


class _Bar:
    """The state of a bar, which a notebook displays."""

    def __init__(self, label: str, total: int):
        self.label, self.total, self.done = label, total, 0
        self._started = self.shown_at = time.monotonic()

    def is_due(self, interval: float = 0.1) -> bool:
        """Whether it was last shown at least `interval` seconds ago."""
        return time.monotonic() - self.shown_at >= interval

    def __repr__(self) -> str:
        text = f"{self.label} {self.done}/{self.total}"
        if 0 < self.done < self.total:
            elapsed = time.monotonic() - self._started
            left = elapsed / self.done * (self.total - self.done)
            text += f", {left // 60:.0f}:{left % 60:02.0f} left"
        return text

    def _repr_html_(self) -> str:
        bar = f'<progress max="{self.total}" value="{self.done}"></progress>'
        return f"{bar} {html.escape(repr(self))}"
