"""`Finding` and `Findings`: what an audit returns.

>>> print(Findings([Finding("frozen", "info", ("a/kernel",), "Frozen.", "Unfreeze.")]))
finding | where    | problem and fix
--------+----------+----------------
frozen  | a/kernel | Frozen.
(info)  |          | Unfreeze.
"""

import dataclasses
from collections.abc import Sequence
from typing import Literal

from keras_l2reg._tables import Table

# Most severe first.
Severity = Literal["error", "warning", "info"]


@dataclasses.dataclass(frozen=True)
class Finding:
    """One problem that an audit found.

    Args:
        code: Identifies the kind of problem: `"never-applied"`.
        severity: `"error"`, the model does not train as declared; `"warning"`,
            probably not intended; or `"info"`, worth knowing.
        where: Tuple of the names of the affected weights, or compiled steps.
        message: The problem, in one or two sentences.
        fix: What to do about it, in one or two sentences.

    Example:

    >>> Finding("frozen", "info", ("a/kernel",), "Frozen.", "Unfreeze it.").where
    ('a/kernel',)
    """

    code: str
    severity: Severity
    where: tuple[str, ...]
    message: str
    fix: str


class Findings(tuple[Finding, ...]):
    """The findings of an audit: a tuple of `Finding` that prints as a table.

    >>> print(Findings())
    No findings.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return str(self._table())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        return Table(
            columns=["finding", "where", "problem and fix"],
            rows=[
                [
                    f"{finding.code}\n({finding.severity})",
                    _first_lines(finding.where),
                    f"{finding.message}\n{finding.fix}",
                ]
                for finding in self
            ],
            empty="No findings.",
            ruled=True,
        )


def _first_lines(names: Sequence[str], shown: int = 3) -> str:
    more = len(names) - shown
    return "\n".join([*names[:shown], *[f"and {more} more"] * (more > 0)])
