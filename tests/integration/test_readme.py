"""Every code block of the README runs, and prints what the README says.

In ```python blocks, run one after the other, `expression  # -> value` is checked. A
```text block right after one is its output; its words must be the same, its numbers
nearly so (on TensorFlow, where the README's run was made).
"""

import contextlib
import doctest
import io
import pathlib
import re

import keras
import pytest

README = pathlib.Path(__file__).parents[2] / "README.md"
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NUMBER = re.compile(r"\d+\.?\d*(?:e-?\d+)?")


def test_blocks_run_and_print_what_the_readme_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed = {}, None
    for kind, text in BLOCK.findall(README.read_text()):
        if kind == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                run(text, names)
            printed = stdout.getvalue()
        elif kind == "text" and printed is not None:
            assert_same_output(text, printed)
        else:
            # What a shell command prints; .ci/run runs these.
            printed = None


def run(text, names):
    exec(text, names)
    checker = doctest.OutputChecker()
    for line in text.splitlines():
        code, arrow, expected = line.partition("# ->")
        if arrow:
            got = repr(eval(code, names))
            assert checker.check_output(
                expected.strip(), got, doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
            ), f"{code.strip()} gave {got}, not {expected.strip()}"


def assert_same_output(expected, got):
    words = [re.sub(r"#m?s", "#s", NUMBER.sub("#", t)).split() for t in (expected, got)]
    assert [w.strip("-+|") for w in words[0]] == [w.strip("-+|") for w in words[1]]
    if keras.backend.backend() == "tensorflow":
        # How long a step took is the machine's affair.
        untimed = [re.sub(r"\d+m?s(/step)?", "", t) for t in (expected, got)]
        numbers = [list(map(float, NUMBER.findall(t))) for t in untimed]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.1)
