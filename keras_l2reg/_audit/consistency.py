"""Rules about penalties that differ between the places where they are stored.

A penalty is stored in three places: the layer's attribute (saved with the model), the
weight's `regularizer` (in `model.losses`) and the compiled step (trained with).
"""

import contextlib

from keras_l2reg import _keras
from keras_l2reg._audit.facts import ModelFacts, names_of
from keras_l2reg._persistence import lost_on_save, same_regularizer
from keras_l2reg._plan import regularizer_without
from keras_l2reg.weights import Weight, inner_model


def never_applied(facts: ModelFacts) -> tuple[str, ...]:
    """Weights whose layer has a regularizer that they do not have."""
    return names_of(filter(is_never_applied, facts.weights))


def is_never_applied(weight: Weight) -> bool:
    """Whether the regularizer was set after the weight was created."""
    return (
        weight.variable is not None
        and weight.regularizer is None
        and weight.configured_regularizer is not None
    )


def constraint_never_applied(facts: ModelFacts) -> tuple[str, ...]:
    """Weights whose layer has a constraint that they do not have."""
    return names_of(filter(_constraint_differs, facts.weights))


def _constraint_differs(weight: Weight) -> bool:
    if weight.variable is None or not weight.config_attribute:
        return False
    # LoRA's factors get the kernel's regularizer, but no constraint.
    if weight.is_lora_factor:
        return False
    name = weight.config_attribute.replace("_regularizer", "_constraint")
    with contextlib.suppress(Exception):
        configured = getattr(weight.config_layer, name, None)
        return configured is not None and not same_regularizer(
            configured, weight.variable.constraint
        )
    return False


def stale_trace(facts: ModelFacts) -> tuple[str, ...]:
    """The steps, `"fit"` or `"evaluate"`, that were compiled with another loss."""
    steps = _keras.stale_steps(facts.model, facts.batch)
    return tuple({"train": "fit", "test": "evaluate"}[step] for step in steps)


def penalty_lost_on_save(facts: ModelFacts) -> tuple[str, ...]:
    """Weights whose penalty is saved neither by the model's config nor by a wrapper."""
    inner = inner_model(facts.model)
    saved_by_wrapper = {
        weight.name
        for weight in facts.weights
        if inner is not facts.model
        and regularizer_without(weight, inner) is not weight.regularizer
    }
    return tuple(name for name in lost_on_save(inner) if name not in saved_by_wrapper)
