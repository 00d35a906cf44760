"""attach, detach: add a penalty to a model's weights in place, and remove it.

Keras stores the penalty of a weight in three places:

===========  ==================================  ===============================
place        where                               read by
===========  ==================================  ===============================
effect       `variable.regularizer`              `model.losses`
persistence  the layer's `*_regularizer`         `build`, `get_config`, save/load
trace        `train_function`, `test_function`   `fit`, `evaluate`
===========  ==================================  ===============================

`attach` updates all three; `detach` restores exactly what was there before.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> len(model.losses), len(attach(model, 0.01).losses), len(detach(model).losses)
(0, 1, 0)
"""

import warnings
from collections.abc import Iterable

import keras

from keras_l2reg import _keras, _ledger
from keras_l2reg._persistence import lost_on_save
from keras_l2reg._plan import (
    RegularizerLike,
    as_regularizer,
    plan_attachment,
    regularizer_for,
    warn_if_kept,
)
from keras_l2reg._rule import Existing, Patterns, Rule
from keras_l2reg._stack import Attachment, Regularizer
from keras_l2reg._strengths import strength_variables
from keras_l2reg._validation import check_is_model
from keras_l2reg.weights import Weight, find_weights, inner_model, listed


def attach(
    model: keras.Model,
    regularizer: RegularizerLike = 0.01,
    *,
    biases: bool = False,
    embeddings: bool = False,
    layers: Patterns | None = None,
    exclude: Patterns | None = None,
    multipliers: dict[str, float] | None = None,
    existing: Existing | None = None,
) -> keras.Model:
    """Add a penalty to every covered weight of a model, in place.

    `model.losses` gets one term `multiplier * regularizer(w)` per covered trainable
    weight. Attaching again replaces what was attached before, unless
    `existing="add"`. A weight may be shared by several models, whose penalties are
    attached and detached independently.

    Args:
        model: A `keras.Model`, built or not, compiled or not, trained or not.
        regularizer: A float, as `l2` of `keras.regularizers.L2`; or a Keras
            regularizer, its name or config. Or a dict from globs over weight names to
            one of these, or to `None` for weights to leave out, such as `{"*": 0.01,
            "head/*": keras.regularizers.L1(0.001)}`; the last match wins, and weights
            that match nothing are left alone. With L1, gradient steps make no weight
            exactly zero. Defaults to `0.01`.
        biases: Boolean, whether to cover biases as well. Defaults to `False`.
        embeddings: Boolean, whether to cover embedding tables as well. Defaults to
            `False`.
        layers: A layer class, a glob over weight names such as `"head/*"`, or a list
            of these. Defaults to `None`, all layers.
        exclude: As `layers`, for the weights to leave out. Defaults to `None`, none.
        multipliers: Dict from globs over weight names to finite floats >= 0; the last
            match wins, 0 leaves the weight out. Defaults to `None`.
        existing: `"keep"`, `"replace"` or `"add"`: what to do with covered weights that
            already have a regularizer. `"keep"` keeps it, `"replace"` replaces it,
            `"add"` adds the new one to it. Defaults to `None`, which is `"keep"` with
            a warning that names these weights.

    Returns:
        The model.

    Raises:
        TypeError, ValueError: an invalid argument; the model is not changed.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    >>> len(attach(model, 0.01, multipliers={"dense*": 0.1}).losses)
    2
    """
    check_is_model(model)
    if inner_model(model) is not model:
        raise ValueError(
            "Expected a model that is not wrapped: an `L2AllWeights` has a penalty "
            f"already. Received: model={model.name!r}; set its `l2`, or attach to the "
            "model that its `unwrap(strip=True)` returns"
        )
    regularizer = as_regularizer(regularizer)
    rule = Rule(
        biases=biases,
        embeddings=embeddings,
        layers=layers,
        exclude=exclude,
        multipliers=multipliers,
    )
    weights = find_weights(model)
    choices, kept = plan_attachment(
        model, regularizer, existing, weights=weights, **rule
    )
    earlier = [] if existing == "add" else _attached_to(model, weights)
    _ledger.record_model(model, weights)
    of_weight = regularizer_for(regularizer)
    _ledger.push(Attachment(model), choices, weights, of_weight, earlier)
    warn_if_kept(kept, existing)
    _warn_if_constant(model, regularizer)
    _warn_if_lost_on_save(model, weights, {choice.weight.name for choice in choices})
    return model


def _warn_if_constant(model: keras.Model, regularizer: Regularizer) -> None:
    tracked = {id(v) for v in model.variables}
    if _keras.backend.traces_constants and any(
        id(variable) not in tracked for variable in strength_variables(regularizer)
    ):
        warnings.warn(
            "This strength is a variable that the model does not track, so JAX "
            "compiles its current value into the step. Wrap the model with "
            "`L2AllWeights` for a live strength.",
            stacklevel=3,
        )


def _warn_if_lost_on_save(
    model: keras.Model, weights: list[Weight], names: set[str]
) -> None:
    lost = [name for name in lost_on_save(model, weights) if name in names]
    if lost:
        warnings.warn(
            f"The configuration of {model.name!r} does not include the penalty of "
            "these weights, so save/load (and often clone_model) loses it; wrap "
            f"the model with `L2AllWeights` to keep it: {listed(lost)}",
            stacklevel=3,
        )


def detach(model: keras.Model) -> keras.Model:
    """Remove what `attach` added to a model, and restore what was there before.

    If nothing was attached, the penalties of wrappers around the model are removed.
    The penalties of other models on shared weights stay.

    Args:
        model: A `keras.Model` that `attach` was called on in this process.

    Returns:
        The model.

    Raises:
        TypeError: not a Keras model.
        ValueError: nothing is attached, or the model is an `L2AllWeights`.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, kernel_regularizer="l1")])
    >>> detach(attach(model, 0.01, existing="replace")).layers[0].kernel_regularizer
    ... # doctest: +ELLIPSIS
    <...L1 object at ...>
    """
    check_is_model(model)
    if inner_model(model) is not model:
        raise ValueError(
            "Expected a model that `attach` was called on. "
            f"Received: the wrapper {model.name!r}; its `unwrap(strip=True)` removes "
            "the penalty and returns the inner model"
        )
    weights = find_weights(model)
    attachments = _attached_to(model, weights) or _attachments_by(model, weights)
    if not attachments:
        raise ValueError(
            "Expected a model that `attach` was called on in this process. "
            f"Received: model={model.name!r}, to which nothing is attached; for a "
            "model that was saved and loaded, the earlier regularizers are unknown: "
            "`attach(model, 0.0, existing='replace')` turns its penalties off"
        )
    _ledger.remove(attachments)
    return model


def _attached_to(model: keras.Model, weights: Iterable[Weight]) -> list[Attachment]:
    """The attachments that `attach` made for this model, without those of wrappers."""
    return [a for a in _attachments_by(model, weights) if not a.by_wrapper]


def _attachments_by(model: keras.Model, weights: Iterable[Weight]) -> list[Attachment]:
    """All attachments made for this model, by `attach` or by a wrapper."""
    return [a for a in _ledger.attachments(weights) if a.model is model]


def is_attached(model: keras.Model) -> bool:
    """Whether a model has a penalty of this package, by `attach` or a wrapper.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> is_attached(model), is_attached(attach(model, 0.01))
    (False, True)
    """
    return bool(_attachments_by(model, find_weights(model)))
