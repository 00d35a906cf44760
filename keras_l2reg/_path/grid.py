"""The default strengths of `l2_path`, derived from gradients of loss and penalty.

>>> L2Grid(count=3, span=100.0).below(10.0)
[10.0, 1.0, 0.1, 0.0]
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path.folds import pick
from keras_l2reg._path.points import Point
from keras_l2reg._path.runs import assign, read, set_point, state_of
from keras_l2reg._peak import highest_learning_rate
from keras_l2reg._validation import check_integer, check_number
from keras_l2reg.models import L2AllWeights


@dataclasses.dataclass(frozen=True)
class L2Grid:
    """A logarithmic grid of strengths for `l2_path`, derived from the data.

    `top * span**(-i / (count - 1))` for `i = 0 ... count - 1`, and 0

    `top = 10 * |g| / |p|`, where `g` and `p` are the gradients of the data loss,
    weighted as in `fit`, and of the penalty at strength 1, with respect to the
    penalized weights, at their initial values, on up to 1024 samples. At `top`, the
    gradient of the penalty is ten times that of the data loss; 0 shows whether a
    penalty helps. Each `l1_ratio` has a `top` of its own, as in scikit-learn's
    `ElasticNetCV`.

    For rates of weight decay, `top = 10 / (learning_rate * steps)`, with the highest
    learning rate and the number of steps of a run: alone, it would shrink the weights
    by `exp(-10)`.

    Args:
        count: Integer >= 1, the number of strengths above 0. Defaults to `12`.
        span: Finite float > 1, the ratio of the strongest to the weakest of them.
            Defaults to `1e4`.

    Raises:
        TypeError, ValueError: `count` or `span` is invalid.

    Example:

    >>> L2Grid(count=6)
    L2Grid(count=6, span=10000.0)

    References:
        - Friedman, Hastie & Tibshirani, [Regularization Paths for Generalized Linear
          Models via Coordinate Descent](https://doi.org/10.18637/jss.v033.i01),
          Journal of Statistical Software 33(1), 2010 (`nlambda`, `lambda.min.ratio`).
        - Wang & Aitchison, [How to Set AdamW's Weight Decay as You Scale Model and
          Dataset Size](https://arxiv.org/abs/2405.13698), 2024 (its timescale).
    """

    count: int = 12
    span: float = 1e4

    def __post_init__(self):
        check_integer(self.count, "count")
        if check_number(self.span, "span") <= 1:
            raise ValueError(
                "Invalid value for argument `span`. Expected a float > 1, the "
                "ratio of the strongest to the weakest strength, such as 1e4. "
                f"Received: span={self.span}"
            )

    def below(self, top: float) -> list[float]:
        """The strengths from `top` down, evenly spaced on a log scale, and 0."""
        exact = np.geomspace(top, top / self.span, self.count).tolist()
        rounded = [float(f"{strength:.3g}") for strength in exact]
        # A fine grid is not rounded, since rounded strengths could be equal.
        return [*(rounded if len({*rounded}) == self.count else exact), 0.0]


def grid_from_data(
    model: L2AllWeights,
    x: Any,
    y: Any,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    grid: L2Grid = L2Grid(),
    l1_ratio: float | None = None,
) -> list[float]:
    """Strengths from strong to weak, and 0, as `L2Grid` documents them.

    Args:
        model: A built, compiled `L2AllWeights` with a live strength.
        x, y, sample_weight, class_weight: as in `keras.Model.fit`.
        grid: The `L2Grid`. Defaults to `L2Grid()`.
        l1_ratio: Float in [0, 1], the share of L1 in a strength; `None` for a model
            whose `l1` is not varied. Defaults to `None`.

    Returns:
        A list of `grid.count + 1` floats, the last of them 0.

    Raises:
        ValueError: a gradient at the initial weights is 0 or not finite.
    """
    x, y, sample_weight = _sample(x, y, sample_weight)
    if class_weight is not None and hasattr(y, "shape"):
        sample_weight = _weights_of_classes(y, class_weight)
    of_data, of_penalty = _gradient_norms(model, x, y, sample_weight, l1_ratio)
    top = 10 * of_data / of_penalty if of_penalty else 0.0
    if not math.isfinite(top) or top == 0:
        raise ValueError(
            "Expected nonzero, finite gradients at the initial weights, to derive a "
            f"grid of strengths from. Received: gradients of norm {of_data:.3g} "
            f"(data) and {of_penalty:.3g} (penalty, at strength 1); choose the "
            "strengths yourself, for example l2=[0.1, 0.01, 0.001, 0.0]"
        )
    return grid.below(top)


def grid_of_decay(
    model: L2AllWeights,
    x: Any,
    epochs: int,
    fit_arguments: Mapping[str, Any],
    grid: L2Grid = L2Grid(),
) -> list[float]:
    """Rates of weight decay from strong to weak, and 0, as `L2Grid` documents them.

    Raises:
        ValueError: the number of steps is not known, or the learning rate is 0.
    """
    rate = highest_learning_rate(model.optimizer)
    steps = epochs * _steps_per_epoch(x, fit_arguments)
    if not (math.isfinite(rate) and rate > 0 and steps > 0):
        raise ValueError(
            "Expected a learning rate above 0 and a known number of steps, to derive a "
            f"grid of rates from. Received: a learning rate of {rate:.3g} and {steps} "
            "steps; choose the rates yourself, for example l2=[1.0, 0.1, 0.01, 0.0]"
        )
    return grid.below(10 / (rate * steps))


def _steps_per_epoch(x: Any, fit_arguments: Mapping[str, Any]) -> int:
    """The number of batches in an epoch; 0 if it is not known."""
    if steps := fit_arguments.get("steps_per_epoch"):
        return steps
    if keras.tree.is_nested(x) or hasattr(x, "shape"):
        count = len(keras.tree.flatten(x)[0])
        return math.ceil(count / (fit_arguments.get("batch_size") or 32))
    try:
        return len(x)
    except TypeError:
        return 0


def _gradient_norms(
    model: L2AllWeights, x: Any, y: Any, sample_weight: Any, l1_ratio: float | None
) -> tuple[float, float]:
    """The norms of the gradients of the data loss and of the penalty at strength 1.

    Both with respect to the penalized weights.
    """
    variables = state_of(model)
    values = read(variables)

    def gradients(strength: float) -> list[Any]:
        # So that a layer that is random in inference draws the same numbers each time.
        assign(variables, values)
        set_point(model, Point(strength, l1_ratio))
        return _keras.loss_gradients(model, x, y, sample_weight)

    try:
        data = gradients(0.0)
        # The difference of the two gradients is accurate only if the gradient of the
        # data loss is not much larger than that of the penalty.
        norm = _norm(read(model.trainable_variables)) or 1.0
        strength = max(1.0, _norm(data) / norm)
        strength = strength if math.isfinite(strength) else 1.0
        both = gradients(strength)
    finally:
        assign(variables, values)
    penalty = [b - d for b, d in zip(both, data, strict=True)]
    # For weights without a penalty, the difference is a rounding error.
    penalized = [
        (d, p)
        for d, p in zip(data, penalty, strict=True)
        if not _norm([p]) <= 1e-5 * _norm([d])
    ]
    of_penalty = _norm([p for _, p in penalized]) / strength
    return _norm([d for d, _ in penalized]), of_penalty


def _norm(arrays: list[Any]) -> float:
    return math.sqrt(sum(np.sum(np.square(a, dtype="float64")) for a in arrays))


def _sample(
    x: Any, y: Any, sample_weight: Any, size: int = 1024
) -> tuple[Any, Any, Any]:
    """Up to `size` evenly spaced samples of arrays; or the first batch of a dataset."""
    if y is None and not keras.tree.is_nested(x) and not hasattr(x, "shape"):
        batch = x[0] if isinstance(x, keras.utils.PyDataset) else next(iter(x))
        # On JAX and torch, a `tf.data.Dataset` still yields TensorFlow tensors.
        return keras.utils.unpack_x_y_sample_weight(
            keras.tree.map_structure(
                lambda leaf: np.asarray(leaf) if hasattr(leaf, "__array__") else leaf,
                batch,
            )
        )
    total = len(keras.tree.flatten(x)[0])
    chosen = np.linspace(0, total - 1, min(size, total)).astype(int)
    return pick(x, chosen), pick(y, chosen), pick(sample_weight, chosen)


def _weights_of_classes(y: Any, class_weight: Mapping[int, float]) -> np.ndarray:
    """The weight of each sample, by its class, as `fit` computes it."""
    if y.ndim > 1:
        y = y[..., 0] if y.shape[-1] == 1 else np.argmax(y, axis=-1)
    classes = np.round(y).astype(int)
    weights = [class_weight.get(label, 1.0) for label in classes.ravel().tolist()]
    return np.reshape(np.array(weights, "float32"), classes.shape)
