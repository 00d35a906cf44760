"""A griffe extension: the doctests of a docstring are shown as code."""

import re

import griffe

DOCTEST = re.compile(r"^>>> (?:.+\n?)+", re.MULTILINE)


class DoctestFences(griffe.Extension):
    """Puts each doctest between fences, which Markdown needs to see it as code."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring:
            obj.docstring.value = DOCTEST.sub(fenced, obj.docstring.value)


def fenced(match):
    return f"```pycon\n{match[0].rstrip()}\n```\n"
