"""DecayRule: which variables a weight decay applies to, and how; plain Python.

>>> rule = DecayRule(keras.optimizers.SGD(0.1), [["w", 2]], "lr", None)
>>> w, b = keras.Variable(1.0, name="w"), keras.Variable(1.0, name="b")
>>> rule.multipliers_of([w, b])
[2.0, None]
"""

import math
from collections.abc import Iterable
from typing import Any, Literal, get_args

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._decay_rows import Row, multipliers_for
from keras_l2reg._peak import peak_of
from keras_l2reg._validation import check_number

# By the index of their updater and their multiplier.
Groups = dict[tuple[int, float], list[keras.Variable]]
Couple = Literal["lr", "independent", "corrected"]


class DecayRule:
    """Which variables are decayed, and how.

    Args:
        inner_optimizer: A `keras.optimizers.Optimizer`.
        rows, couple, max_learning_rate: as in `WeightDecayOptimizer`.
    """

    def __init__(
        self,
        inner_optimizer: Any,
        rows: Iterable[Row],
        couple: Couple,
        max_learning_rate: float | None,
    ):
        if couple not in get_args(Couple):
            raise ValueError(
                "Invalid value for argument `couple`. Expected one of "
                f"{get_args(Couple)}. Received: couple={couple!r}"
            )
        if max_learning_rate is not None:
            max_learning_rate = check_number(max_learning_rate, "max_learning_rate")
        self.last_groups: tuple[list[keras.Variable], Groups] = [], {}
        self.rows = [(path, float(multiplier)) for path, multiplier in rows]
        self.couple: Couple = couple
        self.max_learning_rate = max_learning_rate
        # The highest learning rate as far as it is known beforehand.
        self.peaks = [
            0.0 if couple == "lr" else _peak(updater, max_learning_rate)
            for updater in _keras.updaters(inner_optimizer)
        ]

    def multipliers_of(self, variables: Iterable[keras.Variable]) -> list[float | None]:
        return multipliers_for(self.rows, [v.path for v in variables])


def _peak(updater: Any, max_learning_rate: float | None) -> float:
    if max_learning_rate is not None:
        return max_learning_rate
    schedule = _keras.learning_rate_of(updater)
    if isinstance(schedule, keras.Variable):
        return 0.0
    try:
        return peak_of(schedule)
    except Exception as error:
        raise ValueError(
            "Expected `max_learning_rate`, since the highest value of the learning "
            "rate can't be found by evaluating it at the steps in its config. "
            f"Received: learning_rate={schedule!r}; pass max_learning_rate=..."
        ) from error


def check_rate(value: Any) -> float:
    """Return `value` if it is a finite float >= 0 that float32 can represent.

    >>> check_rate(0.5)
    0.5
    """
    rate = check_number(value, "weight_decay")
    with np.errstate(over="ignore"):
        is_finite = math.isfinite(np.float32(rate))
    if not is_finite:
        raise ValueError(
            "Invalid value for argument `weight_decay`. Expected a float that float32 "
            f"can represent. Received: weight_decay={rate}"
        )
    return rate
