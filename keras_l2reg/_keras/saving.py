"""Keras' safe mode of loading, and its legacy format."""

import contextlib

from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import SafeModeScope


def deserializing(safe_mode: bool) -> contextlib.AbstractContextManager:
    """In this context, Keras restores Python lambdas if `safe_mode` is false.

    The public API has this for `load_model`, or globally, but not for `from_config`
    and `clone_model` alone.
    """
    return contextlib.nullcontext() if safe_mode else SafeModeScope(False)


def is_saving_h5() -> bool:
    """Whether Keras is saving a whole model as a legacy `.h5` file.

    Such a file has the model's config and the weights of its layers, and no state of
    the model itself.
    """
    return bool(global_state.get_global_attribute("use_legacy_config", None))
