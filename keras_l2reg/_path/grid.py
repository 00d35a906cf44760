"""The strengths that `l2_path` tries by default, found from the data.

>>> strengths = log_grid(10.0, count=3, span=100.0)
>>> strengths
[10.0, 1.0, 0.1, 0.0]
"""

import math

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path.runs import assign, read, state_of


def grid_from_data(
    model, x, y, sample_weight=None, class_weight=None, count=12, span=1e4
):
    """Strengths from strong to weak, and 0, as `l2_path` documents them.

    Args:
        model: A built, compiled `L2AllWeights` with a live strength.
        x, y, sample_weight, class_weight: as in `keras.Model.fit`.
        count, span: as in `l2_path`.

    Raises:
        ValueError: the gradients at the start don't tell where to begin.
    """
    x, y, sample_weight = _sample(x, y, sample_weight)
    if class_weight is not None and hasattr(y, "shape"):
        sample_weight = _weights_of_classes(y, class_weight)
    of_data, of_penalty = _pulls(model, x, y, sample_weight)
    top = 10 * of_data / of_penalty if of_penalty else 0.0
    if not math.isfinite(top) or top == 0:
        raise ValueError(
            "Expected data and weights that tell where the grid should begin. Received "
            f"gradients of norm {of_data:.3g} (data) and {of_penalty:.3g} (penalty, at "
            "l2=1) at the start; choose the strengths yourself, for example "
            "l2=[0.1, 0.01, 0.001, 0.0]"
        )
    return log_grid(top, count, span)


def _pulls(model, x, y, sample_weight):
    """The gradients' norms of the data's loss and of the penalty at `l2=1`.

    Over the weights that the penalty reaches.
    """
    variables = state_of(model)
    values = read(variables)

    def gradients(l2):
        # What a layer draws in inference, it draws again.
        assign(variables, values)
        model.l2 = l2
        return _keras.loss_gradients(model, x, y, sample_weight)

    try:
        data = gradients(0.0)
        # The difference of two gradients tells the smaller part only if the other is
        # not far larger.
        l2 = max(1.0, _norm(data) / (_norm(read(model.trainable_variables)) or 1.0))
        l2 = l2 if math.isfinite(l2) else 1.0
        both = gradients(l2)
    finally:
        assign(variables, values)
    penalty = [b - d for b, d in zip(both, data, strict=True)]
    # What is left of the other weights' gradients is rounding.
    reached = [
        (d, p)
        for d, p in zip(data, penalty, strict=True)
        if not _norm([p]) <= 1e-5 * _norm([d])
    ]
    return _norm([d for d, _ in reached]), _norm([p for _, p in reached]) / l2


def _norm(arrays):
    return math.sqrt(sum(np.sum(np.square(a, dtype="float64")) for a in arrays))


def log_grid(top, count, span):
    """`count` strengths from `top` to `top / span`, evenly spaced in the log, and 0."""
    exact = np.geomspace(top, top / span, count).tolist()
    rounded = [float(f"{strength:.3g}") for strength in exact]
    # A fine grid keeps its digits: two equal strengths would be one.
    return [*(rounded if len({*rounded}) == count else exact), 0.0]


def _sample(x, y, sample_weight, size=1024):
    """Up to `size` samples, spread over arrays; or a data set's first batch."""
    if y is None and not keras.tree.is_nested(x) and not hasattr(x, "shape"):
        batch = x[0] if isinstance(x, keras.utils.PyDataset) else next(iter(x))
        # On JAX and torch, a `tf.data.Dataset` still gives TensorFlow's tensors.
        return keras.utils.unpack_x_y_sample_weight(
            keras.tree.map_structure(
                lambda leaf: np.asarray(leaf) if hasattr(leaf, "__array__") else leaf,
                batch,
            )
        )
    total = len(keras.tree.flatten(x)[0])
    chosen = np.linspace(0, total - 1, min(size, total)).astype(int)
    return [
        None
        if part is None
        else keras.tree.map_structure(lambda leaf: np.asarray(leaf)[chosen], part)
        for part in (x, y, sample_weight)
    ]


def _weights_of_classes(y, class_weight):
    """The weight of each sample, as `fit` finds it from its class."""
    if y.ndim > 1:
        y = y[..., 0] if y.shape[-1] == 1 else np.argmax(y, axis=-1)
    classes = np.round(y).astype(int)
    weights = [class_weight.get(label, 1.0) for label in classes.ravel().tolist()]
    return np.reshape(np.array(weights, "float32"), classes.shape)
