"""The strength of an `L2AllWeights`: its arguments, checked, and the live variable.

>>> Strengths().live(regularizer_from(0.25)).l2.name
'l2'
"""

import inspect
import math
from typing import Any

import keras
import numpy as np

from keras_l2reg._builtin import convert_to_builtin
from keras_l2reg._plan import RegularizerLike, as_regularizer
from keras_l2reg._strengths import strength_variables
from keras_l2reg._validation import check_number
from keras_l2reg.regularizers import L2, L2Loss

# As in the signature of `L2AllWeights`.
DEFAULT_L2 = 0.01


class Strengths(keras.layers.Layer):
    """Holds the variables that regularizers read, which are not trained.

    A layer, since Keras would count variables of the wrapper itself as weights of the
    model. The wrapper saves the strength.
    """

    def __init__(self):
        super().__init__(name="strengths")
        self.built = True

    def live(self, regularizer: Any) -> Any:
        """The regularizer with a strength that compiled steps read at each call.

        An `L2` with a number gets a variable that starts from it. Variables of other
        regularizers are tracked, and not trained.
        """
        if type(regularizer) is L2 and not isinstance(regularizer.l2, keras.Variable):
            return L2(self._add_strength(regularizer.l2))
        variables = strength_variables(regularizer)
        for variable in variables:
            variable.trainable = False
        self._user_variables = variables  # so that Keras tracks them
        return regularizer

    def _add_strength(self, value: float) -> keras.Variable:
        return self.add_weight(
            name="l2",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
        )

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


def regularizer_from(l2: float, regularizer: RegularizerLike | None = None) -> Any:
    """Check the arguments `l2` and `regularizer`, and combine them into a regularizer.

    Returns:
        An `L2` with a number if the strength can be live; else the given regularizer.

    Raises:
        TypeError, ValueError: an invalid argument, or both are given.

    >>> regularizer_from(0.5).l2, regularizer_from(DEFAULT_L2, L2Loss(0.5)).l2
    (0.5, 0.25)
    """
    if regularizer is None:
        _check_is_number(l2)
        return L2(check_representable(check_number(l2, "l2"), "float32"))
    if not isinstance(l2, float) or l2 != DEFAULT_L2:
        raise ValueError(
            "Expected either `l2` or `regularizer`, not both: a regularizer has its "
            f"own strength. Received: l2={l2!r}, regularizer={regularizer!r}; leave "
            "one of them out"
        )
    regularizer = as_regularizer(regularizer)
    is_plain = type(regularizer) in (L2, L2Loss, keras.regularizers.L2)
    if is_plain and not strength_variables(regularizer):
        return regularizer_from(float(convert_to_builtin(regularizer).l2))
    return regularizer


def _check_is_number(l2: Any) -> None:
    if argument := _suggested_argument(l2):
        raise TypeError(
            "Invalid type for argument `l2`. Expected a float: the wrapper makes a "
            f"variable of it. Received: l2={l2!r}; pass it as {argument}"
        )


def _suggested_argument(l2: Any) -> str:
    """How to pass what was given as `l2`, if it should be passed as `regularizer`."""
    if isinstance(l2, keras.Variable):
        return "`regularizer=keras_l2reg.L2(variable)`"
    if isinstance(l2, dict):
        return "`regularizer=config`"
    if inspect.isclass(l2):
        return f"`regularizer={l2.__name__}(...)`"
    if callable(l2):
        return "`regularizer=`"
    try:
        # A name, such as "l1", not a number in quotes.
        known = isinstance(l2, str) and keras.regularizers.get(l2) is not None
    except ValueError:
        known = False
    return f"`regularizer={l2!r}`" if known else ""


def check_representable(l2: float, dtype: str) -> float:
    """Return `l2` if a variable of this dtype can represent it.

    Raises:
        ValueError: it overflows, or becomes 0.

    >>> check_representable(0.5, "float16")
    0.5
    """
    kind = {"float16": np.float16, "float64": np.float64}.get(dtype, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        rounded = float(kind(l2))
    if not math.isfinite(rounded) or (l2 > 0 and rounded == 0):
        raise ValueError(
            f"Invalid value for argument `l2`. Expected 0, or a float that the dtype "
            f"of the strength, {dtype}, can represent. Received: l2={l2}; pass 0 for "
            "no penalty, or a strength closer to 1, such as 0.01"
        )
    return l2
