"""Tables: plain text when printed, HTML in a notebook; nothing else uses rich's.

>>> print(Table(["weight", "norm"], [["dense[relu]/kernel", "2.8"]], right=["norm"]))
weight             | norm
-------------------+-----
dense[relu]/kernel |  2.8
"""

import dataclasses
import html
import io
import sys

from keras_l2reg._notebook import in_notebook


@dataclasses.dataclass(frozen=True, repr=False)
class Table:
    """Rows of text under named columns.

    Whatever a cell holds is shown as it is: rich would take a name in brackets for
    a style, HTML one in angle brackets for a tag, and a terminal would obey an
    escape sequence that a saved model has for a name.

    Args:
        columns: List of strings, the heads of the columns.
        rows: List of lists of strings; a cell may have several lines.
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

    columns: list
    rows: list
    right: tuple = ()
    title: str | None = None
    notes: tuple = ()
    empty: str = "No rows."
    ruled: bool = False
    folds: bool = True

    def __str__(self):
        body = self._lines() if self.rows else [_plain(self.empty)]
        title = [] if self.title is None else [_plain(self.title)]
        return "\n".join([*title, *body, *map(_plain, self.notes)])

    # A notebook takes its text from `repr`.
    __repr__ = __str__

    def _repr_html_(self):
        return "\n".join(filter(None, self._html()))

    def _lines(self):
        # rich comes with Keras, which prints its summaries with it.
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(
            box=box.ASCII2, show_edge=False, pad_edge=False, show_lines=self.ruled
        )
        for name in self.columns:
            justify = "right" if name in self.right else "left"
            table.add_column(Text(_plain(name)), justify=justify, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(_plain(cell)) for cell in row))
        # By default, rich sends to the notebook what is meant for `file`, and colors
        # it where FORCE_COLOR is set.
        console = Console(
            file=io.StringIO(),
            width=_terminal_width() if self.folds else 10_000,
            color_system=None,
            force_jupyter=False,
        )
        console.print(table)
        return [line.rstrip() for line in console.file.getvalue().splitlines()]

    def _html(self):
        title = "" if self.title is None else _escaped(self.title)
        if self.rows:
            # Jupyter and others have a style for pandas' class.
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

    def _html_row(self, tag, cells):
        sides = ["right" if name in self.right else "left" for name in self.columns]
        cells = (
            f'<{tag} style="text-align: {side}">{_escaped(cell)}</{tag}>'
            for side, cell in zip(sides, cells, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"


def show(table):
    """Print a table, or let the notebook display it.

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


def print_text(text):
    """Print text; what the terminal's encoding lacks becomes an escape.

    >>> print_text("épais/kernel")
    épais/kernel
    """
    # A name that can't be printed should not end a training run.
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _plain(text):
    """Text that only says something: control characters are spelled out.

    >>> _plain("a\\x1b[31mb")
    'a\\\\x1b[31mb'
    """
    return "".join(
        c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in str(text)
    )


def _escaped(text):
    return html.escape(_plain(text)).replace("\n", "<br>")


def _terminal_width():
    from rich.console import Console

    # A notebook has no terminal, whatever terminal its server was started from.
    return 100 if in_notebook() else Console(force_jupyter=False).width
