"""Loading, with or without the safe mode of Keras."""

import contextlib

from keras.src.saving.serialization_lib import SafeModeScope


def deserializing(safe_mode):
    """Within, Keras restores Python lambdas if `safe_mode` is false.

    Keras offers that for `load_model`, for all that follows, but not for
    `from_config` and `clone_model` alone.
    """
    return contextlib.nullcontext() if safe_mode else SafeModeScope(False)
