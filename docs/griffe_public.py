"""A griffe extension: docstrings and signatures as the API page shows them."""

import re

import griffe

DOCTEST = re.compile(r"^>>> (?:.+\n?)+", re.MULTILINE)


class PublicView(griffe.Extension):
    """Fences doctests, so that Markdown shows code; hides private arguments."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(fenced, obj.docstring.value)
        if obj.is_function:
            for name in [p.name for p in obj.parameters if p.name.startswith("_")]:
                del obj.parameters[name]


def fenced(match):
    return f"```pycon\n{match[0].rstrip()}\n```\n"
