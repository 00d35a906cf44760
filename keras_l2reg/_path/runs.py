"""The runs of a path: one model, fitted at one strength after another.

`runs` fits in this process; the workers of an executor call it on a copy of the model.
Each run yields its metrics and its final weights.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg.models import L2AllWeights

Arrays = list[np.ndarray]
Run = dict[str, Any]
Result = tuple[Run, Arrays]

# Keys of a run or a record that identify it; a log key may not replace them.
OWN_KEYS = ("l2", "repeat", "repeats", "diverged")


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all runs of a path have in common; picklable, so that workers get the same.

    Args:
        x, y, validation_data, epochs, warm, seed, fit_arguments: as in `l2_path`.
        starts: For each repeat, the values of `state_of(model)` to start from.
        optimizer_start: The values of the optimizer's variables to start from.
        undecayed: Indices of the trainable variables that are excluded from the
            optimizer's weight decay, which Keras doesn't save.
    """

    x: Any
    y: Any
    validation_data: Any
    epochs: int
    warm: bool
    seed: int
    fit_arguments: dict[str, Any]
    starts: list[Arrays]
    optimizer_start: Arrays
    undecayed: list[int]


def state_of(model: keras.Model) -> list[keras.Variable]:
    """All variables that a fit of a model changes, except metrics and the optimizer."""
    return model.variables


def read(variables: Iterable[keras.Variable]) -> Arrays:
    """A copy of the value of each variable, which later steps do not change."""
    ops = keras.ops
    # As tensors, since NumPy 2 warns about the conversion of a `tf.Variable`.
    tensors = map(ops.convert_to_tensor, variables)
    return [np.array(ops.convert_to_numpy(tensor)) for tensor in tensors]


def assign(variables: Iterable[keras.Variable], values: Arrays) -> None:
    """Assign a value to each variable, in place, so that compiled steps stay valid."""
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def build(
    model: L2AllWeights, validation_data: Any, fit_arguments: Mapping[str, Any]
) -> list[str]:
    """Create all variables, also those of the optimizer and the metrics.

    Otherwise the first `fit` would create them, and shuffle the data once more than the
    later ones: two runs with the same seed would differ.

    Returns:
        The names of the metrics that every run logs, `val_` ones included.
    """
    variables = state_of(model)
    values = read(variables)
    try:
        logs = _evaluate(model, validation_data, fit_arguments, steps=1)
    finally:
        # A layer that draws random numbers in evaluation has advanced its seed.
        _keras.backend.sync_state(model)
        assign(variables, values)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*(key.removeprefix("val_") for key in logs), *logs]


def undecayed(model: keras.Model) -> list[int]:
    """Indices of the trainable variables excluded from the optimizer's weight decay."""

    def is_undecayed(variable: keras.Variable) -> bool:
        optimizer: Any = _keras.optimizer_for(model, variable)
        return optimizer.weight_decay and not _keras.decays(optimizer, variable)

    variables = model.trainable_variables
    return [index for index, v in enumerate(variables) if is_undecayed(v)]


def runs(
    model: L2AllWeights,
    setup: Setup,
    strengths: Iterable[float],
    repeats: Sequence[int],
    on_epoch: Callable[[int], None] = lambda count: None,
) -> Iterator[Result]:
    """Fit `model` once for each strength and repeat.

    Args:
        model: A built, compiled `L2AllWeights` with a live strength.
        setup: The `Setup`.
        strengths: Floats; from strong to weak if `setup.warm`.
        repeats: Integers, indices into `setup.starts`.
        on_epoch: Called with the number of epochs that were finished or skipped.
            Defaults to doing nothing.

    Yields:
        `(run, weights)`: a dict of `l2`, `repeat` and every number in the logs, all
        NaN if the run diverged; and the arrays of `state_of(model)` at the end.
    """
    starts = list(setup.starts)
    for l2 in strengths:
        for repeat in repeats:
            assign(state_of(model), starts[repeat])
            assign(model.optimizer.variables, setup.optimizer_start)
            model.l2 = l2
            metrics = _fit(model, setup, setup.seed + repeat, on_epoch)
            end = read(state_of(model))
            if setup.warm and math.isfinite(metrics["loss"]):
                starts[repeat] = end
            yield {"l2": l2, "repeat": repeat, **_renamed(metrics)}, end


def _fit(
    model: L2AllWeights, setup: Setup, seed: int, on_epoch: Callable[[int], None]
) -> dict[str, float]:
    keras.utils.set_random_seed(seed)
    callbacks = keras.tree.flatten(setup.fit_arguments.get("callbacks") or [])
    fit_arguments = {
        **setup.fit_arguments,
        "epochs": setup.epochs,
        "verbose": 0,
        "callbacks": [*callbacks, _StopOnDivergence(setup.epochs, on_epoch)],
    }
    if callbacks:
        # Only callbacks need the validation metrics between epochs.
        fit_arguments["validation_data"] = setup.validation_data
    history = model.fit(setup.x, setup.y, **fit_arguments).history
    logs = _numbers({key: values[-1] for key, values in history.items()})
    if math.isfinite(logs["loss"]):
        logs |= _evaluate(model, setup.validation_data, setup.fit_arguments)
        if math.isfinite(logs["val_loss"]):
            return logs
    validated = [f"val_{name}" for name in model.get_metrics_result()]
    return dict.fromkeys([*logs, *validated], math.nan)


def _numbers(logs: Mapping[Any, Any]) -> dict[str, float]:
    """The numbers in the logs, as floats; a callback may add other things."""
    found = {}
    for key, value in logs.items():
        if keras.ops.is_tensor(value):
            value: Any = keras.ops.convert_to_numpy(value)
        if not isinstance(value, (str, bytes)):
            with contextlib.suppress(TypeError, ValueError):
                found[str(key)] = float(value)
    return found


def _renamed(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics; a key that the path itself uses becomes `logged_<key>`."""
    taken = {*OWN_KEYS, *(f"{name}_se" for name in metrics)}
    return {f"logged_{k}" if k in taken else k: v for k, v in metrics.items()}


def _evaluate(
    model: L2AllWeights,
    data: Any,
    fit_arguments: Mapping[str, Any],
    steps: int | None = None,
) -> dict[str, float]:
    data = data if isinstance(data, (tuple, list)) else (data,)
    x, y, sample_weight = (*data, None, None)[:3]
    batch_sizes = map(fit_arguments.get, ("validation_batch_size", "batch_size"))
    arguments = {
        "sample_weight": sample_weight,
        # Without a batch size, Keras puts all data into one batch for `steps=1`.
        "batch_size": next(filter(None, batch_sizes), 32),
        "steps": steps or fit_arguments.get("validation_steps"),
        "return_dict": True,
        "verbose": 0,
    }
    logs = model.evaluate(x, y, **arguments)
    return {f"val_{key}": value for key, value in logs.items()}


class _StopOnDivergence(keras.callbacks.Callback):
    """Counts epochs, and stops a run whose loss is not finite."""

    def __init__(self, epochs: int, on_epoch: Callable[[int], None]):
        super().__init__()
        self._left = epochs
        self._on_epoch = on_epoch

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._left -= 1
        self._on_epoch(1)
        if not math.isfinite(logs["loss"]):
            model: Any = self.model
            model.stop_training = True

    def on_train_end(self, logs: Any = None) -> None:
        self._on_epoch(self._left)
