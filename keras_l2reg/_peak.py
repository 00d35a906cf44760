"""The highest value of a learning rate schedule.

>>> warmup = keras.optimizers.schedules.CosineDecay(
...     0.0, decay_steps=90, warmup_target=0.5, warmup_steps=10)
>>> peak_of(warmup)
0.5
"""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l2reg import _keras

# Between the steps that a schedule's config contains.
_POINTS = 16
_LAST = 2**31 - 2


def highest_learning_rate(optimizer: Any) -> float:
    """The highest learning rate that an optimizer will have, as far as is known.

    >>> highest_learning_rate(keras.optimizers.SGD(0.1))
    0.1
    """
    *_, innermost = _keras.optimizers_within(optimizer)
    rates = [_keras.learning_rate_of(each) for each in _keras.updaters(innermost)]
    return max(
        _value(rate) if isinstance(rate, keras.Variable) else peak_of(rate)
        for rate in rates
    )


def peak_of(schedule: keras.optimizers.schedules.LearningRateSchedule) -> float:
    """The highest learning rate, at the steps that the config has and between them.

    A schedule changes its direction at the numbers of steps that it was made with: the
    end of a warmup, a boundary.
    """
    turns = [
        min(math.ceil(leaf), _LAST)
        for leaf in keras.tree.flatten(schedule.get_config())
        if isinstance(leaf, (int, float)) and math.isfinite(leaf) and leaf > 0
    ]
    between = np.linspace(0, min(sum(turns), _LAST), _POINTS).astype(int).tolist()
    steps = {0, *turns, *(turn + 1 for turn in turns), *between}
    return max(_value(schedule(step)) for step in steps)


def _value(rate: Any) -> float:
    return float(str(np.asarray(ops.convert_to_numpy(rate))))
