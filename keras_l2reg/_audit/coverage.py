"""Rules about which weights have a penalty, and which should."""

from collections.abc import Iterable

from keras_l2reg import _keras
from keras_l2reg._audit.consistency import is_never_applied
from keras_l2reg._audit.facts import NORM_OR_BIAS, ModelFacts, names_of
from keras_l2reg._stack import Attachment, stack_of
from keras_l2reg._strengths import strength_variables
from keras_l2reg.weights import Weight, inner_model, listed


def last_layer_only(facts: ModelFacts) -> tuple[str, ...]:
    """The last layer's kernels, if only they have a penalty."""
    covered = _kernels_with_penalty(facts)
    if _forgotten_kernels(facts) and _are_in_the_last_layer(covered, facts):
        return names_of(covered)
    return ()


def names_of_other_kernels(facts: ModelFacts) -> dict[str, str]:
    """The kernels without a penalty, for the message of `last_layer_only`."""
    names = [w.name for w in facts.kernels if w.regularizer is None]
    return {"others": listed(names, shown=5)}


def uncovered(facts: ModelFacts) -> tuple[str, ...]:
    """Kernels without a penalty, if kernels outside the last layer have one."""
    covered = _kernels_with_penalty(facts)
    if covered and not _are_in_the_last_layer(covered, facts):
        return names_of(_forgotten_kernels(facts))
    return ()


def _kernels_with_penalty(facts: ModelFacts) -> list[Weight]:
    return [w for w in facts.kernels if w.regularizer is not None]


def _forgotten_kernels(facts: ModelFacts) -> list[Weight]:
    """Kernels without a penalty, whose layers have no regularizer either."""
    without = [w for w in facts.kernels if w.regularizer is None]
    return [w for w in without if not is_never_applied(w)]


def _are_in_the_last_layer(kernels: list[Weight], facts: ModelFacts) -> bool:
    return bool(kernels) and all(w.layers == facts.kernels[-1].layers for w in kernels)


def partly_covered(facts: ModelFacts) -> tuple[str, ...]:
    """Kernels that do not depend on the live strength of others, but had a penalty."""
    kernels = _kernels_with_penalty(facts)
    live = {w.name: {id(v) for v in strength_variables(w.regularizer)} for w in kernels}
    # If there are several, the one that matters is what the wrapper's `l2` changes.
    own = _own_strengths(facts, live.values())
    following = [w for w in kernels if own & live[w.name]]
    # With a regularizer for each part, a part may have a number and another a variable.
    attachments = {id(a) for w in following for a in _attachments_on(w)}
    return names_of(
        w
        for w in kernels
        if following
        and not own & live[w.name]
        and attachments.isdisjoint(map(id, _attachments_on(w)))
    )


def _attachments_on(weight: Weight) -> list[Attachment]:
    stack = stack_of(weight)
    entries = [] if stack is None else stack.entries
    return [e.attachment for e in entries if e.attachment is not None]


def _own_strengths(facts: ModelFacts, live: Iterable[set[int]]) -> set[int]:
    """The live strengths that a wrapper owns; all of them for a bare model."""
    strengths = set().union(*live)
    if inner_model(facts.model) is facts.model:
        return strengths
    return strengths & {id(v) for v in facts.model.variables}


def norm_or_bias(facts: ModelFacts) -> tuple[str, ...]:
    """Biases, and scales and shifts of normalizations, that have a penalty."""
    return names_of(w for w in facts.penalized if w.role in NORM_OR_BIAS)


def frozen(facts: ModelFacts) -> tuple[str, ...]:
    """Frozen weights that have a regularizer."""
    trainable = {w.name for w in facts.trainable}
    regularized = [w for w in facts.weights if w.regularizer is not None]
    return names_of(w for w in regularized if w.name not in trainable)


def no_penalty(facts: ModelFacts) -> tuple[str, ...]:
    """The kernels of a model that is not regularized in any way."""
    if (
        not facts.trainable
        or any(
            w.regularizer is not None or is_never_applied(w) for w in facts.trainable
        )
        or facts.decayed
        or _keras.adds_losses(facts.model)
        or (facts.batch is not None and facts.experiment.added)
    ):
        return ()
    return names_of(facts.kernels or facts.trainable)


def not_built(facts: ModelFacts) -> tuple[str, ...]:
    """The name of a model that has no weights yet."""
    if facts.weights or _keras.is_built_throughout(facts.model):
        return ()
    return (facts.model.name,)
