"""The runs behind `l2_path`: one model, fitted at one strength after the other.

`runs` fits here; `runs_by` has an executor's workers call `runs` on a copy of the
model. Both yield the same: what a run measured, and the weights that it ended with.
"""

import concurrent.futures
import dataclasses
import functools
import math
import pickle
import threading

import keras
import numpy as np

from keras_l2reg import _keras

# Models share the backend's seed, so a worker's threads must wait for each other.
_ONE_AT_A_TIME = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Task:
    """What all runs of a path share; it pickles, so that workers get the same.

    Args:
        x, y, validation_data, epochs, warm, seed, fit_arguments: as in `l2_path`.
        starts: For each repeat, the arrays that its runs start from.
        optimizer_start: The arrays that the optimizer starts from.
        undecayed: Indices of the trainable variables that the optimizer's weight
            decay leaves out; Keras saves the decay without them.
    """

    x: object
    y: object
    validation_data: object
    epochs: int
    warm: bool
    seed: int
    fit_arguments: dict
    starts: list
    optimizer_start: list
    undecayed: list


def state_of(model):
    """The variables that tell one fit of a model from another, metrics left out."""
    return model.variables


def is_seed(variable):
    """Whether a variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"


def read(variables):
    """A copy of each variable's value, which no later step can write to."""
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assign(variables, values):
    """Give each variable its value, in place, so that a compiled step lives on."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def build(model, validation_data, fit_arguments):
    """Make all variables, the optimizer's and the metrics' too, and no others later.

    Otherwise the first `fit` would make them, and draw one shuffle more for that
    than the next ones: no two runs of one seed would be alike.
    """
    _evaluate(model, validation_data, fit_arguments, steps=1)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def undecayed(model):
    """Indices of the trainable variables that the optimizer's decay leaves out."""
    optimizers = [_keras.optimizer_for(model, v) for v in model.trainable_variables]
    return [
        index
        for index, (optimizer, variable) in enumerate(
            zip(optimizers, model.trainable_variables, strict=True)
        )
        if optimizer.weight_decay and not _keras.decays(optimizer, variable)
    ]


def runs(model, task, strengths, repeats, on_epoch=lambda count: None):
    """Fit `model` once for each strength and repeat.

    Args:
        model: A built, compiled `L2AllWeights` with a live strength.
        task: The `Task`.
        strengths: List of floats; from strong to weak if `task.warm`.
        repeats: List of integers, indices into `task.starts`.
        on_epoch: Called with the number of epochs that were done, or saved.

    Yields:
        `(run, weights)`: a dict of `l2`, `repeat` and every figure of the logs, all
        NaN if the run diverged; and the arrays of `state_of(model)` at the end.
    """
    starts = list(task.starts)
    for l2 in strengths:
        for repeat in repeats:
            assign(state_of(model), starts[repeat])
            assign(model.optimizer.variables, task.optimizer_start)
            model.l2 = l2
            figures = _fit(model, task, task.seed + repeat, on_epoch)
            end = read(state_of(model))
            if task.warm and math.isfinite(figures["loss"]):
                starts[repeat] = end
            yield {"l2": l2, "repeat": repeat, **figures}, end


def _fit(model, task, seed, on_epoch):
    keras.utils.set_random_seed(seed)
    fit_arguments = {"callbacks": [], **task.fit_arguments}
    if fit_arguments["callbacks"]:
        # Only callbacks look at the validation data between the epochs.
        fit_arguments["validation_data"] = task.validation_data
    fit_arguments["callbacks"] = [
        *fit_arguments["callbacks"],
        _Watch(task.epochs, on_epoch),
    ]
    history = model.fit(
        task.x, task.y, epochs=task.epochs, verbose=0, **fit_arguments
    ).history
    logs = {k: v[-1] for k, v in history.items() if not k.startswith("val_")}
    data = task.validation_data, task.fit_arguments
    measured = _evaluate(model, *data) if math.isfinite(logs["loss"]) else {}
    if not math.isfinite(measured.get("val_loss", math.nan)):
        return dict.fromkeys([*logs, *(f"val_{key}" for key in logs)], math.nan)
    return {**logs, **measured}


def _evaluate(model, data, fit_arguments, steps=None):
    data = data if isinstance(data, (tuple, list)) else (data,)
    x, y, sample_weight = (*data, None, None)[:3]
    batch_sizes = map(fit_arguments.get, ("validation_batch_size", "batch_size"))
    logs = model.evaluate(
        x,
        y,
        sample_weight=sample_weight,
        batch_size=next(filter(None, batch_sizes), None),
        steps=steps or fit_arguments.get("validation_steps"),
        return_dict=True,
        verbose=0,
    )
    return {f"val_{key}": value for key, value in logs.items()}


class _Watch(keras.callbacks.Callback):
    """Counts epochs, and ends a run that is lost."""

    def __init__(self, epochs, on_epoch):
        super().__init__()
        self._left = epochs
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch, logs=None):
        self._left -= 1
        self._on_epoch(1)
        if not math.isfinite(logs["loss"]):
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self._on_epoch(self._left)


def runs_by(executor, model, task, strengths, chunksize, on_epoch):
    """As `runs` for all repeats, but by the workers of an executor, in any order.

    A task is `chunksize` strengths; for warm starts, which need their forerunners,
    it is one repeat's whole path. A worker keeps the model, and so its one trace,
    from one task to the next.
    """
    try:
        payload = pickle.dumps((model, task))
    except Exception as error:
        raise ValueError(
            "Expected a model, data and callbacks that pickle, to be sent to the "
            f"workers of `executor`. Received: {error}"
        ) from error
    repeats = range(len(task.starts))
    if task.warm:
        chunks = [(strengths, [repeat]) for repeat in repeats]
    else:
        chunks = [
            (strengths[first : first + chunksize], [*repeats])
            for first in range(0, len(strengths), chunksize)
        ]
    # Keras saves a model without the settings that it was made under.
    settings = {
        "backend": keras.backend.backend(),
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
    }
    futures = [executor.submit(_work, settings, payload, *chunk) for chunk in chunks]
    try:
        for future in concurrent.futures.as_completed(futures):
            for run in future.result():
                on_epoch(task.epochs)
                yield run
    finally:
        for future in futures:
            future.cancel()


def _work(settings, payload, strengths, repeats):
    if keras.backend.backend() != settings["backend"]:
        raise RuntimeError(
            f"Expected workers with KERAS_BACKEND={settings['backend']}, as here. "
            f"Received: a worker with KERAS_BACKEND={keras.backend.backend()}"
        )
    with _ONE_AT_A_TIME:
        keras.config.set_floatx(settings["floatx"])
        keras.config.set_dtype_policy(settings["dtype_policy"])
        model, task = _unpacked(payload)
        return list(runs(model, task, strengths, repeats))


@functools.lru_cache(maxsize=1)
def _unpacked(payload):
    model, task = pickle.loads(payload)
    variables = model.trainable_variables
    left_out = [variables[index] for index in task.undecayed]
    for optimizer in {_keras.optimizer_for(model, v) for v in left_out}:
        optimizer.exclude_from_weight_decay(var_list=left_out)
    build(model, task.validation_data, task.fit_arguments)
    return model, task


def grid_from_data(model, x, y, count=12, span=1e4):
    """Strengths on a log grid, from strong to weak, as `l2_path` documents them."""
    x, y, sample_weight = _sample(x, y)
    came = model.l2
    try:
        model.l2 = 0.0
        data = _keras.loss_gradients(model, x, y, sample_weight)
        model.l2 = 1.0
        both = _keras.loss_gradients(model, x, y, sample_weight)
    finally:
        model.l2 = came
    pulls = [(d, b - d) for d, b in zip(data, both, strict=True) if np.any(b != d)]
    of_data, of_penalty = (
        math.sqrt(sum(np.sum(np.square(pull, dtype="float64")) for pull in side))
        for side in (zip(*pulls, strict=True) if pulls else ((), ()))
    )
    top = 10 * of_data / of_penalty if of_penalty else 0.0
    if not math.isfinite(top) or top == 0:
        raise ValueError(
            "Expected data and weights that tell where the grid should begin. Received "
            f"gradients of norm {of_data:.3g} (data) and {of_penalty:.3g} (penalty, at "
            "l2=1) at the start; give the strengths by `l2`"
        )
    return [float(f"{v:.3g}") for v in np.geomspace(top, top / span, count)]


def _sample(x, y, size=1024):
    """Up to `size` samples, spread over arrays; or a data set's first batch."""
    if y is None and not keras.tree.is_nested(x) and not hasattr(x, "shape"):
        batch = x[0] if isinstance(x, keras.utils.PyDataset) else next(iter(x))
        return keras.utils.unpack_x_y_sample_weight(batch)
    total = len(keras.tree.flatten(x)[0])
    chosen = np.linspace(0, total - 1, min(size, total)).astype(int)
    pick = functools.partial(
        keras.tree.map_structure, lambda leaf: np.asarray(leaf)[chosen]
    )
    return pick(x), None if y is None else pick(y), None
