"""Every code block of the README and the docs runs, and prints what the page says.

The ```python blocks of a page run one after the other, and `# -> value`, behind an
expression or on the next line, is checked. A ```text block right after one is its
output, where `...` stands for anything; its words must be the same, its numbers nearly
so (on TensorFlow, where they were made). Other blocks, such as ```bash, do not run.
"""

import ast
import contextlib
import doctest
import io
import pathlib
import re

import keras
import pytest

import keras_l2reg
from keras_l2reg import optimizers, plotting, testing
from keras_l2reg._audit.rules import RULES, as_markdown

ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
NUMBER = re.compile(r"\d+\.?\d*(?:e-?\d+)?")
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


# KerasTuner's own.
@pytest.mark.filterwarnings("ignore:currentThread..")
@pytest.mark.filterwarnings("ignore:getName..")
@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in PAGES[p]])
def test_code_blocks_run_and_print_what_the_page_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names, printed = {"__name__": page}, None
    for block in BLOCK.finditer(PAGES[page]):
        kind, text = block.groups()
        if kind == "python":
            line = PAGES[page].count("\n", 0, block.start(2))
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                run(text, names, page, line)
            printed = stdout.getvalue()
        elif kind == "text" and printed is not None:
            assert_same_output(text, printed)
        else:
            # What a shell command prints.
            printed = None


@pytest.mark.parametrize("page", [p for p in PAGES if "```" in PAGES[p]])
def test_every_code_block_says_what_it_is(page):
    fences = re.findall(r"^ *```.*", PAGES[page], re.MULTILINE)
    assert set(fences[::2]) <= {"```python", "```text", "```bash"}
    assert set(fences[1::2]) == {"```"}


def test_links_of_the_readme_lead_to_files_and_their_headings():
    # mkdocs checks those of the docs.
    for link in re.findall(r"\]\((?!https?:)(.*?)\)", PAGES["README.md"]):
        path, _, anchor = link.partition("#")
        assert (ROOT / path).is_file(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)", PAGES[path], re.MULTILINE)
            assert anchor in {title.lower().replace(" ", "-") for title in titles}


def test_every_finding_has_a_page_and_every_page_a_finding():
    pages = {path.stem for path in (DOCS / "findings").glob("*.md")} - {"index"}
    assert {rule.code for rule in RULES} == pages
    # If this fails, copy what `as_markdown()` returns to the page.
    assert as_markdown() in PAGES["docs/findings/index.md"]


SEVERITIES = {rule.code: rule.severity for rule in RULES}


@pytest.mark.parametrize("code", SEVERITIES)
def test_the_page_of_a_finding_has_its_severity_and_the_usual_sections(code):
    text = BLOCK.sub("", PAGES[f"docs/findings/{code}.md"])
    assert text.startswith(f"# {code}\n\n*Severity: {SEVERITIES[code]}.*\n")
    sections = ["What it does", "Why is this bad?", "Example", "Use instead"]
    titles = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    assert titles[:5] == [code, *sections]
    assert titles[5:] in ([], ["References"])


def test_every_public_name_is_on_the_api_page():
    documented = set(re.findall(r"^::: keras_l2reg\.(\S+)", PAGES["docs/api.md"], re.M))
    public = {name for name in keras_l2reg.__all__ if name[0] != "_"}
    public |= {f"optimizers.{name}" for name in set(optimizers.__all__) - public}
    public |= {f"plotting.{name}" for name in plotting.__all__}
    public |= {f"testing.{name}" for name in testing.__all__}
    assert documented == public


def run(text, names, page, line):
    # With as many lines before it, a traceback shows the page's own lines.
    text, file = "\n" * line + text, str(ROOT / page)
    for statement in ast.parse(text).body:
        expected = expected_value(text, statement)
        if expected is None:
            exec(compile(ast.Module([statement], []), file, "exec"), names)
            continue
        got = repr(eval(compile(ast.Expression(statement.value), file, "eval"), names))
        assert doctest.OutputChecker().check_output(expected, got, FLAGS), (
            f"{page}:{statement.lineno} gave {got}, not {expected}"
        )


def expected_value(text, statement):
    """What stands behind `# ->`, at the end of a statement or on the next line."""
    here, below = [*text.splitlines(), ""][statement.end_lineno - 1 :][:2]
    if below.startswith("# -> "):
        return below.removeprefix("# -> ")
    return here.partition("  # -> ")[2] or None


def assert_same_output(expected, got):
    assert doctest.OutputChecker().check_output(words(expected), words(got), FLAGS), (
        f"expected\n{expected}\nprinted\n{got}"
    )
    if keras.backend.backend() == "tensorflow" and "..." not in expected:
        # How long a step took depends on the machine.
        untimed = [re.sub(r"\d+m?s(/step)?", "", t) for t in (expected, got)]
        numbers = [list(map(float, NUMBER.findall(t))) for t in untimed]
        assert numbers[0] == pytest.approx(numbers[1], rel=0.1)


def words(text):
    """The words of a text; without numbers, and the signs and lines around them."""
    without_numbers = re.sub(r"#m?s", "#s", NUMBER.sub("#", text))
    return " ".join(word.strip("-+|") for word in without_numbers.split())
