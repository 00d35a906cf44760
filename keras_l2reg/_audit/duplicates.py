"""Rules about a penalty that is in `model.losses` more than once.

Two equal numbers are not necessarily the same penalty. They are if they stay equal
when the weights change, see `experiment`.
"""

import collections
import contextlib
import math

import keras

from keras_l2reg._audit.experiment import Term, responds
from keras_l2reg._audit.facts import ModelFacts, names_of
from keras_l2reg._builtin import convert_to_builtin, split_by_target
from keras_l2reg.weights import Weight

_BUILTIN = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
    keras.regularizers.OrthogonalRegularizer,
)


def regularizers_with_the_same_penalty(facts: ModelFacts) -> tuple[str, ...]:
    """Weights whose custom regularizers ignore the weight and share one penalty."""
    custom = [w for w in facts.penalized if not _is_builtin(w)]
    if len(custom) < 2:
        return ()
    experiment = facts.experiment
    groups = collections.defaultdict(list)
    for weight in custom:
        groups[experiment.penalties[weight.name]].append(weight)
    return names_of(
        weight
        for term, weights in groups.items()
        if len(weights) > 1
        and responds(term)
        # A function of a loop variable depends on one weight only. A function of two
        # weights, such as their distance, depends on both, and is intended.
        and sum(map(experiment.depends_on_its_weight, weights)) < 2
        for weight in weights
    )


def _is_builtin(weight: Weight) -> bool:
    to_zero, to_start = split_by_target(weight.regularizer)
    with contextlib.suppress(Exception):
        return all(
            isinstance(convert_to_builtin(term), _BUILTIN)
            for term in [*to_zero, *to_start]
        )
    return False


def identical_added_losses(facts: ModelFacts) -> tuple[str, ...]:
    """`add_loss`, if it adds the same function of the weights more than once."""
    _, count = _most_common_added_loss(facts)
    return ("add_loss",) if count > 1 else ()


def count_of_identical_added_losses(facts: ModelFacts) -> dict[str, str]:
    """The most common term and how often it occurs, for the message."""
    term, count = _most_common_added_loss(facts)
    return {"count": str(count), "value": f"{term[0]:.6g}"}


def _most_common_added_loss(facts: ModelFacts) -> tuple[Term, int]:
    experiment = facts.experiment
    if len(experiment.added) < 2:
        return (), 0
    # A term that depends on the data is an activity penalty, or part of the data
    # loss.
    of_weights = [
        term
        for term, for_other_data in zip(
            experiment.added, experiment.added_for_other_data, strict=True
        )
        if responds(term) and term[0] == for_other_data
    ]
    counted = collections.Counter(of_weights).most_common(1)
    return counted[0] if counted else ((), 0)


def penalties_added_again(facts: ModelFacts) -> tuple[str, ...]:
    """Weights whose penalty `add_loss` adds in addition to their regularizer."""
    experiment = facts.experiment
    if not experiment.added:
        return ()
    return tuple(
        name
        for name, term in experiment.penalties.items()
        if responds(term) and any(_is_close(term, other) for other in experiment.added)
    )


def _is_close(term: Term, other: Term) -> bool:
    # Two ways to sum the same squares differ by rounding.
    return all(
        a is not None and b is not None and math.isclose(a, b, rel_tol=1e-4)
        for a, b in zip(term, other, strict=True)
    )
