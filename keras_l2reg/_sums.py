"""The sums that penalties are made of, over a weight or over several weights at once.

>>> w = keras.ops.convert_to_tensor([3.0, -4.0])
>>> float(sum_of_squares(w)), float(sum_of_squares(w, w))
(25.0, 50.0)
>>> float(sum_of_absolutes(w)), float(sum_of_absolutes(w, w))
(7.0, 14.0)
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_l2reg import _keras

HALF_TYPES = ("float16", "bfloat16")


def sum_of_squares(*weights: Any) -> Any:
    """`sum_k sum(w_k**2)`, each weight read once; half precision is summed in float32.

    Args:
        weights: Variables or tensors of any shape, all of one float dtype.

    Returns:
        A scalar tensor: float64 for float64 weights, else float32.

    >>> float(sum_of_squares(keras.ops.convert_to_tensor([3.0, 4.0])))
    25.0
    """
    return _keras.backend.sum_of_squares(_wide_tensors(weights))


def sum_of_absolutes(*weights: Any) -> Any:
    """`sum_k sum(|w_k|)`; half precision is summed in float32.

    The gradient of `|w|` at 0 is 0.

    Args:
        weights: Variables or tensors of any shape, all of one float dtype.

    Returns:
        A scalar tensor: float64 for float64 weights, else float32.

    >>> float(sum_of_absolutes(keras.ops.convert_to_tensor([3.0, -4.0])))
    7.0
    """
    return _keras.backend.sum_of_absolutes(_wide_tensors(weights))


def in_float32(w: Any) -> Any:
    """The weight, cast to float32 if it is float16 or bfloat16.

    >>> w = in_float32(keras.ops.ones((2,), "bfloat16"))
    >>> keras.backend.standardize_dtype(w.dtype)
    'float32'
    """
    return ops.cast(w, "float32") if _is_half(w) else w


def _is_half(w: Any) -> bool:
    return keras.backend.standardize_dtype(w.dtype) in HALF_TYPES


def _wide_tensors(weights: Sequence[Any]) -> list[Any]:
    tensors = [_tensor(w) for w in weights]
    # All have one dtype: to ask for each costs torch as much as to square a small one.
    return (
        [ops.cast(t, "float32") for t in tensors] if _is_half(tensors[0]) else tensors
    )


def _tensor(w: Any) -> Any:
    return w.value if isinstance(w, keras.Variable) else ops.convert_to_tensor(w)
