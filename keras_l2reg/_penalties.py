"""The current penalties of a model: as a dict, as a table, and during `fit`.

>>> layer = keras.layers.Dense(2, name="out", kernel_initializer="ones",
...                            kernel_regularizer=keras.regularizers.L2(0.5))
>>> penalties(keras.Sequential([keras.Input((4,)), layer]))
{'out/kernel': 4.0}
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._builtin import strength_of, strength_text
from keras_l2reg._sums import in_float32, sum_of_squares
from keras_l2reg._tables import Table, show
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg._validation import check_is_model
from keras_l2reg.weights import Weight, find_weights, inner_model


def penalties(model: keras.Model) -> dict[str, float]:
    """Compute the penalty of each weight at its current value.

    `penalty_k = regularizer_k(w_k)`, for trainable weights with a regularizer

    Args:
        model: A built `keras.Model`, wrapped or bare. Activity regularizers and
            `add_loss` are not penalties of weights and are left out.

    Returns:
        Dict from weight names to floats; empty if no trainable weight has a
        regularizer.

    Raises:
        TypeError: `model` is not a Keras model.
        ValueError: `model` is not built, so it has no weights yet.

    Example:

    >>> layer = keras.layers.Dense(2, kernel_initializer="ones", name="out",
    ...                            kernel_regularizer=keras.regularizers.L2(0.5))
    >>> penalties(keras.Sequential([keras.Input((4,)), layer]))
    {'out/kernel': 4.0}
    """
    check_is_model(model)
    if not inner_model(model).built:
        raise ValueError(
            "Expected a built model: an unbuilt one has no weights to penalize. "
            f"Received: model={model.name!r}, which is not built; call it on a batch "
            "of data, or `model.build(input_shape)`, first"
        )
    return penalties_now(model)


def penalties_now(model: keras.Model) -> dict[str, float]:
    """`penalties` without checks, also for models that are not completely built.

    >>> penalties_now(keras.Sequential([keras.layers.Dense(2)]))
    {}
    """
    weights = penalized(model)
    values = _values(weights, [w.regularizer for w in weights]) if weights else []
    return _by_name(weights, values)


def penalized(model: keras.Model) -> list[Weight]:
    """The trainable weights of a model that have a regularizer."""
    # A variable may be frozen by a layer or a model that contains its layer.
    trainable = {id(v) for v in model.trainable_variables}
    return [
        w
        for w in find_weights(model)
        if w.regularizer is not None and id(w.variable) in trainable
    ]


def _values(
    weights: Sequence[Weight], functions: Sequence[Callable[[Any], Any]]
) -> Any:
    return _stacked([f(w.variable) for w, f in zip(weights, functions, strict=True)])


def _stacked(values: Sequence[Any]) -> Any:
    # So that one transfer from the device fetches all of them.
    return keras.ops.stack([keras.ops.cast(value, "float32") for value in values])


def _by_name(weights: Sequence[Weight], values: Any) -> dict[str, float]:
    numbers: Any = keras.ops.convert_to_numpy(values)
    return {w.name: float(n) for w, n in zip(weights, numbers, strict=True)}


class CompiledPenalties:
    """`penalties` of a model in `fit`, compiled, and fast enough for every batch."""

    def __init__(self, model: keras.Model, weights: Sequence[Weight]):
        self._weights = weights
        self._regularizers = [w.regularizer for w in weights]
        self._values = _keras.backend.compiled_in_fit(
            model, functools.partial(_values, weights, self._regularizers)
        )

    def is_for(self, weights: Sequence[Weight]) -> bool:
        """Whether it was compiled for these weights and their regularizers."""
        return len(weights) == len(self._weights) and all(
            new.variable is old.variable and new.regularizer is regularizer
            for new, old, regularizer in zip(
                weights, self._weights, self._regularizers, strict=True
            )
        )

    def __call__(self) -> dict[str, float]:
        return _by_name(self._weights, self._values()) if self._weights else {}


def print_penalties(model: keras.Model, title: str | None = None) -> None:
    """Print the strength, norm, penalty and share of the total of each weight.

    `norm_k = sqrt(sum(w_k**2))`, `share_k = penalty_k / sum_j penalty_j`

    If an L1 is in effect, the column `near zero` has the share of scalars in `w_k` with
    `|w| <= 1e-4 * max(|w_k|)`: gradient steps make none exactly zero. If the strength
    says "to start", as with `towards_start` of `L2AllWeights`, norm and share are those
    of the distance from the starting value, `w_k - w0_k`.

    Args:
        model: A built `keras.Model`, wrapped or bare.
        title: Text above the table. Defaults to `None`, none.

    Example:

    >>> layer = keras.layers.Dense(2, kernel_initializer="ones", name="out",
    ...                            kernel_regularizer=keras.regularizers.L2(0.5))
    >>> print_penalties(keras.Sequential([keras.Input((4,)), layer]))
    weight     | strength |  norm | penalty | share
    -----------+----------+-------+---------+------
    out/kernel | l2=0.5   | 2.828 |       4 |  100%
    """
    check_is_model(model)
    show(_penalty_table(model, title))


def _penalty_table(model: keras.Model, title: str | None) -> Table:
    weights = penalized(model)
    values = _table_values(weights)
    total = sum(penalty for penalty, _, _ in values)
    columns = ["weight", "strength", "norm", "penalty", "share", "near zero"]
    rows = [
        [
            weight.name,
            strength_text(weight.regularizer),
            f"{math.sqrt(squares):.4g}",
            f"{penalty:.4g}",
            f"{penalty / total:.0%}" if total else "-",
            f"{near_zero:.0%}",
        ]
        for weight, (penalty, squares, near_zero) in zip(weights, values, strict=True)
    ]
    has_l1 = any(strength_of(weight.regularizer, "l1") for weight in weights)
    shown = len(columns) if has_l1 else -1
    return Table(
        columns=columns[:shown],
        rows=[row[:shown] for row in rows],
        right=columns[2:],
        title=title,
        empty="" if weights else _why_there_is_none(model),
    )


def _table_values(weights: Sequence[Weight]) -> Any:
    """Penalty, sum of squares and share near zero of each weight."""
    if not weights:
        return []
    stacked = [number for weight in weights for number in _numbers(weight)]
    numbers: Any = keras.ops.convert_to_numpy(_stacked(stacked))
    return numbers.astype("float64").reshape(-1, 3)


def _numbers(weight: Weight) -> list[Any]:
    variable, regularizer = weight.variable, weight.regularizer
    is_to_start = type(regularizer) is TowardsStart
    w = regularizer.distance(variable) if is_to_start else variable
    return [regularizer(variable), sum_of_squares(w), _share_near_zero(w)]


def _share_near_zero(w: Any) -> Any:
    if 0 in w.shape:
        return keras.ops.zeros(())
    size: Any = keras.ops.abs(in_float32(w))
    largest: Any = keras.ops.max(size)
    return keras.ops.mean(keras.ops.cast(size <= 1e-4 * largest, "float32"))


def _why_there_is_none(model: keras.Model) -> str:
    regularized = [w.name for w in find_weights(model) if w.regularizer]
    if not inner_model(model).built:
        return (
            "No penalties: the model has no weights yet. Call it on a batch of data, "
            "or `model.build(input_shape)`, first."
        )
    if regularized:
        names = ", ".join(regularized[:3]) + ", ..." * (len(regularized) > 3)
        return (
            "No penalties: the weights that have a regularizer are frozen: "
            f"{names}. Set `trainable = True` on their layers to train them."
        )
    return (
        "No penalties: no weight has a regularizer. Add one to every kernel: "
        "`L2AllWeights(model, l2)` or `attach(model, l2)`."
    )
