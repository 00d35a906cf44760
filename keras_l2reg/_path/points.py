"""The penalties that a path compares: strengths, mixed of L1 and L2 or not.

>>> Point(0.1).keys()
{'l2': 0.1}
>>> Point(0.1, l1_ratio=0.5).keys()
{'strength': 0.1, 'l1_ratio': 0.5, 'l1': 0.05, 'l2': 0.05}
>>> Point(0.1, name="weight_decay").keys()
{'weight_decay': 0.1}
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A strength and the share of L1 in it: `l1 = s * r`, `l2 = s * (1 - r)`.

    Args:
        strength: Float >= 0.
        l1_ratio: Float in [0, 1]; `None` on a path that varies one strength alone.
            Defaults to `None`.
        name: `"l2"` or `"weight_decay"`, the strength that is varied. Defaults to
            `"l2"`.
    """

    strength: float
    l1_ratio: float | None = None
    name: str = "l2"

    @property
    def l1(self) -> float:
        return self.strength * (self.l1_ratio or 0.0)

    @property
    def l2(self) -> float:
        return self.strength * (1.0 - (self.l1_ratio or 0.0))

    @property
    def order(self) -> tuple[float, float]:
        """A key to sort by: one ratio after the other, each from strong to weak."""
        return self.l1_ratio or 0.0, -self.strength

    def keys(self) -> dict[str, float]:
        """What identifies the point in a run or a record."""
        if self.l1_ratio is None:
            return {self.name: self.strength}
        return {
            "strength": self.strength,
            "l1_ratio": self.l1_ratio,
            "l1": self.l1,
            "l2": self.l2,
        }

    def __str__(self) -> str:
        if self.l1_ratio is None:
            return f"{self.name}={self.strength:.4g}"
        return f"strength={self.strength:.4g}, l1_ratio={self.l1_ratio:.4g}"


def point_of(run: Mapping[str, Any]) -> Point:
    """The point of a run or a record.

    >>> point_of(Point(0.1, l1_ratio=0.5).keys())
    Point(strength=0.1, l1_ratio=0.5, name='l2')
    """
    if "weight_decay" in run:
        return Point(run["weight_decay"], name="weight_decay")
    return Point(run.get("strength", run["l2"]), run.get("l1_ratio"))
