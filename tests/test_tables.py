"""Tables: what is in a cell is shown as it is, as text and as HTML."""

import html.parser

import pytest

from keras_l2reg import Finding, Findings, L2Path
from keras_l2reg._tables import Table

NAMES = ["dense[relu]", "enc[", "x]", "[bold]", "[/]", ":smile:", "a<b>&c", "层"]


class Cells(html.parser.HTMLParser):
    """The text of each cell of a page's tables, its tags, and all of its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self.text, self._inside = set(), [], "", False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self.cells.append("")
        self._inside = self._inside or tag in ("td", "th")

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self._inside:
            self.cells[-1] += data


@pytest.mark.parametrize("name", NAMES)
def test_names_are_not_markup(name):
    table = Table([name, "b"], [[name, "1"]], title=name, notes=[name])
    title, heads, _, row, note = str(table).splitlines()
    assert title == note == name
    assert [line.split(" | ")[0].rstrip() for line in (heads, row)] == [name, name]
    cells = Cells(table._repr_html_())
    assert cells.cells == [name, "b", name, "1"]
    assert cells.text.count(name) == 4 and "b" not in cells.tags
    assert str(Table([], [], empty=name)) == name
    assert Cells(Table([], [], empty=name)._repr_html_()).text == name


@pytest.mark.parametrize("name", NAMES)
def test_findings_and_paths_are_not_markup(name):
    findings = Findings([Finding("frozen", "info", (name,), name, name)])
    assert str(findings).count(name) == 3
    assert Cells(findings._repr_html_()).text.count(name) == 3
    path = L2Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 1.0, f"val_{name}": 2.0}])
    assert f"val_{name}" in str(path)
    assert f"val_{name}" in Cells(path._repr_html_()).cells


def test_control_characters_are_spelled_out():
    """A file that somebody else saved should not steer the terminal."""
    table = Table(["a"], [["x\x1b[2Jy\r\x07"]], title="\x1b]0;title\x07")
    for text in (str(table), table._repr_html_()):
        assert not set(text) & set("\x1b\r\x07")
        assert r"x\x1b[2Jy\r\x07" in text


def test_lines_within_a_cell():
    table = Table(["a", "b"], [["one\ntwo", "1"], ["three", "2"]], ruled=True)
    assert str(table).splitlines() == [
        "a     | b",
        "------+--",
        "one   | 1",
        "two   |",
        "------+--",
        "three | 2",
    ]
    assert "one<br>two" in table._repr_html_()


def test_long_cells_are_folded_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    cell = "".join(map(str, range(40)))
    lines = str(Table(["a", "b"], [[cell, cell]], right=["b"])).splitlines()
    assert max(map(len, lines)) <= 30
    columns = zip(*(line.split("|") for line in lines[2:]), strict=True)
    for column in columns:
        assert "".join(part.strip() for part in column) == cell
    assert cell in str(Table(["a"], [[cell]], folds=False))


def test_no_colors_even_where_they_are_forced(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    findings = Findings([Finding("frozen", "info", ("a",), "m", "n")])
    path = L2Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 1.0}])
    assert "\x1b" not in f"{findings}{path}"


def test_without_rows_there_is_a_word():
    assert (str(Findings()), str(L2Path([]))) == ("No findings.", "No runs.")
    assert "No findings." in Findings()._repr_html_()
    assert "No runs." in L2Path([])._repr_html_()


def test_html_has_the_notes_and_the_sides():
    path = L2Path([{"l2": l2, "repeat": 0, "val_data_loss": l2} for l2 in (1.0, 0.1)])
    page = path._repr_html_()
    cells = Cells(page)
    heads, strong, weak = (
        ["l2", "val_data_loss", ""],
        ["1", "1", ""],
        ["0.1", "0.1", "best"],
    )
    assert cells.cells == [*heads, *strong, *weak]
    assert "try weaker ones" in cells.text and cells.tags >= {"table", "thead", "tbody"}
    assert '<td style="text-align: right">0.1</td>' in page
