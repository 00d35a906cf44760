"""l2_path: fit one model at many strengths, compiled once.

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> x, x_val = rng.normal(size=(2, 64, 4)).astype("float32")
>>> y, y_val = x[:, :1], x_val[:, :1]
>>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> model.compile(keras.optimizers.SGD(0.05), "mse")
>>> path = l2_path(model, x, y, l2=[10.0, 0.1, 0.001], epochs=20,
...                validation_data=(x_val, y_val), verbose=0)
>>> path.best["l2"]
0.001
>>> [record["l2"] for record in path.records]
[10.0, 0.1, 0.001]
"""

import contextlib
import warnings
from collections.abc import Generator, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from typing import Any, Literal

import keras

from keras_l2reg import _keras
from keras_l2reg._path import arguments
from keras_l2reg._path.choice import check_together, fitter_for
from keras_l2reg._path.collect import collect, why_none_is_best
from keras_l2reg._path.executor import run_with_executor
from keras_l2reg._path.folds import Data, Splitter, folds_from
from keras_l2reg._path.grid import L2Grid, grid_from_data, grid_of_decay
from keras_l2reg._path.points import Point, point_of
from keras_l2reg._path.refit import refit
from keras_l2reg._path.result import L2Path
from keras_l2reg._path.runs import (
    Result,
    Setup,
    assign,
    build,
    read,
    set_point,
    state_of,
    undecayed,
)
from keras_l2reg._path.starts import starts_of
from keras_l2reg._path.together import Fitter
from keras_l2reg._progress import progress_bar
from keras_l2reg.models import L2AllWeights


def l2_path(
    model: keras.Model,
    x: Any,
    y: Any = None,
    l2: Iterable[float] | L2Grid = L2Grid(),
    validation_data: Any = None,
    *,
    cv: int | Splitter | Iterable[tuple[Any, Any]] | None = None,
    l1_ratio: float | Iterable[float] = 0.0,
    strength: Literal["l2", "weight_decay"] = "l2",
    epochs: int = 10,
    warm: bool = False,
    repeats: int = 1,
    new_starts: bool = False,
    seed: int = 0,
    monitor: str = "val_data_loss",
    mode: Literal["min", "max"] | None = None,
    restore_best_weights: bool = True,
    together: bool | None = None,
    executor: Executor | None = None,
    verbose: int = 1,
    **fit_arguments: Any,
) -> L2Path:
    """Fit one model at many strengths of its L2 penalty, and compare them.

    `minimize data_loss(w) + l2 * sum_k multiplier_k * sum(w_k**2)` for each `l2`

    The training step is compiled once for all strengths. They are compared on
    validation data, or by cross-validation; and optionally mixed with L1.

    A run that diverges is recorded with NaN for each metric, and the path continues. An
    interrupted path (Ctrl-C) returns the finished runs, with `interrupted` set; an
    error, or the death of a worker, has them as its attribute `path`. Sets the global
    seed of Keras.

    Args:
        model: A compiled `L2AllWeights`; or a compiled `keras.Model`, which is
            wrapped for the path, and whose regularizers are replaced.
        x, y: The training data, as for `fit`; not a generator, which can be read
            only once.
        l2: Iterable of finite floats >= 0, the strengths to fit at; or an `L2Grid`,
            which derives them from the data. Defaults to `L2Grid()`, 12 strengths and
            0. With `l1_ratio`, the strengths `s`.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset, as for `fit`.
            Either this or `cv` is required. Defaults to `None`.
        cv: Instead of `validation_data`, the folds of a cross-validation of arrays, or
            of dicts or lists of arrays. An integer >= 2 makes so many folds, shuffled
            by `seed`, with an equal share of each class if `y` is classes: one column
            of integers, booleans, or 0.0 and 1.0; or one-hot rows. Or a scikit-learn
            splitter, or an iterable of `(train, valid)`, indices or masks. The sample
            weights of a fold weight its validation, too; `class_weight` does not, as in
            `fit`. Defaults to `None`.
        l1_ratio: Float in [0, 1], the share of L1 in a strength, or an iterable of
            these: each strength `s` is fitted at each ratio `r`, with `l1 = s * r` and
            `l2 = s * (1 - r)`. A wrapper needs a live `l1`. Gradient steps make small
            weights smaller, but not exactly 0. Defaults to `0.0`: only `l2` is varied.
        strength: `"l2"`, or `"weight_decay"` to vary the rate of decoupled weight
            decay: the argument `l2` then contains rates. A wrapper needs a live
            `weight_decay`; its penalty stays as it is. Defaults to `"l2"`.
        epochs: Integer >= 1, epochs of each run. Defaults to `10`.
        warm: Boolean. `False` starts each run from the model's initial weights;
            `True` from those that the run at the next stronger strength ended with,
            as in glmnet, for the same fold and ratio. The optimizer always starts from
            its initial state. Defaults to `False`.
        repeats: Integer >= 1, runs at each strength, of each fold. Defaults to `1`.
        new_starts: Boolean, whether repeat `r` starts from newly drawn weights (by
            `clone_model`, with `seed + r`) instead of the model's initial weights.
            Defaults to `False`.
        seed: Integer >= 0; repeat `r` uses `seed + r` for shuffling and dropout.
            Defaults to `0`.
        monitor: The name of the metric to compare. Defaults to `"val_data_loss"`.
        mode: `"min"` or `"max"`. Defaults to `None`: `"min"` for a loss; another metric
            needs one of the two.
        restore_best_weights: Boolean. `True` leaves the model with the strength and
            the weights of the best run (a bare model with built-in Keras regularizers
            of that strength), and restores the optimizer; `False` restores everything.
            With `cv`, the model is fitted once more, to all data at the best strength
            (with `warm`, at the stronger ones before), as repeat 0 and without
            validation data; unless the path was interrupted. Defaults to `True`.
        together: Boolean, whether to do the runs at the same time, as one compiled
            program; on JAX, with the figures of single runs. As many as fit into half
            of the free memory; with `warm`, a strength after the other. Takes arrays,
            no callbacks, and no `executor`. `False` does one run at a time. Defaults
            to `None`: together where possible, and where it pays: a step of fewer than
            30 million operations in matrix products and 20 MB, without convolutions,
            and enough steps in all (some 500 for two hidden layers).
        executor: A `concurrent.futures.Executor`, such as a `ProcessPoolExecutor`
            (of the "spawn" context) or Dask's `Client.get_executor()`, whose workers
            do the runs, a task for each strength (with `warm`, each repeat) and fold.
            Defaults to `None`: all runs are done in this process.
        verbose: `1` shows a progress bar with the time left, `0` nothing. Defaults to
            `1`.
        **fit_arguments: Further arguments of `fit`, such as `batch_size`.

    Returns:
        An `L2Path`. `data_loss`, `penalty` and the metrics are those of the last
        epoch's logs; the model's `val_` metrics are those of an evaluation after it.
        What a callback such as `StrengthScheduler` logs as `l2` is in `logged_l2`.

    Raises:
        TypeError, ValueError: a bad argument or empty data; the model is left as it
            was.

    Example:

    >>> import numpy as np
    >>> x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> model.compile("sgd", "mse")
    >>> path = l2_path(model, x, x, [1.0, 0.0], (x, x), repeats=2, verbose=0)
    >>> path.best["l2"], layer.kernel_regularizer.get_config()
    (0.0, {'l2': 0.0})

    References:
        - Friedman, Hastie & Tibshirani, [Regularization Paths for Generalized Linear
          Models via Coordinate Descent](https://doi.org/10.18637/jss.v033.i01),
          Journal of Statistical Software 33(1), 2010.
    """
    ratios = arguments.checked_ratios(l1_ratio)
    varies_l1 = ratios != [None]
    arguments.check_strength_name(strength, varies_l1)
    arguments.check_model(model, strength, varies_l1)
    arguments.check_fit_arguments(fit_arguments)
    sample_weight = fit_arguments.pop("sample_weight", None)
    arguments.check_data(x, y, sample_weight, validation_data, cv)
    arguments.check_integers(epochs=epochs, repeats=repeats, seed=seed)
    arguments.check_executor(executor)
    mode = arguments.checked_mode(monitor, mode)
    l2 = arguments.checked_strengths(l2)
    folds = None if cv is None else folds_from(cv, x, y, seed)
    data = Data(x, y, sample_weight, validation_data, folds)
    is_compiled = check_together(together, model, data, fit_arguments, executor)
    is_wrapper = isinstance(model, L2AllWeights)
    wrapped = model if is_wrapper else _wrapped(model, strength, varies_l1)
    is_tuned = False
    try:
        first = data.of_fold(data.fold_numbers[0])
        names = build(
            wrapped, first.validation_data, fit_arguments, compiled=not is_compiled
        )
        with _state_restored(wrapped):
            if not fit_arguments.get("callbacks"):
                arguments.check_monitor(monitor, names)
            class_weight = fit_arguments.get("class_weight")
            if isinstance(l2, L2Grid) and strength == "weight_decay":
                l2 = grid_of_decay(wrapped, x, epochs, fit_arguments, l2)
            lines = [
                _line(wrapped, data, class_weight, l2, ratio, strength)
                for ratio in ratios
            ]
            setup = Setup(
                data=data,
                epochs=epochs,
                warm=warm,
                seed=seed,
                fit_arguments=fit_arguments,
                starts=starts_of(wrapped, repeats, seed, new_starts),
                optimizer_start=read(wrapped.optimizer.variables),
                undecayed=undecayed(wrapped),
            )
            per_point = len(data.fold_numbers) * repeats
            fitter = Fitter(wrapped, setup, None)
            if is_compiled:
                total = per_point * sum(map(len, lines))
                fitter = fitter_for(wrapped, setup, total, together)
            results = _results(wrapped, setup, lines, fitter, executor, bool(verbose))
            with contextlib.closing(results):
                path, best = collect(results, monitor, mode, lines, per_point)
            if folds is not None and restore_best_weights and not path.interrupted:
                path, best = refit(fitter, setup, lines, path, bool(verbose))
        best_record = path.best
        if best is not None and best_record is not None and restore_best_weights:
            assign(state_of(wrapped), best)
            set_point(wrapped, point_of(best_record))
            is_tuned = True
    finally:
        if not is_wrapper:
            wrapped.unwrap(strip=not is_tuned)
    if path.best is None:
        warnings.warn(why_none_is_best(path), stacklevel=2)
    return path


def _wrapped(model: keras.Model, strength: str, varies_l1: bool) -> L2AllWeights:
    """A wrapper around a bare model, with the live strengths that a path varies."""
    if strength == "weight_decay":
        return L2AllWeights(model, weight_decay=0.0)
    return L2AllWeights(model, l1=0.0 if varies_l1 else None, existing="replace")


def _line(
    model: L2AllWeights,
    data: Data,
    class_weight: Mapping[int, float] | None,
    l2: L2Grid | list[float],
    ratio: float | None,
    name: str,
) -> list[Point]:
    """The points at one ratio, from strong to weak."""
    if isinstance(l2, L2Grid):
        samples = data.x, data.y, data.sample_weight
        l2 = grid_from_data(model, *samples, class_weight, l2, ratio)
    return [Point(strength, ratio, name) for strength in l2]


@contextlib.contextmanager
def _state_restored(model: keras.Model) -> Iterator[None]:
    """On exit, restore the state of the model and its optimizer."""
    weights, optimizer = read(state_of(model)), read(model.optimizer.variables)
    try:
        yield
    finally:
        # If interrupted mid-epoch on JAX, the trainer still holds the variables.
        _keras.backend.sync_state(model)
        assign(state_of(model), weights)
        assign(model.optimizer.variables, optimizer)


def _results(
    model: L2AllWeights,
    setup: Setup,
    lines: list[list[Point]],
    fitter: Fitter,
    executor: Executor | None,
    is_shown: bool,
) -> Generator[Result, None, None]:
    """Fit at all points of all folds, here or on workers, with a progress bar."""
    folds, repeats = setup.data.fold_numbers, range(len(setup.starts))
    total = setup.epochs * len(folds) * len(repeats) * sum(map(len, lines))
    with progress_bar("l2_path, epochs", total, is_shown) as advance:
        if executor is not None:
            yield from run_with_executor(executor, model, setup, lines, advance)
        else:
            yield from fitter.fits(lines, folds, repeats, advance)
