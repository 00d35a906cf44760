"""Convert to built-in Keras regularizers: for files, tables, unwrapping.

>>> convert_to_builtin(L2Loss(0.5)).get_config()
{'l2': 0.25}
"""

import keras

from keras_l2reg.regularizers import L2, InFloat32, L2Loss, Scaled, Sum, strength_value


def strength_text(regularizer):
    """A regularizer's strength in short, for tables: `"l2=0.01"`.

    >>> strength_text(L2Loss(0.5)), strength_text(keras.regularizers.L1L2(0.1, 0.2))
    ('l2=0.25', 'l1=0.1 l2=0.2')
    """
    try:
        strengths = _strengths(convert_to_builtin(regularizer))
    except ValueError:
        return getattr(regularizer, "__name__", type(regularizer).__name__)
    return " ".join(f"{name}={value:.4g}" for name, value in strengths.items())


def convert_to_builtin(regularizer):
    """Convert to built-in Keras regularizers of the present strength.

    Args:
        regularizer: A Keras regularizer, perhaps one of this module.

    Returns:
        A regularizer of `keras.regularizers` with the present strength; what is not
        of this module comes back as it is.

    Raises:
        ValueError: Keras has no such regularizer (a multiplier on a user's own).

    Example:

    >>> convert_to_builtin(Scaled(L2Loss(0.5), 0.1)).get_config()
    {'l2': 0.025}

    Source: https://keras.io/api/layers/regularizers/
    """
    if type(regularizer) is L2:
        return keras.regularizers.L2(strength_value(regularizer.l2))
    if type(regularizer) is L2Loss:
        return keras.regularizers.L2(strength_value(regularizer.beta) / 2)
    if type(regularizer) is InFloat32:
        return convert_to_builtin(regularizer.regularizer)
    if type(regularizer) is Scaled:
        return _scaled(convert_to_builtin(regularizer.regularizer), regularizer.factor)
    if type(regularizer) is Sum:
        return _added([convert_to_builtin(r) for r in regularizer.regularizers])
    return regularizer


def builtin_converter():
    """`convert_to_builtin`, as a function that gives one object for one object.

    >>> convert, regularizer = builtin_converter(), L2(0.5)
    >>> convert(regularizer) is convert(regularizer)
    True
    """
    done = {}  # by id, as a user's regularizer need not be hashable

    def convert(regularizer):
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


def _strengths(regularizer):
    """The linear strengths of a built-in regularizer, by name."""
    if type(regularizer) not in _STRENGTHS:
        raise ValueError(
            "Expected regularizers that Keras itself can scale and add (L1, L2, L1L2, "
            "and for scaling OrthogonalRegularizer). "
            f"Received: {type(regularizer).__name__}; keep it within this package's "
            "`Scaled` or `Sum`, or take the penalty off by `unwrap(strip=True)`"
        )
    config = regularizer.get_config()
    return {name: float(config[name]) for name in _STRENGTHS[type(regularizer)]}


def _scaled(regularizer, factor):
    scaled = {name: v * factor for name, v in _strengths(regularizer).items()}
    return type(regularizer)(**{**regularizer.get_config(), **scaled})


def _added(regularizers):
    total = {"l1": 0.0, "l2": 0.0}
    for regularizer in regularizers:
        for name, value in _strengths(regularizer).items():
            if name not in total:
                raise ValueError(
                    "Expected L1, L2 or L1L2: Keras has no regularizer that adds "
                    f"others. Received: {type(regularizer).__name__}; keep it within "
                    "this package's `Sum`, or take the penalty off by "
                    "`unwrap(strip=True)`"
                )
            total[name] += value
    return keras.regularizers.L1L2(**total)
