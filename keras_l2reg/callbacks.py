"""PenaltyLogger: a callback that logs the penalty of each weight.

>>> import keras
>>> from keras_l2reg import L2AllWeights
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> wrapped.compile("sgd", "mse")
>>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
>>> history = wrapped.fit(
...     x, y, epochs=2, verbose=0,
...     callbacks=[PenaltyLogger()])
>>> sorted(history.history)
['data_loss', 'loss', 'penalty', 'penalty/out/kernel']
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any, Literal

from keras_l2reg import _keras
from keras_l2reg._added_keys import AddsToLogs, Logs, check_verbose
from keras_l2reg._norms import Norms
from keras_l2reg._penalties import (
    CompiledPenalties,
    penalized,
    penalties_now,
    print_penalties,
)
from keras_l2reg._validation import as_number, check_integer, number_hint
from keras_l2reg.weights import listed


class PenaltyLogger(AddsToLogs, _keras.BatchLogsCallback):
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
        norms: Boolean, whether to add for each trainable kernel, and each other
            penalized weight, its norm as `norm/<weight name>`, and as
            `update/<weight name>` how much it changed since the start of the epoch
            (or over the n batches): `||w - w_before|| / ||w||`. Kernels whose scale a
            normalization cancels also get `effective_rate/<weight name>`,
            `learning_rate / ||w||**2`. Needs memory for two copies of these weights.
            Defaults to `False`.

    Raises:
        TypeError, ValueError: an invalid argument.

    Example:

    >>> import keras
    >>> layer = keras.layers.Dense(2, name="out", kernel_regularizer="l2")
    >>> model = keras.Sequential([keras.Input((4,)), layer])
    >>> model.compile("sgd", "mse")
    >>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
    >>> sorted(model.fit(x, y, verbose=0, callbacks=[PenaltyLogger()]).history)
    ['loss', 'penalty/out/kernel']
    """

    def __init__(
        self,
        every_n_batches: int | None = None,
        verbose: Literal[0, 1] = 0,
        warn_share: float = 0.9,
        norms: bool = False,
    ):
        super().__init__()
        if every_n_batches is not None:
            every_n_batches = check_integer(every_n_batches, "every_n_batches")
        check_verbose(verbose)
        self.every_n_batches = every_n_batches
        self.verbose = verbose
        self.warn_share = _checked_share(warn_share)
        self.norms = _checked_flag(norms, "norms")
        watched = ("norm/", "update/", "effective_rate/") if norms else ()
        self.keys = ("penalty/", *watched)
        self._norms: Norms | None = None
        # The watched weights at the start of the epoch, and at the last batch logged.
        self._at_epoch: list[Any] = []
        self._at_batch: list[Any] = []
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
        compiled = {"_compiled": None, "_norms": None, "_at_epoch": [], "_at_batch": []}
        return {**vars(self), **compiled, "_is_up_to_date": False}

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        self._batches_done = 0
        self._is_up_to_date = False
        if self.norms:
            model: Any = self.model
            if self._norms is None or not self._norms.is_of(model):
                self._norms = Norms(model)
            self._at_epoch = self._at_batch = self._norms.values()

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        if not self.every_n_batches:
            return
        # With `steps_per_execution`, one call stands for several batches.
        before, self._batches_done = self._batches_done, batch + 1
        if self._batches_done // self.every_n_batches > before // self.every_n_batches:
            _add(self._penalties_in_fit(), logs)
            if self._norms is not None:
                watched, self._at_batch = self._norms.since(self._at_batch)
                _update(logs, watched)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        model: Any = self.model
        now = penalties_now(model)
        _add(now, logs)
        if self._norms is not None:
            watched, _ = self._norms.since(self._at_epoch)
            _update(logs, watched)
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


def _checked_flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected `True` or `False`. "
            f"Received: {name}={value!r}"
        )
    return value


def _add(now: Mapping[str, float], logs: Logs) -> None:
    _update(logs, {f"penalty/{name}": value for name, value in now.items()})


def _update(logs: Logs, new: Mapping[str, float]) -> None:
    if logs is not None:
        logs.update(new)
