"""What differs between backends: one class each, behind one interface.

`backend` is the one in use. A new backend is a module with the name that Keras
uses, and a class `Backend` that overrides what differs from `base.Backend`.
"""

import importlib.util

import keras

from keras_l2reg._keras.backends import base


def _backend_in_use() -> base.Backend:
    name = keras.backend.backend()
    is_known = importlib.util.find_spec(f"{__name__}.{name}") is not None
    module = importlib.import_module(f"{__name__}.{name if is_known else 'base'}")
    return module.Backend(name)


backend = _backend_in_use()
