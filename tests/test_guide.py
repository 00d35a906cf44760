"""The guide is whole: a page for every finding, and every page on the map.

What the pages say is checked by their doctests, their links by `.ci/docs`.
"""

import ast
import pathlib

from keras_l2reg import guide
from keras_l2reg._audit.rules import RULES

FOLDER = pathlib.Path(guide.__file__).parent
PAGES = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}


def test_every_finding_has_a_page():
    assert {rule.code.replace("-", "_") for rule in RULES} <= PAGES


def test_every_page_is_on_the_map():
    assert {page for page in PAGES if f"guide/{page}.html" in guide.__doc__} == PAGES


def test_pages_are_docstrings_only():
    for page in (*PAGES, "__init__"):
        (only,) = ast.parse((FOLDER / f"{page}.py").read_text()).body
        assert isinstance(only.value.value, str)
