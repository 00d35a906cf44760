"""The arguments of the rule (`layers`, `exclude`, `multipliers`, ...), checked."""

import inspect
import os
import re

import keras

from keras_l2reg._numbers import check_number
from keras_l2reg.weights import find_weights


def check_model(model):
    """Raise a TypeError that says what to give, unless `model` is a `keras.Model`.

    >>> check_model("best.keras")
    Traceback (most recent call last):
    TypeError: Invalid type for argument `model`. Expected a `keras.Model` instance...
    """
    if isinstance(model, keras.Model):
        return
    raise TypeError(
        "Invalid type for argument `model`. Expected a `keras.Model` instance. "
        f"Received: model={model!r} of type {type(model).__name__}"
        f"{_model_meant(model)}"
    )


def _model_meant(model):
    if isinstance(model, (str, os.PathLike)):
        return f"; load it: keras.saving.load_model({str(model)!r})"
    if inspect.isclass(model) or inspect.isfunction(model):
        return f"; call it: {model.__name__}(...)"
    if isinstance(model, keras.layers.Layer):
        return "; put the layer into a model: keras.Sequential([layer])"
    if isinstance(model, (list, tuple)):
        return "; make it a model: keras.Sequential([...]), or call once for each"
    return ""


def check_arguments(model, flags, layers, exclude, multipliers):
    check_model(model)
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TypeError(
                f"Invalid type for argument `{name}`. Expected `True` or `False`. "
                f"Received: {name}={value!r}; to choose weights by name, use "
                "`layers` or `exclude`"
            )
    if layers is not None and not as_list(layers):
        raise ValueError(
            "Invalid value for argument `layers`. Expected at least one layer class or "
            f"glob, or `None` for all. Received: layers={layers!r}"
        )
    _check_patterns("layers", layers, model)
    _check_patterns("exclude", exclude, model)
    _check_multipliers(multipliers, model)


def _check_patterns(argument, patterns, model):
    for pattern in as_list(patterns):
        is_layer_class = inspect.isclass(pattern) and issubclass(
            pattern, keras.layers.Layer
        )
        if not (isinstance(pattern, str) or is_layer_class):
            raise TypeError(
                f"Invalid type for argument `{argument}`. Expected a layer class, a "
                "glob over weight names, or a list of these. "
                f"Received: {argument}={patterns!r}{_pattern_meant(pattern, model)}"
            )


def _pattern_meant(pattern, model):
    if isinstance(pattern, keras.layers.Layer):
        for weight in find_weights(model):
            names = [layer.name for layer in weight.layers]
            for depth, layer in enumerate(weight.layers, 1):
                if layer is pattern:
                    return f"; for this layer, write '{'/'.join(names[:depth])}/*'"
        return f"; {pattern.name!r} is no layer of this model that has weights"
    if inspect.isclass(pattern):
        return f"; {pattern.__name__} is not a class of layers"
    if isinstance(pattern, re.Pattern):
        return "; write a glob, as of file names: '*/kernel'"
    return "; `print_weights(model)` shows the names, such as 'dense/kernel'"


def _check_multipliers(multipliers, model):
    if multipliers is not None and not isinstance(multipliers, dict):
        raise TypeError(
            "Invalid type for argument `multipliers`. Expected a dict from globs over "
            "weight names to floats, such as {'head/*': 0.1}. "
            f"Received: multipliers={multipliers!r}"
        )
    for pattern, value in (multipliers or {}).items():
        if not isinstance(pattern, str):
            raise TypeError(
                "Invalid type for argument `multipliers`. Expected globs over weight "
                f"names as keys. Received: {pattern!r}{_pattern_meant(pattern, model)}"
            )
        check_number(value, f"multipliers[{pattern!r}]")


def as_list(layers):
    """The argument `layers` as a list, empty for `None`.

    >>> as_list("head/*")
    ['head/*']
    """
    if layers is None:
        return []
    return list(layers) if isinstance(layers, (list, tuple)) else [layers]
