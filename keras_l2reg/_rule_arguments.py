"""The arguments of the rule (`layers`, `exclude`, `multipliers`, ...), checked."""

import inspect

import keras

from keras_l2reg.regularizers import check_strength


def check_arguments(model, flags, layers, exclude, multipliers):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid type for argument `model`. Expected a `keras.Model` instance. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    for name, value in flags.items():
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
    _check_patterns("layers", layers)
    _check_patterns("exclude", exclude)
    _check_multipliers(multipliers)


def _check_patterns(argument, patterns):
    for pattern in as_list(patterns):
        is_layer_class = inspect.isclass(pattern) and issubclass(
            pattern, keras.layers.Layer
        )
        if not (isinstance(pattern, str) or is_layer_class):
            raise TypeError(
                f"Invalid type for argument `{argument}`. Expected a layer class, a "
                "glob over weight names, or a list of these. "
                f"Received: {argument}={patterns!r}"
            )


def _check_multipliers(multipliers):
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
