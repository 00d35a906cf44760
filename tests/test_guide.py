"""The guide is whole: a page for every finding, and every page on the map.

What the pages say is checked by their doctests, their links by `.ci/docs`.
"""

import ast
import pathlib
import re

from keras_l2reg import guide

FOLDER = pathlib.Path(guide.__file__).parent
PAGES = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}


def test_every_finding_has_a_page():
    sources = [path.read_text() for path in FOLDER.parent.rglob("*.py")]
    codes = {
        code
        for source in sources
        for code in re.findall(r'\bFinding\(\s*"([a-z-]+)",\s*"\w+",\s', source)
    }
    assert len(codes) >= 17
    assert {code.replace("-", "_") for code in codes} <= PAGES


def test_every_page_is_on_the_map():
    assert {page for page in PAGES if f"guide/{page}.html" in guide.__doc__} == PAGES


def test_pages_are_docstrings_only():
    for page in (*PAGES, "__init__"):
        (only,) = ast.parse((FOLDER / f"{page}.py").read_text()).body
        assert isinstance(only.value.value, str)
