"""Tables: the text of a cell is shown literally, in plain text and in HTML."""

import html.parser

import keras
import pytest

from keras_l2reg import Finding, Findings, L2Path, print_weights
from keras_l2reg._tables import Table

NAMES = ["dense[relu]", "enc[", "x]", "[bold]", "[/]", ":smile:", "a<b>&c", "层"]


class Cells(html.parser.HTMLParser):
    """The text of each table cell of a page, its tags, and all of its text."""

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
def test_names_in_a_table_are_not_markup(name):
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
def test_names_in_findings_and_paths_are_not_markup(name):
    findings = Findings([Finding("frozen", "info", (name,), name, name)])
    assert str(findings).count(name) == 3
    assert Cells(findings._repr_html_()).text.count(name) == 3
    path = L2Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 1.0, f"val_{name}": 2.0}])
    assert f"val_{name}" in str(path)
    assert f"val_{name}" in Cells(path._repr_html_()).cells


def test_control_characters_are_escaped():
    """A file that somebody else saved should not control the terminal."""
    table = Table(["a"], [["x\x1b[2Jy\r\x07"]], title="\x1b]0;title\x07")
    for text in (str(table), table._repr_html_()):
        assert not set(text) & set("\x1b\r\x07")
        assert r"x\x1b[2Jy\r\x07" in text


def test_a_cell_may_have_several_lines():
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


def test_long_cells_are_folded_but_not_cut(monkeypatch):
    monkeypatch.setenv("COLUMNS", "30")
    cell = "".join(map(str, range(40)))
    lines = str(Table(["a", "b"], [[cell, cell]], right=["b"])).splitlines()
    assert max(map(len, lines)) <= 30
    columns = zip(*(line.split("|") for line in lines[2:]), strict=True)
    for column in columns:
        assert "".join(part.strip() for part in column) == cell
    assert cell in str(Table(["a"], [[cell]], folds=False))


def test_tables_have_no_colors_even_with_force_color(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    findings = Findings([Finding("frozen", "info", ("a",), "m", "n")])
    path = L2Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 1.0}])
    assert "\x1b" not in f"{findings}{path}"


def test_a_table_without_rows_says_so():
    assert (str(Findings()), str(L2Path([]))) == ("No findings.", "No runs.")
    assert "No findings." in Findings()._repr_html_()
    assert "No runs." in L2Path([])._repr_html_()


def test_html_contains_the_notes_and_the_alignment():
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


def model_with_a_long_name():
    layer = keras.layers.Dense(2, name="a_rather_long_name_" * 8)
    return keras.Sequential([keras.Input((4,)), layer])


def test_print_weights_does_not_fold_lines_in_a_file(capsys):
    model = model_with_a_long_name()
    print_weights(model)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[2].startswith(f"{model.layers[0].name}/kernel | kernel | yes")


def test_print_weights_folds_lines_in_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("keras_l2reg._weights_table.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    print_weights(model_with_a_long_name())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 4 and max(map(len, lines)) <= 80


def test_print_weights_of_a_model_without_weights_prints_the_title(capsys):
    print_weights(keras.Sequential([]), title="now")
    expected = "now\nNo weights: build the model, or call it once.\n"
    assert capsys.readouterr().out == expected
