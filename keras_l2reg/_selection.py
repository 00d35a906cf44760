"""The rule that selects weights.

Of the weights that `find_weights` finds, `select_weights` returns those that the rule
covers, each with its multiplier. `decide` explains for every weight why it is covered
or not.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
...      keras.layers.Dense(2, name="output")])
>>> covered = select_weights(model, multipliers={"hidden/*": 0.1})
>>> [(w.name, factor) for w, factor in covered]
[('hidden/kernel', 0.1), ('output/kernel', 1.0)]
"""

import dataclasses
import fnmatch
from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_l2reg._parts import last_match
from keras_l2reg._roles import ROLES
from keras_l2reg._selection_hints import described, hints
from keras_l2reg._validation import Pattern, Patterns, as_list, check_rule
from keras_l2reg.weights import Weight, find_weights, inner_model


def select_weights(
    model: keras.Model,
    *,
    biases: bool = False,
    embeddings: bool = False,
    layers: Patterns = None,
    exclude: Patterns = None,
    multipliers: Mapping[str, float] | None = None,
    regularizer: Mapping[str, Any] | None = None,
) -> list[tuple[Weight, float]]:
    """Select the weights that a penalty covers, each with its multiplier.

    By default these are the kernels (roles kernel, recurrent, depthwise, pointwise):
    no biases, no scale or shift of a normalization, no embeddings or tokens, and not
    the frozen kernel of a LoRA layer. A weight with multiplier 0 is left out.
    `print_weights` shows the selection.

    Args:
        model: A `keras.Model`, or an `L2AllWeights`.
        biases: Boolean, whether to cover biases as well. Defaults to `False`.
        embeddings: Boolean, whether to cover embedding tables, positions and tokens
            as well. Defaults to `False`.
        layers: A layer class, a glob over weight names such as `"head/*"`, or a list
            of these: cover only weights that match one. A class matches all weights
            inside a layer or a model of that class. Defaults to `None`, all.
        exclude: A layer class, a glob over weight names, or a list of these: leave
            out weights that match one, whatever `layers` says. Defaults to `None`,
            none.
        multipliers: Dict from globs over weight names to finite floats >= 0; the last
            match wins. Defaults to `None`, 1.0 for all.
        regularizer: Dict from globs over weight names to a regularizer or `None`, as
            for `attach`: cover only weights whose last match is not `None`. Defaults
            to `None`, all.

    Returns:
        A list of `(Weight, float)`.

    Raises:
        TypeError: not a Keras model, or an argument of the wrong type.
        ValueError: no weight is covered, or a glob or class matches none of them.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [w.name for w, _ in select_weights(model, biases=True)]
    ['a/kernel', 'a/bias']
    """
    return covered_weights(
        model,
        biases=biases,
        embeddings=embeddings,
        layers=layers,
        exclude=exclude,
        multipliers=multipliers,
        regularizer=regularizer,
    )


def covered_weights(
    model: keras.Model, weights: list[Weight] | None = None, **rule: Any
) -> list[tuple[Weight, float]]:
    """`select_weights` of the `weights` that `find_weights(model)` returned, if given.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [w.name for w, _ in covered_weights(model, find_weights(model), biases=True)]
    ['a/kernel', 'a/bias']
    """
    decisions = decide(model, weights, **rule)
    if covered := [(d.weight, d.multiplier) for d in decisions if d.multiplier]:
        return covered
    weights = [d.weight for d in decisions]
    flags = {name: rule.get(name, False) for name in ("biases", "embeddings")}
    selectable = candidates(weights, **flags)
    if not selectable:
        hint = hints(model, [w for w in weights if w.role != "bias"]) or _NO_KERNEL
        raise ValueError(
            "Expected a model with at least one weight to penalize. Received: model "
            f"{model.name!r} with the weights {described(weights)}{hint}"
        )
    given = {name: rule.get(name) for name in ("layers", "exclude", "multipliers")}
    if rule.get("regularizer") is not None:
        given["regularizer"] = rule["regularizer"]
    raise ValueError(
        f"Expected {_enumerated(given)} to leave at least one weight to penalize of "
        f"{described(selectable)}. Received: "
        f"{', '.join(f'{name}={value!r}' for name, value in given.items())}; "
        "`print_weights` with the same arguments shows which of them leaves out each "
        "weight"
    )


def _enumerated(names: Iterable[str]) -> str:
    *others, last = [f"`{name}`" for name in names]
    return f"{', '.join(others)} and {last}"


_NO_KERNEL = (
    ". Hint: its layers have no kernel, so there is nothing to regularize; `biases=` "
    "and `embeddings=` cover weights of other roles"
)


@dataclasses.dataclass(frozen=True)
class Decision:
    """Whether the rule covers a weight, and why.

    Args:
        weight: The `Weight`.
        multiplier: Float; 0.0 if the rule does not cover the weight.
        why: The reason, in a few words.
    """

    weight: Weight
    multiplier: float
    why: str


def decide(
    model: keras.Model,
    weights: list[Weight] | None = None,
    *,
    biases: bool = False,
    embeddings: bool = False,
    layers: Patterns = None,
    exclude: Patterns = None,
    multipliers: Mapping[str, float] | None = None,
    regularizer: Mapping[str, Any] | None = None,
) -> list[Decision]:
    """Decide for every weight whether the rule covers it, and why.

    Args:
        model, biases, embeddings, layers, exclude, multipliers, regularizer: as in
            `select_weights`.
        weights: What `find_weights(model)` returned. Defaults to `None`, find them.

    Returns:
        A list of `Decision`, in the order of `find_weights`.

    Raises:
        TypeError, ValueError: an invalid argument, or a pattern that matches nothing.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [(d.weight.name, d.multiplier, d.why) for d in decide(model)]
    [('a/kernel', 1.0, 'role'), ('a/bias', 0.0, 'biases=False')]
    """
    flags = {"biases": biases, "embeddings": embeddings}
    check_rule(model, flags, layers, exclude, multipliers, regularizer)
    narrowed = None if layers is None else as_list(layers)
    excluded, multipliers = as_list(exclude), multipliers or {}
    weights = find_weights(model) if weights is None else weights
    selectable = candidates(weights, **flags)
    given = {"layers": narrowed, "multipliers": multipliers, "regularizer": regularizer}
    for argument, patterns in given.items() if selectable else ():
        for pattern in patterns or ():
            _check_matches(pattern, model, selectable, weights, argument)
    for pattern in excluded:
        # A weight that the role leaves out may be excluded as well.
        _check_matches(pattern, model, weights, weights, "exclude")
    return [
        Decision(
            w, *_decide(w, model, flags, narrowed, excluded, multipliers, regularizer)
        )
        for w in weights
    ]


def _decide(
    weight: Weight,
    model: keras.Model,
    flags: Mapping[str, bool],
    layers: list[Pattern] | None,
    exclude: list[Pattern],
    multipliers: Mapping[str, float],
    regularizer: Mapping[str, Any] | None,
) -> tuple[float, str]:
    """The multiplier of a weight, and the reason for it."""
    reason = _why_not_selectable(weight, flags)
    if reason:
        return 0.0, reason
    why = ["role, a guess" if weight.is_guess else "role"]
    if layers is not None:
        matching = [p for p in layers if _matches(weight, p, model)]
        if not matching:
            return 0.0, "not in layers"
        why.append(f"layers={_shown(matching[0])}")
    for pattern in exclude:
        if _matches(weight, pattern, model):
            return 0.0, f"exclude={_shown(pattern)}"
    if regularizer is not None:
        part = last_match(regularizer, weight.name)
        if part is None:
            return 0.0, "not in regularizer"
        if regularizer[part] is None:
            return 0.0, f"regularizer[{part!r}] is None"
        why.append(f"regularizer[{part!r}]")
    multiplier = 1.0
    part = last_match(multipliers, weight.name)
    if part is not None:
        multiplier = float(multipliers[part])
        why.append(f"multipliers[{part!r}]")
    return multiplier, ", ".join(why)


def _why_not_selectable(weight: Weight, flags: Mapping[str, bool]) -> str | None:
    """Why `layers` and `multipliers` can't cover the weight, or `None` if they can."""
    if weight.is_frozen_lora_base:
        return "base of LoRA"
    covered = ROLES[weight.role].covered
    if covered is False:
        return "role"
    return None if covered is True or flags[covered] else f"{covered}=False"


def candidates(
    weights: list[Weight], biases: bool = False, embeddings: bool = False
) -> list[Weight]:
    """The weights whose role the rule covers, before patterns narrow them down.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [weight.name for weight in candidates(find_weights(model))]
    ['a/kernel']
    """
    flags = {"biases": biases, "embeddings": embeddings}
    return [w for w in weights if not _why_not_selectable(w, flags)]


def matching_weights(
    patterns: Iterable[Pattern],
    weights: list[Weight],
    model: keras.Model,
    argument: str,
) -> list[Weight]:
    """The weights that match one of the patterns.

    Raises:
        ValueError: a pattern matches none of them; the error names `argument`.
    """
    for pattern in patterns:
        _check_matches(pattern, model, weights, find_weights(model), argument)
    return [w for w in weights if any(_matches(w, p, model) for p in patterns)]


def _matches(weight: Weight, pattern: Pattern, model: keras.Model) -> bool:
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(weight.name, pattern)
    # The model itself is not in `weight.layers`, but contains all weights.
    around = (inner_model(model), *weight.layers)
    return any(isinstance(layer, pattern) for layer in around)


def _shown(pattern: Pattern) -> str:
    return repr(pattern) if isinstance(pattern, str) else pattern.__name__


def _check_matches(
    pattern: Pattern,
    model: keras.Model,
    selectable: list[Weight],
    weights: list[Weight],
    argument: str,
) -> None:
    if any(_matches(weight, pattern, model) for weight in selectable):
        return
    matched = [w for w in weights if _matches(w, pattern, model)]
    found = f"matches only {described(matched)}" if matched else "matches nothing"
    raise ValueError(
        f"Invalid value for argument `{argument}`. Expected something that matches one "
        f"of the weights {described(selectable)}. "
        f"Received: {argument}={_shown(pattern)}, which {found}"
        f"{hints(model, matched, pattern)}"
    )
