"""What can be wrong with a model's penalties: one function per finding.

Each check gets a `Subject`, what is known of the model, and returns a `Finding` or
something false. None of them changes the model.
"""

import contextlib
import math

from keras import ops

from keras_l2reg import _keras
from keras_l2reg._audit.duplicates import (
    duplicated_by_add_loss,
    duplicated_regularizer,
    duplicated_term,
)
from keras_l2reg._audit.experiment import number, penalty_of
from keras_l2reg._audit.scale_invariance import is_normalized
from keras_l2reg._audit.subject import Finding, l2_of, live_strengths, names_of
from keras_l2reg._penalties import penalties
from keras_l2reg._persistence import lost_on_save, same_regularizer
from keras_l2reg._roles import KERNEL_ROLES
from keras_l2reg.attachment import regularizer_beside
from keras_l2reg.weights import inner_model


def _is_never_applied(weight):
    return (
        weight.variable is not None
        and weight.regularizer is None
        and weight.configured_regularizer is not None
    )


def never_applied(subject):
    weights = [w for w in subject.weights if _is_never_applied(w)]
    return weights and Finding(
        "never-applied",
        "error",
        names_of(weights),
        "The layer's attribute was set after the weight was made, so that the penalty "
        "is shown and saved, but not trained with.",
        "Use keras_l2reg.attach(model, ...), or give the layer its regularizer when "
        "it is constructed.",
    )


def constraint_never_applied(subject):
    weights = [w for w in subject.weights if _has_another_constraint(w)]
    return weights and Finding(
        "constraint-never-applied",
        "error",
        names_of(weights),
        "The layer's constraint was set after the weight was made, so that it is shown "
        "and saved, but not trained with.",
        "Set the weight's own as well, layer.kernel.constraint = ..., and compile "
        "again; or give the layer its constraint when it is constructed.",
    )


def _has_another_constraint(weight):
    if weight.variable is None or not weight.config_attribute:
        return False
    # LoRA's factors have the kernel's regularizer, and no constraint.
    if weight.variable.name.startswith("lora_"):
        return False
    name = weight.config_attribute.replace("_regularizer", "_constraint")
    with contextlib.suppress(Exception):
        shown = getattr(weight.config_layer, name, None)
        return shown is not None and not same_regularizer(
            shown, weight.variable.constraint
        )
    return False


def no_penalty(subject):
    weights = subject.trainable
    if (
        not weights
        or any(w.regularizer is not None or _is_never_applied(w) for w in weights)
        or any(_keras.decays_in(subject.model, w.variable) for w in subject.made)
        or _keras.adds_losses(subject.model)
        or (subject.batch is not None and subject.experiment.added)
    ):
        return None
    return Finding(
        "no-penalty",
        "info",
        names_of(subject.kernels or weights),
        "No weight of the model has a penalty, and no weight decay reaches one.",
        "Nothing, if none was meant; else L2AllWeights(model, l2=...) or attach(model, "
        "...).",
    )


def not_built(subject):
    if subject.weights or _keras.is_built_throughout(subject.model):
        return None
    return Finding(
        "no-penalty",
        "info",
        (subject.model.name,),
        "The model is not built: it has no weights, and so no penalty, as yet.",
        "Call it once, or call model.build(input_shape), and audit it again.",
    )


def stale_trace(subject):
    steps = _keras.stale_steps(subject.model, subject.batch)
    return steps and Finding(
        "stale-trace",
        "error",
        tuple({"train": "fit", "test": "evaluate"}[step] for step in steps),
        "The compiled step is not what the model says now: penalties (or what is "
        "trainable) changed since it was traced.",
        "Call model.compile(...) again; attach, detach and L2AllWeights see to it by "
        "themselves.",
    )


def half_precision(subject):
    weights = [
        w
        for w in subject.penalized
        if w.variable.dtype == "float16"
        and not _is_finite(w.regularizer, w.variable)
        and _is_finite(w.regularizer, ops.cast(w.variable, "float32"))
    ]
    return weights and Finding(
        "half-precision",
        "error",
        names_of(weights),
        "The penalty overflows float16, which ends at 65504, so that the loss is "
        "infinite or NaN.",
        "Use keras_l2reg.L2, which adds up in float32, or the policy mixed_float16.",
    )


def _is_finite(regularizer, weight):
    penalty = penalty_of(regularizer, weight)
    return penalty is not None and math.isfinite(penalty)


def lost(subject):
    model = subject.model
    inner = inner_model(model)
    names = lost_on_save(inner)
    if inner is not model:
        # What a wrapper put on, it saves by itself.
        own = {
            w.name
            for w in subject.weights
            if regularizer_beside(w, inner) is not w.regularizer
        }
        names = [name for name in names if name not in own]
    return names and Finding(
        "lost-on-save",
        "warning",
        tuple(names),
        "The model's config does not carry this penalty: save/load and clone_model "
        "drop it.",
        "Wrap the model with L2AllWeights, or give the layer its regularizer when it "
        "is constructed.",
    )


def exclusions_lost(subject):
    variables = [w.variable for w in subject.made]
    back = {id(v) for v in _keras.decay_comes_back_on_load(subject.model, variables)}
    weights = [w for w in subject.made if id(w.variable) in back]
    return weights and Finding(
        "lost-on-save",
        "warning",
        names_of(weights),
        "The optimizer leaves these weights out of its weight decay, which its config "
        "does not carry: a loaded model decays them too.",
        "Call set_weight_decay(...), or optimizer.exclude_from_weight_decay(...), "
        "again on the loaded model before it trains.",
    )


def last_layer_only(subject):
    with_penalty = [w for w in subject.kernels if w.regularizer is not None]
    without = [w for w in subject.kernels if w.regularizer is None]
    forgotten = [w for w in without if not _is_never_applied(w)]
    if not with_penalty or not forgotten:
        return None
    last = subject.kernels[-1].layers
    if all(w.layers == last for w in with_penalty):
        return Finding(
            "last-layer-only",
            "warning",
            names_of(with_penalty),
            "Only the last layer has a penalty; these kernels have none: "
            f"{', '.join(w.name for w in without[:5])}"
            f"{', ...' if len(without) > 5 else '.'}",
            "Cover all layers: L2AllWeights(model, l2=...) or attach(model, ...).",
        )
    return Finding(
        "uncovered",
        "warning",
        names_of(forgotten),
        "These kernels have no penalty, while others have one.",
        "Cover them with attach(model, ...), if they were not left out on purpose.",
    )


def partly_covered(subject):
    kernels = [w for w in subject.kernels if w.regularizer is not None]
    live = {w.name: live_strengths(w.regularizer) for w in kernels}
    # Of several live strengths, a wrapper's own is the one that its `l2` changes.
    own = _own_strengths(subject.model, live.values())
    reached = [w for w in kernels if own & live[w.name]]
    missed = [w for w in kernels if not own & live[w.name]]
    return (
        reached
        and missed
        and Finding(
            "partly-covered",
            "warning",
            names_of(missed),
            "The live strength does not reach these kernels, which had a regularizer "
            "of their own: they keep it, whatever the strength is set to.",
            "Wrap or attach with existing='replace', or 'add', if they were not left "
            "out on purpose.",
        )
    )


def _own_strengths(model, live):
    """The live strengths that a wrapper owns; of a bare model, all that there are."""
    everywhere = set().union(*live)
    mine = {id(v) for v in model.variables} & everywhere
    return everywhere if inner_model(model) is model else mine


def double_decay(subject):
    weights = [
        w
        for w in subject.penalized
        if l2_of(w) and _keras.decays_in(subject.model, w.variable)
    ]
    return weights and Finding(
        "double-decay",
        "warning",
        names_of(weights),
        "These weights shrink twice: by the L2 penalty and by the optimizer's "
        "weight_decay.",
        "Choose one: weight_decay=0, or optimizer.exclude_from_weight_decay(...), or "
        "no penalty.",
    )


_NORM_OR_BIAS = ("bias", "scale", "shift")


def norm_or_bias(subject):
    weights = [w for w in subject.penalized if w.role in _NORM_OR_BIAS]
    return weights and Finding(
        "norm-or-bias",
        "warning",
        names_of(weights),
        "Biases, scales or shifts have a penalty, which costs fit and hardly prevents "
        "overfitting.",
        "Drop bias_regularizer, gamma_regularizer, beta_regularizer.",
    )


def decays_bias_or_norm(subject):
    weights = [
        w
        for w in subject.made
        if w.role in _NORM_OR_BIAS and _keras.decays_in(subject.model, w.variable)
    ]
    return weights and Finding(
        "decays-bias-or-norm",
        "warning",
        names_of(weights),
        "The optimizer's weight_decay reaches biases, scales or shifts: Keras decays "
        "every trainable weight, and saves no exclusions.",
        "Call set_weight_decay(model.optimizer, model, rate), which decays kernels "
        "only; after each load again.",
    )


def dominates(subject):
    if subject.batch is None:
        return None
    data_loss = _keras.fresh_data_loss(subject.model)
    data = number(data_loss(subject.batch[1], subject.outputs))
    now = penalties(subject.model)
    total = sum(now.values())
    if not total > subject.max_share * abs(data):
        return None
    return Finding(
        "dominates",
        "warning",
        tuple(sorted(now, key=now.get, reverse=True)),
        f"On this batch the penalty, {total:.4g}, is more than "
        f"{subject.max_share:.0%} of the data's loss, {data:.4g}.",
        "Try a smaller strength.",
    )


def frozen(subject):
    trainable = {w.name for w in subject.trainable}
    weights = [
        w
        for w in subject.weights
        if w.regularizer is not None and w.name not in trainable
    ]
    return weights and Finding(
        "frozen",
        "info",
        names_of(weights),
        "The weight is frozen, so that Keras leaves its penalty out of the loss.",
        "Nothing, if it is meant to be frozen; else set trainable=True and compile.",
    )


_ADAPTIVE = {
    *("Adam", "Adamax", "Nadam", "RMSprop", "Adagrad", "Adadelta"),
    *("Adafactor", "Lamb", "Lion", "Muon", "ScheduleFreeAdamW"),
}


def _is_adaptive(optimizer):
    # By name: older versions of Keras don't have them all.
    return not _ADAPTIVE.isdisjoint(kind.__name__ for kind in type(optimizer).mro())


def coupled_adaptive(subject):
    weights = [
        w
        for w in subject.penalized
        if l2_of(w) and _is_adaptive(_keras.optimizer_for(subject.model, w.variable))
    ]
    return weights and Finding(
        "coupled-adaptive",
        "info",
        names_of(weights),
        "An adaptive optimizer divides the penalty's gradient by the gradients' size, "
        "so that L2 acts not as weight decay (Loshchilov & Hutter 2019).",
        "For decay, use AdamW (or weight_decay=...) in place of the penalty.",
    )


def scale_invariant(subject):
    consumers = _keras.consumers(subject.model)
    weights = [
        w
        for w in subject.penalized
        if w.role in KERNEL_ROLES
        and l2_of(w)
        # A weight of the model itself belongs to no layer of the graph.
        and w.layers
        and is_normalized(w.layers[-1], consumers)
    ]
    return weights and Finding(
        "scale-invariant",
        "info",
        names_of(weights),
        "A normalization follows, so that L2 changes the effective step size, not "
        "what the model can express (van Laarhoven 2017).",
        "Nothing; but tune this strength together with the learning rate.",
    )


CHECKS = (
    never_applied,
    constraint_never_applied,
    stale_trace,
    half_precision,
    duplicated_regularizer,
    duplicated_term,
    duplicated_by_add_loss,
    lost,
    exclusions_lost,
    last_layer_only,
    partly_covered,
    double_decay,
    norm_or_bias,
    decays_bias_or_norm,
    dominates,
    frozen,
    coupled_adaptive,
    scale_invariant,
    no_penalty,
    not_built,
)
