"""Parts: a regularizer for each part of a model.

>>> parts = Parts({"head/*": "l2", "head/out/*": None})
>>> parts.of("head/dense/kernel"), parts.of("head/out/kernel"), parts.of("a/kernel")
('l2', None, None)
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Parts:
    """Regularizers by globs over weight names; the last match wins.

    Args:
        by_glob: Mapping from globs to a regularizer, or to `None` for the weights to
            leave out.
    """

    by_glob: Mapping[str, Callable[..., Any] | None]

    def of(self, name: str) -> Callable[..., Any] | None:
        """The regularizer of a weight; `None` if it is left out or left alone."""
        glob = last_match(self.by_glob, name)
        return None if glob is None else self.by_glob[glob]


def last_match(globs: Mapping[str, Any], name: str) -> str | None:
    """The last of the globs that matches the name of a weight, if any.

    >>> last_match({"*": 1, "b/*": 2}, "a/kernel")
    '*'
    """
    matching = [glob for glob in globs if fnmatch.fnmatchcase(name, glob)]
    return matching[-1] if matching else None
