"""Find every weight of a model, each listed once.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
...      keras.layers.BatchNormalization(name="norm")])
>>> [(w.name, w.role) for w in find_weights(model)]
[('hidden/kernel', 'kernel'), ('hidden/bias', 'bias'), ('norm/gamma', 'scale'),
 ('norm/beta', 'shift')]
"""

import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._roles import role_of

# The automatic names of variables without a name, which Keras numbers.
_AUTOMATIC_NAME = re.compile(r"variable(_\d+)?")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Weight:
    """A weight of a model.

    Args:
        name: Readable name, unique in the model: `"hidden/kernel"`.
        role: `"kernel"`, `"recurrent"`, `"depthwise"`, `"pointwise"`,
            `"embeddings"`, `"bias"`, `"scale"`, `"shift"`, `"slope"` or `"other"`.
        variable: The `keras.Variable`, or `None` while the layer is unbuilt.
        layers: Tuple of the layers that contain the weight, from the outermost in the
            model to the layer that created it.
        config_layer: The layer whose config saves the regularizer. Defaults to
            `None`: no config does.
        config_attribute: Name of the attribute of `config_layer` that holds it.
            Defaults to `None`.
        is_guess: Boolean, whether the role is a guess, from the shape alone or from a
            word in the middle of the name. Defaults to `False`.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(3, name="hidden")])
    >>> find_weights(model)[0].name, find_weights(model)[0].variable
    ('hidden/kernel', None)
    """

    name: str
    role: str
    variable: keras.Variable | None
    layers: tuple[keras.layers.Layer, ...]
    config_layer: keras.layers.Layer | None = None
    config_attribute: str | None = None
    is_guess: bool = False

    def __repr__(self) -> str:
        shape = None if self.variable is None else tuple(self.variable.shape)
        guess = " (a guess)" if self.is_guess else ""
        return f"<Weight name={self.name}, role={self.role}{guess}, shape={shape}>"

    @property
    def config_key(self) -> tuple[int, str] | None:
        """A key for the attribute of `config_layer`, or `None` if there is none."""
        return (
            (id(self.config_layer), self.config_attribute)
            if self.config_attribute
            else None
        )

    @property
    def configured_regularizer(self) -> Any:
        """The regularizer that the attribute of `config_layer` holds, or `None`."""
        return (
            getattr(self.config_layer, self.config_attribute)
            if self.config_attribute
            else None
        )

    @property
    def regularizer(self) -> Any:
        """The regularizer in effect; for an unbuilt layer, the one it will have."""
        if self.variable is None:
            return self.configured_regularizer
        return self.variable.regularizer

    @property
    def is_lora_factor(self) -> bool:
        """Whether it is one of the two small kernels of LoRA."""
        return self.variable is not None and self.variable.name.startswith("lora_")

    @property
    def is_frozen_lora_base(self) -> bool:
        """Whether it is frozen because LoRA trains two small kernels instead."""
        return bool(
            self.layers
            and getattr(self.layers[-1], "lora_enabled", False)
            and self.variable is not None
            and not self.variable.trainable
            and not self.variable.name.startswith("lora_")
        )


def find_weights(model: keras.layers.Layer) -> list[Weight]:
    """Find every weight of a model that was created as trainable, frozen or not.

    Shared layers and tied weights are listed once; a weight belongs to the innermost
    layer that tracks it. Weights of unbuilt layers are inferred from the layers'
    `*_regularizer` attributes. Moving statistics and seeds are not weights.

    Args:
        model: A `keras.Model` or layer, built or not, or an `L2AllWeights`.

    Returns:
        A list of `Weight`, in the order of the layers.

    Example:

    >>> layer = keras.layers.Dense(2, name="twice")
    >>> x = keras.Input((2,))
    >>> [w.name for w in find_weights(keras.Model(x, layer(layer(x))))]
    ['twice/kernel', 'twice/bias']
    """
    found, seen_layers, seen_variables, names = [], set(), set(), set()

    def visit(layer: Any, layers: tuple) -> None:
        seen_layers.add(id(layer))
        children = _keras.sublayers(layer)
        inner = {id(v) for child in children for v in child.variables}
        own = [v for v in _keras.own_variables(layer) if id(v) not in inner]
        named = _named(layer, own)
        siblings = [name for name, _ in named]
        for name, variable in named:
            if variable is None or id(variable) not in seen_variables:
                seen_variables.add(id(variable))
                path = "/".join([*(outer.name for outer in layers), name])
                full_name = _unused(path, names)
                weight = _describe(full_name, name, variable, layers, layer, siblings)
                found.append(weight)
        for child in children:
            if id(child) not in seen_layers:
                visit(child, (*layers, child))

    # The wrapper is skipped: names start within the model that it wraps.
    visit(inner_model(model), ())
    return found


def inner_model(model: Any) -> Any:
    """The model that an `L2AllWeights` wraps; any other model itself.

    >>> model = keras.Sequential([keras.layers.Dense(3)])
    >>> inner_model(model) is model
    True
    """
    # By a class attribute, since any model may have an attribute `wrapped_model`.
    is_wrapper = getattr(type(model), "_is_keras_l2reg_wrapper", False)
    return model.wrapped_model if is_wrapper else model


def _named(
    layer: keras.layers.Layer, variables: Sequence[keras.Variable]
) -> list[tuple[str, keras.Variable | None]]:
    """`(name, variable)` of each; `None` for those that the layer will create."""
    names = _own_names(layer, variables)
    unbuilt = [] if layer.built else _keras.unbuilt_names(layer, names)
    named = zip(names, variables, strict=True)
    return [*named, *((name, None) for name in unbuilt)]


def _own_names(
    layer: keras.layers.Layer, variables: Sequence[keras.Variable]
) -> list[str]:
    """The names of the variables; if automatic, the attribute that holds the variable.

    Keras numbers variables without a name across the process, so a model that is built
    again would have other names.
    """
    if not any(_AUTOMATIC_NAME.fullmatch(v.name) for v in variables):
        return [v.name for v in variables]
    attribute_names = {}
    for attribute, value in vars(layer).items():
        # The lists in which Keras tracks variables are private.
        if isinstance(value, keras.Variable) or not attribute.startswith("_"):
            for path, leaf in _leaves(value):
                name = "/".join([attribute.lstrip("_"), *path])
                attribute_names.setdefault(id(leaf), name)
    return [
        attribute_names.get(id(v), "variable")
        if _AUTOMATIC_NAME.fullmatch(v.name)
        else v.name
        for v in variables
    ]


def _leaves(
    value: Any, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], keras.Variable]]:
    """The variables in nested lists and dicts, each with its path."""
    if isinstance(value, keras.Variable):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, str(index)))


def _describe(
    full_name: str,
    name: str,
    variable: keras.Variable | None,
    layers: tuple[keras.layers.Layer, ...],
    owner: keras.layers.Layer,
    siblings: Collection[str],
) -> Weight:
    parent = layers[-2] if len(layers) > 1 else None
    config_layer, attribute = _keras.regularizer_attribute(name, owner, parent)
    if name == "kernel" and attribute == "depthwise_regularizer":
        role, is_guess = "depthwise", False
    else:
        shape = None if variable is None else tuple(variable.shape)
        role, is_guess = role_of(name, shape, siblings)
    return Weight(full_name, role, variable, layers, config_layer, attribute, is_guess)


def _unused(name: str, taken: set[str]) -> str:
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


def listed(names: Iterable[str], shown: int = 20) -> str:
    """Join names for a message: the first ones, and the number of the others.

    >>> listed(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
