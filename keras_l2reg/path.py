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

import inspect
import math
import numbers
import warnings

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path_runs import (
    Task,
    assign,
    build,
    grid_from_data,
    is_seed,
    read,
    runs,
    runs_by,
    state_of,
    undecayed,
)
from keras_l2reg._progress import progress_bar
from keras_l2reg.attachment import is_attached
from keras_l2reg.model import L2AllWeights
from keras_l2reg.path_result import Path
from keras_l2reg.regularizers import check_strength


def l2_path(
    model,
    x,
    y=None,
    l2=None,
    validation_data=None,
    *,
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
    is `top * 10**(-4 * i / 11)`, `i = 0 ... 11`, with `top = 10 * |g| / |p|`: `g` and
    `p` are the gradients of the data's loss and of the penalty (at `l2 = 1`) over
    the penalized weights, at the start, on up to 1024 samples; so that `top` pulls
    ten times as hard as the data. As with glmnet, the path begins where the penalty
    rules and ends four decades below.

    A run that diverges is recorded with NaN figures, and the path goes on. An
    interrupted path (Ctrl-C) returns what it has, with `interrupted` set; an error in
    a run carries it as its `path`. Sets Keras' global seed.

    Args:
        model: A compiled `L2AllWeights`; or a compiled `keras.Model`, which is
            wrapped for the path, its own regularizers put aside.
        x, y: The training data, as for `fit`; no generator, which runs only once.
        l2: Iterable of finite floats >= 0. Defaults to `None`, a grid from the data.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set, as for `fit`.
        epochs: Integer >= 1, epochs of each run. Defaults to `10`.
        warm: Boolean. `False` starts each run from the weights that the model came
            with; `True` from those that the next stronger run ended with, as glmnet.
            The optimizer starts as it came, always. Defaults to `False`.
        repeats: Integer >= 1, runs at each strength. Defaults to `1`.
        seed: Integer; repeat `r` shuffles and drops out by `seed + r`. Defaults to `0`.
        new_starts: Boolean, whether repeat `r` starts from weights newly drawn (by
            `clone_model`, with `seed + r`) instead of those that the model came with.
            Defaults to `False`.
        monitor: Which figure of the logs is compared. Defaults to `"val_data_loss"`.
        mode: `"min"` or `"max"`. Defaults to `None`: `"min"` for a loss, else an error.
        restore_best_weights: Boolean. `True` leaves the model with the strength and
            the weights of the best run (a bare model with stock Keras regularizers
            of that strength), and the optimizer as it came; `False` leaves all as it
            came. Defaults to `True`.
        executor: A `concurrent.futures.Executor`, such as a `ProcessPoolExecutor`
            (of the "spawn" context) or Dask's `Client.get_executor()`: its workers
            do the runs. Defaults to `None`, here.
        chunksize: Integer >= 1, strengths per task of the executor. Defaults to `1`.
        verbose: `1` shows a bar with the time left, `0` nothing. Defaults to `1`.
        **fit_arguments: Further arguments of `fit`, such as `batch_size`.

    Returns:
        A `Path`. `data_loss`, `penalty` and the metrics are those of the last epoch's
        logs, the `val_` ones of an evaluation after it.

    Raises:
        TypeError, ValueError: a bad argument; the model is left as it was.

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
    _check_model(model)
    _check_data(x, validation_data)
    _check_integers(epochs=epochs, repeats=repeats, chunksize=chunksize, seed=seed)
    _check_fit_arguments(fit_arguments)
    mode = _checked_mode(monitor, mode)
    strengths = None if l2 is None else _checked_strengths(l2)
    is_wrapper = isinstance(model, L2AllWeights)
    wrapped = model if is_wrapper else L2AllWeights(model, existing="replace")
    came, best = None, None
    try:
        build(wrapped, validation_data, fit_arguments)
        came = read(state_of(wrapped)), read(wrapped.optimizer.variables)
        strengths = strengths or grid_from_data(wrapped, x, y)
        task = Task(
            x=x,
            y=y,
            validation_data=validation_data,
            epochs=epochs,
            warm=warm,
            seed=seed,
            fit_arguments=fit_arguments,
            starts=_starts(wrapped, repeats, seed, new_starts),
            optimizer_start=came[1],
            undecayed=undecayed(wrapped),
        )
        total = epochs * repeats * len(strengths)
        with progress_bar("l2_path, epochs", total, bool(verbose)) as advance:
            if executor is None:
                results = runs(wrapped, task, strengths, range(repeats), advance)
            else:
                results = runs_by(
                    executor, wrapped, task, strengths, chunksize, advance
                )
            path, best = _collect(results, monitor, mode, repeats)
        return path
    finally:
        if came:
            _leave(wrapped, came, best if restore_best_weights else None)
        if not is_wrapper:
            wrapped.unwrap(strip=not (best and restore_best_weights))


def _collect(results, monitor, mode, repeats):
    """The `Path`, and the weights of the best run at the best strength."""
    done, ends, interrupted = [], {}, False
    try:
        for run, weights in results:
            if monitor not in run:
                raise ValueError(
                    "Invalid value for argument `monitor`. Expected one of "
                    f"{sorted(set(run) - {'l2', 'repeat'})}. Received: {monitor!r}"
                )
            done.append(run)
            _keep_end(ends, run, weights, Path(done, monitor, mode), repeats)
    except KeyboardInterrupt:
        if not done:
            raise
        interrupted = True
    except Exception as error:
        # Hours may stand behind it.
        error.path = Path(done, monitor, mode, interrupted=True)
        raise
    done.sort(key=lambda run: (-run["l2"], run["repeat"]))
    path = Path(done, monitor, mode, interrupted)
    if path.best is None:
        warnings.warn("Every run of the path diverged.", stacklevel=3)
        return path, None
    return path, ends[path.best["l2"]][1]


def _keep_end(ends, run, weights, path, repeats):
    """Put into `ends` the best run's weights per strength that may still be best."""
    value = run[path.monitor] if path.mode == "min" else -run[path.monitor]
    if math.isfinite(value) and value < ends.get(run["l2"], (math.inf,))[0]:
        ends[run["l2"]] = value, weights
    complete = {r["l2"] for r in path.records if r["repeats"] == repeats}
    best = Path([r for r in path.runs if r["l2"] in complete], path.monitor, path.mode)
    for l2 in complete.difference([best.best["l2"]] if best.best else []):
        ends.pop(l2, None)


def _starts(model, repeats, seed, new_starts):
    """For each repeat, the arrays that its runs start from."""
    variables, inner = state_of(model), model.wrapped_model
    came, starts = read(variables), []
    for repeat in range(repeats):
        if new_starts:
            keras.utils.set_random_seed(seed + repeat)
            inner.set_weights(_newly_drawn(inner))
        starts.append(
            [
                value + np.array([repeat, 0], value.dtype) if is_seed(v) else value
                for v, value in zip(variables, read(variables), strict=True)
            ]
        )
    assign(variables, came)
    return starts


def _newly_drawn(model):
    twin = keras.models.clone_model(model)
    if [v.shape for v in twin.weights] != [v.shape for v in model.weights]:
        raise ValueError(
            "Expected a model that `keras.models.clone_model` builds, to draw new "
            f"starts from. Received: new_starts=True, model={model.name!r}"
        )
    return twin.get_weights()


def _leave(model, came, best):
    """Leave the model with the best weights, or as it came if `best` is `None`."""
    # Broken off in the midst of an epoch, JAX has the variables elsewhere.
    _keras.sync_state(model)
    weights, optimizer = came
    assign(state_of(model), best or weights)
    assign(model.optimizer.variables, optimizer)


# ------------------------------------------------------------------- arguments


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid type for argument `model`. Expected an `L2AllWeights` or another "
            f"`keras.Model`. Received: model={model!r} of type {type(model).__name__}"
        )
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            "Expected a compiled model: call `model.compile(...)` first. "
            f"Received: model={model.name!r}"
        )
    if isinstance(model, L2AllWeights):
        model.l2  # noqa: B018 - raises where the wrapper has no live strength
    elif is_attached(model):
        raise ValueError(
            "Expected an `L2AllWeights`, or a model with nothing attached. Received: "
            f"model={model.name!r}, which `attach` or a wrapper put a penalty on; "
            "give the wrapper, or call `detach` first"
        )


def _check_data(x, validation_data):
    if inspect.isgenerator(x) or inspect.isgenerator(validation_data):
        raise TypeError(
            "Expected data that can be read again for each strength. Received: a "
            "generator, which runs only once; use arrays, a `keras.utils.PyDataset` "
            "or a `tf.data.Dataset`"
        )
    if validation_data is None:
        raise ValueError(
            "Expected `validation_data`: by the training data alone, the weakest "
            "strength is always the best. Received: validation_data=None"
        )


def _check_integers(**integers):
    for name, value in integers.items():
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise TypeError(
                f"Invalid type for argument `{name}`. Expected an integer. "
                f"Received: {name}={value!r}"
            )
        least = 0 if name == "seed" else 1
        if value < least:
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected an integer >= {least}. "
                f"Received: {name}={value}"
            )


def _check_fit_arguments(given):
    known = set(inspect.signature(keras.Model.fit).parameters) - {
        "self",
        "initial_epoch",
        "validation_split",
    }
    unknown = sorted(set(given) - known)
    if unknown:
        raise TypeError(
            "Expected arguments of `l2_path` or of `keras.Model.fit` (without "
            f"`initial_epoch` and `validation_split`). Received: {unknown}"
        )


def _checked_mode(monitor, mode):
    if mode is None and monitor.endswith("loss"):
        return "min"
    if mode not in ("min", "max"):
        raise ValueError(
            "Invalid value for argument `mode`. Expected 'min' or 'max', which must be "
            "said for a figure that is no loss. "
            f"Received: mode={mode!r}, monitor={monitor!r}"
        )
    return mode


def _checked_strengths(l2):
    if isinstance(l2, (str, dict, keras.Variable)) or not hasattr(l2, "__iter__"):
        raise TypeError(
            "Invalid type for argument `l2`. Expected an iterable of floats. "
            f"Received: l2={l2!r}"
        )
    strengths = {check_strength(value, "l2") for value in l2}
    if not strengths:
        raise ValueError(
            "Invalid value for argument `l2`. Expected at least one strength. "
            f"Received: l2={l2!r}"
        )
    return sorted(strengths, reverse=True)
