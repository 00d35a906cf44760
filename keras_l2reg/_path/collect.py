"""Gather the runs of a path into an `L2Path`, and keep the best run's weights."""

import math
from collections.abc import Iterable, Iterator
from concurrent.futures import BrokenExecutor
from typing import Literal

from keras_l2reg._path.arguments import check_monitor
from keras_l2reg._path.result import L2Path, cost
from keras_l2reg._path.runs import OWN_KEYS, Arrays, Result, Run


def collect(
    results: Iterable[Result],
    monitor: str,
    mode: Literal["min", "max"],
    strengths: list[float],
    repeats: int,
) -> tuple[L2Path, Arrays | None]:
    """Gather the runs, in any order.

    Args:
        results: Yields each run and the weights it ended with.
        monitor, mode: as in `L2Path`.
        strengths: All strengths, from strong to weak.
        repeats: Integer, runs at each strength.

    Returns:
        The `L2Path`, marked as interrupted if Ctrl-C was pressed after the first run;
        and the weights of the best run at the best strength, `None` without one.

    Raises:
        Exception: any error of `results`, with the finished runs as its attribute
            `path`.
    """
    done, candidates, interrupted = [], {}, False
    try:
        for run, weights in results:
            check_monitor(monitor, _metrics(run, monitor))
            done.append(run)
            path = L2Path(done, monitor, mode)
            _update_candidates(candidates, run, weights, path, repeats)
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    except Exception as error:
        # The runs may have taken hours.
        path = L2Path(_sorted(done), monitor, mode, interrupted=True)
        error.path = path  # pyright: ignore[reportAttributeAccessIssue]
        for note in _error_notes(error, path, strengths, repeats):
            error.add_note(note)
        raise
    path = L2Path(_sorted(done), monitor, mode, interrupted)
    return path, candidates[path.best["l2"]][1] if path.best else None


def _metrics(run: Run, monitor: str) -> set[str]:
    """The metrics of a run; also `monitor` if it diverged before logging it."""
    unknown = [monitor] if math.isnan(run["loss"]) else []
    return {*run, *unknown}.difference(OWN_KEYS)


def _update_candidates(
    candidates: dict[float, tuple[float, Arrays]],
    run: Run,
    weights: Arrays,
    path: L2Path,
    repeats: int,
) -> None:
    """Keep the weights of the best run at each strength that may still be the best.

    Args:
        candidates: Dict from strengths to the cost and the weights of the best run.
        run: The latest run.
        weights: The weights it ended with.
        path: The runs so far, with the latest.
        repeats: Integer, runs at each strength.
    """
    value = cost(run, path.monitor, path.mode)
    if math.isfinite(value) and value < candidates.get(run["l2"], (math.inf,))[0]:
        candidates[run["l2"]] = value, weights
    complete = {r["l2"] for r in path.records if r["repeats"] == repeats}
    comparable = [r for r in path.runs if r["l2"] in complete]
    best = L2Path(comparable, path.monitor, path.mode).best
    for l2 in complete - ({best["l2"]} if best else set()):
        candidates.pop(l2, None)


def _sorted(done: list[Run]) -> list[Run]:
    return sorted(done, key=lambda run: (-run["l2"], run["repeat"]))


def _error_notes(
    error: Exception, path: L2Path, strengths: list[float], repeats: int
) -> Iterator[str]:
    """Notes on an error: what was finished, and how to continue."""
    if isinstance(error, BrokenExecutor):
        yield (
            "A worker of the executor died, often because it ran out of memory. The "
            "executor accepts no more tasks: create a new one, with fewer workers."
        )
    if path.records:
        complete = {r["l2"] for r in path.records if r["repeats"] == repeats}
        missing = [l2 for l2 in strengths if l2 not in complete]
        yield (
            f"{len(path.runs)} of {len(strengths) * repeats} runs are finished: "
            f"they are in this error's `path`. To do the others: l2={missing}"
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
