"""Rules about the optimizer: its weight decay, and how it scales the penalty."""

import keras

from keras_l2reg import _keras
from keras_l2reg._audit.facts import NORM_OR_BIAS, ModelFacts, l2_of, names_of

_ADAPTIVE = {
    *("Adam", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta"),
    *("Adafactor", "Lamb", "Lion", "Muon", "ScheduleFreeAdamW"),
}


def double_decay(facts: ModelFacts) -> tuple[str, ...]:
    """Weights with an L2 penalty to which the optimizer also applies weight decay."""
    return names_of(w for w in facts.decayed if l2_of(w.regularizer))


def decays_bias_or_norm(facts: ModelFacts) -> tuple[str, ...]:
    """Biases, and scales and shifts of normalizations, that the optimizer decays."""
    return names_of(w for w in facts.decayed if w.role in NORM_OR_BIAS)


def exclusions_lost_on_save(facts: ModelFacts) -> tuple[str, ...]:
    """Weights that the optimizer decays only once it has been saved and loaded."""
    variables = [w.variable for w in facts.built if w.variable is not None]
    decayed = _keras.decayed_after_loading(facts.model, variables)
    ids = {id(v) for v in decayed}
    return names_of(w for w in facts.built if id(w.variable) in ids)


def coupled_adaptive(facts: ModelFacts) -> tuple[str, ...]:
    """Weights with an L2 penalty that an adaptive optimizer trains."""
    return names_of(
        w
        for w in facts.penalized
        if l2_of(w.regularizer)
        and w.variable is not None
        and _is_adaptive(_keras.optimizer_for(facts.model, w.variable))
    )


def _is_adaptive(optimizer: keras.Optimizer | None) -> bool:
    # By name, as older versions of Keras do not have all of them.
    return not _ADAPTIVE.isdisjoint(kind.__name__ for kind in type(optimizer).mro())
