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
from keras_l2reg._path.folds import Data
from keras_l2reg._path.points import Point
from keras_l2reg.models import L2AllWeights

Arrays = list[np.ndarray]
Run = dict[str, Any]
# The weights are `None` with cross-validation, where none of them are kept.
Result = tuple[Run, Arrays | None]

# Keys of a run or a record that identify it; a log key may not replace them.
OWN_KEYS = (
    *("strength", "l1_ratio", "l1", "l2", "weight_decay"),
    *("fold", "folds", "repeat", "repeats", "diverged"),
)


@dataclasses.dataclass(frozen=True)
class Setup:
    """What all runs of a path have in common; picklable, so that workers get the same.

    Args:
        data: The `Data`.
        epochs, warm, seed, fit_arguments: as in `l2_path`.
        starts: For each repeat, the values of `state_of(model)` to start from.
        optimizer_start: The values of the optimizer's variables to start from.
        undecayed: Indices of the trainable variables that are excluded from the
            optimizer's weight decay, which Keras doesn't save.
    """

    data: Data
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
    model: L2AllWeights,
    validation_data: Any,
    fit_arguments: Mapping[str, Any],
    *,
    compiled: bool = True,
) -> list[str]:
    """Create all variables, also those of the optimizer and the metrics.

    Otherwise the first `fit` would create them, and shuffle the data once more than the
    later ones: two runs with the same seed would differ.

    Args:
        model, validation_data, fit_arguments: as in `l2_path`.
        compiled: Boolean. `True` evaluates a batch, and so compiles the step of an
            evaluation; `False` only traces it, and needs arrays. Defaults to `True`.

    Returns:
        The names of the metrics that every run logs, `val_` ones included.
    """
    variables = state_of(model)
    values = read(variables)
    try:
        if compiled:
            trainer = _keras.backend.epochs(model)
            logs = _evaluate(trainer, validation_data, fit_arguments, steps=1)
            names = [key.removeprefix("val_") for key in logs]
        else:
            names = _keras.build_for_metrics(
                model, *_parts(validation_data), evaluation_batch_size(fit_arguments)
            )
    finally:
        # A layer that draws random numbers in evaluation has advanced its seed.
        _keras.backend.sync_state(model)
        assign(variables, values)
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)
    return [*names, *(f"val_{name}" for name in names)]


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
    points: Iterable[Point],
    folds: Sequence[int | None],
    repeats: Sequence[int],
    on_epoch: Callable[[int], None] = lambda count: None,
) -> Iterator[Result]:
    """Fit `model` once for each point, fold and repeat.

    Args:
        model: A built, compiled `L2AllWeights` with a live strength.
        setup: The `Setup`.
        points: `Point`s; from strong to weak, at one ratio, if `setup.warm`.
        folds: Integers, indices into `setup.data.folds`, or `None` for all data.
        repeats: Integers, indices into `setup.starts`.
        on_epoch: Called with the number of epochs that were finished or skipped.
            Defaults to doing nothing.

    Yields:
        `(run, weights)`: a dict of the point's keys, `fold` if there are folds,
        `repeat` and every number in the logs, all NaN if the run diverged; and the
        arrays of `state_of(model)` at the end, `None` for a fold.
    """
    trainer = _keras.backend.epochs(model)
    warm_starts: dict[tuple[int | None, int], Arrays] = {}
    for point in points:
        for fold in folds:
            data = setup.data.of_fold(fold)
            for repeat in repeats:
                start = warm_starts.get((fold, repeat), setup.starts[repeat])
                assign(state_of(model), start)
                assign(model.optimizer.variables, setup.optimizer_start)
                set_point(model, point)
                seed = setup.seed + repeat
                metrics = _fit(model, trainer, setup, data, seed, on_epoch)
                end = read(state_of(model))
                if setup.warm and math.isfinite(metrics["loss"]):
                    warm_starts[fold, repeat] = end
                run = run_of(point, fold, repeat, metrics)
                yield run, end if fold is None else None


def run_of(
    point: Point, fold: int | None, repeat: int, metrics: dict[str, float]
) -> Run:
    """The record of a run: what identifies it, and its metrics."""
    key = point.keys() | ({} if fold is None else {"fold": fold})
    return {**key, "repeat": repeat, **_renamed(metrics)}


def set_point(model: L2AllWeights, point: Point) -> None:
    """Set the live strengths of a wrapper that a path varies."""
    if point.name == "weight_decay":
        model.weight_decay = point.strength
        return
    model.l2 = point.l2
    if point.l1_ratio is not None:
        model.l1 = point.l1


def _fit(
    model: L2AllWeights,
    trainer: _keras.Epochs,
    setup: Setup,
    data: Data,
    seed: int,
    on_epoch: Callable[[int], None],
) -> dict[str, float]:
    fit_arguments = dict(setup.fit_arguments)
    if fit_arguments.get("callbacks"):
        # Only callbacks need the validation metrics between epochs.
        fit_arguments["validation_data"] = data.validation_data
    samples = data.x, data.y, data.sample_weight
    watch = _StopOnDivergence(setup.epochs, on_epoch)
    logs = numbers(trainer.fit(samples, setup.epochs, watch, fit_arguments, seed))
    if math.isfinite(logs["loss"]):
        if data.validation_data is None:
            return logs
        logs |= _evaluate(trainer, data.validation_data, setup.fit_arguments)
        if math.isfinite(logs["val_loss"]):
            return logs
    validated = [f"val_{name}" for name in model.get_metrics_result()]
    return dict.fromkeys([*logs, *validated], math.nan)


def numbers(logs: Mapping[Any, Any]) -> dict[str, float]:
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
    trainer: _keras.Epochs,
    data: Any,
    fit_arguments: Mapping[str, Any],
    steps: int | None = None,
) -> dict[str, float]:
    batch_size = evaluation_batch_size(fit_arguments)
    steps = steps or fit_arguments.get("validation_steps")
    logs = trainer.evaluate(_parts(data), batch_size, steps)
    return {f"val_{key}": value for key, value in logs.items()}


def _parts(data: Any) -> tuple[Any, Any, Any]:
    """`x, y, sample_weight` of validation data."""
    given = data if isinstance(data, (tuple, list)) else (data,)
    x, y, sample_weight = (*given, None, None)[:3]
    return x, y, sample_weight


def evaluation_batch_size(fit_arguments: Mapping[str, Any]) -> int:
    """The number of samples in a batch of an evaluation."""
    batch_sizes = map(fit_arguments.get, ("validation_batch_size", "batch_size"))
    # Without one, Keras puts all data into one batch for `steps=1`.
    return next(filter(None, batch_sizes), 32)


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
