"""Plan an attachment: check the arguments and choose the weights, change nothing.

>>> layer = keras.layers.Dense(3, name="a", kernel_regularizer="l1")
>>> model = keras.Sequential([keras.Input((4,)), layer, keras.layers.Dense(2)])
>>> choices, kept = plan_attachment(model, as_regularizer(0.5))
>>> len(choices), kept
(1, ['a/kernel'])
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Unpack

import keras

from keras_l2reg import _keras
from keras_l2reg._any_regularizer import get_regularizer
from keras_l2reg._ledger import Choice
from keras_l2reg._parts import Parts, last_match
from keras_l2reg._rule import Existing, Pattern, Rule
from keras_l2reg._selection import covered_weights, matching_weights
from keras_l2reg._stack import Regularizer, stack_of
from keras_l2reg._strengths import check_strength
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg._validation import as_number
from keras_l2reg.regularizers import L2, SUMMING, Scaled, Sum, safe_for
from keras_l2reg.weights import Weight, listed

# The choices, and the names of the weights that keep their existing penalty.
Plan = tuple[list[Choice], list[str]]
# What users may pass: a strength, a regularizer, a name or a config.
RegularizerLike = float | keras.Variable | Callable[..., Any] | str | dict[str, Any]


def as_regularizer(value: RegularizerLike) -> Any:
    """Convert to a Keras regularizer; a number is the strength of `L2`.

    Args:
        value: A float or a scalar `keras.Variable`, a Keras regularizer, its name or
            its config; or a dict from globs over weight names to one of these, or to
            `None`.

    Returns:
        A callable from a weight to a scalar; `Parts` for a dict from globs.

    Raises:
        TypeError: `value` is not a regularizer.
        ValueError: an unknown name, or a negative, infinite or NaN strength.

    Example:

    >>> as_regularizer(0.5).get_config()
    {'l2': 0.5}
    """
    if isinstance(value, Mapping) and "class_name" not in value:
        parts: Any = value
        return Parts(
            {
                glob: None if part is None else _single(part, f"regularizer[{glob!r}]")
                for glob, part in parts.items()
            }
        )
    return _single(value, "regularizer")


def _single(value: Any, name: str) -> Any:
    if isinstance(value, keras.Variable) or as_number(value) is not None:
        return L2(check_strength(value, name))
    found = get_regularizer(value, name, "a float, a Keras regularizer")
    _keras.check_variables_accept(found)  # pyright: ignore[reportArgumentType]
    return found


def plan_attachment(
    model: keras.Model,
    regularizer: Regularizer | Parts,
    existing: Existing | None = None,
    towards_start: Sequence[Pattern] = (),
    weights: list[Weight] | None = None,
    **rule: Unpack[Rule],
) -> Plan:
    """Check all arguments and choose the weights, without changing anything.

    Args:
        model, existing: as in `attach`.
        regularizer: What `as_regularizer` returned.
        towards_start: Patterns, for the weights whose penalty is on the distance from
            their starting value. Defaults to none.
        weights: What `find_weights(model)` returned. Defaults to `None`, find them.
        **rule: `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, as in
            `select_weights`.

    Returns:
        A list of `Choice`, and the names of the weights that keep their existing
        penalty.

    Raises:
        TypeError, ValueError: as `attach`.
    """
    check_existing(existing)
    regularizer_of = regularizer_for(regularizer)
    parts = regularizer.by_glob if isinstance(regularizer, Parts) else None
    covered = covered_weights(model, weights, regularizer=parts, **rule)
    towards = matching_weights(
        towards_start, [weight for weight, _ in covered], model, "towards_start"
    )
    towards_names = {weight.name for weight in towards}
    choices, kept = [], []
    for weight, factor in covered:
        current = regularizer_without(weight, model)
        if current is not None and existing in (None, "keep"):
            kept.append(weight.name)
            continue
        is_towards_start = weight.name in towards_names
        choice = Choice(weight, factor, existing == "add", is_towards_start)
        new = regularizer_of(choice)
        total = Sum([current, new]) if choice.adds and current is not None else new
        _check_applies(total, weight)
        choices.append(choice)
    if not choices:
        raise ValueError(
            "Expected at least one weight to put the penalty on. Received: weights "
            f"that all have one already ({listed(kept)}), which is kept; pass "
            "existing='replace' to replace it with the new penalty, or "
            "existing='add' to have both"
        )
    return choices, kept


def warn_if_kept(names: list[str], existing: Existing | None) -> None:
    """Warn about weights that keep their penalty, unless `existing` was passed."""
    if names and existing is None:
        warnings.warn(
            "These weights already have a penalty, which is kept, so the new one "
            f"does not apply to them: {listed(names)}. Pass existing='replace' or "
            "'add' to change that, or existing='keep' if this is what you want.",
            stacklevel=3,
        )


def check_existing(existing: Any) -> None:
    """Raise a ValueError if the argument `existing` is not one of its choices.

    >>> check_existing("keep")
    """
    if existing not in (None, "keep", "replace", "add"):
        raise ValueError(
            "Invalid value for argument `existing`. Expected 'keep' (does not "
            "change weights that have a penalty), 'replace', 'add' or `None` ('keep' "
            f"with a warning). Received: existing={existing!r}"
        )


def regularizer_without(weight: Weight, model: keras.Model) -> Regularizer | None:
    """The regularizer that a weight would have without the attachments of `model`.

    >>> from keras_l2reg import attach, find_weights
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> weight = find_weights(attach(model, 0.1))[0]
    >>> weight.regularizer is None, regularizer_without(weight, model) is None
    (False, True)
    """
    stack = stack_of(weight)
    if stack is None:
        return weight.regularizer
    return stack.value(lambda other: other is not None and other.model is model)


def regularizer_for(
    regularizer: Regularizer | Parts,
    start_of: Callable[[Choice], keras.Variable | None] = lambda choice: None,
) -> Callable[[Choice], Regularizer]:
    """The function from a choice to the regularizer that its weight gets.

    `multiplier * regularizer(w)`, or of `w - start`, in float32 for half-precision
    weights; one object, up to the start, for all weights of the same part, multiplier
    and dtype.

    >>> from keras_l2reg import find_weights
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> weight = find_weights(model)[0]
    >>> regularizer_for(L2(0.5))(Choice(weight, 1.0, False)).l2
    0.5
    >>> regularizer_for(L2(0.5))(Choice(weight, 0.1, False)).factor
    0.1
    """
    parts = regularizer if isinstance(regularizer, Parts) else Parts({"*": regularizer})

    @functools.cache
    def of_kind(glob, factor, dtype):
        part: Any = parts.by_glob[glob]
        return safe_for(dtype, part if factor == 1.0 else Scaled(part, factor))

    def of_choice(choice):
        glob = last_match(parts.by_glob, choice.weight.name)
        variable, layer = choice.weight.variable, choice.weight.config_layer
        dtype = layer.variable_dtype if variable is None else variable.dtype
        new, start = of_kind(glob, choice.factor, dtype), start_of(choice)
        return new if start is None else TowardsStart(new, start)

    return of_choice


def _check_applies(regularizer: Regularizer, weight: Weight) -> None:
    # Others may need a certain rank, as OrthogonalRegularizer does.
    if weight.variable is None or type(regularizer) in SUMMING:
        return
    try:
        penalty = regularizer(weight.variable)
    except Exception as error:
        raise ValueError(
            "Expected a regularizer that applies to every covered weight. Received: "
            f"{type(regularizer).__name__}, which fails on {weight.name} of shape "
            f"{tuple(weight.variable.shape)}: {error}. Leave such weights out with "
            "`layers` or `exclude`"
        ) from error
    if tuple(getattr(penalty, "shape", ())) != ():
        raise ValueError(
            "Expected a regularizer that returns a scalar. Received: "
            f"{type(regularizer).__name__}, which returns the shape "
            f"{tuple(penalty.shape)} for {weight.name}; return its sum: "
            "`keras.ops.sum(...)`"
        )
