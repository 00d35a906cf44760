"""Checks of arguments: models, numbers, integers, and the rule that selects weights.

An error says what was expected, what was received, and what to write instead.

>>> import numpy as np
>>> as_number(1), as_number(np.float32(0.5)), as_number(np.array(0.5))
(1.0, 0.5, 0.5)
"""

import inspect
import math
import numbers
import operator
import os
import re
from collections.abc import Mapping
from typing import Any

import keras

from keras_l2reg.weights import find_weights

# A glob over weight names, or a class of layers.
Pattern = str | type[keras.layers.Layer]
Patterns = Pattern | list[Pattern] | tuple[Pattern, ...] | None


def check_number(value: Any, name: str, expected: str = "a float") -> float:
    """Return a finite number >= 0 as a float.

    Args:
        value: A number of Python or NumPy, or an array or tensor of shape ().
        name: Name of the argument, for the error.
        expected: What the argument may be, for the error. Defaults to `"a float"`.

    Raises:
        TypeError: `value` is not a number, for example a `keras.Variable`.
        ValueError: `value` is negative, infinite or NaN.

    >>> import numpy as np
    >>> check_number(np.array(0.25), "l2")
    0.25
    """
    number = as_number(value)
    if number is None:
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected {expected}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
            f"{number_hint(value, name)}"
        )
    if not math.isfinite(number) or number < 0:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite, non-negative "
            f"float, such as 0.01, or 0 for no penalty. Received: {name}={value}"
        )
    return number


def as_number(value: Any) -> float | None:
    """Convert a real number, or an array of shape (), to a float.

    Returns `None` for anything else, including booleans and `keras.Variable`.

    >>> as_number(keras.ops.convert_to_tensor(0.5)), as_number("0.5"), as_number(True)
    (0.5, None, None)
    """
    if isinstance(value, numbers.Real):
        return None if isinstance(value, bool) else float(value)
    if isinstance(value, keras.Variable) or getattr(value, "shape", None) != ():
        return None
    try:
        dtype = keras.backend.standardize_dtype(value.dtype)
        return float(value) if "int" in dtype or "float" in dtype else None
    except Exception:
        # Not a numeric dtype, or a tensor in a trace, which has no value yet.
        return None


def number_hint(value: Any, name: str) -> str:
    """How to pass a number that was given as text or as a variable, for an error."""
    if isinstance(value, str):
        try:
            return f"; write {name}={float(value)}, without quotes"
        except ValueError:
            return ""
    if isinstance(value, keras.Variable):
        return (
            "; pass its current value, "
            f"{name}=float(keras.ops.convert_to_numpy(variable))"
        )
    return ""


def check_integer(value: Any, name: str, least: int = 1) -> int:
    """Return an integer >= `least` as an `int`.

    Raises:
        TypeError: `value` is not an integer, for example a boolean.
        ValueError: `value` is less than `least`.

    >>> import numpy as np
    >>> check_integer(np.array(3), "count")
    3
    """
    try:
        # A boolean has an index, 0 or 1, but is hardly ever meant as a number.
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected an integer >= {least}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
            f"{_integer_hint(value, name)}"
        )
    if number < least:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer >= {least}. "
            f"Received: {name}={value}"
        )
    return number


def _integer_hint(value: Any, name: str) -> str:
    number = as_number(value)
    if number is not None and number.is_integer():
        return f"; write {name}={int(number)}"
    return ""


def is_iterable(value: Any) -> bool:
    """Whether a value is a list, a set, a vector or the like, and no scalar or text.

    >>> is_iterable([0.1]), is_iterable("0.1"), is_iterable({}), is_iterable(0.1)
    (True, False, False, False)
    """
    is_scalar = getattr(value, "shape", None) == ()
    is_other = isinstance(value, (str, dict, keras.Variable))
    return hasattr(value, "__iter__") and not (is_scalar or is_other)


def check_is_model(model: Any) -> None:
    """Raise a TypeError unless `model` is a `keras.Model`.

    >>> check_is_model("best.keras")
    Traceback (most recent call last):
    TypeError: Invalid type for argument `model`. Expected a `keras.Model` instance...
    """
    if isinstance(model, keras.Model):
        return
    raise TypeError(
        "Invalid type for argument `model`. Expected a `keras.Model` instance. "
        f"Received: model={model!r} of type {type(model).__name__}"
        f"{_model_hint(model)}"
    )


def _model_hint(model: Any) -> str:
    if isinstance(model, (str, os.PathLike)):
        return f"; load it: keras.saving.load_model({str(model)!r})"
    if inspect.isclass(model) or inspect.isfunction(model):
        return f"; call it: {model.__name__}(...)"
    if isinstance(model, keras.layers.Layer):
        return "; put the layer into a model: keras.Sequential([layer])"
    if isinstance(model, (list, tuple)):
        return "; make it a model: keras.Sequential([...]), or call once for each"
    return ""


def check_rule(
    model: Any,
    flags: Mapping[str, Any],
    layers: Any,
    exclude: Any,
    multipliers: Any,
    regularizer: Any = None,
) -> None:
    """Raise an error if an argument of `select_weights` is of the wrong type.

    >>> check_rule(keras.Sequential(), {"biases": False}, "head/*", None, {"*": 0.5})
    """
    check_is_model(model)
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(
                f"Invalid type for argument `{name}`. Expected `True` or `False`. "
                f"Received: {name}={value!r}; to choose weights by name, use "
                "`layers` or `exclude`"
            )
    if layers is not None and not as_list(layers):
        raise ValueError(
            "Invalid value for argument `layers`. Expected at least one layer class or "
            f"glob, or `None` for all. Received: layers={layers!r}"
        )
    _check_patterns("layers", layers, model)
    _check_patterns("exclude", exclude, model)
    _check_multipliers(multipliers, model)
    _check_parts(regularizer, model)


def _check_patterns(argument: str, patterns: Any, model: keras.Model) -> None:
    for pattern in as_list(patterns):
        is_layer_class = inspect.isclass(pattern) and issubclass(
            pattern, keras.layers.Layer
        )
        if not (isinstance(pattern, str) or is_layer_class):
            raise TypeError(
                f"Invalid type for argument `{argument}`. Expected a layer class, a "
                "glob over weight names, or a list of these. "
                f"Received: {argument}={patterns!r}{_pattern_hint(pattern, model)}"
            )


def _pattern_hint(pattern: Any, model: keras.Model) -> str:
    if isinstance(pattern, keras.layers.Layer):
        for weight in find_weights(model):
            names = [layer.name for layer in weight.layers]
            for depth, layer in enumerate(weight.layers, 1):
                if layer is pattern:
                    return f"; for this layer, write '{'/'.join(names[:depth])}/*'"
        return f"; {pattern.name!r} is not a layer of this model that has weights"
    if inspect.isclass(pattern):
        return f"; {pattern.__name__} is not a class of layers"
    if isinstance(pattern, re.Pattern):
        return "; write a glob, as for file names: '*/kernel'"
    return "; `print_weights(model)` shows the names, such as 'dense/kernel'"


def _check_multipliers(multipliers: Any, model: keras.Model) -> None:
    if multipliers is not None and not isinstance(multipliers, dict):
        raise TypeError(
            "Invalid type for argument `multipliers`. Expected a dict from globs over "
            "weight names to floats, such as {'head/*': 0.1}. "
            f"Received: multipliers={multipliers!r}"
        )
    for pattern, value in (multipliers or {}).items():
        _check_glob(pattern, "multipliers", model)
        check_number(value, f"multipliers[{pattern!r}]")


def _check_parts(regularizer: Any, model: keras.Model) -> None:
    if regularizer is None:
        return
    if not isinstance(regularizer, Mapping):
        raise TypeError(
            "Invalid type for argument `regularizer`. Expected a dict from globs over "
            "weight names to regularizers, such as {'head/*': 0.01}. "
            f"Received: regularizer={regularizer!r}"
        )
    if not regularizer:
        raise ValueError(
            "Invalid value for argument `regularizer`. Expected at least one glob over "
            "weight names, such as {'head/*': 0.01}. Received: regularizer={}"
        )
    for pattern in regularizer:
        _check_glob(pattern, "regularizer", model)


def _check_glob(pattern: Any, argument: str, model: keras.Model) -> None:
    if not isinstance(pattern, str):
        raise TypeError(
            f"Invalid type for argument `{argument}`. Expected globs over weight names "
            f"as keys. Received: {pattern!r}{_pattern_hint(pattern, model)}"
        )


def check_towards_start(patterns: Any, model: keras.Model) -> list[Pattern]:
    """The argument `towards_start` as a list of patterns; `"*"` for `True`.

    >>> check_towards_start(True, keras.Sequential())
    ['*']
    """
    if isinstance(patterns, bool):
        return ["*"] if patterns else []
    _check_patterns("towards_start", patterns, model)
    return as_list(patterns)


def as_list(patterns: Patterns) -> list[Pattern]:
    """The argument `layers` or `exclude` as a list, empty for `None`.

    >>> as_list("head/*")
    ['head/*']
    """
    if patterns is None:
        return []
    return list(patterns) if isinstance(patterns, (list, tuple)) else [patterns]
