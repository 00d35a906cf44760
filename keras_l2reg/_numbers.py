"""What counts as a number: of Python, of NumPy, or an array or tensor of shape ().

>>> import numpy as np
>>> as_number(1), as_number(np.float32(0.5)), as_number(np.array(0.5))
(1.0, 0.5, 0.5)
"""

import math
import numbers
import operator

import keras


def check_number(value, name, expected="a float"):
    """Return a finite number >= 0 as a float.

    Args:
        value: A number of Python or NumPy, or an array or tensor of shape ().
        name: String, what the argument is called.
        expected: String, what else the argument may be. Defaults to `"a float"`.

    Raises:
        TypeError: `value` is no number; a `keras.Variable` is none.
        ValueError: it is negative, infinite or NaN.

    >>> import numpy as np
    >>> check_number(np.array(0.25), "l2")
    0.25
    """
    number = as_number(value)
    if number is None:
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected {expected}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
            f"{number_meant(value, name)}"
        )
    if not math.isfinite(number) or number < 0:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a finite, non-negative "
            f"float, such as 0.01, or 0 for no penalty. Received: {name}={value}"
        )
    return number


def as_number(value):
    """A real number, or the only element of an array of shape (), as a float.

    `None` for anything else, also for booleans and for `keras.Variable`.

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
        # No type of numbers, or a tensor that is being traced and has no value yet.
        return None


def number_meant(value, name):
    """The way out of a number that was given as something else, if it is one."""
    if isinstance(value, str):
        try:
            return f"; write {name}={float(value)}, without quotes"
        except ValueError:
            return ""
    if isinstance(value, keras.Variable):
        return (
            "; give its present value, "
            f"{name}=float(keras.ops.convert_to_numpy(variable))"
        )
    return ""


def check_integer(value, name, least=1):
    """Return an integer >= `least` as an `int`.

    Raises:
        TypeError: `value` is no integer; a boolean is none.
        ValueError: it is less than `least`.

    >>> import numpy as np
    >>> check_integer(np.array(3), "count")
    3
    """
    try:
        # Of a boolean it is 0 or 1, which is hardly ever the number meant.
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected an integer >= {least}. "
            f"Received: {name}={value!r} of type {type(value).__name__}"
            f"{_integer_meant(value, name)}"
        )
    if number < least:
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected an integer >= {least}. "
            f"Received: {name}={value}"
        )
    return number


def _integer_meant(value, name):
    number = as_number(value)
    if number is not None and number.is_integer():
        return f"; write {name}={int(number)}"
    return ""
