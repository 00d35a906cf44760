"""Hooks for mkdocs: what the site has beside the pages in `docs/`.

The navigation lists the page of each finding in the order of `RULES`. Notebooks become
pages, with their outputs as committed. The pictures of the examples, the contributor's
guide and the changelog are added.
"""

import pathlib
import sys

import nbconvert
from mkdocs.structure.files import File

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path += [str(ROOT), str(ROOT / "examples")]
import hush  # noqa: E402, F401  (before Keras)

from keras_l2reg._audit.rules import RULES  # noqa: E402

# Rules may share a code.
CODES = dict.fromkeys(rule.code for rule in RULES)
# Files from the repository's root that become pages, where they exist.
ROOT_PAGES = {"Contributing": "CONTRIBUTING.md", "Changelog": "CHANGELOG.md"}


def on_config(config):
    for section in config.nav:
        if "Findings" in section:
            section["Findings"] += [f"findings/{code}.md" for code in CODES]
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
    # In the repository a link leads to the file itself.
    markdown = markdown.replace("](../examples/pictures/", "](pictures/")
    return markdown.replace(".ipynb)", ".md)")


def add(files, config, uri, content):
    files.append(File.generated(config, uri, content=content))


def root_pages():
    return {title: n for title, n in ROOT_PAGES.items() if (ROOT / n).exists()}


def converted(notebook):
    """The files that a notebook becomes, by name: a page and its pictures."""
    exporter = nbconvert.MarkdownExporter()
    resources = {"unique_key": notebook.stem, "output_files_dir": "."}
    markdown, resources = exporter.from_filename(str(notebook), resources)
    pictures = {name.removeprefix("./"): c for name, c in resources["outputs"].items()}
    return {f"{notebook.stem}.md": markdown, **pictures}
