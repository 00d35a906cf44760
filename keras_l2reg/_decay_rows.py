"""The outcome of a rule for weight decay, as an optimizer keeps and saves it.

Rows of `[path of the variable, multiplier]`, one for each weight of the model, since an
optimizer knows variables, not layers.

>>> rows = [["dense/kernel", 1.0], ["dense/bias", 0.0], ["dense_1/kernel", 0.5]]
>>> multipliers_for(rows, ["dense/kernel", "dense_1/kernel"])
[1.0, 0.5]
>>> multipliers_for(rows, ["dense_4/kernel", "dense_4/bias", "dense_5/kernel"])
[1.0, 0.0, 0.5]
"""

import collections
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

Row = Sequence[Any]


def multipliers_for(rows: Iterable[Row], paths: Sequence[str]) -> list[float | None]:
    """The multiplier of each of the variables with these paths, `None` if unknown.

    Variables are found by path. Keras numbers automatic names, `dense_1` or
    `variable_7`, across the process: where numbers differ, variables whose paths are
    the same without them are found by order, if there are as many as there were.
    """
    saved = collections.defaultdict(list)
    for path, multiplier in rows:
        saved[_without_numbers(path)].append((path, multiplier))
    indices = collections.defaultdict(list)
    for index, path in enumerate(paths):
        indices[_without_numbers(path)].append(index)
    found: list[float | None] = [None] * len(paths)
    for key, members in indices.items():
        wanted = [paths[index] for index in members]
        for index, multiplier in zip(
            members, _matched(saved[key], wanted), strict=True
        ):
            found[index] = multiplier
    return found


def _matched(
    saved: list[tuple[str, float]], wanted: list[str]
) -> Iterator[float | None]:
    """The multipliers of variables whose paths differ in numbers only."""
    by_path = dict(reversed(saved))
    is_same = len(by_path) == len(saved) and by_path.keys() >= set(wanted)
    if is_same or len(saved) != len(wanted):
        return map(by_path.get, wanted)
    return (multiplier for _, multiplier in saved)


def _without_numbers(path: str) -> str:
    return re.sub(r"_\d+(?=/|$)", "", path)
