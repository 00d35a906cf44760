"""Loading with or without Keras' safe mode."""

import contextlib

from keras.src.saving.serialization_lib import SafeModeScope


def deserializing(safe_mode: bool) -> contextlib.AbstractContextManager:
    """In this context, Keras restores Python lambdas if `safe_mode` is false.

    The public API has this for `load_model`, or globally, but not for `from_config`
    and `clone_model` alone.
    """
    return contextlib.nullcontext() if safe_mode else SafeModeScope(False)
