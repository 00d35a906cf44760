"""Tables: plain text when printed, HTML in a notebook.

>>> print(Table(["weight", "norm"], [["dense[relu]/kernel", "2.8"]], right=["norm"]))
weight             | norm
-------------------+-----
dense[relu]/kernel |  2.8
"""

import dataclasses
import html
import io
import sys
from collections.abc import Iterator, Sequence

import rich.table
from rich import box
from rich.console import Console
from rich.text import Text

from keras_l2reg._notebook import in_notebook


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """Rows of text under named columns.

    The text of a cell is shown literally. Otherwise, rich would interpret brackets as
    styles, HTML would interpret angle brackets as tags, and a terminal would execute
    escape sequences in the names of a saved model.

    Args:
        columns: Strings, the headings of the columns.
        rows: Sequences of strings; a cell may have several lines.
        right: The columns that are aligned to the right. Defaults to none.
        title: String above the table. Defaults to `None`.
        notes: Lines of text below the table. Defaults to none.
        empty: The text to show if there are no rows. Defaults to `"No rows."`.
        ruled: Boolean, whether to draw a line between rows. Defaults to `False`.
        folds: Boolean, whether to break long cells to fit the terminal's width.
            Defaults to `True`.

    Example:

    >>> print(Table(["l2"], [], empty="No runs."))
    No runs.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    right: Sequence[str] = ()
    title: str | None = None
    notes: Sequence[str] = ()
    empty: str = "No rows."
    ruled: bool = False
    folds: bool = True

    def __str__(self) -> str:
        body = self._lines() if self.rows else [_plain(self.empty)]
        title = [] if self.title is None else [_plain(self.title)]
        return "\n".join([*title, *body, *map(_plain, self.notes)])

    # A notebook shows the `repr` if it can't show HTML.
    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "\n".join(filter(None, self._html()))

    def _lines(self) -> list[str]:
        table = rich.table.Table(
            box=box.ASCII2, show_edge=False, pad_edge=False, show_lines=self.ruled
        )
        for name in self.columns:
            justify = "right" if name in self.right else "left"
            table.add_column(Text(_plain(name)), justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(_plain(cell)) for cell in row))
        # By default, rich writes to the notebook instead of `file`, and in color if
        # FORCE_COLOR is set.
        file = io.StringIO()
        console = Console(
            file=file,
            width=_terminal_width() if self.folds else 10_000,
            color_system=None,
            force_jupyter=False,
        )
        console.print(table)
        return [line.rstrip() for line in file.getvalue().splitlines()]

    def _html(self) -> Iterator[str]:
        title = "" if self.title is None else _escaped(self.title)
        if self.rows:
            # Jupyter and others have styles for this class, which pandas uses.
            yield '<table border="1" class="dataframe">'
            yield f'<caption style="text-align: left">{title}</caption>' * bool(title)
            yield f"<thead>{self._html_row('th', self.columns)}</thead>"
            yield "<tbody>"
            yield from (self._html_row("td", row) for row in self.rows)
            yield "</tbody></table>"
        else:
            yield f"<p>{title}</p>" * bool(title)
            yield f"<p>{_escaped(self.empty)}</p>"
        yield from (f"<p>{_escaped(note)}</p>" for note in self.notes)

    def _html_row(self, tag: str, cells: Sequence[str]) -> str:
        sides = ["right" if name in self.right else "left" for name in self.columns]
        tagged = (
            f'<{tag} style="text-align: {side}">{_escaped(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(tagged)}</tr>"


def show(table: Table) -> None:
    """Print a table, or display it in a notebook.

    >>> show(Table(["l2"], [["0.1"], ["0.01"]]))
    l2
    ----
    0.1
    0.01
    """
    if in_notebook():
        from IPython.display import display

        display(table)
    else:
        print_text(str(table))


def print_text(text: str) -> None:
    """Print text, with escapes for characters that the terminal can't encode.

    >>> print_text("épais/kernel")
    épais/kernel
    """
    # A name that can't be printed should not end a training run.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def is_terminal() -> bool:
    """Whether standard output is a terminal, rather than a file or a notebook.

    >>> is_terminal()
    False
    """
    return Console(force_jupyter=False).is_terminal


def _plain(text: str) -> str:
    """Text with its control characters escaped.

    >>> _plain("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(
        c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text)
    )


def _escaped(text: str) -> str:
    return html.escape(_plain(text)).replace("\n", "<br>")


def _terminal_width() -> int:
    # A notebook has no terminal, even if its server was started from one.
    return 100 if in_notebook() else Console(force_jupyter=False).width
