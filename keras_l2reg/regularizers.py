"""L2 and L1 penalties with a live strength, and combinations of regularizers.

===========  ======================  ================================
class        penalty of a weight w   the same as
===========  ======================  ================================
`L2`         `l2 * sum(w**2)`        `keras.regularizers.L2(l2)`
`L1L2`       `l1 * sum(|w|) + ...`   `keras.regularizers.L1L2(l1, l2)`
`L2Loss`     `beta * sum(w**2) / 2`  `beta * tf.nn.l2_loss(w)`
`Scaled`     `factor * f(w)`         a multiplier on any regularizer
`Sum`        `f(w) + g(w) + ...`     several regularizers on a weight
`InFloat32`  `f(cast(w, "float32"))`  any regularizer, for half precision
===========  ======================  ================================

>>> w = keras.ops.convert_to_tensor([[1.0, 2.0], [3.0, 4.0]])
>>> float(L2(0.1)(w)), float(L2Loss(0.1)(w))
(3.0, 1.5)

All of them compute in float32 for weights in float16 or bfloat16, where the
regularizers of Keras overflow at 65504 or are precise to only three digits.
"""

import functools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_l2reg._any_regularizer import (
    AnyRegularizer,
    RegularizerOrName,
    get_regularizer,
)
from keras_l2reg._strengths import check_strength, strength_value, times
from keras_l2reg._sums import (
    HALF_TYPES,
    in_float32,
    sum_of_absolutes,
    sum_of_squares,
)
from keras_l2reg._validation import check_number


@keras.saving.register_keras_serializable(package="keras_l2reg")
class L2(keras.Regularizer):
    """L2 penalty on the scale of Keras, with a fixed or a live strength.

    `penalty = l2 * sum(w**2)`, gradient `2 * l2 * w`

    Args:
        l2: Finite float >= 0, or a scalar `keras.Variable` that is read again at
            each step. Defaults to `0.01`.

    Raises:
        TypeError: `l2` is neither a number nor a Variable.
        ValueError: `l2` is negative, infinite, NaN or not scalar.

    Example:

    >>> strength = keras.Variable(0.5)
    >>> penalty = L2(strength)
    >>> w = keras.ops.ones((3, 2))
    >>> float(penalty(w))
    3.0
    >>> strength.assign(0.25) is None
    False
    >>> float(penalty(w))
    1.5

    References:
        - Krogh & Hertz, [A Simple Weight Decay Can Improve Generalization](
          https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html),
          NIPS 1991.
    """

    def __init__(self, l2: float | keras.Variable = 0.01):
        self.l2 = check_strength(l2, "l2")

    def __call__(self, *weights: Any) -> Any:
        return times(self.l2, sum_of_squares(*weights))

    def get_config(self) -> dict[str, Any]:
        return {"l2": strength_value(self.l2)}


@keras.saving.register_keras_serializable(package="keras_l2reg")
class L1L2(keras.Regularizer):
    """L1 and L2 penalty on the scale of Keras, each with a fixed or a live strength.

    `penalty = l1 * sum(|w|) + l2 * sum(w**2)`, gradient `l1 * sign(w) + 2 * l2 * w`

    Gradient steps do not make weights exactly zero: with L1 they come close to zero and
    then alternate in sign. `print_penalties` shows the share of weights close to zero.

    Args:
        l1: Finite float >= 0, or a scalar `keras.Variable` that is read again at each
            step. Defaults to `0.0`.
        l2: As `l1`. Defaults to `0.0`.

    Raises:
        TypeError: `l1` or `l2` is neither a number nor a Variable.
        ValueError: `l1` or `l2` is negative, infinite, NaN or not scalar.

    Example:

    >>> w = keras.ops.convert_to_tensor([3.0, -4.0])
    >>> float(L1L2(l1=0.5, l2=0.1)(w))
    6.0

    References:
        - Zou & Hastie, [Regularization and Variable Selection via the Elastic Net](
          https://doi.org/10.1111/j.1467-9868.2005.00503.x), Journal of the Royal
          Statistical Society B 67(2), 2005.
    """

    def __init__(
        self, l1: float | keras.Variable = 0.0, l2: float | keras.Variable = 0.0
    ):
        self.l1 = check_strength(l1, "l1")
        self.l2 = check_strength(l2, "l2")

    def __call__(self, *weights: Any) -> Any:
        return ops.add(
            times(self.l1, sum_of_absolutes(*weights)),
            times(self.l2, sum_of_squares(*weights)),
        )

    def get_config(self) -> dict[str, Any]:
        return {"l1": strength_value(self.l1), "l2": strength_value(self.l2)}


@keras.saving.register_keras_serializable(package="keras_l2reg")
class L2Loss(keras.Regularizer):
    """L2 penalty on the scale of TensorFlow: half the sum of squares.

    `penalty = beta * sum(w**2) / 2 = beta * tf.nn.l2_loss(w)`, gradient `beta * w`

    Args:
        beta: Finite float >= 0, or a scalar `keras.Variable` that is read again at
            each step. Defaults to `0.01`.

    Raises:
        TypeError: `beta` is neither a number nor a Variable.
        ValueError: `beta` is negative, infinite, NaN or not scalar.

    Example:

    >>> w = keras.ops.ones((3, 2))
    >>> float(L2Loss(0.5)(w)), float(L2(0.25)(w))
    (1.5, 1.5)
    """

    def __init__(self, beta: float | keras.Variable = 0.01):
        self.beta = check_strength(beta, "beta")

    def __call__(self, *weights: Any) -> Any:
        return times(self.beta, times(0.5, sum_of_squares(*weights)))

    def get_config(self) -> dict[str, Any]:
        return {"beta": strength_value(self.beta)}


@keras.saving.register_keras_serializable(package="keras_l2reg")
class Scaled(keras.Regularizer):
    """A regularizer times a number: `penalty = factor * regularizer(w)`.

    Args:
        regularizer: Any Keras regularizer, its name or its config.
        factor: Finite float >= 0. Defaults to `1.0`.

    Raises:
        TypeError: `factor` is not a number, or `regularizer` is `None`.
        ValueError: `factor` is negative, infinite or NaN; unknown regularizer.

    Example:

    >>> float(Scaled(L2(1.0), 0.1)(keras.ops.ones((5, 2))))
    1.0

    References:
        - `decay_mult` of each parameter in Caffe's
          [`ParamSpec`](https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto)
    """

    def __init__(self, regularizer: RegularizerOrName, factor: float = 1.0):
        self.factor = check_number(factor, "factor")
        self.regularizer = get_regularizer(regularizer, "regularizer")

    def __call__(self, w: Any) -> Any:
        return times(self.factor, self.regularizer(in_float32(w)))

    def get_config(self) -> dict[str, Any]:
        return {
            "regularizer": keras.regularizers.serialize(self.regularizer),
            "factor": self.factor,
        }


@keras.saving.register_keras_serializable(package="keras_l2reg")
class Sum(keras.Regularizer):
    """Several regularizers on one weight: `penalty = sum(f(w) for f in regularizers)`.

    Args:
        regularizers: List of Keras regularizers, their names or their configs.

    Raises:
        TypeError: `regularizers` is not a list, or one of them is not a regularizer.
        ValueError: an empty list, or an unknown regularizer.

    Example:

    >>> float(Sum([L2(1.0), L2(0.5)])(keras.ops.ones((5, 2))))
    15.0

    `keras.regularizers.L1L2` is the special case of one L1 and one L2.
    """

    def __init__(self, regularizers: Sequence[RegularizerOrName]):
        if not isinstance(regularizers, (list, tuple)):
            raise TypeError(
                "Invalid type for argument `regularizers`. Expected a list of "
                f"regularizers, such as [L2(0.01), 'l1']. "
                f"Received: regularizers={regularizers!r}"
            )
        if not regularizers:
            raise ValueError(
                "Invalid value for argument `regularizers`. Expected at least one "
                f"regularizer. Received: regularizers={regularizers!r}; for no "
                "penalty, leave the regularizer out"
            )
        self.regularizers = [get_regularizer(r, "regularizers") for r in regularizers]

    def __call__(self, w: Any) -> Any:
        w = in_float32(w)
        # Unlike `+`, it can add a float64 penalty to a float32 one.
        return functools.reduce(ops.add, [r(w) for r in self.regularizers])

    def get_config(self) -> dict[str, Any]:
        serialize = keras.regularizers.serialize
        return {"regularizers": [serialize(r) for r in self.regularizers]}


@keras.saving.register_keras_serializable(package="keras_l2reg")
class InFloat32(keras.Regularizer):
    """Any regularizer, safe for half precision: `penalty = f(cast(w, "float32"))`.

    The regularizers of Keras compute in the dtype of the weight: in float16 they
    overflow at 65504, in bfloat16 they are precise to three digits. `attach` and
    `L2AllWeights` wrap the regularizer of each such weight in `InFloat32`. Weights of
    other dtypes are passed on as they are.

    Args:
        regularizer: Any Keras regularizer, its name or its config.

    Raises:
        TypeError: `regularizer` is `None`.
        ValueError: unknown regularizer.

    Example:

    >>> w = keras.ops.ones((784, 1024), "float16")
    >>> float(keras.regularizers.L1(0.5)(w)), float(InFloat32("l1")(w)) > 8000
    (inf, True)
    """

    def __init__(self, regularizer: RegularizerOrName):
        self.regularizer = get_regularizer(regularizer, "regularizer")

    def __call__(self, w: Any) -> Any:
        return self.regularizer(in_float32(w))

    def get_config(self) -> dict[str, Any]:
        return {"regularizer": keras.regularizers.serialize(self.regularizer)}


# They sum several weights at once, and apply to weights of every shape.
SUMMING = (L2, L1L2, L2Loss)


def safe_for(dtype: str, regularizer: AnyRegularizer) -> AnyRegularizer:
    """The regularizer, wrapped in `InFloat32` if `dtype` is half precision.

    >>> l1 = keras.regularizers.L1(0.1)
    >>> safe_for("float32", l1) is l1, safe_for("float16", l1).regularizer is l1
    (True, True)
    """
    is_safe = type(regularizer) in (*SUMMING, Scaled, Sum, InFloat32)
    return regularizer if is_safe or dtype not in HALF_TYPES else InFloat32(regularizer)
