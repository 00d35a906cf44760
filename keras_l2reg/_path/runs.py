"""The runs behind `l2_path`: one model, fitted at one strength after another.

`runs` fits in this process; `executor` has workers call it on a copy of the
model. Each run yields what it measured and the weights it ended with.
"""

import contextlib
import dataclasses
import math

import keras
import numpy as np

from keras_l2reg import _keras

# Keys of a run or a record that say which run it is; a log key may not replace them.
OWN_KEYS = ("l2", "repeat", "repeats", "diverged")


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
    """The variables in which one fit of a model differs from another, no metrics."""
    return model.variables


def read(variables):
    """A copy of each variable's value, which no later step can write to."""
    ops = keras.ops
    # By way of a tensor: NumPy 2 warns of what it is given by a `tf.Variable`.
    tensors = map(ops.convert_to_tensor, variables)
    return [np.array(ops.convert_to_numpy(tensor)) for tensor in tensors]


def assign(variables, values):
    """Assign to each variable its value, in place, so that a compiled step lives on."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def build(model, validation_data, fit_arguments):
    """Make all variables, the optimizer's and the metrics' too, and no others later.

    Otherwise the first `fit` would make them, and draw one shuffle more for that
    than the next ones: no two runs of one seed would be alike.

    Returns:
        The names of the metrics that every run logs, `val_` ones included.
    """
    variables = state_of(model)
    values = read(variables)
    try:
        logs = _evaluate(model, validation_data, fit_arguments, steps=1)
    finally:
        # A layer that draws numbers in an evaluation has moved its seed on.
        _keras.backend.sync_state(model)
        assign(variables, values)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*(key.removeprefix("val_") for key in logs), *logs]


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
        `(run, weights)`: a dict of `l2`, `repeat` and every number in the logs, all
        NaN if the run diverged; and the arrays of `state_of(model)` at the end.
    """
    starts = list(task.starts)
    for l2 in strengths:
        for repeat in repeats:
            assign(state_of(model), starts[repeat])
            assign(model.optimizer.variables, task.optimizer_start)
            model.l2 = l2
            metrics = _fit(model, task, task.seed + repeat, on_epoch)
            end = read(state_of(model))
            if task.warm and math.isfinite(metrics["loss"]):
                starts[repeat] = end
            yield {"l2": l2, "repeat": repeat, **_renamed(metrics)}, end


def _fit(model, task, seed, on_epoch):
    keras.utils.set_random_seed(seed)
    callbacks = keras.tree.flatten(task.fit_arguments.get("callbacks") or [])
    fit_arguments = {
        **task.fit_arguments,
        "callbacks": [*callbacks, _StopOnDivergence(task.epochs, on_epoch)],
    }
    if callbacks:
        # Only callbacks look at the validation data between the epochs.
        fit_arguments["validation_data"] = task.validation_data
    history = model.fit(
        task.x, task.y, epochs=task.epochs, verbose=0, **fit_arguments
    ).history
    logs = _numbers({key: values[-1] for key, values in history.items()})
    if math.isfinite(logs["loss"]):
        logs |= _evaluate(model, task.validation_data, task.fit_arguments)
        if math.isfinite(logs["val_loss"]):
            return logs
    validated = [f"val_{name}" for name in model.get_metrics_result()]
    return dict.fromkeys([*logs, *validated], math.nan)


def _numbers(logs):
    """The numbers in the logs, as floats: a callback may add anything."""
    found = {}
    for key, value in logs.items():
        if keras.ops.is_tensor(value):
            value = keras.ops.convert_to_numpy(value)
        if not isinstance(value, (str, bytes)):
            with contextlib.suppress(TypeError, ValueError):
                found[str(key)] = float(value)
    return found


def _renamed(metrics):
    """The metrics, those under a key of the path's own as `logged_<key>`."""
    taken = {*OWN_KEYS, *(f"{name}_se" for name in metrics)}
    return {f"logged_{k}" if k in taken else k: v for k, v in metrics.items()}


def _evaluate(model, data, fit_arguments, steps=None):
    data = data if isinstance(data, (tuple, list)) else (data,)
    x, y, sample_weight = (*data, None, None)[:3]
    batch_sizes = map(fit_arguments.get, ("validation_batch_size", "batch_size"))
    logs = model.evaluate(
        x,
        y,
        sample_weight=sample_weight,
        # Without a size, Keras makes one batch of all data for `steps=1`.
        batch_size=next(filter(None, batch_sizes), 32),
        steps=steps or fit_arguments.get("validation_steps"),
        return_dict=True,
        verbose=0,
    )
    return {f"val_{key}": value for key, value in logs.items()}


class _StopOnDivergence(keras.callbacks.Callback):
    """Counts epochs, and ends a run whose loss is not finite."""

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
