"""The strengths of an `L2AllWeights`: arguments, checked, and the live variables.

>>> Strengths().live(regularizer_from(0.25)).l2.name
'l2'
"""

import inspect
import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l2reg._builtin import convert_to_builtin
from keras_l2reg._plan import RegularizerLike, as_regularizer
from keras_l2reg._strengths import strength_variables
from keras_l2reg._validation import check_number
from keras_l2reg.regularizers import L1L2, L2, L2Loss


class _Default(float):
    """A number that can be told from an equal one that a user passes."""


# In the signature of `L2AllWeights`.
DEFAULT_L2 = _Default(0.01)


class Strengths(keras.layers.Layer):
    """Holds the variables that regularizers read, which are not trained.

    A layer, since Keras would count variables of the wrapper itself as weights of the
    model. The wrapper saves the values.
    """

    def __init__(self):
        super().__init__(name="strengths")
        self.built = True

    def live(self, regularizer: Any) -> Any:
        """The regularizer with a strength that compiled steps read at each call.

        An `L2` or `L1L2` with numbers gets variables that start from them. Variables of
        other regularizers are tracked, and not trained.
        """
        if type(regularizer) in (L2, L1L2):
            numbers = {
                name: self._add_strength(name, value)
                for name, value in vars(regularizer).items()
                if not isinstance(value, keras.Variable)
            }
            regularizer = type(regularizer)(**{**vars(regularizer), **numbers})
        variables = strength_variables(regularizer)
        for variable in variables:
            variable.trainable = False
        self._user_variables = variables  # so that Keras tracks them
        return regularizer

    def _add_strength(self, name: str, value: float) -> keras.Variable:
        return self.add_weight(
            name=name,
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
        )

    def add_start(self, variable: keras.Variable) -> keras.Variable:
        """A variable with the current value of a weight, for a penalty towards it."""
        value = ops.convert_to_numpy(variable)
        return self.add_weight(
            # Keras wants the paths of a model's variables to be unique.
            name=f"start_{len(self.weights)}",
            shape=variable.shape,
            dtype=variable.dtype,
            initializer=lambda shape, dtype: ops.convert_to_tensor(value, dtype),
            trainable=False,
            autocast=False,
        )

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


def regularizer_from(
    l2: float,
    l1: float | None = None,
    regularizer: RegularizerLike | None = None,
    weight_decay: float | None = None,
) -> Any:
    """Check the arguments `l2`, `l1`, `regularizer`, and combine them.

    Returns:
        An `L2` or `L1L2` with numbers if the strengths can be live; else the given
        regularizer; `None` if only `weight_decay` is given.

    Raises:
        TypeError, ValueError: an invalid argument, or both are given.

    >>> regularizer_from(0.5).l2, regularizer_from(DEFAULT_L2, None, L2Loss(0.5)).l2
    (0.5, 0.25)
    """
    if regularizer is None:
        if weight_decay is not None and l2 is DEFAULT_L2 and l1 is None:
            return None
        strengths = {"l2": l2} if l1 is None else {"l1": l1, "l2": l2}
        numbers = {name: _checked_number(v, name) for name, v in strengths.items()}
        return L2(**numbers) if l1 is None else L1L2(**numbers)
    if not isinstance(l2, float) or l2 != DEFAULT_L2 or l1 is not None:
        given = f"l2={l2!r}" if l1 is None else f"l2={l2!r}, l1={l1!r}"
        raise ValueError(
            "Expected either `l2` and `l1`, or `regularizer`, not both: a regularizer "
            f"has its own strength. Received: {given}, regularizer={regularizer!r}; "
            "leave one of them out"
        )
    regularizer = as_regularizer(regularizer)
    is_plain = type(regularizer) in _WITH_LIVE_STRENGTHS
    if is_plain and not strength_variables(regularizer):
        config = convert_to_builtin(regularizer).get_config()
        return regularizer_from(float(config["l2"]), config.get("l1"))
    return regularizer


_WITH_LIVE_STRENGTHS = (
    L2,
    L1L2,
    L2Loss,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
)


def _checked_number(strength: Any, name: str) -> float:
    if argument := _suggested_argument(strength, name):
        raise TypeError(
            f"Invalid type for argument `{name}`. Expected a float: the wrapper makes "
            f"a variable of it. Received: {name}={strength!r}; pass it as {argument}"
        )
    return check_representable(check_number(strength, name), name, "float32")


def _suggested_argument(l2: Any, name: str) -> str:
    """How to pass what was given as a strength, if it belongs into `regularizer`."""
    if isinstance(l2, keras.Variable):
        of_variable = {"l2": "L2(variable)", "l1": "L1L2(l1=variable)"}[name]
        return f"`regularizer=keras_l2reg.{of_variable}`"
    if inspect.isclass(l2):
        return f"`regularizer={l2.__name__}(...)`"
    if callable(l2) or isinstance(l2, dict):
        return "`regularizer=`"
    try:
        # A name, such as "l1", not a number in quotes.
        known = isinstance(l2, str) and keras.regularizers.get(l2) is not None
    except ValueError:
        known = False
    return f"`regularizer={l2!r}`" if known else ""


def check_representable(value: float, name: str, dtype: str) -> float:
    """Return a strength if a variable of this dtype can represent it.

    Raises:
        ValueError: it overflows, or becomes 0.

    >>> check_representable(0.5, "l2", "float16")
    0.5
    """
    kind = {"float16": np.float16, "float64": np.float64}.get(dtype, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(kind(value))
    if not math.isfinite(rounded) or (value > 0 and rounded == 0):
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected 0, or a float that the "
            f"dtype of the strength, {dtype}, can represent. Received: {name}={value}; "
            "pass 0 for no penalty, or a strength closer to 1, such as 0.01"
        )
    return value
