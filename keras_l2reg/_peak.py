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

# Between the steps that a schedule's config contains.
_POINTS = 16
_LAST = 2**31 - 2


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
