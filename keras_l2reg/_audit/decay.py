"""Rules about the optimizer: its weight decay, and how it scales the penalty."""

import keras

from keras_l2reg import _keras
from keras_l2reg._audit.facts import (
    NORM_OR_BIAS,
    ModelFacts,
    l2_of,
    l2_to_zero_of,
    names_of,
)
from keras_l2reg._decay import WeightDecayOptimizer

_ADAPTIVE = {
    *("Adam", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta"),
    *("Adafactor", "Lamb", "Lion", "Muon", "ScheduleFreeAdamW"),
}


def double_decay(facts: ModelFacts) -> tuple[str, ...]:
    """Weights with an L2 penalty to which the optimizer also applies weight decay."""
    return names_of(w for w in facts.decayed if l2_of(w.regularizer))


def decays_bias_or_norm(facts: ModelFacts) -> tuple[str, ...]:
    """Biases, and scales and shifts of normalizations, that the optimizer decays.

    Not those that `set_weight_decay` was told to decay.
    """
    return names_of(
        w
        for w in facts.decayed
        if w.role in NORM_OR_BIAS
        and w.variable is not None
        and _keras.decays(_keras.optimizer_for(facts.model, w.variable), w.variable)
    )


def exclusions_lost_on_save(facts: ModelFacts) -> tuple[str, ...]:
    """Weights that the optimizer decays only once it has been saved and loaded."""
    variables = [w.variable for w in facts.built if w.variable is not None]
    decayed = _keras.decayed_after_loading(facts.model, variables)
    ids = {id(v) for v in decayed}
    return names_of(w for w in facts.built if id(w.variable) in ids)


def coupled_adaptive(facts: ModelFacts) -> tuple[str, ...]:
    """Weights with an L2 penalty, to zero, that an adaptive optimizer trains."""
    return names_of(
        w
        for w in facts.penalized
        if l2_to_zero_of(w.regularizer)
        and w.variable is not None
        and _is_adaptive(_keras.optimizer_for(facts.model, w.variable))
    )


def describe_optimizer(model: keras.Model) -> str | None:
    """The optimizer and its weight decay in a line; `None` without an optimizer.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> model.compile(keras.optimizers.AdamW())
    >>> describe_optimizer(model)
    'Optimizer: AdamW, weight_decay=0.004 on 2 of 2 trained weights.'
    """
    chain = list(_keras.optimizers_within(getattr(model, "optimizer", None)))
    if not chain:
        return None
    decayed = len(ModelFacts(model, None, 1.0).decayed)
    if not decayed:
        return f"Optimizer: {type(chain[-1]).__name__}, no weight decay."
    ours = [o for o in chain if isinstance(o, WeightDecayOptimizer)]
    rates = {
        updater.weight_decay
        for updater in ours or _keras.updaters(chain[-1])
        if updater.weight_decay
    }
    listed = ", ".join(f"{rate:.3g}" for rate in sorted(rates))
    coupled = f", couple={ours[0].couple!r}," if ours else ""
    return (
        f"Optimizer: {type(chain[-1]).__name__}, weight_decay={listed}{coupled} on "
        f"{decayed} of {len(model.trainable_variables)} trained weights."
    )


def _is_adaptive(optimizer: keras.Optimizer | None) -> bool:
    # By name, as older versions of Keras do not have all of them.
    return not _ADAPTIVE.isdisjoint(kind.__name__ for kind in type(optimizer).mro())
