"""What the callbacks of this package share: they add keys to the logs.

Place them before `CSVLogger`, `TensorBoard`, `EarlyStopping` and the like in the list
of callbacks, so that these find the new keys in the logs; these callbacks warn if not.
"""

import warnings
from collections.abc import MutableMapping
from typing import Any

import keras

from keras_l2reg import _keras

Logs = MutableMapping[str, Any] | None

# These callbacks record every key in the logs.
_READ_EVERY_KEY = (
    keras.callbacks.CSVLogger,
    keras.callbacks.History,
    keras.callbacks.ProgbarLogger,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


class AddsToLogs(keras.callbacks.Callback):
    """Adds keys to the logs, and warns if earlier callbacks will miss them."""

    # The added keys; one that ends in a slash is the prefix of the name of a weight.
    keys: tuple[str, ...]

    def on_train_begin(self, logs: Logs = None) -> None:
        missing = [
            type(callback).__name__
            for callback in _keras.callbacks_before(self)
            if isinstance(callback, _READ_EVERY_KEY)
            or self._adds(getattr(callback, "monitor", None))
        ]
        if missing:
            keys = [f"{key}..." if key.endswith("/") else key for key in self.keys]
            warnings.warn(
                f"Callbacks run in the order of the list. {', '.join(missing)} before "
                f"{type(self).__name__} will not find "
                f"{', '.join(repr(key) for key in keys)} in the logs; put "
                f"{type(self).__name__} first.",
                stacklevel=2,
            )

    def _adds(self, key: Any) -> bool:
        return isinstance(key, str) and any(
            key == own or (own.endswith("/") and key.startswith(own))
            for own in self.keys
        )


def check_verbose(verbose: Any) -> None:
    """Raise a ValueError unless `verbose` is 0 or 1.

    >>> check_verbose(1)
    """
    if verbose not in (0, 1):
        raise ValueError(
            "Invalid value for argument `verbose`. Expected 0 (silent) or 1 (prints "
            f"once per epoch). Received: verbose={verbose!r}"
        )
