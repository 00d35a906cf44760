"""Findings: one penalty that stands in `model.losses` more than once."""

import collections
import contextlib
import math

import keras

from keras_l2reg._audit.experiment import moves
from keras_l2reg._audit.subject import Finding, names_of
from keras_l2reg._builtin import convert_to_builtin

_KNOWN = (
    keras.regularizers.L1,
    keras.regularizers.L2,
    keras.regularizers.L1L2,
    keras.regularizers.OrthogonalRegularizer,
)


def duplicated_regularizer(subject):
    unknown = [w for w in subject.penalized if not _is_known(w.regularizer)]
    if len(unknown) < 2:
        return None
    experiment = subject.experiment
    groups = collections.defaultdict(list)
    for weight in unknown:
        groups[experiment.penalties[weight.name]].append(weight)
    weights = [
        weight
        for term, sharers in groups.items()
        if len(sharers) > 1
        and moves(term)
        # A late-bound function answers to one weight; one of two weights, such as
        # the distance between them, to each.
        and sum(map(experiment.answers_to_its_weight, sharers)) < 2
        for weight in sharers
    ]
    return weights and Finding(
        "duplicated",
        "error",
        names_of(weights),
        "These regularizers all compute one and the same penalty, whatever weight "
        "they are given, as lambdas do that name a loop's variable.",
        "Use the argument that the regularizer is called with: lambda w: ... w ...",
    )


def _is_known(regularizer):
    with contextlib.suppress(Exception):
        return isinstance(convert_to_builtin(regularizer), _KNOWN)
    return False


def duplicated_term(subject):
    experiment = subject.experiment
    if len(experiment.added) < 2:
        return None
    # What depends on the data is an activity's penalty, or part of the data's loss.
    of_weights = [
        term
        for term, other in zip(
            experiment.added, experiment.added_for_other_data, strict=True
        )
        if moves(term) and term[0] == other
    ]
    counted = collections.Counter(of_weights).most_common(1)
    if not counted or counted[0][1] < 2:
        return None
    (value, *_), times = counted[0]
    return Finding(
        "duplicated",
        "error",
        ("add_loss",),
        f"{times} terms that add_loss puts into model.losses are one and the same, "
        f"{value:.6g}, and stay so when the weights are moved.",
        "See that each term uses its own weight: a function made in a loop sees the "
        "loop's last value; and that a shared layer adds its penalty once.",
    )


def duplicated_by_add_loss(subject):
    experiment = subject.experiment
    if not experiment.added:
        return None
    twice = [
        name
        for name, term in experiment.penalties.items()
        if moves(term) and any(_is_close(term, other) for other in experiment.added)
    ]
    return twice and Finding(
        "duplicated",
        "error",
        tuple(twice),
        "This penalty is in model.losses twice: by its regularizer and by add_loss.",
        "Take out one of the two.",
    )


def _is_close(term, other):
    # Two ways to add up the same squares differ by rounding.
    return all(
        b is not None and math.isclose(a, b, rel_tol=1e-4)
        for a, b in zip(term, other, strict=True)
    )
