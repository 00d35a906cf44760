"""Gather the runs of a path into an `L2Path`, and keep the best run's weights."""

import collections
import math
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Literal

from keras_l2reg._path.arguments import check_monitor
from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.records import cost
from keras_l2reg._path.result import L2Path
from keras_l2reg._path.runs import OWN_KEYS, Arrays, Result, Run


def collect(
    results: Iterable[Result],
    monitor: str,
    mode: Literal["min", "max"],
    lines: list[list[Point]],
    runs_per_point: int,
) -> tuple[L2Path, Arrays | None]:
    """Gather the runs, in any order.

    Args:
        results: Yields each run and the weights it ended with.
        monitor, mode: as in `L2Path`.
        lines: All points, those of each ratio from strong to weak.
        runs_per_point: Integer, the number of repeats, times that of folds.

    Returns:
        The `L2Path`, marked as interrupted if Ctrl-C was pressed after the first run;
        and the weights of the best run at the best point, `None` without one, or with
        cross-validation.

    Raises:
        Exception: any error of `results`, with the finished runs as its attribute
            `path`.
    """
    done, candidates, interrupted = [], {}, False
    try:
        for run, weights in results:
            check_monitor(monitor, _metrics(run, monitor))
            done.append(run)
            if weights is not None:
                path = L2Path(done, monitor, mode)
                _update_candidates(candidates, run, weights, path, runs_per_point)
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    except Exception as error:
        # The runs may have taken hours.
        path = L2Path(_sorted(done), monitor, mode, interrupted=True)
        error.path = path  # pyright: ignore[reportAttributeAccessIssue]
        for note in _error_notes(error, path, lines, runs_per_point):
            error.add_note(note)
        raise
    path = L2Path(_sorted(done), monitor, mode, interrupted)
    best = candidates.get(point_of(path.best)) if path.best else None
    return path, best and best[1]


def _metrics(run: Run, monitor: str) -> set[str]:
    """The metrics of a run; also `monitor` if it diverged before logging it."""
    unknown = [monitor] if math.isnan(run["loss"]) else []
    return {*run, *unknown}.difference(OWN_KEYS)


def _update_candidates(
    candidates: dict[Point, tuple[float, Arrays]],
    run: Run,
    weights: Arrays,
    path: L2Path,
    runs_per_point: int,
) -> None:
    """Keep the weights of the best run at each point that may still be the best.

    Args:
        candidates: Dict from points to the cost and the weights of the best run.
        run: The latest run.
        weights: The weights it ended with.
        path: The runs so far, with the latest.
        runs_per_point: Integer.
    """
    value, point = cost(run, path.monitor, path.mode), point_of(run)
    if math.isfinite(value) and value < candidates.get(point, (math.inf,))[0]:
        candidates[point] = value, weights
    complete = _complete(path, runs_per_point)
    comparable = [r for r in path.runs if point_of(r) in complete]
    best = L2Path(comparable, path.monitor, path.mode).best
    for point in complete - ({point_of(best)} if best else set()):
        candidates.pop(point, None)


def _complete(path: L2Path, runs_per_point: int) -> set[Point]:
    """The points of which all runs are finished."""
    counts = collections.Counter(map(point_of, path.runs))
    return {point for point, count in counts.items() if count == runs_per_point}


def _sorted(done: list[Run]) -> list[Run]:
    def key(run: Run) -> tuple:
        return *point_of(run).order, run.get("fold"), run["repeat"]

    return sorted(done, key=key)


def _error_notes(
    error: Exception, path: L2Path, lines: list[list[Point]], runs_per_point: int
) -> Iterator[str]:
    """Notes on an error: what was finished, and how to continue."""
    if isinstance(error, BrokenExecutor):
        yield (
            "A worker of the executor died, often because it ran out of memory. The "
            "executor accepts no more tasks: create a new one, with fewer workers."
        )
    if path.runs:
        complete, todo = _complete(path, runs_per_point), []
        for line in lines:
            ratio = line[0].l1_ratio
            if missing := [p.strength for p in line if p not in complete]:
                tail = "" if ratio is None else f", l1_ratio={ratio}"
                if line[0].name != "l2":
                    tail = f", strength={line[0].name!r}"
                todo.append(f"l2={missing}{tail}")
        total = sum(map(len, lines)) * runs_per_point
        yield (
            f"{len(path.runs)} of {total} runs are finished: they are in this error's "
            f"`path`. To do the others: {'; '.join(todo)}"
        )


def why_none_is_best(path: L2Path) -> str:
    """A message for a path without a best strength."""
    diverged = sum(record["diverged"] for record in path.records)
    if diverged == len(path.runs):
        return (
            "Every run of the path diverged: try weaker strengths, or a smaller "
            "learning rate."
        )
    return (
        f"No strength is best: none has a finite {path.monitor!r} in all repeats. "
        f"{diverged} of {len(path.runs)} runs diverged; if these are few, check the "
        "metric, or compare by another `monitor`."
    )
