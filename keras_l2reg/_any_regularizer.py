"""Regularizers as users pass them: an object, a function, a name or a config.

>>> get_regularizer(keras.regularizers.serialize(keras.regularizers.L2(0.5)),
...                 "regularizer").get_config()
{'l2': 0.5}
"""

from collections.abc import Callable
from typing import Any

import keras

from keras_l2reg._validation import as_number, number_hint

AnyRegularizer = keras.Regularizer | Callable[[Any], Any]
RegularizerOrName = AnyRegularizer | str | dict[str, Any]


def get_regularizer(
    regularizer: Any, name: str, expected: str = "a Keras regularizer"
) -> AnyRegularizer:
    """`keras.regularizers.get`, with an error that says what to pass instead.

    Args:
        regularizer: A Keras regularizer, a function, a name or a config.
        name: Name of the argument, for the error.
        expected: What the argument may be, for the error. Defaults to
            `"a Keras regularizer"`.

    Raises:
        TypeError: `regularizer` is none of these.
        ValueError: an unknown name, or a config that Keras can't read.

    >>> type(get_regularizer("l1", "regularizer")).__name__
    'L1'
    """
    expected += ", its name or its config"
    if isinstance(regularizer, (str, dict)):
        try:
            found: Any = keras.regularizers.get(regularizer)
            return found
        except ValueError as error:
            # For an unknown class, Keras itself raises an informative TypeError.
            raise ValueError(
                f"Invalid value for argument `{name}`. Expected {expected}. "
                f"Received: {name}={regularizer!r}"
                f"{_regularizer_hint(regularizer, name, error)}"
            ) from error
    # Keras also accepts `None` for "no regularizer", and a class for an instance with
    # the default strength, which is hardly ever intended.
    is_class = isinstance(regularizer, type)
    if is_class or isinstance(regularizer, keras.Variable) or not callable(regularizer):
        hint = f"; call it: {regularizer.__name__}(...)" if is_class else ""
        if not is_class and as_number(regularizer) is not None:
            hint = f"; for an L2 of that strength, pass keras_l2reg.L2({regularizer!r})"
        elif isinstance(regularizer, (list, tuple)):
            hint = "; for several on one weight, pass keras_l2reg.Sum([...])"
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected {expected}. "
            f"Received: {name}={regularizer!r} of type "
            f"{type(regularizer).__name__}{hint}"
        )
    return regularizer


def _regularizer_hint(regularizer: str | dict, name: str, error: Exception) -> str:
    if isinstance(regularizer, dict):
        return (
            f", which Keras can't read: {error}; "
            "`keras.regularizers.serialize(regularizer)` returns a config"
        )
    return number_hint(regularizer, name) or (
        "; the names are 'l1', 'l2', 'l1_l2' and 'orthogonal_regularizer'. For a "
        "custom regularizer, pass the object"
    )
