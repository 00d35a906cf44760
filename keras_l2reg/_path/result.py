"""L2Path: the result of `l2_path`, as records, a table, a file or a plot.

>>> path = L2Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 2.5},
...              {"l2": 0.1, "repeat": 0, "val_data_loss": 1.5}])
>>> print(path)
 l2 | val_data_loss |
----+---------------+-----
  1 |           2.5 |
0.1 |           1.5 | best
the best is the weakest of all: try weaker ones
"""

import csv
import dataclasses
import functools
import io
import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_l2reg._io import write_atomically
from keras_l2reg._path.plot import plot_path
from keras_l2reg._path.runs import OWN_KEYS, Run
from keras_l2reg._tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure

Record = dict[str, Any]

_LOSSES = ("loss", "data_loss", "val_loss", "val_data_loss")


@dataclasses.dataclass(frozen=True, repr=False)
class L2Path:
    """The result of `l2_path`: the metrics of its runs, one record per strength.

    `mean = sum_r v_r / n`, `se = sqrt(sum_r (v_r - mean)**2 / (n - 1) / n)`,
    over the `n` repeats; the standard error of a single run is NaN.

    A run diverged if its training or validation loss is not finite. A metric may be NaN
    in a run that did not diverge.

    Args:
        runs: List of dicts: `l2`, `repeat`, and every metric that was logged. A
            metric missing in a run is NaN there.
        monitor: The metric by which strengths are compared. Defaults to
            `"val_data_loss"`.
        mode: `"min"` or `"max"`, whether a low or a high value is better. Defaults to
            `"min"`.
        interrupted: Boolean, whether the path was interrupted. Defaults to `False`.

    Example:

    >>> path = L2Path([{"l2": 0.1, "repeat": 0, "val_data_loss": 2.0},
    ...              {"l2": 0.1, "repeat": 1, "val_data_loss": 4.0}], "val_data_loss")
    >>> path.records
    [{'l2': 0.1, 'repeats': 2, 'diverged': 0,
      'val_data_loss': 3.0, 'val_data_loss_se': 1.0}]
    """

    runs: list[Run]
    monitor: str = "val_data_loss"
    mode: Literal["min", "max"] = "min"
    interrupted: bool = False

    @functools.cached_property
    def records(self) -> list[Record]:
        """A list of dicts, from strong to weak: `pandas.DataFrame(path.records)`.

        Keys: `l2`, `repeats`, `diverged` (how many of the repeats did), and for each
        metric its mean and, under `<metric>_se`, its standard error over the repeats.
        A log key with one of these names is renamed to `logged_<key>`.
        """
        strengths = sorted({run["l2"] for run in self.runs}, reverse=True)
        return [
            _record(l2, [run for run in self.runs if run["l2"] == l2], self._metrics)
            for l2 in strengths
        ]

    @functools.cached_property
    def _metrics(self) -> list[str]:
        """The names of all metrics: a run that diverged may lack some."""
        names = dict.fromkeys(key for run in self.runs for key in run)
        taken = {*OWN_KEYS, *(f"{name}_se" for name in names)}
        return [name for name in names if name not in taken]

    @property
    def best(self) -> Record | None:
        """The record with the best mean of `monitor`; `None` if all diverged."""
        finite = [r for r in self.records if math.isfinite(self._cost(r))]
        return min(finite, key=self._cost) if finite else None

    @property
    def one_standard_error(self) -> Record | None:
        """The record of the strongest `l2` within one standard error of the best.

        `max {l2 : mean(l2) <= mean(best) + se(best)}` (for `mode="min"`); `None`
        if there is no standard error: only one repeat, or all diverged.

        References:
            - Breiman, Friedman, Olshen & Stone, Classification and Regression Trees,
              section 3.4.3, 1984.
            - Hastie, Tibshirani & Friedman, [The Elements of Statistical Learning](
              https://hastie.su.domains/ElemStatLearn/), section 7.10, 2009.
        """
        best = self.best
        if best is None or math.isnan(self._error(best)):
            return None
        limit = self._cost(best) + self._error(best)
        return next(r for r in self.records if self._cost(r) <= limit)

    def _cost(self, record: Record) -> float:
        return cost(record, self.monitor, self.mode)

    def _error(self, record: Record) -> float:
        return record.get(f"{self.monitor}_se", math.nan)

    def to_csv(self, file: str | os.PathLike[str]) -> None:
        """Write the records, atomically: on failure, the old file is kept.

        Args:
            file: The path to write to.
        """
        fields = self.records[0] if self.records else ("l2", "repeats", "diverged")
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, [*fields])
        writer.writeheader()
        writer.writerows(self.records)
        write_atomically(file, content.getvalue().encode())

    def plot(self, **arguments: Any) -> "Figure | SubFigure":
        """Plot the path: `keras_l2reg.plotting.plot_path(path, ...)`.

        Args:
            **arguments: Further arguments of `plot_path`.

        Returns:
            The matplotlib figure.

        Raises:
            ImportError: matplotlib is missing: `pip install 'keras_l2reg[plot]'`.
        """
        return plot_path(self, **arguments)

    def __repr__(self) -> str:
        best = self.best and self.best["l2"]
        return f"<L2Path of {len(self.records)} strengths, best l2={best}>"

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        shown = self._shown()
        return Table(
            columns=["l2", *shown, ""],
            rows=[
                [
                    f"{record['l2']:.4g}",
                    *(_with_error(record, metric) for metric in shown),
                    self._remark(record),
                ]
                for record in self.records
            ],
            right=["l2", *shown],
            notes=[*self._notes()],
            empty="No runs.",
            folds=False,
        )

    def _shown(self) -> list[str]:
        """The metrics in the table: the parts of the loss, and validation metrics."""
        validated = [
            name
            for name in self._metrics
            if name.startswith("val_") and not name.endswith(("loss", "penalty"))
        ]
        wanted = ["data_loss", "penalty", "val_data_loss", *validated, self.monitor]
        return [name for name in dict.fromkeys(wanted) if name in self._metrics]

    def _notes(self) -> Iterator[str]:
        if self.interrupted:
            yield "interrupted: only the finished runs are shown"
        if any(_differs(r["l2"], r.get("logged_l2", r["l2"])) for r in self.records):
            yield "a callback changed the strength; the runs ended with `logged_l2`"
        if self.best and len(self.records) > 1:
            yield from self._notes_on_best(self.best)

    def _notes_on_best(self, best: Record) -> Iterator[str]:
        weakest = self.records[-1]
        if best is self.records[0]:
            yield "the best is the strongest of all: try stronger ones"
        if best is weakest and best["l2"] > 0:
            yield "the best is the weakest of all: try weaker ones"
        if weakest["l2"] > 0:
            return
        if best is weakest:
            yield "the best is no penalty at all"
        elif self._cost(weakest) <= self._cost(best) + self._error(best):
            yield "no penalty at all is within one standard error of the best"

    def _remark(self, record: Record) -> str:
        marks = [("best", self.best), ("one standard error", self.one_standard_error)]
        remarks = [name for name, marked in marks if record is marked]
        if record["diverged"]:
            remarks.append(f"{record['diverged']} of {record['repeats']} diverged")
        return ", ".join(remarks)


def cost(metrics: Mapping[str, float], monitor: str, mode: str) -> float:
    """The monitored metric with the sign that makes lower better; NaN if missing.

    >>> cost({"val_accuracy": 0.75}, "val_accuracy", "max")
    -0.75
    """
    value = metrics.get(monitor, math.nan)
    return value if mode == "min" else -value


def _record(l2: float, runs: list[Run], metrics: list[str]) -> Record:
    diverged = [
        run
        for run in runs
        if not all(math.isfinite(run[name]) for name in _LOSSES if name in run)
    ]
    record: Record = {"l2": l2, "repeats": len(runs), "diverged": len(diverged)}
    for name in metrics:
        values = np.array([run.get(name, math.nan) for run in runs], "float64")
        # An infinite metric has no standard error.
        with np.errstate(invalid="ignore"):
            record[name] = float(np.mean(values))
            record[f"{name}_se"] = (
                float(np.std(values, ddof=1) / math.sqrt(len(values)))
                if len(values) > 1
                else math.nan
            )
    return record


def _differs(strength: float, logged: float) -> bool:
    # The live strength is a float32.
    return math.isfinite(logged) and not math.isclose(
        strength, logged, rel_tol=1e-6, abs_tol=1e-30
    )


def _with_error(record: Record, metric: str) -> str:
    error = record[f"{metric}_se"]
    tail = "" if math.isnan(error) else f" ±{error:.2g}"
    return f"{record[metric]:.4g}{tail}"
