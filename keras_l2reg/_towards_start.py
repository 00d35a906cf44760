"""TowardsStart: a penalty on the distance of a weight from its starting value.

>>> from keras_l2reg import L2
>>> start = keras.Variable([1.0, 2.0], trainable=False)
>>> penalty = TowardsStart(L2(0.5), start)
>>> float(penalty(keras.ops.convert_to_tensor([3.0, 2.0])))
2.0
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_l2reg._sums import in_float32


class TowardsStart(keras.Regularizer):
    """`penalty = regularizer(w - start)`, in float32 for half precision.

    It has no config, as a layer can't save the values of `start`: the wrapper does.

    Args:
        regularizer: A function from a tensor to a scalar.
        start: A `keras.Variable` of the shape of the weight, which is not trained.

    References:
        - Li, Grandvalet & Davoine, [Explicit Inductive Bias for Transfer Learning with
          Convolutional Networks](https://proceedings.mlr.press/v80/li18a.html),
          ICML 2018.
    """

    def __init__(self, regularizer: Callable[..., Any], start: keras.Variable):
        self.regularizer = regularizer
        self.start = start

    def __call__(self, w: Any) -> Any:
        return self.regularizer(self.distance(w))

    def distance(self, w: Any) -> Any:
        """`w - start`, a tensor."""
        return ops.subtract(in_float32(w), in_float32(self.start))
