"""The strength of a penalty: a number, or a scalar variable that is read at each step.

>>> strength = keras.Variable(0.5)
>>> check_strength(0.01, "l2"), check_strength(strength, "l2") is strength
(0.01, True)
"""

import warnings
from typing import Any

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg._validation import check_number


def check_strength(value: Any, name: str) -> float | keras.Variable:
    """Return `value` if it is a finite float >= 0 or a scalar Variable.

    Args:
        value: The strength that was passed.
        name: Name of the argument, for the error.

    Raises:
        TypeError: `value` is neither a number nor a `keras.Variable`.
        ValueError: `value` is negative, infinite, NaN, or a Variable with a shape.

    >>> check_strength(0.01, "l2")
    0.01
    """
    if not isinstance(value, keras.Variable):
        return check_number(value, name, "a float or a scalar `keras.Variable`")
    if value.shape != ():
        raise ValueError(
            f"Invalid value for argument `{name}`. Expected a scalar variable. "
            f"Received: {name}={value} of shape {tuple(value.shape)}; pass one "
            "number for all weights, and `multipliers` for different strengths"
        )
    return value


def strength_value(strength: float | keras.Variable) -> float:
    """The current value of a strength, which is a float or a Variable.

    >>> strength_value(keras.Variable(0.5))
    0.5
    """
    if isinstance(strength, keras.Variable):
        # By its shortest decimal representation: 0.01, not 0.009999999776482582.
        return float(str(ops.convert_to_numpy(strength)))
    return strength


def strength_variables(regularizer: Any) -> list[keras.Variable]:
    """The variables that a regularizer, or one nested in it, reads its strength from.

    >>> from keras_l2reg import L2, Scaled, Sum
    >>> strength = keras.Variable(0.5)
    >>> strength_variables(Sum([Scaled(L2(strength), 0.1), "l1"])) == [strength]
    True
    """
    if type(regularizer) is TowardsStart:
        # Its other variable is not a strength, but a weight's starting value.
        return strength_variables(regularizer.regularizer)
    found, parts = [], [*getattr(regularizer, "__dict__", {}).values()]
    while parts:
        part = parts.pop()
        if isinstance(part, keras.Variable):
            found.append(part)
        elif isinstance(part, (list, tuple)):
            parts.extend(part)
        elif isinstance(part, dict):
            parts.extend(part.values())
        elif isinstance(part, keras.Regularizer):
            found.extend(strength_variables(part))
    return found


def times(strength: float | keras.Variable, penalty: Any) -> Any:
    """`strength * penalty`, in the dtype of the penalty.

    >>> float(times(0.5, keras.ops.convert_to_tensor(4.0)))
    2.0
    """
    # A float is not converted: `ops.multiply` would round it to float32 first.
    if isinstance(strength, keras.Variable):
        if _keras.backend.is_baked_in(strength, penalty):
            warnings.warn(
                f"The strength {strength.name!r} is a variable that the model in "
                "training does not track, so JAX compiles its current value into the "
                "step. Train the `L2AllWeights` that it belongs to, or a model that "
                "contains this wrapper.",
                stacklevel=3,
            )
        value = strength.value
        if value.dtype != penalty.dtype:
            value = ops.cast(value, penalty.dtype)
        return value * penalty
    if _keras.backend.in_transform():
        # There, forward mode returns float64 for a float times a scalar tensor.
        return ops.convert_to_tensor(strength, penalty.dtype) * penalty
    return strength * penalty
