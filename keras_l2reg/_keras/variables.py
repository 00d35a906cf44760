"""Variables: which regularizers they accept, and which are seeds."""

from collections.abc import Callable

import keras


def check_variables_accept(regularizer: Callable) -> None:
    """Raise a ValueError if variables of this Keras version reject a regularizer.

    Before Keras 3.15 they do not accept plain functions.
    """
    version = tuple(int(part) for part in keras.__version__.split(".")[:2])
    if version < (3, 15) and not isinstance(regularizer, keras.Regularizer):
        raise ValueError(
            "Expected a `keras.Regularizer` instance: Keras accepts plain functions as "
            f"of version 3.15, and this is {keras.__version__}. "
            f"Received: regularizer={regularizer!r}; move it into the `__call__` of a "
            "subclass of `keras.Regularizer`, or update Keras"
        )


def is_seed(variable: keras.Variable) -> bool:
    """Whether a variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"
