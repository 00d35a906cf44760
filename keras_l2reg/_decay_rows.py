"""The outcome of a rule for weight decay, as an optimizer keeps and saves it.

Rows of `[path of the variable, multiplier]`, one for each weight of the model, since an
optimizer knows variables, not layers.

>>> rows = [["dense/kernel", 1.0], ["dense/bias", 0.0], ["dense_1/kernel", 0.5]]
>>> multipliers_for(rows, ["model/dense/kernel", "model/dense_1/kernel"])
[1.0, 0.5]
>>> multipliers_for(rows, ["dense_4/kernel", "dense_4/bias", "dense_5/kernel"])
[1.0, 0.0, 0.5]
"""

import collections
import itertools
import re
from collections.abc import Iterable, Sequence
from typing import Any

Row = Sequence[Any]


def multipliers_for(rows: Iterable[Row], paths: Sequence[str]) -> list[float | None]:
    """The multiplier of each of the variables with these paths, `None` if unknown.

    Variables are found by path. In a loaded model, paths may lack the name of the
    model, and Keras numbers automatic names, `dense_1` or `variable_7`, across the
    process. So variables of which the rest is the same are found by order, if there
    are as many as there were, or else by as much of the path as agrees.
    """
    saved: dict[Any, list[tuple[str, float]]] = collections.defaultdict(list)
    for path, multiplier in rows:
        saved[_kind(path)].append((path, multiplier))
    indices: dict[Any, list[int]] = collections.defaultdict(list)
    for index, path in enumerate(paths):
        indices[_kind(path)].append(index)
    found: list[float | None] = [None] * len(paths)
    for kind, members in indices.items():
        matched = _matched(saved[kind], [paths[index] for index in members])
        for index, multiplier in zip(members, matched, strict=True):
            found[index] = multiplier
    return found


def _kind(path: str) -> tuple[str, ...]:
    """The names of the layer and the variable, without automatic numbers."""
    return tuple(re.sub(r"_\d+$", "", part) for part in path.split("/")[-2:])


def _matched(
    saved: list[tuple[str, float]], wanted: list[str]
) -> Iterable[float | None]:
    """The multipliers of variables of one kind."""
    by_path = dict(saved)
    if len(by_path) == len(saved) and by_path.keys() >= set(wanted):
        return [by_path[path] for path in wanted]
    if len(saved) == len(wanted):
        return [multiplier for _, multiplier in saved]
    return [_closest(saved, path) for path in wanted]


def _closest(saved: list[tuple[str, float]], path: str) -> float | None:
    """The multiplier of the path that ends most like `path`, if there is one."""
    common = [_common_end(path, other) for other, _ in saved]
    best = max(common, default=0)
    if best < min(2, path.count("/") + 1):
        return None
    found = {m for (_, m), count in zip(saved, common, strict=True) if count == best}
    return found.pop() if len(found) == 1 else None


def _common_end(path: str, other: str) -> int:
    pairs = zip(reversed(path.split("/")), reversed(other.split("/")), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
