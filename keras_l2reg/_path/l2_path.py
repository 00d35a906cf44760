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
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Executor
from typing import Any, Literal

import keras

from keras_l2reg import _keras
from keras_l2reg._path import arguments
from keras_l2reg._path.collect import collect, why_none_is_best
from keras_l2reg._path.executor import run_with_executor
from keras_l2reg._path.grid import L2Grid, grid_from_data
from keras_l2reg._path.result import L2Path
from keras_l2reg._path.runs import (
    Result,
    Setup,
    assign,
    build,
    read,
    runs,
    state_of,
    undecayed,
)
from keras_l2reg._path.starts import starts_of
from keras_l2reg._progress import progress_bar
from keras_l2reg.models import L2AllWeights


def l2_path(
    model: keras.Model,
    x: Any,
    y: Any = None,
    l2: Iterable[float] | L2Grid = L2Grid(),
    validation_data: Any = None,
    *,
    epochs: int = 10,
    warm: bool = False,
    repeats: int = 1,
    new_starts: bool = False,
    seed: int = 0,
    monitor: str = "val_data_loss",
    mode: Literal["min", "max"] | None = None,
    restore_best_weights: bool = True,
    executor: Executor | None = None,
    verbose: int = 1,
    **fit_arguments: Any,
) -> L2Path:
    """Fit one model at many strengths of its L2 penalty, and compare them.

    `minimize data_loss(w) + l2 * sum_k multiplier_k * sum(w_k**2)` for each `l2`

    The training step is compiled once for all strengths.

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
            0.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset, as for `fit`.
            Required.
        epochs: Integer >= 1, epochs of each run. Defaults to `10`.
        warm: Boolean. `False` starts each run from the model's initial weights;
            `True` from those that the run at the next stronger strength ended with,
            as in glmnet. The optimizer always starts from its initial state. Defaults
            to `False`.
        repeats: Integer >= 1, runs at each strength. Defaults to `1`.
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
            Defaults to `True`.
        executor: A `concurrent.futures.Executor`, such as a `ProcessPoolExecutor`
            (of the "spawn" context) or Dask's `Client.get_executor()`, whose workers
            do the runs, one strength at a time. Defaults to `None`: all runs are done
            in this process.
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
    arguments.check_model(model)
    arguments.check_fit_arguments(fit_arguments)
    arguments.check_data(x, y, fit_arguments.get("sample_weight"), validation_data)
    arguments.check_integers(epochs=epochs, repeats=repeats, seed=seed)
    arguments.check_executor(executor)
    mode = arguments.checked_mode(monitor, mode)
    l2 = arguments.checked_strengths(l2)
    is_wrapper = isinstance(model, L2AllWeights)
    wrapped = model if is_wrapper else L2AllWeights(model, existing="replace")
    is_tuned = False
    try:
        names = build(wrapped, validation_data, fit_arguments)
        with _state_restored(wrapped):
            if not fit_arguments.get("callbacks"):
                arguments.check_monitor(monitor, names)
            if isinstance(l2, L2Grid):
                weights = map(fit_arguments.get, ("sample_weight", "class_weight"))
                l2 = grid_from_data(wrapped, x, y, *weights, grid=l2)
            setup = Setup(
                x=x,
                y=y,
                validation_data=validation_data,
                epochs=epochs,
                warm=warm,
                seed=seed,
                fit_arguments=fit_arguments,
                starts=starts_of(wrapped, repeats, seed, new_starts),
                optimizer_start=read(wrapped.optimizer.variables),
                undecayed=undecayed(wrapped),
            )
            results = _results(wrapped, setup, l2, executor, bool(verbose))
            with contextlib.closing(results):
                path, best = collect(results, monitor, mode, l2, repeats)
        if best is not None and restore_best_weights:
            assign(state_of(wrapped), best)
            is_tuned = True
    finally:
        if not is_wrapper:
            wrapped.unwrap(strip=not is_tuned)
    if path.best is None:
        warnings.warn(why_none_is_best(path), stacklevel=2)
    return path


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
    strengths: list[float],
    executor: Executor | None,
    is_shown: bool,
) -> Generator[Result, None, None]:
    """Fit at all strengths, here or on workers, with a progress bar."""
    repeats = range(len(setup.starts))
    total = setup.epochs * len(repeats) * len(strengths)
    with progress_bar("l2_path, epochs", total, is_shown) as advance:
        if executor is None:
            yield from runs(model, setup, strengths, repeats, advance)
        else:
            yield from run_with_executor(executor, model, setup, strengths, advance)
