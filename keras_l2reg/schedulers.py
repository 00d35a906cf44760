"""StrengthScheduler: a callback that changes the strengths of a wrapper.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> wrapped.compile("sgd", "mse")
>>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
>>> halve = StrengthScheduler(l2=lambda epoch: 0.01 * 0.5**epoch)
>>> wrapped.fit(x, y, epochs=2, verbose=0, callbacks=[halve]).history["l2"]
[0.01, 0.005]
"""

import inspect
from collections.abc import Callable
from typing import Any, Literal

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._added_keys import AddsToLogs, Logs, check_verbose
from keras_l2reg._tables import print_text
from keras_l2reg.models import L2AllWeights

Schedule = Callable[..., Any]


class StrengthScheduler(AddsToLogs):
    """Change the strengths of an `L2AllWeights` while it trains, without retracing.

    `l2 = schedule(t)` or `l2 = schedule(t, l2)`, where `t` is the epoch or the step,
    from 0; the same for the others. Each strength is logged by its name.

    Args:
        l2: A function of the epoch or step (an integer), or of it and the current
            strength, that returns a float >= 0; or a
            `keras.optimizers.schedules.LearningRateSchedule`. Defaults to `None`, the
            strength is not changed.
        l1, weight_decay: As `l2`.
        unit: `"epoch"` or `"step"`. Steps are the optimizer's iterations, so a restored
            run continues where it stopped. Defaults to `"epoch"`.
        verbose: `0` is silent, `1` prints the strengths at the start of each epoch.
            Defaults to `0`.

    Raises:
        TypeError: a schedule is not a function of one or two arguments.
        ValueError: no schedule, an unknown `unit` or `verbose`, or a model whose
            strength can't be changed. In training, an invalid strength; then all
            strengths keep their last values.

    Example:

    >>> cosine = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=10)
    >>> StrengthScheduler(l2=cosine, l1=lambda step: 1e-5, unit="step").keys
    ('l2', 'l1')
    """

    def __init__(
        self,
        l2: Schedule | None = None,
        *,
        l1: Schedule | None = None,
        weight_decay: Schedule | None = None,
        unit: Literal["epoch", "step"] = "epoch",
        verbose: Literal[0, 1] = 0,
    ):
        super().__init__()
        given = {"l2": l2, "l1": l1, "weight_decay": weight_decay}
        self.schedules = {
            name: _of_time_and_model(schedule, name)
            for name, schedule in given.items()
            if schedule is not None
        }
        if not self.schedules:
            raise ValueError(
                "Expected a schedule for at least one strength, such as "
                "l2=lambda epoch: 0.01 * 0.5**epoch. Received: none"
            )
        if unit not in ("epoch", "step"):
            raise ValueError(
                "Invalid value for argument `unit`. Expected 'epoch' or 'step'. "
                f"Received: unit={unit!r}"
            )
        check_verbose(verbose)
        self.keys = tuple(self.schedules)
        self.unit = unit
        self.verbose = verbose
        self._first_step = 0

    def set_model(self, model: keras.Model) -> None:
        if not isinstance(model, L2AllWeights):
            raise ValueError(
                "Expected a model wrapped by `L2AllWeights`: only its strengths can be "
                f"changed while it trains. Received: {type(model).__name__}; train "
                "`L2AllWeights(model, l2)` instead"
            )
        for name in self.keys:
            model._require_strength(name)
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        model: Any = self.model
        if self.unit == "step":
            # Read once per epoch, since on JAX it is not readable between steps.
            iterations: Any = ops.convert_to_numpy(model.optimizer.iterations)
            self._first_step = int(iterations)
            self._set_strengths(self._first_step)
        else:
            self._set_strengths(epoch)
        if self.verbose:
            strengths = [f"{name} to {getattr(model, name):.4g}" for name in self.keys]
            print_text(
                f"\nEpoch {epoch + 1}: StrengthScheduler sets {', '.join(strengths)}"
                f"{', and again at each step' if self.unit == 'step' else ''}."
            )

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self.unit == "step":
            # With gradient accumulation, several batches make one step. It is done by
            # the optimizer within loss scaling and weight decay.
            model: Any = self.model
            *_, innermost = _keras.optimizers_within(model.optimizer)
            batches = innermost.gradient_accumulation_steps or 1
            self._set_strengths(self._first_step + batch // batches)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        if logs is not None:
            logs.update({name: getattr(self.model, name) for name in self.keys})

    def _set_strengths(self, time: int) -> None:
        model: Any = self.model
        strengths = {}
        for name, schedule in self.schedules.items():
            try:
                value = schedule(time, model)
                strengths[name] = model._checked_strength(name, value)
            except (TypeError, ValueError) as error:
                error.add_note(
                    f"The schedule for `{name}` returned it at {self.unit} {time}; the "
                    "strengths keep their last values."
                )
                raise
        for name, value in strengths.items():
            setattr(model, name, value)


def _of_time_and_model(schedule: Any, name: str) -> Callable[[int, Any], Any]:
    """`schedule` as a function of the epoch or step and the model.

    On JAX, reading the strength within an epoch is slow, so it is done only if needed.
    """
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        # It returns a tensor.
        return lambda time, model: _number(schedule(time))
    if _takes(schedule, 1):
        return lambda time, model: schedule(time)
    if _takes(schedule, 2):
        return lambda time, model: schedule(time, getattr(model, name))
    hint = (
        "wrap it so that its arguments are known: `lambda epoch, l2: ...`"
        if callable(schedule)
        else f"for a strength that doesn't change, set `model.{name}`"
    )
    raise TypeError(
        f"Invalid type for argument `{name}`. Expected a function of the epoch or "
        "step, or of it and the strength, or a `LearningRateSchedule`. "
        f"Received: {name}={schedule!r}; {hint}"
    )


def _number(tensor: Any) -> float:
    number: Any = ops.convert_to_numpy(tensor)
    return float(number)


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with `count` positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        # ValueError: some built-in functions have no signature.
        return False
    return True
