"""examples/hush.py keeps back what an import writes, unless the import fails."""

import sys
from pathlib import Path

import pytest

# At the end: examples/distributed.py is not the package `distributed`.
sys.path.append(str(Path(__file__).parents[2] / "examples"))
import hush

NOISY = "import os\nos.write(2, b'I0000 port.cc:153')\n"


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Makes a module of a text, and gives its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, text):
        (tmp_path / f"{name}.py").write_text(text)
        return name

    return make


def test_what_an_import_writes_is_not_seen_and_what_comes_later_is(module, capfd):
    hush.import_quietly(module("noisy_module", NOISY))
    print("ours", file=sys.stderr)
    assert capfd.readouterr().err == "ours\n"


def test_what_an_import_that_fails_has_written_is_seen(module, capfd):
    with pytest.raises(ZeroDivisionError):
        hush.import_quietly(module("noisy_failure", f"{NOISY}1 / 0\n"))
    assert capfd.readouterr().err == "I0000 port.cc:153"
