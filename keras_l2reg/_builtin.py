"""Convert to built-in Keras regularizers, for saved files, tables and `unwrap`.

>>> convert_to_builtin(L2Loss(0.5)).get_config()
{'l2': 0.25}
"""

import contextlib
from collections.abc import Callable
from typing import Any

import keras

from keras_l2reg._strengths import strength_value
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg.regularizers import L1L2, L2, InFloat32, L2Loss, Scaled, Sum


def strength_text(regularizer: Any) -> str:
    """The strength of a regularizer as a short text for tables: `"l2=0.01"`.

    >>> strength_text(L2Loss(0.5)), strength_text(keras.regularizers.L1L2(0.1, 0.2))
    ('l2=0.25', 'l1=0.1 l2=0.2')
    """
    to_zero, to_start = split_by_target(regularizer)
    if not to_start:
        return _text(regularizer)
    texts = [_text(term) for term in to_zero]
    return " + ".join([*texts, *(f"{_text(term)} to start" for term in to_start)])


def _text(regularizer: Any) -> str:
    try:
        strengths = _strengths(convert_to_builtin(regularizer))
    except ValueError:
        return getattr(regularizer, "__name__", type(regularizer).__name__)
    return " ".join(f"{name}={value:.4g}" for name, value in strengths.items())


def split_by_target(regularizer: Any) -> tuple[list[Any], list[Any]]:
    """The terms of a penalty on a weight, and those on its distance from the start.

    >>> to_zero, to_start = split_by_target(Sum(["l1", L2(0.5)]))
    >>> len(to_zero), to_start
    (2, [])
    """
    if type(regularizer) is TowardsStart:
        return [], [regularizer.regularizer]
    if type(regularizer) is not Sum:
        return [regularizer], []
    to_zero, to_start = [], []
    for term in regularizer.regularizers:
        zero, start = split_by_target(term)
        to_zero += zero
        to_start += start
    return to_zero, to_start


def strength_of(regularizer: Any, name: str) -> float:
    """The strength `"l1"` or `"l2"` of a penalty, to zero or to a start; 0 if none.

    >>> strength_of(Sum([L2(0.5), L1L2(l1=0.25)]), "l1"), strength_of(L2(0.5), "l1")
    (0.25, 0.0)
    """
    to_zero, to_start = split_by_target(regularizer)
    total = 0.0
    for term in [*to_zero, *to_start]:
        # A custom regularizer may have no config, or one without this name.
        with contextlib.suppress(Exception):
            total += float(convert_to_builtin(term).get_config()[name])
    return total


def convert_to_builtin(regularizer: Any) -> Any:
    """Convert to a built-in Keras regularizer of the current strength.

    Args:
        regularizer: A regularizer of Keras, of this package, or a custom one.

    Returns:
        For a regularizer of this package, one of `keras.regularizers`; any other
        regularizer is returned as it is.

    Raises:
        ValueError: Keras has no equivalent, for example of a scaled custom one.

    Example:

    >>> convert_to_builtin(Scaled(L2Loss(0.5), 0.1)).get_config()
    {'l2': 0.025}
    """
    if type(regularizer) is L2:
        return keras.regularizers.L2(strength_value(regularizer.l2))
    if type(regularizer) is L1L2:
        return keras.regularizers.L1L2(**regularizer.get_config())
    if type(regularizer) is L2Loss:
        return keras.regularizers.L2(strength_value(regularizer.beta) / 2)
    if type(regularizer) is InFloat32:
        return convert_to_builtin(regularizer.regularizer)
    if type(regularizer) is Scaled:
        return _scaled(convert_to_builtin(regularizer.regularizer), regularizer.factor)
    if type(regularizer) is TowardsStart:
        raise ValueError(
            "Expected a penalty that a Keras regularizer can be. Received: one towards "
            "a starting value (`towards_start`), which Keras does not have; remove the "
            "penalty with `unwrap(strip=True)`"
        )
    if type(regularizer) is Sum:
        return _summed([convert_to_builtin(r) for r in regularizer.regularizers])
    return regularizer


def builtin_converter() -> Callable[[Any], Any]:
    """A `convert_to_builtin` that converts each regularizer only once.

    Weights that share a regularizer share the converted one too.

    >>> convert, regularizer = builtin_converter(), L2(0.5)
    >>> convert(regularizer) is convert(regularizer)
    True
    """
    done = {}  # by id, as a custom regularizer may not be hashable

    def convert(regularizer: Any) -> Any:
        if id(regularizer) not in done:
            done[id(regularizer)] = regularizer, convert_to_builtin(regularizer)
        return done[id(regularizer)][1]

    return convert


_STRENGTHS = {
    keras.regularizers.L1: ("l1",),
    keras.regularizers.L2: ("l2",),
    keras.regularizers.L1L2: ("l1", "l2"),
    keras.regularizers.OrthogonalRegularizer: ("factor",),
}


def _strengths(regularizer: Any) -> dict[str, float]:
    """The strengths of a built-in regularizer, by the names of its arguments."""
    if type(regularizer) not in _STRENGTHS:
        raise ValueError(
            "Expected regularizers that Keras itself can scale and add (L1, L2, L1L2, "
            "and, for scaling, OrthogonalRegularizer). "
            f"Received: {type(regularizer).__name__}; keep it within this package's "
            "`Scaled` or `Sum`, or remove the penalty with `unwrap(strip=True)`"
        )
    config = regularizer.get_config()
    return {name: float(config[name]) for name in _STRENGTHS[type(regularizer)]}


def _scaled(regularizer: Any, factor: float) -> Any:
    scaled = {name: v * factor for name, v in _strengths(regularizer).items()}
    return type(regularizer)(**{**regularizer.get_config(), **scaled})


def _summed(regularizers: list[Any]) -> keras.Regularizer:
    total = {"l1": 0.0, "l2": 0.0}
    for regularizer in regularizers:
        for name, value in _strengths(regularizer).items():
            if name not in total:
                raise ValueError(
                    "Expected L1, L2 or L1L2: Keras has no regularizer that adds "
                    f"others. Received: {type(regularizer).__name__}; keep it within "
                    "this package's `Sum`, or remove the penalty with "
                    "`unwrap(strip=True)`"
                )
            total[name] += value
    return keras.regularizers.L1L2(**total)
