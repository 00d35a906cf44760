"""attach, detach: keep a penalty's effect, its persistence and the trace in step.

Keras holds the truth about a penalty in three places:

===========  ==================================  ===============================
place        where                               read by
===========  ==================================  ===============================
effect       `variable.regularizer`              `model.losses`
persistence  the layer's `*_regularizer`         `build`, `get_config`, save/load
trace        `train_function`, `test_function`   `fit`, `evaluate`
===========  ==================================  ===============================

`attach` writes all three together; `detach` puts back exactly what was there.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> len(model.losses), len(attach(model, 0.01).losses), len(detach(model).losses)
(0, 1, 0)
"""

import functools
import warnings

import keras

from keras_l2reg import _keras
from keras_l2reg.persistence import lost_on_save
from keras_l2reg.regularizers import L2, L2Loss, Scaled, Sum, safe_for
from keras_l2reg.selection import select
from keras_l2reg.weights import find_weights

# A plain object on the model: Keras tracks layers, variables, lists and dicts only.
_BOOKMARK = "_keras_l2reg_attachment"


class Attachment:
    """What was on a model before: enough to put it back exactly."""

    def __init__(self):
        self.effects = {}  # id(variable): (variable, regularizer)
        self.slots = {}  # (id(holder), attribute): (holder, attribute, regularizer)

    def original(self, weight):
        """The regularizer that `weight` would have, had nothing been attached."""
        if id(weight.variable) in self.effects:
            return self.effects[id(weight.variable)][1]
        if weight.slot in self.slots:
            # Made after the attachment, so what it has comes from the attribute.
            return self.slots[weight.slot][2]
        return weight.regularizer

    def note(self, weight):
        """Remember what `weight` holds now."""
        if weight.variable is not None:
            self.effects[id(weight.variable)] = (weight.variable, weight.regularizer)
        if weight.slot:
            entry = (weight.holder, weight.attribute, weight.slot_value)
            self.slots.setdefault(weight.slot, entry)


def attach(
    model,
    regularizer=0.01,
    *,
    biases=False,
    embeddings=False,
    layers=None,
    multipliers=None,
    existing="keep",
):
    """Put a penalty on every covered weight of a model, in place, at once.

    `model.losses` gets one term `multiplier * regularizer(w)` per covered trainable
    weight. Attaching again replaces what was attached before.

    Args:
        model: A `keras.Model`, built or not, compiled or not, trained or not.
        regularizer: A float, Keras' `l2`; or a Keras regularizer, its name or
            config. Defaults to `0.01`.
        biases: Boolean, whether to cover biases as well. Defaults to `False`.
        embeddings: Boolean, whether to cover embedding tables as well. Defaults to
            `False`.
        layers: A layer class, a glob over weight names such as `"head/*"`, or a list
            of these. Defaults to `None`, all layers.
        multipliers: Dict from globs over weight names to finite floats >= 0; the last
            match wins, 0 leaves the weight out. Defaults to `None`.
        existing: What becomes of regularizers that a covered weight has already:
            `"keep"` leaves these weights alone, `"replace"` drops them, `"add"`
            keeps them and adds the new. Defaults to `"keep"`.

    Returns:
        The model.

    Raises:
        TypeError, ValueError: a bad argument; the model is left as it was.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> len(attach(model, 0.01, multipliers={"dense*": 0.1}).losses)
    2

    Source: `model.add_loss(beta * tf.nn.l2_loss(w))` for each weight matrix, as the
    regularizers of https://keras.io/api/layers/regularizers/
    """
    if isinstance(model, keras.Model) and hasattr(model, "wrapped_model"):
        raise ValueError(
            "Expected a model that is not wrapped: an `L2AllWeights` looks after its "
            f"own penalty. Received: model={model.name!r}"
        )
    plan = plan_attachment(
        model,
        regularizer,
        biases=biases,
        embeddings=embeddings,
        layers=layers,
        multipliers=multipliers,
        existing=existing,
    )
    write(model, plan)
    _warn_if_constant(model, regularizer)
    _warn_if_lost_on_save(model, [weight.name for weight, _ in plan])
    return model


def _warn_if_constant(model, regularizer):
    tracked = {id(v) for v in model.variables}
    strengths = getattr(regularizer, "__dict__", {}).values()
    if _keras.traces_constants() and any(
        isinstance(s, keras.Variable) and id(s) not in tracked for s in strengths
    ):
        warnings.warn(
            "This strength is a variable that the model does not track, so JAX bakes "
            "its present value into the compiled step. Wrap the model with "
            "`L2AllWeights` for a strength that stays live.",
            stacklevel=3,
        )


def _warn_if_lost_on_save(model, names):
    lost = [name for name in lost_on_save(model) if name in names]
    if lost:
        warnings.warn(
            f"The configuration of {model.name!r} can't carry the penalty of these "
            "weights, so that save/load (and often clone_model) drops it; wrap the "
            f"model with `L2AllWeights` to keep it: {', '.join(lost)}",
            stacklevel=3,
        )


def plan_attachment(model, regularizer, *, existing="keep", **rule):
    """Check everything and say what to write, without writing anything.

    Args:
        model, regularizer, existing: as in `attach`.
        **rule: `biases`, `embeddings`, `layers`, `multipliers`, as in `select`.

    Returns:
        A list of `(Weight, regularizer)`.

    Raises:
        TypeError, ValueError: as `attach`.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [(w.name, r.l2) for w, r in plan_attachment(model, 0.5)]
    [('a/kernel', 0.5)]

    Source: `attach`.
    """
    regularizer = as_regularizer(regularizer)
    if existing not in ("keep", "replace", "add"):
        raise ValueError(
            "Invalid value for argument `existing`. Expected 'keep', 'replace' or "
            f"'add'. Received: existing={existing!r}"
        )
    before = attachment_of(model)
    scaled = functools.cache(lambda factor: Scaled(regularizer, factor))
    added = functools.cache(lambda *terms: Sum(terms))
    safe = {}  # by identity: a user's regularizer need not be hashable
    plan = []
    for weight, factor in select(model, **rule):
        original = before.original(weight)
        if existing == "keep" and original is not None:
            continue
        new = regularizer if factor == 1.0 else scaled(factor)
        if existing == "add" and original is not None:
            new = added(original, new)
        dtype = _dtype(weight)
        new = safe.setdefault((id(new), dtype), safe_for(dtype, new))
        _check_applies(new, weight)
        plan.append((weight, new))
    return plan


def _dtype(weight):
    if weight.variable is None:
        return weight.holder.variable_dtype
    return weight.variable.dtype


def as_regularizer(value):
    """`value` as a Keras regularizer: a number is the strength of `L2`.

    Args:
        value: A float, a Keras regularizer, its name or its config.

    Returns:
        A callable from a weight to a scalar.

    Raises:
        TypeError: `value` is no regularizer.
        ValueError: an unknown name, or a negative, infinite or NaN strength.

    Example:

    >>> as_regularizer(0.5).get_config()
    {'l2': 0.5}

    Source: `keras.regularizers.get`.
    """
    if isinstance(value, (str, dict)):
        return keras.regularizers.get(value)
    if callable(value) and not isinstance(value, (type, keras.Variable)):
        _keras.check_variables_take(value)
        return value
    if value is None or isinstance(value, (list, tuple, type)):
        raise TypeError(
            "Invalid type for argument `regularizer`. Expected a float, a Keras "
            f"regularizer, its name or its config. Received: regularizer={value!r}"
        )
    return L2(value)


def _check_applies(regularizer, weight):
    # L2 fits every weight; others (OrthogonalRegularizer) want a certain rank.
    if weight.variable is None or isinstance(regularizer, (L2, L2Loss)):
        return
    try:
        penalty = regularizer(weight.variable)
    except Exception as error:
        raise ValueError(
            "Expected a regularizer that applies to every covered weight. Received: "
            f"{type(regularizer).__name__}, which fails on {weight.name} of shape "
            f"{tuple(weight.variable.shape)}: {error}"
        ) from error
    if tuple(getattr(penalty, "shape", ())) != ():
        raise ValueError(
            "Expected a regularizer that returns a scalar. Received: "
            f"{type(regularizer).__name__}, which returns the shape "
            f"{tuple(penalty.shape)} for {weight.name}"
        )


def write(model, plan):
    """Write effect, persistence and trace together, as planned.

    Args:
        model: The `keras.Model` that the plan was made for.
        plan: A list of `(Weight, regularizer)`, from `plan_attachment`.

    Returns:
        The `Attachment` that `detach` will need.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> attachment = write(model, plan_attachment(model, 0.5))
    >>> len(model.losses)
    1

    Source: `keras.Variable.regularizer`, `keras.Model.make_train_function`.
    """
    _restore(model)
    attachment = Attachment()
    wanted = {weight.name: regularizer for weight, regularizer in plan}
    touched = {weight.slot for weight, _ in plan if weight.slot}
    by_slot = {}
    for weight in find_weights(model):
        if weight.name not in wanted and weight.slot not in touched:
            continue
        attachment.note(weight)
        new = wanted.get(weight.name, weight.regularizer)
        if weight.variable is not None:
            weight.variable.regularizer = new
        if weight.slot and not weight.is_frozen_lora_base:
            by_slot.setdefault(weight.slot, []).append((weight, new))
    for sharers in by_slot.values():
        weight, new = sharers[0]
        # One attribute can't say different things of the weights that it stands for.
        if all(other is new for _, other in sharers):
            setattr(weight.holder, weight.attribute, new)
    object.__setattr__(model, _BOOKMARK, attachment)
    drop_trace(model)
    return attachment


def _restore(model):
    attachment = getattr(model, _BOOKMARK, None)
    if attachment is None:
        return
    for weight in find_weights(model):
        if weight.variable is not None:
            weight.variable.regularizer = attachment.original(weight)
    for variable, regularizer in attachment.effects.values():
        variable.regularizer = regularizer
    for holder, attribute, regularizer in attachment.slots.values():
        setattr(holder, attribute, regularizer)
    forget(model)


def forget(model):
    """Leave what is attached as it is, for good: `detach` no longer knows of it.

    >>> model = attach(keras.Sequential([keras.layers.Dense(3)]), 0.01)
    >>> forget(model)
    >>> is_attached(model)
    False
    """
    if is_attached(model):
        object.__delattr__(model, _BOOKMARK)


def drop_trace(model):
    """Make the next step of `fit` and `evaluate` see the model as it is now.

    Args:
        model: A `keras.Model`; one that was not compiled or run is left alone.

    Example:

    >>> drop_trace(keras.Sequential([keras.layers.Dense(1)]))

    Source: `keras.Model.make_train_function(force=True)`.
    """
    for step in _keras.traced_functions(model):
        getattr(model, f"make_{step}_function")(force=True)


def detach(model):
    """Put back exactly what was on a model before `attach`.

    Args:
        model: A `keras.Model` that `attach` was called on in this process.

    Returns:
        The model.

    Raises:
        ValueError: nothing is attached.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l1")])
    >>> detach(attach(model, 0.01, existing="replace")).layers[0].kernel_regularizer
    ... # doctest: +ELLIPSIS
    <...L1 object at ...>

    Source: the inverse of `attach`.
    """
    if not is_attached(model):
        raise ValueError(
            "Expected a model that `attach` was called on (a saved and loaded model "
            f"does not remember what was there before). Received: model={model!r}"
        )
    _restore(model)
    drop_trace(model)
    return model


def is_attached(model):
    """Whether `attach` put a penalty on this model, which `detach` can take off.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> is_attached(model), is_attached(attach(model, 0.01))
    (False, True)
    """
    return hasattr(model, _BOOKMARK)


def attachment_of(model):
    """The model's `Attachment`; an empty one where nothing is attached."""
    return getattr(model, _BOOKMARK, None) or Attachment()
