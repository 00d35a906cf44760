"""Callbacks: `PenaltyLogger` logs the penalties, `L2Scheduler` changes the strength.

Place them before `CSVLogger`, `TensorBoard`, `EarlyStopping` and the like in the list
of callbacks, so that these find the new keys in the logs; these callbacks warn if not.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> wrapped.compile("sgd", "mse")
>>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
>>> history = wrapped.fit(
...     x, y, epochs=2, verbose=0,
...     callbacks=[PenaltyLogger(), L2Scheduler(lambda epoch: 0.01 * 0.5**epoch)])
>>> sorted(history.history)
['data_loss', 'l2', 'loss', 'penalty', 'penalty/out/kernel']
>>> history.history["l2"]
[0.01, 0.005]
"""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Literal

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._penalties import (
    CompiledPenalties,
    penalized,
    penalties_now,
    print_penalties,
)
from keras_l2reg._tables import print_text
from keras_l2reg._validation import as_number, check_integer, number_hint
from keras_l2reg.models import L2AllWeights
from keras_l2reg.weights import listed

# These callbacks record every key in the logs.
_READ_EVERY_KEY = (
    keras.callbacks.CSVLogger,
    keras.callbacks.History,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


Logs = MutableMapping[str, Any] | None


class _AddsToLogs(keras.callbacks.Callback):
    """Adds keys to the logs, and warns if earlier callbacks will miss them."""

    # The added key, or its prefix before the name of a weight.
    _key: str

    def on_train_begin(self, logs: Logs = None) -> None:
        missing = [
            type(callback).__name__
            for callback in _keras.callbacks_before(self)
            if isinstance(callback, _READ_EVERY_KEY)
            or self._adds(getattr(callback, "monitor", None))
        ]
        if missing:
            what = f"{self._key}..." if self._key.endswith("/") else self._key
            warnings.warn(
                f"Callbacks run in the order of the list. {', '.join(missing)} before "
                f"{type(self).__name__} will not find {what!r} in the logs; put "
                f"{type(self).__name__} first.",
                stacklevel=2,
            )

    def _adds(self, key: Any) -> bool:
        if not isinstance(key, str):
            return False
        return key == self._key or (self._key[-1] == "/" and key.startswith(self._key))


class PenaltyLogger(_AddsToLogs, _keras.BatchLogsCallback):
    """Add the penalty of each weight to the logs, as `penalty/<weight name>`.

    Works on any Keras model with regularizers. The values are those at the end of the
    epoch (or batch), while `penalty` without a name, which `L2AllWeights` logs, is the
    mean over the epoch.

    Args:
        every_n_batches: Integer >= 1: also add the keys to the logs of every n-th
            batch. Defaults to `None`, epochs only.
        verbose: `0` is silent, `1` prints a table of strength, norm, penalty and
            share of the penalty after each epoch. Defaults to `0`.
        warn_share: Float in (0, 1]: warn once if the penalty is more than this share
            of the loss. Defaults to `0.9`.

    Raises:
        TypeError, ValueError: an invalid argument.

    Example:

    >>> layer = keras.layers.Dense(2, name="out", kernel_regularizer="l2")
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
    >>> sorted(model.fit(x, y, verbose=0, callbacks=[PenaltyLogger()]).history)
    ['loss', 'penalty/out/kernel']
    """

    _key = "penalty/"

    def __init__(
        self,
        every_n_batches: int | None = None,
        verbose: Literal[0, 1] = 0,
        warn_share: float = 0.9,
    ):
        super().__init__()
        if every_n_batches is not None:
            every_n_batches = check_integer(every_n_batches, "every_n_batches")
        _check_verbose(verbose)
        self.every_n_batches = every_n_batches
        self.verbose = verbose
        self.warn_share = _checked_share(warn_share)
        self._warned_of: set[str] = set()
        self._batches_done = 0
        self._compiled: CompiledPenalties | None = None
        self._is_up_to_date = False

    @property
    def adds_to_batch_logs(self) -> bool:
        """Whether later callbacks find penalties in the logs of a batch."""
        return self.every_n_batches is not None

    def __getstate__(self) -> dict[str, Any]:
        # A compiled function can't be pickled.
        return {**vars(self), "_compiled": None, "_is_up_to_date": False}

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._batches_done = 0
        self._is_up_to_date = False

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if not self.every_n_batches:
            return
        # With `steps_per_execution`, one call stands for several batches.
        before, self._batches_done = self._batches_done, batch + 1
        if self._batches_done // self.every_n_batches > before // self.every_n_batches:
            _add(self._penalties_in_fit(), logs)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        model: Any = self.model
        now = penalties_now(model)
        _add(now, logs)
        self._warn_about_nan(now)
        self._warn_about_share(now, logs)
        if self.verbose:
            if (self.params or {}).get("verbose") in (1, "auto"):
                # The progress bar of Keras ends its line only after this callback.
                print()
            print_penalties(model, title=f"Epoch {epoch + 1}")

    def _penalties_in_fit(self) -> dict[str, float]:
        # If regularizers change within an epoch, the compiled step misses that, too.
        model: Any = self.model
        compiled = self._compiled
        is_up_to_date = self._is_up_to_date and _keras.backend.compiles_steps(model)
        if compiled is None or not is_up_to_date:
            weights = penalized(model)
            if compiled is None or not compiled.is_for(weights):
                self._compiled = compiled = CompiledPenalties(model, weights)
            self._is_up_to_date = True
        return compiled()

    def _warn_about_nan(self, now: Mapping[str, float]) -> None:
        names = [name for name, value in now.items() if not math.isfinite(value)]
        if names and "nan" not in self._warned_of:
            self._warned_of.add("nan")
            warnings.warn(
                "The penalty of these weights is NaN or infinite: "
                f"{listed(names)}. Lower the learning rate or clip the gradients "
                "(`clipnorm=`); `keras.callbacks.TerminateOnNaN` stops such a run.",
                stacklevel=2,
            )

    def _warn_about_share(self, now: Mapping[str, float], logs: Logs) -> None:
        loss, penalty = (logs or {}).get("loss"), sum(now.values())
        if loss and penalty > self.warn_share * loss and "share" not in self._warned_of:
            self._warned_of.add("share")
            warnings.warn(
                f"The penalty, {penalty:.4g}, is more than {self.warn_share:.0%} of "
                f"the loss, {loss:.4g}: the data barely count. Try a smaller strength.",
                stacklevel=2,
            )


class L2Scheduler(_AddsToLogs):
    """Change the strength of an `L2AllWeights` while it trains, without retracing.

    `l2 = schedule(epoch)` or `l2 = schedule(epoch, l2)`; for a `LearningRateSchedule`
    `l2 = schedule(epoch)` or `l2 = schedule(step)`. It is logged as `l2`.

    Args:
        schedule: A function of the epoch (an integer, from 0), or of the epoch and
            the current strength, that returns a float >= 0; or a
            `keras.optimizers.schedules.LearningRateSchedule`.
        unit: `"epoch"` or `"step"`, the unit of a `LearningRateSchedule`. Steps are the
            optimizer's iterations, so a restored run continues where it stopped.
            Defaults to `"epoch"`.
        verbose: `0` is silent, `1` prints the strength at the start of each epoch.
            Defaults to `0`.

    Raises:
        TypeError: `schedule` is not a function of one or two arguments.
        ValueError: an unknown `unit` or `verbose`, an invalid strength, or a model
            whose strength can't be changed.

    Example:

    >>> cosine = keras.optimizers.schedules.CosineDecay(0.01, decay_steps=10)
    >>> L2Scheduler(cosine, unit="step").unit
    'step'
    """

    _key = "l2"

    def __init__(
        self,
        schedule: Callable[..., Any],
        unit: Literal["epoch", "step"] = "epoch",
        verbose: Literal[0, 1] = 0,
    ):
        super().__init__()
        is_schedule = isinstance(
            schedule, keras.optimizers.schedules.LearningRateSchedule
        )
        if unit not in ("epoch", "step"):
            raise ValueError(
                "Invalid value for argument `unit`. Expected 'epoch' or 'step'. "
                f"Received: unit={unit!r}"
            )
        if unit == "step" and not is_schedule:
            raise ValueError(
                "Expected a `LearningRateSchedule` with unit='step'. "
                f"Received: schedule={schedule!r}; leave out `unit` for a function of "
                "the epoch, or subclass "
                "`keras.optimizers.schedules.LearningRateSchedule`"
            )
        _check_verbose(verbose)
        self.schedule: Any = schedule if is_schedule else _of_epoch_and_l2(schedule)
        self.unit = unit
        self.verbose = verbose
        self._is_schedule = is_schedule
        self._first_step = 0

    def set_model(self, model: keras.Model) -> None:
        if not isinstance(model, L2AllWeights):
            raise ValueError(
                "Expected a model wrapped by `L2AllWeights`: only its strength can be "
                f"changed while it trains. Received: {type(model).__name__}; train "
                "`L2AllWeights(model, l2)` instead"
            )
        model._require_strength()
        super().set_model(model)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        model: Any = self.model
        if self.unit == "step":
            # Read once per epoch, since on JAX it is not readable between steps.
            iterations: Any = ops.convert_to_numpy(model.optimizer.iterations)
            self._first_step = int(iterations)
            self._assign(self.schedule(self._first_step))
        elif self._is_schedule:
            self._assign(self.schedule(epoch))
        else:
            self._assign(self.schedule(epoch, model.l2))
        if self.verbose:
            print_text(
                f"\nEpoch {epoch + 1}: L2Scheduler sets l2 to {model.l2:.4g}"
                f"{', and again at each step' if self.unit == 'step' else ''}."
            )

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        if self.unit == "step":
            # With gradient accumulation, several batches make one step.
            model: Any = self.model
            batches = model.optimizer.gradient_accumulation_steps or 1
            step = self._first_step + batch // batches
            self._assign(self.schedule(step))

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        model: Any = self.model
        if logs is not None:
            logs["l2"] = model.l2

    def _assign(self, value: Any) -> None:
        model: Any = self.model
        if self._is_schedule:
            # A `LearningRateSchedule` returns a tensor.
            number: Any = ops.convert_to_numpy(value)
            value = float(number)
        model.l2 = value


def _of_epoch_and_l2(schedule: Any) -> Callable[[int, float], Any]:
    """`schedule` as a function of the epoch and the strength."""
    if _takes(schedule, 1):
        return lambda epoch, l2: schedule(epoch)
    if _takes(schedule, 2):
        return schedule
    hint = (
        "wrap it so that its arguments are known: `lambda epoch, l2: ...`"
        if callable(schedule)
        else "for a strength that doesn't change, set `model.l2`"
    )
    raise TypeError(
        "Invalid type for argument `schedule`. Expected a function of the epoch, or "
        "of the epoch and the strength, or a `LearningRateSchedule`. "
        f"Received: schedule={schedule!r}; {hint}"
    )


def _takes(function: Any, count: int) -> bool:
    """Whether a function can be called with `count` positional arguments."""
    try:
        inspect.signature(function).bind(*[None] * count)
    except (TypeError, ValueError):
        # ValueError: some built-in functions have no signature.
        return False
    return True


def _check_verbose(verbose: Any) -> None:
    if verbose not in (0, 1):
        raise ValueError(
            "Invalid value for argument `verbose`. Expected 0 (silent) or 1 (prints "
            f"once per epoch). Received: verbose={verbose!r}"
        )


def _checked_share(share: Any) -> float:
    number = as_number(share)
    if number is None:
        raise TypeError(
            "Invalid type for argument `warn_share`. Expected a float in (0, 1]. "
            f"Received: warn_share={share!r}{number_hint(share, 'warn_share')}"
        )
    if not 0 < number <= 1:
        raise ValueError(
            "Invalid value for argument `warn_share`. Expected a float in (0, 1], the "
            "penalty's share of the loss; 1.0 never warns if the data loss is "
            f"positive. Received: warn_share={share}"
        )
    return number


def _add(now: Mapping[str, float], logs: Logs) -> None:
    if logs is not None:
        logs.update({f"penalty/{name}": value for name, value in now.items()})
