"""Findings: one penalty that stands in `model.losses` more than once."""

import collections
import contextlib
import math

import keras
from keras import ops

from keras_l2reg._subject import Finding, names_of, number
from keras_l2reg.measure import penalties
from keras_l2reg.squares import sum_of_squares
from keras_l2reg.stock import to_stock

_KNOWN = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
    keras.regularizers.OrthogonalRegularizer,
)


def _ignores_its_weight(weight):
    """Whether the penalty is the same number for quite another weight."""
    with contextlib.suppress(Exception):
        if isinstance(to_stock(weight.regularizer), _KNOWN):
            return False
        variable = weight.variable
        other = ops.cos(ops.arange(math.prod(variable.shape), dtype="float32"))
        other = ops.cast(ops.reshape(other, variable.shape), variable.dtype)
        penalty = number(weight.regularizer(variable))
        return bool(penalty) and penalty == number(weight.regularizer(other))
    return False


def duplicated_regularizer(subject):
    terms = collections.defaultdict(list)
    for weight in subject.penalized:
        if _ignores_its_weight(weight):
            terms[number(weight.regularizer(weight.variable))].append(weight)
    weights = [w for sharers in terms.values() if len(sharers) > 1 for w in sharers]
    return weights and Finding(
        "duplicated",
        "error",
        names_of(weights),
        "These regularizers all compute one and the same penalty, whatever weight "
        "they are given, as lambdas do that name a loop's variable.",
        "Use the argument that the regularizer is called with: lambda w: ... w ...",
    )


def duplicated_term(subject):
    counted = collections.Counter(subject.added_losses).most_common(1)
    if not counted or counted[0][1] < 2:
        return None
    value, times = counted[0]
    made = [w for w in subject.kernels if w.variable is not None]
    squares = [number(sum_of_squares(w.variable)) for w in made]
    # Kernels that are equal, as when all are ones, have equal penalties rightly.
    if len(squares) < 2 or len(set(squares)) < len(squares):
        return None
    return Finding(
        "duplicated",
        "error",
        ("add_loss",),
        f"{times} terms that add_loss put into model.losses are all {value:.6g}, "
        "though no two kernels have the same norm.",
        "See that each term uses its own weight: a function made in a loop sees the "
        "loop's last value; and that a shared layer adds its penalty once.",
    )


def duplicated_by_add_loss(subject):
    if not subject.added_losses:
        return None
    twice = [
        name
        for name, penalty in penalties(subject.model).items()
        if any(math.isclose(penalty, n, rel_tol=1e-6) for n in subject.added_losses)
    ]
    return twice and Finding(
        "duplicated",
        "error",
        tuple(twice),
        "This penalty is in model.losses twice: by its regularizer and by add_loss.",
        "Take out one of the two.",
    )
