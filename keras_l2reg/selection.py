"""Which weights: one rule.

`select` keeps, of the weights that `find_weights` found, those that the rule covers,
and says with which multiplier.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
...      keras.layers.Dense(2, name="output")])
>>> [(w.name, factor) for w, factor in select(model, multipliers={"hidden/*": 0.1})]
[('hidden/kernel', 0.1), ('output/kernel', 1.0)]
"""

import fnmatch
import inspect

import keras

from keras_l2reg.regularizers import check_strength
from keras_l2reg.weights import find_weights

KERNEL_ROLES = ("kernel", "recurrent", "depthwise", "pointwise")


def select(model, *, biases=False, embeddings=False, layers=None, multipliers=None):
    """The weights that the rule covers, each with its multiplier.

    By default every kernel-like weight (roles kernel, recurrent, depthwise,
    pointwise, and a custom layer's own weight of two or more dimensions); no
    biases, no normalization scale or shift, no embeddings, not the frozen base of
    a LoRA layer. A weight of multiplier 0 is left out.

    Args:
        model: A `keras.Model`, or an `L2AllWeights`.
        biases: Boolean, whether to cover biases as well. Defaults to `False`.
        embeddings: Boolean, whether to cover embedding tables as well. Defaults to
            `False`.
        layers: A layer class, a glob over weight names such as `"head/*"`, or a list
            of these: cover only weights that match one. Defaults to `None`, all.
        multipliers: Dict from globs over weight names to finite floats >= 0; the last
            match wins. Defaults to `None`, 1.0 for all.

    Returns:
        A list of `(Weight, float)`.

    Raises:
        TypeError: not a Keras model, or an argument of the wrong type.
        ValueError: no weight is covered, or a glob or class matches none of them.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [w.name for w, _ in select(model, biases=True)]
    ['a/kernel', 'a/bias']

    Source: the mask of optax's `add_decayed_weights`,
    https://optax.readthedocs.io/en/latest/api/transformations.html
    """
    _check_arguments(model, biases, embeddings, layers, multipliers)
    weights = candidates(model, biases, embeddings)
    if not weights:
        raise ValueError(
            "Expected a model with at least one weight to penalize (an unbuilt custom "
            f"layer shows its weights only once built). Received: model {model.name!r} "
            f"with the weights {[(w.name, w.role) for w in find_weights(model)]}"
        )
    patterns = as_list(layers)
    for pattern in patterns:
        _check_matches(pattern, weights, "layers")
    for pattern in multipliers or {}:
        _check_matches(pattern, weights, "multipliers")
    chosen = [
        (w, _multiplier(w, multipliers or {}))
        for w in weights
        if layers is None or any(_matches(w, pattern) for pattern in patterns)
    ]
    covered = [(w, factor) for w, factor in chosen if factor > 0]
    if not covered:
        raise ValueError(
            "Expected `layers` and `multipliers` to leave at least one weight to "
            f"penalize of {[w.name for w in weights]}. "
            f"Received: layers={layers!r}, multipliers={multipliers!r}"
        )
    return covered


def candidates(model, biases=False, embeddings=False):
    """The weights whose role the rule covers, before it is narrowed by name.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> [weight.name for weight in candidates(model)]
    ['a/kernel']
    """
    roles = [*KERNEL_ROLES, *["bias"] * biases, *["embeddings"] * embeddings]
    return [
        w for w in find_weights(model) if w.role in roles and not w.is_frozen_lora_base
    ]


def _check_arguments(model, biases, embeddings, layers, multipliers):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid type for argument `model`. Expected a `keras.Model` instance. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    for name, value in {"biases": biases, "embeddings": embeddings}.items():
        if not isinstance(value, bool):
            raise TypeError(
                f"Invalid type for argument `{name}`. Expected a boolean. "
                f"Received: {name}={value!r}"
            )
    if layers is not None and not as_list(layers):
        raise ValueError(
            "Invalid value for argument `layers`. Expected at least one layer class or "
            f"glob, or `None` for all. Received: layers={layers!r}"
        )
    for pattern in as_list(layers):
        is_layer_class = inspect.isclass(pattern) and issubclass(
            pattern, keras.layers.Layer
        )
        if not (isinstance(pattern, str) or is_layer_class):
            raise TypeError(
                "Invalid type for argument `layers`. Expected a layer class, a glob "
                f"over weight names, or a list of these. Received: layers={layers!r}"
            )
    if multipliers is not None and not isinstance(multipliers, dict):
        raise TypeError(
            "Invalid type for argument `multipliers`. Expected a dict from globs over "
            f"weight names to floats. Received: multipliers={multipliers!r}"
        )
    for pattern, value in (multipliers or {}).items():
        if not isinstance(pattern, str):
            raise TypeError(
                "Invalid type for argument `multipliers`. Expected globs over weight "
                f"names as keys. Received: {pattern!r}"
            )
        if isinstance(value, keras.Variable):
            raise TypeError(
                "Invalid type for argument `multipliers`. Expected floats as values. "
                f"Received: multipliers[{pattern!r}]={value!r}"
            )
        check_strength(value, f"multipliers[{pattern!r}]")


def as_list(layers):
    """The argument `layers` as a list, empty for `None`.

    >>> as_list("head/*")
    ['head/*']
    """
    if layers is None:
        return []
    return list(layers) if isinstance(layers, (list, tuple)) else [layers]


def _matches(weight, pattern):
    if isinstance(pattern, str):
        return fnmatch.fnmatchcase(weight.name, pattern)
    return any(isinstance(layer, pattern) for layer in weight.layers)


def _check_matches(pattern, weights, argument):
    if not any(_matches(weight, pattern) for weight in weights):
        shown = repr(pattern) if isinstance(pattern, str) else pattern.__name__
        raise ValueError(
            f"Invalid value for argument `{argument}`. Expected something that matches "
            f"one of the weights {[w.name for w in weights]}. Received: {shown}"
        )


def _multiplier(weight, multipliers):
    factor = 1.0
    for pattern, value in multipliers.items():
        if fnmatch.fnmatchcase(weight.name, pattern):
            factor = float(value)
    return factor
