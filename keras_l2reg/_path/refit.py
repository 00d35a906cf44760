"""After a cross-validation: fit the model to all data at the best point."""

import dataclasses
import math
import warnings

from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.result import L2Path
from keras_l2reg._path.runs import Arrays, Setup
from keras_l2reg._path.together import Fitter
from keras_l2reg._progress import progress_bar


def refit(
    fitter: Fitter,
    setup: Setup,
    lines: list[list[Point]],
    path: L2Path,
    is_shown: bool,
) -> tuple[L2Path, Arrays | None]:
    """Fit to all data at the best point of a path, as its first repeat.

    With warm starts, the points before the best one are fitted first, as in the folds.

    Args:
        fitter: The `Fitter` that did the folds.
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
    best, last = point_of(path.best), None
    (line,) = (line for line in lines if best in line)
    line = line[: line.index(best) + 1] if setup.warm else [best]
    total = setup.epochs * len(line)
    try:
        with progress_bar("l2_path, epochs on all data", total, is_shown) as advance:
            for result in fitter.fits([line], [None], [0], advance):
                last = result
    except KeyboardInterrupt:
        return dataclasses.replace(path, interrupted=True), None
    except Exception as error:
        error.path = path  # pyright: ignore[reportAttributeAccessIssue]
        error.add_note(
            f"All {len(path.runs)} runs of the folds are finished: they are in this "
            f"error's `path`. Only the fit to all data at the best, {best}, is missing."
        )
        raise
    if last is None or not math.isfinite(last[0]["loss"]):
        warnings.warn(
            f"The fit to all data at the best, {best}, diverged, so the model is left "
            "as it was: try a smaller learning rate.",
            stacklevel=3,
        )
        return path, None
    return path, last[1]
