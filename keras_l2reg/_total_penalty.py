"""total_penalty: the sum of the penalties of many weights.

>>> layer = keras.layers.Dense(2, kernel_initializer="ones", kernel_regularizer="l2")
>>> layer.build((None, 3))
>>> round(float(total_penalty([layer.kernel])), 6)
0.06
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_l2reg._strengths import times
from keras_l2reg._sums import in_float32
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg.regularizers import SUMMING, Scaled


def total_penalty(variables: Iterable[keras.Variable]) -> Any:
    """`sum_k r_k(w_k)` over variables `w_k` and their regularizers `r_k`.

    Variables that share a regularizer are summed at once: many small terms, each times
    the strength, cost more than the squares themselves.

    Args:
        variables: At least one `keras.Variable`, each with a regularizer.

    Returns:
        A scalar tensor.

    >>> from keras_l2reg import L2
    >>> layer = keras.layers.Dense(
    ...     2, kernel_initializer="ones", kernel_regularizer=L2(0.5))
    >>> layer.build((None, 3))
    >>> float(total_penalty([layer.kernel, layer.kernel]))
    6.0
    """
    groups = {}
    for variable in variables:
        regularizer, weight = variable.regularizer, variable
        if type(regularizer) is TowardsStart:
            weight = regularizer.distance(variable)
            regularizer = regularizer.regularizer
        key = id(regularizer), weight.dtype
        groups.setdefault(key, (regularizer, []))[1].append(weight)
    return functools.reduce(ops.add, [_penalty(*group) for group in groups.values()])


def _penalty(regularizer: Any, weights: Sequence[Any]) -> Any:
    if type(regularizer) in SUMMING:
        return regularizer(*weights)
    if type(regularizer) is Scaled:
        weights = [in_float32(w) for w in weights]
        return times(regularizer.factor, _penalty(regularizer.regularizer, weights))
    return functools.reduce(ops.add, [regularizer(w) for w in weights])
