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

import collections
import csv
import dataclasses
import functools
import io
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from keras_l2reg._io import write_atomically
from keras_l2reg._path.plot import plot_path
from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.records import Record, cost, is_mixed, ratio_of, record_of
from keras_l2reg._path.runs import OWN_KEYS, Run
from keras_l2reg._tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


@dataclasses.dataclass(frozen=True, repr=False)
class L2Path:
    """The result of `l2_path`: the metrics of its runs, one record per strength.

    `mean = sum_r v_r / n`, `se = sqrt(sum_r (v_r - mean)**2 / (n - 1) / n)`

    over the `n` repeats; with cross-validation over the `n` folds, where `v_r` is the
    mean over the repeats of a fold. The standard error of a single run or fold is NaN.

    A run diverged if its training or validation loss is not finite. A metric may be NaN
    in a run that did not diverge.

    Args:
        runs: List of dicts: `l2`, `repeat`, with cross-validation `fold`, with
            `l1_ratio` the keys of its `records`, and every metric that was logged. A
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

        Keys: `l2`, with cross-validation `folds` (how many), `repeats` (how many, of
        each fold), `diverged` (how many of these runs did), and for each metric its
        mean and, under `<metric>_se`, its standard error. On a path with `l1_ratio`,
        `strength`, `l1_ratio` and `l1` come before `l2`, and the records are sorted by
        ratio first; on a path of weight decay, `weight_decay` stands for `l2`. A log
        key with one of these names is renamed to `logged_<key>`.
        """
        runs: dict[Point, list[Run]] = {}
        for run in self.runs:
            runs.setdefault(point_of(run), []).append(run)
        points = sorted(runs, key=lambda point: point.order)
        return [record_of(point, runs[point], self._metrics) for point in points]

    @functools.cached_property
    def _metrics(self) -> list[str]:
        """The names of all metrics: a run that diverged may lack some."""
        names = dict.fromkeys(key for run in self.runs for key in run)
        taken = {*OWN_KEYS, *(f"{name}_se" for name in names)}
        return [name for name in names if name not in taken]

    @property
    def _name(self) -> str:
        """The name of the strength that is varied."""
        return point_of(self.runs[0]).name if self.runs else "l2"

    @property
    def best(self) -> Record | None:
        """The record with the best mean of `monitor`; `None` if all diverged.

        On an interrupted path, a strength with fewer runs than others is left out.
        """
        finite = [r for r in self._compared if math.isfinite(self._cost(r))]
        return min(finite, key=self._cost) if finite else None

    @property
    def one_standard_error(self) -> Record | None:
        """The record of the strongest penalty within one standard error of the best.

        `max {l2 : mean(l2) <= mean(best) + se(best)}` (for `mode="min"`), among the
        strengths at the best `l1_ratio`; `None` if there is no standard error: only one
        repeat or fold, or all diverged. With cross-validation, this is the rule of
        glmnet's `lambda.1se`.

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
        line = [r for r in self._compared if ratio_of(r) == ratio_of(best)]
        return next(r for r in line if self._cost(r) <= limit)

    @functools.cached_property
    def _compared(self) -> list[Record]:
        """The records with as many runs as any."""
        most = max(self._counts.values(), default=0)
        return [r for r in self.records if self._counts[point_of(r)] == most]

    @functools.cached_property
    def _counts(self) -> collections.Counter[Point]:
        """The number of runs at each point."""
        return collections.Counter(map(point_of, self.runs))

    def _cost(self, record: Record) -> float:
        return cost(record, self.monitor, self.mode)

    def _error(self, record: Record) -> float:
        return record.get(f"{self.monitor}_se", math.nan)

    def to_csv(self, file: str | os.PathLike[str]) -> None:
        """Write the records, atomically: on failure, the old file is kept.

        Args:
            file: The path to write to.
        """
        fields = (
            self.records[0] if self.records else (self._name, "repeats", "diverged")
        )
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
        best = point_of(self.best) if self.best else f"{self._name}=None"
        return f"<L2Path of {len(self.records)} strengths, best {best}>"

    def __str__(self) -> str:
        return str(self._table())

    def _repr_html_(self) -> str:
        return self._table()._repr_html_()

    def _table(self) -> Table:
        shown = self._shown()
        keys = ["strength", "l1_ratio"] if is_mixed(self.records) else [self._name]
        return Table(
            columns=[*keys, *shown, ""],
            rows=[
                [
                    *(f"{record[key]:.4g}" for key in keys),
                    *(_with_error(record, metric) for metric in shown),
                    self._remark(record),
                ]
                for record in self.records
            ],
            right=[*keys, *shown],
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
        for name in ("l1", "l2", "weight_decay"):
            logged = f"logged_{name}"
            both = [r for r in self.records if name in r and logged in r]
            if any(_differs(r[name], r[logged]) for r in both):
                yield f"a callback changed the strength; the runs ended with `{logged}`"
        if self.best and len(self.records) > 1:
            yield from self._notes_on_best(self.best)

    def _notes_on_best(self, best: Record) -> Iterator[str]:
        line = [r for r in self.records if ratio_of(r) == ratio_of(best)]
        weakest = line[-1]
        is_weakest, weakest_strength = best is weakest, point_of(weakest).strength
        if best is line[0]:
            yield "the best is the strongest of all: try stronger ones"
        if is_weakest and weakest_strength > 0:
            yield "the best is the weakest of all: try weaker ones"
        if weakest_strength > 0:
            return
        if is_weakest:
            yield "the best is no penalty at all"
        elif self._cost(weakest) <= self._cost(best) + self._error(best):
            yield "no penalty at all is within one standard error of the best"

    def _remark(self, record: Record) -> str:
        marks = [("best", self.best), ("one standard error", self.one_standard_error)]
        remarks = [name for name, marked in marks if record is marked]
        if record["diverged"]:
            count = self._counts[point_of(record)]
            remarks.append(f"{record['diverged']} of {count} diverged")
        return ", ".join(remarks)


def _differs(strength: float, logged: float) -> bool:
    # The live strength is a float32.
    return math.isfinite(logged) and not math.isclose(
        strength, logged, rel_tol=1e-6, abs_tol=1e-30
    )


def _with_error(record: Record, metric: str) -> str:
    error = record[f"{metric}_se"]
    tail = "" if math.isnan(error) else f" ±{error:.2g}"
    return f"{record[metric]:.4g}{tail}"
