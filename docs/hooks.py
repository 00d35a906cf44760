"""Hooks for mkdocs: the tables, pages and notebooks that derive from code.

A comment `<!-- roles -->` or `<!-- findings -->` in a page is replaced by a table. The
navigation lists the page of each finding in the order of `RULES`. Notebooks are
converted to Markdown, with their outputs as committed. Pictures and pages from outside
`docs/` are added to the site.
"""

import pathlib
import re
import sys

import nbconvert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "examples")]
import hush  # noqa: E402, F401  (before Keras)

from keras_l2reg import _roles  # noqa: E402
from keras_l2reg._audit import rules  # noqa: E402

# Files from the repository's root that become pages, where they exist.
ROOT_PAGES = {"Contributing": "CONTRIBUTING.md", "Changelog": "CHANGELOG.md"}


def on_config(config):
    for section in config.nav:
        if "Findings" in section:
            section["Findings"] += [f"findings/{code}.md" for code in codes()]
    config.nav += [{title: name} for title, name in root_pages().items()]
    return config


def on_files(files, config):
    for path in (ROOT / "examples" / "pictures").glob("*.png"):
        add(files, config, f"pictures/{path.name}", path.read_bytes())
    for name in root_pages().values():
        add(files, config, name, (ROOT / name).read_text())
    for path in (ROOT / "docs" / "notebooks").glob("*.ipynb"):
        for name, content in converted(path).items():
            add(files, config, f"notebooks/{name}", content)
    return files


def on_page_markdown(markdown, page, config, files):
    code = pathlib.Path(page.file.src_uri).stem
    if page.file.src_uri.startswith("findings/") and code != "index":
        markdown = with_severity(markdown, code)
    tables = {"roles": _roles.as_markdown, "findings": rules.as_markdown}
    return re.sub(r"<!-- (\w+) -->", lambda match: tables[match[1]](), markdown)


def add(files, config, uri, content):
    files.append(File.generated(config, uri, content=content))


def root_pages():
    return {title: n for title, n in ROOT_PAGES.items() if (ROOT / n).exists()}


def codes():
    """The code of each finding, once: two rules may share one."""
    return [*dict.fromkeys(rule.code for rule in rules.RULES)]


def with_severity(markdown, code):
    """The page with the severity of its finding below the title."""
    title, rest = markdown.split("\n", 1)
    (severity,) = {rule.severity for rule in rules.RULES if rule.code == code}
    return f"{title}\n\n*Severity: {severity}.*\n{rest}"


def converted(notebook):
    """The files that a notebook becomes, by name: a page and its pictures."""
    exporter = nbconvert.MarkdownExporter()
    resources = {"unique_key": notebook.stem, "output_files_dir": "."}
    markdown, resources = exporter.from_filename(str(notebook), resources)
    pictures = {name.removeprefix("./"): c for name, c in resources["outputs"].items()}
    return {f"{notebook.stem}.md": markdown, **pictures}
