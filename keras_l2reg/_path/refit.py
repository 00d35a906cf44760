"""After a cross-validation: fit the model to all data at the best point."""

import dataclasses
import math
import warnings

from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.result import L2Path
from keras_l2reg._path.runs import Arrays, Setup, read, runs, state_of
from keras_l2reg._progress import progress_bar
from keras_l2reg.models import L2AllWeights


def refit(
    model: L2AllWeights,
    setup: Setup,
    lines: list[list[Point]],
    path: L2Path,
    is_shown: bool,
) -> tuple[L2Path, Arrays | None]:
    """Fit to all data at the best point of a path, as its first repeat.

    With warm starts, the points before the best one are fitted first, as in the folds.

    Args:
        model: A built, compiled `L2AllWeights` with a live strength.
        setup: The `Setup` of the path.
        lines: For each ratio its points, from strong to weak.
        path: The finished `L2Path`.
        is_shown: Boolean, whether to show a progress bar.

    Returns:
        The path, marked as interrupted if Ctrl-C was pressed; and the arrays of
        `state_of(model)` at the end, `None` if there are none to keep.

    Raises:
        Exception: any error of the fit, with `path` as its attribute `path`.
    """
    if path.best is None:
        return path, None
    best, loss = point_of(path.best), math.nan
    (line,) = (line for line in lines if best in line)
    line = line[: line.index(best) + 1] if setup.warm else [best]
    total = setup.epochs * len(line)
    try:
        with progress_bar("l2_path, epochs on all data", total, is_shown) as advance:
            for run, _ in runs(model, setup, line, [None], [0], advance):
                loss = run["loss"]
    except KeyboardInterrupt:
        return dataclasses.replace(path, interrupted=True), None
    except Exception as error:
        error.path = path  # pyright: ignore[reportAttributeAccessIssue]
        error.add_note(
            f"All {len(path.runs)} runs of the folds are finished: they are in this "
            f"error's `path`. Only the fit to all data at the best, {best}, is missing."
        )
        raise
    if not math.isfinite(loss):
        warnings.warn(
            f"The fit to all data at the best, {best}, diverged, so the model is left "
            "as it was: try a smaller learning rate.",
            stacklevel=3,
        )
        return path, None
    return path, read(state_of(model))
