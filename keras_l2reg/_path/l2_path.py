"""l2_path: one model, many strengths, one trace.

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

import concurrent.futures
import math
import warnings

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path import arguments as arguments
from keras_l2reg._path.executor import run_with_executor
from keras_l2reg._path.grid import grid_from_data
from keras_l2reg._path.result import L2Path
from keras_l2reg._path.runs import (
    OWN_KEYS,
    Task,
    assign,
    build,
    read,
    runs,
    state_of,
    undecayed,
)
from keras_l2reg._progress import progress_bar
from keras_l2reg.models import L2AllWeights


def l2_path(
    model,
    x,
    y=None,
    l2=None,
    validation_data=None,
    *,
    count=12,
    span=1e4,
    epochs=10,
    warm=False,
    repeats=1,
    seed=0,
    new_starts=False,
    monitor="val_data_loss",
    mode=None,
    restore_best_weights=True,
    executor=None,
    chunksize=1,
    verbose=1,
    **fit_arguments,
):
    """Fit one model at many strengths of its L2 penalty, and compare them.

    `minimize data_loss(w) + l2 * sum_k multiplier_k * sum(w_k**2)` for each `l2`

    The model is compiled into a step once, for the whole path. Without `l2`, the grid
    is `top * span**(-i / (count - 1))`, `i = 0 ... count - 1`, and 0, which answers
    whether a penalty helps at all. `top = 10 * |g| / |p|`: `g` and `p` are the
    gradients of the data's loss, weighted as in `fit`, and of the penalty (at `l2 =
    1`) over the penalized weights, at the start, on up to 1024 samples; so that `top`
    pulls ten times as hard as the data. As with glmnet, the path begins where the
    penalty rules and ends some decades below.

    A run that diverges is recorded with NaN for each metric, and the path goes on. An
    interrupted path (Ctrl-C) returns what it has, with `interrupted` set; an error,
    or the death of a worker, carries all finished runs as its `path`. Sets Keras'
    global seed.

    Args:
        model: A compiled `L2AllWeights`; or a compiled `keras.Model`, which is
            wrapped for the path, its own regularizers put aside.
        x, y: The training data, as for `fit`; no generator, which runs only once.
        l2: Iterable of finite floats >= 0, what each run starts with. Defaults to
            `None`, a grid from the data.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set, as for `fit`.
        count: Integer >= 1, strengths above 0 in a grid from the data. Defaults to
            `12`.
        span: Float > 1, the strongest over the weakest of them. Defaults to `1e4`.
        epochs: Integer >= 1, epochs of each run. Defaults to `10`.
        warm: Boolean. `False` starts each run from the model's initial weights;
            `True` from those that the next stronger run ended with, as glmnet. The
            optimizer always starts as it was given. Defaults to `False`.
        repeats: Integer >= 1, runs at each strength. Defaults to `1`.
        seed: Integer; repeat `r` shuffles and drops out by `seed + r`. Defaults to `0`.
        new_starts: Boolean, whether repeat `r` starts from weights newly drawn (by
            `clone_model`, with `seed + r`) instead of the model's initial weights.
            Defaults to `False`.
        monitor: Which metric in the logs is compared. Defaults to `"val_data_loss"`.
        mode: `"min"` or `"max"`. Defaults to `None`: `"min"` for a loss, else an error.
        restore_best_weights: Boolean. `True` leaves the model with the strength and
            the weights of the best run (a bare model with built-in Keras regularizers
            of that strength), and the optimizer as it was given; `False` leaves all as
            it was given. Defaults to `True`.
        executor: A `concurrent.futures.Executor`, such as a `ProcessPoolExecutor`
            (of the "spawn" context) or Dask's `Client.get_executor()`: its workers
            do the runs, and get model and data once each. Defaults to `None`: this
            process does them.
        chunksize: Integer >= 1, strengths per task of the executor; a worker that
            dies loses its task. Defaults to `1`.
        verbose: `1` shows a bar with the time left, `0` nothing. Defaults to `1`.
        **fit_arguments: Further arguments of `fit`, such as `batch_size`.

    Returns:
        A `L2Path`. `data_loss`, `penalty` and the metrics are those of the last epoch's
        logs, the model's own `val_` ones those of an evaluation after it. What a
        callback logs as `l2`, such as `L2Scheduler`, is in `logged_l2`.

    Raises:
        TypeError, ValueError: a bad argument or empty data; the model is left as it
            was.

    Example:

    >>> x = np.linspace(-1, 1, 32, dtype="float32")[:, None]
    >>> layer = keras.layers.Dense(1, kernel_initializer="zeros")
    >>> model = keras.Sequential([keras.Input((1,)), layer])
    >>> model.compile("sgd", "mse")
    >>> path = l2_path(model, x, x, [1.0, 0.0], (x, x), repeats=2, verbose=0)
    >>> path.best["l2"], layer.kernel_regularizer.get_config()
    (0.0, {'l2': 0.0})

    Reference: Friedman, Hastie & Tibshirani, [Regularization Paths for Generalized
    Linear Models via Coordinate Descent](https://doi.org/10.18637/jss.v033.i01),
    Journal of Statistical Software 33(1), 2010.
    """
    arguments.check_model(model)
    arguments.check_fit_arguments(fit_arguments)
    arguments.check_data(x, y, fit_arguments.get("sample_weight"), validation_data)
    arguments.check_integers(
        epochs=epochs, repeats=repeats, chunksize=chunksize, seed=seed
    )
    arguments.check_executor(executor)
    mode = arguments.checked_mode(monitor, mode)
    strengths = arguments.checked_strengths(l2, count, span)
    is_wrapper = isinstance(model, L2AllWeights)
    wrapped = model if is_wrapper else L2AllWeights(model, existing="replace")
    initial_state, best = None, None
    try:
        names = build(wrapped, validation_data, fit_arguments)
        initial_state = read(state_of(wrapped)), read(wrapped.optimizer.variables)
        if not fit_arguments.get("callbacks"):
            arguments.check_monitor(monitor, names)
        if strengths is None:
            weights = map(fit_arguments.get, ("sample_weight", "class_weight"))
            strengths = grid_from_data(wrapped, x, y, *weights, count, span)
        task = Task(
            x=x,
            y=y,
            validation_data=validation_data,
            epochs=epochs,
            warm=warm,
            seed=seed,
            fit_arguments=fit_arguments,
            starts=_starts(wrapped, repeats, seed, new_starts),
            optimizer_start=initial_state[1],
            undecayed=undecayed(wrapped),
        )
        total = epochs * repeats * len(strengths)
        with progress_bar("l2_path, epochs", total, bool(verbose)) as advance:
            if executor is None:
                results = runs(wrapped, task, strengths, range(repeats), advance)
            else:
                results = run_with_executor(
                    executor, wrapped, task, strengths, chunksize, advance
                )
            path, best = _collect(results, monitor, mode, strengths, repeats)
        return path
    finally:
        if initial_state:
            _restore(wrapped, initial_state, best if restore_best_weights else None)
        if not is_wrapper:
            wrapped.unwrap(strip=not (best and restore_best_weights))


def _collect(results, monitor, mode, strengths, repeats):
    """The `L2Path`, and the weights of the best run at the best strength."""
    done, ends, interrupted = [], {}, False
    try:
        for run, weights in results:
            arguments.check_monitor(monitor, _known(run, monitor))
            done.append(run)
            _keep_end(ends, run, weights, L2Path(done, monitor, mode), repeats)
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    except Exception as error:
        # Hours may stand behind it.
        error.path = L2Path(_sorted(done), monitor, mode, interrupted=True)
        for note in _notes_on(error, strengths, repeats):
            error.add_note(note)
        raise
    path = L2Path(_sorted(done), monitor, mode, interrupted)
    if path.best is None:
        warnings.warn(_why_none_is_best(path), stacklevel=3)
        return path, None
    return path, ends[path.best["l2"]][1]


def _known(run, monitor):
    """The metrics of a run, any if it diverged before a callback could log its own."""
    lost = [monitor] * math.isnan(run["loss"])
    return {*run, *lost}.difference(OWN_KEYS)


def _sorted(done):
    return sorted(done, key=lambda run: (-run["l2"], run["repeat"]))


def _notes_on(error, strengths, repeats):
    """What an error leaves, and how to go on."""
    if isinstance(error, concurrent.futures.BrokenExecutor):
        yield (
            "A worker of the executor died, often for want of memory. The executor "
            "takes no more tasks: make a new one, with fewer workers."
        )
    kept = error.path.records
    complete = {record["l2"] for record in kept if record["repeats"] == repeats}
    if kept:
        missing = [l2 for l2 in strengths if l2 not in complete]
        yield (
            f"{len(error.path.runs)} of {len(strengths) * repeats} runs were done: "
            f"they are this error's `path`. To do the others: l2={missing}"
        )


def _why_none_is_best(path):
    lost = sum(record["diverged"] for record in path.records)
    if lost == len(path.runs):
        return (
            "Every run of the path diverged: try weaker strengths, or a smaller "
            "learning rate."
        )
    return (
        f"No strength is best: {path.monitor!r} is finite in all repeats of none. "
        f"{lost} of {len(path.runs)} runs diverged; if that is few, look at the "
        "metric, or compare by another `monitor`."
    )


def _keep_end(ends, run, weights, path, repeats):
    """Put into `ends` the best run's weights per strength that may still be best."""
    value = run.get(path.monitor, math.nan) * (1 if path.mode == "min" else -1)
    if math.isfinite(value) and value < ends.get(run["l2"], (math.inf,))[0]:
        ends[run["l2"]] = value, weights
    complete = {r["l2"] for r in path.records if r["repeats"] == repeats}
    comparable = [r for r in path.runs if r["l2"] in complete]
    best = L2Path(comparable, path.monitor, path.mode)
    for l2 in complete.difference([best.best["l2"]] if best.best else []):
        ends.pop(l2, None)


def _starts(model, repeats, seed, new_starts):
    """For each repeat, the arrays that its runs start from."""
    variables, inner = state_of(model), model.wrapped_model
    initial, starts = read(variables), []
    for repeat in range(repeats):
        if new_starts:
            keras.utils.set_random_seed(seed + repeat)
            inner.set_weights(_newly_drawn(inner))
        starts.append(
            [
                _moved_on(value, repeat) if _keras.is_seed(v) else value
                for v, value in zip(variables, read(variables), strict=True)
            ]
        )
    assign(variables, initial)
    return starts


def _moved_on(seed, repeat):
    """Another seed for each repeat, as the state of a `SeedGenerator` has it."""
    return seed + np.array([repeat, 0], seed.dtype)


def _newly_drawn(model):
    twin = keras.models.clone_model(model)
    if [v.shape for v in twin.weights] != [v.shape for v in model.weights]:
        raise ValueError(
            "Expected a model that `keras.models.clone_model` builds, to draw new "
            f"starts from. Received: new_starts=True, model={model.name!r}, whose "
            "clone has other weights; give it a `get_config` and a `build`, or leave "
            "out `new_starts`"
        )
    return twin.get_weights()


def _restore(model, initial_state, best):
    """Leave the model with the best weights, or as it was if `best` is `None`."""
    # If interrupted mid-epoch, JAX has the variables elsewhere.
    _keras.backend.sync_state(model)
    weights, optimizer = initial_state
    assign(state_of(model), best or weights)
    assign(model.optimizer.variables, optimizer)
