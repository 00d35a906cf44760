"""Loading with or without Keras' safe mode."""

import contextlib

from keras.src.saving.serialization_lib import SafeModeScope


def deserializing(safe_mode: bool) -> contextlib.AbstractContextManager:
    """Within, Keras restores Python lambdas if `safe_mode` is false.

    In public, Keras has this for `load_model`, or for all loading from then on, but
    not for `from_config` and `clone_model` alone.
    """
    return contextlib.nullcontext() if safe_mode else SafeModeScope(False)
