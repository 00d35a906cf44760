"""What can be wrong with a model's penalties: one function per finding.

Each check gets a `Subject`, what is known of the model, and returns a `Finding` or
something false. None of them changes the model.
"""

import math

from keras import ops

from keras_l2reg import _keras
from keras_l2reg._duplicates import (
    duplicated_by_add_loss,
    duplicated_regularizer,
    duplicated_term,
)
from keras_l2reg._experiment import number
from keras_l2reg._scale_invariance import is_normalized
from keras_l2reg._stale import stale_steps
from keras_l2reg._subject import Finding, l2_of, names_of
from keras_l2reg.attachment import attachment_of
from keras_l2reg.measure import penalties
from keras_l2reg.persistence import lost_on_save
from keras_l2reg.selection import KERNEL_ROLES


def _is_never_applied(weight):
    return (
        weight.variable is not None
        and weight.regularizer is None
        and weight.slot_value is not None
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


def stale_trace(subject):
    steps = stale_steps(subject.model, subject.batch)
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
        and not math.isfinite(number(w.regularizer(w.variable)))
        and math.isfinite(number(w.regularizer(ops.cast(w.variable, "float32"))))
    ]
    return weights and Finding(
        "half-precision",
        "error",
        names_of(weights),
        "The penalty overflows float16, which ends at 65504, so that the loss is "
        "infinite or NaN.",
        "Use keras_l2reg.L2, which adds up in float32, or the policy mixed_float16.",
    )


def lost(subject):
    model = subject.model
    inner = getattr(model, "wrapped_model", None)
    names = lost_on_save(inner or model)
    if inner is not None:
        # What a wrapper put on, it saves by itself.
        original = attachment_of(inner).original
        own = {w.name for w in subject.weights if original(w) is not w.regularizer}
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


def last_layer_only(subject):
    with_penalty = [w for w in subject.kernels if w.regularizer]
    without = [w for w in subject.kernels if not w.regularizer]
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


def double_decay(subject):
    weights = [
        w
        for w in subject.penalized
        if l2_of(w)
        and _keras.decays(_keras.optimizer_for(subject.model, w.variable), w.variable)
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


def norm_or_bias(subject):
    weights = [w for w in subject.penalized if w.role in ("bias", "scale", "shift")]
    return weights and Finding(
        "norm-or-bias",
        "warning",
        names_of(weights),
        "Biases, scales or shifts have a penalty, which costs fit and hardly prevents "
        "overfitting.",
        "Drop bias_regularizer, gamma_regularizer, beta_regularizer.",
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
    weights = [w for w in subject.weights if w.regularizer and w.name not in trainable]
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
    stale_trace,
    half_precision,
    duplicated_regularizer,
    duplicated_term,
    duplicated_by_add_loss,
    lost,
    last_layer_only,
    double_decay,
    norm_or_bias,
    dominates,
    frozen,
    coupled_adaptive,
    scale_invariant,
)
