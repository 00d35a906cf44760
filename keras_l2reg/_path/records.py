"""The records of an `L2Path`: means and standard errors of the runs at one point."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.runs import Run

Record = dict[str, Any]

_LOSSES = ("loss", "data_loss", "val_loss", "val_data_loss")


def cost(metrics: Mapping[str, float], monitor: str, mode: str) -> float:
    """The monitored metric with the sign that makes lower better; NaN if missing.

    >>> cost({"val_accuracy": 0.75}, "val_accuracy", "max")
    -0.75
    """
    value = metrics.get(monitor, math.nan)
    return value if mode == "min" else -value


def is_mixed(records: list[Record]) -> bool:
    """Whether they are of a path with `l1_ratio`."""
    return any("l1_ratio" in record for record in records)


def ratio_of(record: Record) -> float | None:
    return point_of(record).l1_ratio


def record_of(point: Point, runs: list[Run], metrics: list[str]) -> Record:
    """The record of all runs at one point, with keys as `L2Path.records` says.

    >>> runs = [{"l2": 1.0, "fold": k // 2, "repeat": k % 2, "loss": k}
    ...         for k in range(4)]
    >>> record_of(Point(1.0), runs, ["loss"])
    {'l2': 1.0, 'folds': 2, 'repeats': 2, 'diverged': 0, 'loss': 1.5, 'loss_se': 1.0}
    """
    diverged = [
        run
        for run in runs
        if not all(math.isfinite(run[name]) for name in _LOSSES if name in run)
    ]
    # Without folds, each run is one by itself.
    folds: dict[Any, list[Run]] = {}
    for index, run in enumerate(runs):
        folds.setdefault(run.get("fold", ("run", index)), []).append(run)
    is_folded = "fold" in runs[0]
    record: Record = point.keys() | ({"folds": len(folds)} if is_folded else {})
    record["repeats"] = len({run["repeat"] for run in runs})
    record["diverged"] = len(diverged)
    for name in metrics:
        # An infinite metric has no standard error.
        with np.errstate(invalid="ignore"):
            values = [
                np.mean([run.get(name, math.nan) for run in fold], dtype="float64")
                for fold in folds.values()
            ]
            record[name] = float(np.mean(values))
            record[f"{name}_se"] = (
                float(np.std(values, ddof=1) / math.sqrt(len(values)))
                if len(values) > 1
                else math.nan
            )
    return record
