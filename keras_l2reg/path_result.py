"""Path: what `l2_path` measured, as records, a table, a file, a picture.

>>> path = Path([{"l2": 1.0, "repeat": 0, "val_data_loss": 2.5},
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

import numpy as np

from keras_l2reg._files import write_whole
from keras_l2reg._tables import Table


@dataclasses.dataclass(frozen=True, repr=False)
class Path:
    """What the runs of `l2_path` measured, one record per strength.

    `mean = sum_r v_r / n`, `se = sqrt(sum_r (v_r - mean)**2 / (n - 1) / n)`,
    over the `n` repeats; the standard error of a single run is NaN

    Args:
        runs: List of dicts: `l2`, `repeat`, and every figure that was logged, NaN
            for a run that diverged.
        monitor: The figure by which strengths are compared.
        mode: `"min"` or `"max"`: which end of it is good.
        interrupted: Boolean, whether the path was broken off. Defaults to `False`.

    Example:

    >>> path = Path([{"l2": 0.1, "repeat": 0, "val_data_loss": 2.0},
    ...              {"l2": 0.1, "repeat": 1, "val_data_loss": 4.0}], "val_data_loss")
    >>> path.records
    [{'l2': 0.1, 'repeats': 2, 'diverged': 0,
      'val_data_loss': 3.0, 'val_data_loss_se': 1.0}]

    Source: scikit-learn's `cv_results_`.
    """

    runs: list
    monitor: str = "val_data_loss"
    mode: str = "min"
    interrupted: bool = False

    @functools.cached_property
    def records(self):
        """A list of dicts, from strong to weak: `pandas.DataFrame(path.records)`.

        Keys: `l2`, `repeats`, `diverged` (how many of them), and for each figure its
        mean and, under `<figure>_se`, its standard error over the repeats.
        """
        strengths = sorted({run["l2"] for run in self.runs}, reverse=True)
        return [
            _record(l2, [run for run in self.runs if run["l2"] == l2])
            for l2 in strengths
        ]

    @property
    def best(self):
        """The record with the best mean of `monitor`; `None` if all diverged."""
        sound = [r for r in self.records if math.isfinite(r[self.monitor])]
        return min(sound, key=self._badness) if sound else None

    @property
    def one_standard_error(self):
        """The strongest record within one standard error of the best.

        `max {l2 : mean(l2) <= mean(best) + se(best)}` (for `mode="min"`); `None`
        if there is no standard error: one repeat only, or all diverged.

        References: Breiman, Friedman, Olshen & Stone, Classification and Regression
        Trees, 1984, 3.4.3; Hastie, Tibshirani & Friedman, [The Elements of
        Statistical Learning](https://hastie.su.domains/ElemStatLearn/), 7.10.
        """
        best = self.best
        if best is None or math.isnan(best[f"{self.monitor}_se"]):
            return None
        limit = self._badness(best) + best[f"{self.monitor}_se"]
        return next(r for r in self.records if self._badness(r) <= limit)

    def _badness(self, record):
        value = record[self.monitor]
        return value if self.mode == "min" else -value

    def to_csv(self, file):
        """Write the records; a full disk leaves what was there, no half of a file.

        Args:
            file: The path to write to.
        """
        fields = dict.fromkeys(key for record in self.records for key in record)
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, [*fields])
        writer.writeheader()
        writer.writerows(self.records)
        write_whole(file, content.getvalue().encode())

    def plot(self, **arguments):
        """Draw the path: `keras_l2reg.plotting.plot_path(path, ...)`.

        Raises:
            ImportError: matplotlib is missing: `pip install 'keras_l2reg[plot]'`.
        """
        from keras_l2reg.plotting import plot_path

        return plot_path(self, **arguments)

    def __repr__(self):
        best = self.best and self.best["l2"]
        return f"<Path of {len(self.records)} strengths, best l2={best}>"

    def __str__(self):
        return str(self._table())

    def _repr_html_(self):
        return self._table()._repr_html_()

    def _table(self):
        figures = ["data_loss", "penalty", "val_data_loss", *self._metrics()]
        shown = [f for f in figures if any(f in record for record in self.records)]
        return Table(
            columns=["l2", *shown, ""],
            rows=[
                [
                    f"{record['l2']:.4g}",
                    *(_with_error(record, figure) for figure in shown),
                    self._remark(record),
                ]
                for record in self.records
            ],
            right=["l2", *shown],
            notes=[*self._notes()],
            empty="No runs.",
            folds=False,
        )

    def _notes(self):
        if self.interrupted:
            yield "interrupted: these are the runs that were done"
        if self.best and len(self.records) > 1:
            if self.best is self.records[0]:
                yield "the best is the strongest of all: try stronger ones"
            if self.best is self.records[-1] and self.best["l2"] > 0:
                yield "the best is the weakest of all: try weaker ones"

    def _metrics(self):
        return [
            key
            for key in (self.records[0] if self.records else ())
            if key.startswith("val_")
            and not key.endswith(("_se", "loss"))
            and key != "val_penalty"
        ]

    def _remark(self, record):
        if record["diverged"]:
            return f"{record['diverged']} of {record['repeats']} diverged"
        marks = [("best", self.best), ("one standard error", self.one_standard_error)]
        return ", ".join(name for name, marked in marks if record is marked)


def _record(l2, runs):
    figures = dict.fromkeys(k for r in runs for k in r if k not in ("l2", "repeat"))
    diverged = [run for run in runs if any(math.isnan(run[k]) for k in figures)]
    record = {"l2": l2, "repeats": len(runs), "diverged": len(diverged)}
    for key in figures:
        values = np.array([run[key] for run in runs], "float64")
        record[key] = float(np.mean(values))
        record[f"{key}_se"] = (
            float(np.std(values, ddof=1) / math.sqrt(len(values)))
            if len(values) > 1
            else math.nan
        )
    return record


def _with_error(record, figure):
    error = record[f"{figure}_se"]
    tail = "" if math.isnan(error) else f" ±{error:.2g}"
    return f"{record[figure]:.4g}{tail}"
