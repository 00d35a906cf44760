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

from keras_l2reg import _keras, _ledger
from keras_l2reg._ledger import Choice
from keras_l2reg._persistence import lost_on_save
from keras_l2reg._selection import select_weights
from keras_l2reg._strengths import strength_variables
from keras_l2reg._validation import as_number, check_model
from keras_l2reg.regularizers import (
    L2,
    L2Loss,
    Scaled,
    Sum,
    get_regularizer,
    safe_for,
)
from keras_l2reg.weights import find_weights, inner_model, listed


def attach(
    model,
    regularizer=0.01,
    *,
    biases=False,
    embeddings=False,
    layers=None,
    exclude=None,
    multipliers=None,
    existing=None,
):
    """Put a penalty on every covered weight of a model, in place, at once.

    `model.losses` gets one term `multiplier * regularizer(w)` per covered trainable
    weight. Attaching again replaces what was attached before, unless
    `existing="add"`. A weight may belong to several models: each attaches to it and
    detaches from it by itself, in any order.

    Args:
        model: A `keras.Model`, built or not, compiled or not, trained or not.
        regularizer: A float, Keras' `l2`; or a Keras regularizer, its name or
            config. Defaults to `0.01`.
        biases: Boolean, whether to cover biases as well. Defaults to `False`.
        embeddings: Boolean, whether to cover embedding tables as well. Defaults to
            `False`.
        layers: A layer class, a glob over weight names such as `"head/*"`, or a list
            of these. Defaults to `None`, all layers.
        exclude: As `layers`, but to leave weights out. Defaults to `None`, none.
        multipliers: Dict from globs over weight names to finite floats >= 0; the last
            match wins, 0 leaves the weight out. Defaults to `None`.
        existing: What becomes of regularizers that a covered weight has already:
            `"keep"` leaves these weights alone, `"replace"` drops them, `"add"`
            keeps them and adds the new. Defaults to `None`, which is `"keep"` with a
            warning that names the weights left alone.

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
    check_model(model)
    if inner_model(model) is not model:
        raise ValueError(
            "Expected a model that is not wrapped: an `L2AllWeights` looks after its "
            f"own penalty. Received: model={model.name!r}; set its `l2`, or attach to "
            "what its `unwrap(strip=True)` returns"
        )
    regularizer = as_regularizer(regularizer)
    rule = {
        "biases": biases,
        "embeddings": embeddings,
        "layers": layers,
        "exclude": exclude,
        "multipliers": multipliers,
    }
    choices, left_out = plan_attachment(model, regularizer, existing, **rule)
    weights = find_weights(model)
    earlier = [] if existing == "add" else _attachments_of(model, weights)
    _ledger.record_model(model, weights)
    _ledger.push(
        _ledger.Attachment(model),
        choices,
        weights,
        regularizer_for(regularizer),
        earlier,
    )
    warn_if_left_out(left_out, existing)
    _warn_if_constant(model, regularizer)
    _warn_if_lost_on_save(model, [choice.weight.name for choice in choices])
    return model


def _attachments_of(model, weights):
    """What `attach` put on the weights by way of this model."""
    return [
        attachment
        for attachment in _ledger.attachments(weights)
        if attachment.model is model and not attachment.by_wrapper
    ]


def _warn_if_constant(model, regularizer):
    tracked = {id(v) for v in model.variables}
    if _keras.backend.traces_constants and any(
        id(variable) not in tracked for variable in strength_variables(regularizer)
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
            f"model with `L2AllWeights` to keep it: {listed(lost)}",
            stacklevel=3,
        )


def warn_if_left_out(names, existing):
    """Name the weights that a plan left alone, unless this was asked for."""
    if names and existing is None:
        warnings.warn(
            "These weights have a penalty already, which is kept, so that the new "
            f"one does not reach them: {listed(names)}. Pass existing='replace' or "
            "'add' to reach them, or existing='keep' if this is what you want.",
            stacklevel=3,
        )


def plan_attachment(model, regularizer, existing=None, **rule):
    """Check everything and choose the weights, without writing anything.

    Args:
        model, existing: as in `attach`.
        regularizer: A callable from `as_regularizer`.
        **rule: `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, as in
            `select_weights`.

    Returns:
        A list of `Choice`, and the names of the weights that are left alone for a
        penalty that they have already.

    Raises:
        TypeError, ValueError: as `attach`.

    Example:

    >>> layer = keras.layers.Dense(3, name="a", kernel_regularizer="l1")
    >>> model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])
    >>> choices, left_out = plan_attachment(model, L2(0.5))
    >>> len(choices), left_out
    (1, ['a/kernel'])
    """
    check_existing(existing)
    regularizer_of = regularizer_for(regularizer)
    choices, left_out = [], []
    for weight, factor in select_weights(model, **rule):
        below = regularizer_beside(weight, model)
        if below is not None and existing in (None, "keep"):
            left_out.append(weight.name)
            continue
        new = regularizer_of(weight, factor)
        adds = existing == "add"
        _check_applies(Sum([below, new]) if adds and below is not None else new, weight)
        choices.append(Choice(weight, factor, adds))
    if not choices:
        raise ValueError(
            "Expected at least one weight to put the penalty on. Received: weights "
            f"that all have one already ({listed(left_out)}), which is kept; pass "
            "existing='replace' to put the new penalty in its place, or "
            "existing='add' to have both"
        )
    return choices, left_out


def check_existing(existing):
    """Raise a ValueError if there is no such way to treat existing regularizers.

    >>> check_existing("keep")
    """
    if existing not in (None, "keep", "replace", "add"):
        raise ValueError(
            "Invalid value for argument `existing`. Expected 'keep' (leaves weights "
            "alone that have a penalty), 'replace', 'add' or `None` ('keep' with a "
            f"warning). Received: existing={existing!r}"
        )


def regularizer_beside(weight, model):
    """What a weight would have if nothing had been put on it by way of `model`.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> weight = find_weights(attach(model, 0.1))[0]
    >>> weight.regularizer is None, regularizer_beside(weight, model) is None
    (False, True)
    """
    stack = _ledger.stack_of(weight)
    if stack is None:
        return weight.regularizer
    return stack.value(lambda old: old is not None and old.model is model)


def regularizer_for(regularizer):
    """The function from a weight and its multiplier to what is put on the weight.

    `multiplier * regularizer(w)`, in float32 for weights of half types; one object for
    all weights of one multiplier and type.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> weight = find_weights(model)[0]
    >>> regularizer_for(L2(0.5))(weight, 1.0).l2
    0.5
    >>> regularizer_for(L2(0.5))(weight, 0.1).factor
    0.1
    """

    @functools.cache
    def of_kind(factor, dtype):
        new = regularizer if factor == 1.0 else Scaled(regularizer, factor)
        return safe_for(dtype, new)

    def of_weight(weight, factor):
        if weight.variable is None:
            return of_kind(factor, weight.config_layer.variable_dtype)
        return of_kind(factor, weight.variable.dtype)

    return of_weight


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
    if isinstance(value, keras.Variable) or as_number(value) is not None:
        return L2(value)
    value = get_regularizer(value, "regularizer", "a float, a Keras regularizer")
    _keras.check_variables_take(value)
    return value


def _check_applies(regularizer, weight):
    # L2 fits every weight; others (OrthogonalRegularizer) want a certain rank.
    if weight.variable is None or type(regularizer) in (L2, L2Loss):
        return
    try:
        penalty = regularizer(weight.variable)
    except Exception as error:
        raise ValueError(
            "Expected a regularizer that applies to every covered weight. Received: "
            f"{type(regularizer).__name__}, which fails on {weight.name} of shape "
            f"{tuple(weight.variable.shape)}: {error}. Leave such weights out by "
            "`layers` or `exclude`"
        ) from error
    if tuple(getattr(penalty, "shape", ())) != ():
        raise ValueError(
            "Expected a regularizer that returns a scalar. Received: "
            f"{type(regularizer).__name__}, which returns the shape "
            f"{tuple(penalty.shape)} for {weight.name}; return its sum: "
            "`keras.ops.sum(...)`"
        )


def detach(model):
    """Take off what `attach` put on a model; what was there before is back.

    Where nothing was attached, the penalties of wrappers around the model are taken
    off. What other models put on shared weights stays.

    Args:
        model: A `keras.Model` that `attach` was called on in this process.

    Returns:
        The model.

    Raises:
        TypeError: not a Keras model.
        ValueError: nothing is attached, or the model is a wrapper.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l1")])
    >>> detach(attach(model, 0.01, existing="replace")).layers[0].kernel_regularizer
    ... # doctest: +ELLIPSIS
    <...L1 object at ...>

    Source: the inverse of `attach`.
    """
    check_model(model)
    if inner_model(model) is not model:
        raise ValueError(
            "Expected a model that `attach` was called on. "
            f"Received: the wrapper {model.name!r}; take its penalty off by its "
            "`unwrap(strip=True)`, which returns the model within"
        )
    weights = find_weights(model)
    attachments = _attachments_of(model, weights) or attachments_by(model, weights)
    if not attachments:
        raise ValueError(
            "Expected a model that `attach` was called on in this process. "
            f"Received: model={model.name!r}, to which nothing is attached; a model "
            "that was saved and loaded does not remember what was there before: "
            "`attach(model, 0.0, existing='replace')` switches its penalties off"
        )
    _ledger.lift(attachments)
    return model


def attachments_by(model, weights):
    """All that was put on the weights by way of this model, wrappers' included."""
    return [a for a in _ledger.attachments(weights) if a.model is model]


def is_attached(model):
    """Whether a penalty of this package stands on a model, by `attach` or a wrapper.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> is_attached(model), is_attached(attach(model, 0.01))
    (False, True)
    """
    return bool(attachments_by(model, find_weights(model)))
