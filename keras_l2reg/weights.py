"""Every weight of a model, described once: the one walk.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
...      keras.layers.BatchNormalization(name="norm")])
>>> [(w.name, w.role) for w in find_weights(model)]
[('hidden/kernel', 'kernel'), ('hidden/bias', 'bias'), ('norm/gamma', 'scale'),
 ('norm/beta', 'shift')]
"""

import dataclasses
import re

import keras

from keras_l2reg import _keras
from keras_l2reg._roles import role_of

# Weight name -> the layer attribute that persists its regularizer, where they differ.
_ATTRIBUTES = {
    "lora_kernel_a": "kernel_regularizer",
    "lora_kernel_b": "kernel_regularizer",
    "recurrent_kernel": "recurrent_regularizer",
    "depthwise_kernel": "depthwise_regularizer",
    "pointwise_kernel": "pointwise_regularizer",
    "lora_embeddings_a": "embeddings_regularizer",
    "lora_embeddings_b": "embeddings_regularizer",
}
# What Keras calls a variable that was not given a name, by how many it made before.
_AUTOMATIC_NAME = re.compile(r"variable(_\d+)?")
_DEPTHWISE_CONV = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# Attention layers build their projections anew from an attribute of their own.
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Weight:
    """One distinct weight of a model, described once.

    Args:
        name: Readable name, unique in the model: `"hidden/kernel"`.
        role: `"kernel"`, `"recurrent"`, `"depthwise"`, `"pointwise"`,
            `"embeddings"`, `"bias"`, `"scale"`, `"shift"`, `"slope"` or `"other"`.
        variable: The `keras.Variable`, or `None` while the layer is unbuilt.
        layers: The layers on the way from the model (left out) to the owner (last).
        config_layer: The layer whose attribute persists the regularizer, or `None`.
        config_attribute: The name of that attribute, or `None`.
        is_guess: Whether the role is a guess, told from the shape alone or from a
            word within the name. Defaults to `False`.

    Example:

    >>> model = keras.Sequential([keras.layers.Dense(3, name="hidden")])
    >>> find_weights(model)[0].name, find_weights(model)[0].variable
    ('hidden/kernel', None)

    Source: `keras.Variable.path`, made independent of the model's own name.
    """

    name: str
    role: str
    variable: keras.Variable | None
    layers: tuple
    config_layer: keras.layers.Layer | None = None
    config_attribute: str | None = None
    is_guess: bool = False

    def __repr__(self):
        shape = None if self.variable is None else tuple(self.variable.shape)
        guess = " (a guess)" if self.is_guess else ""
        return f"<Weight name={self.name}, role={self.role}{guess}, shape={shape}>"

    @property
    def config_key(self):
        """A key for the attribute (persistence), or `None` where there is none."""
        return (
            (id(self.config_layer), self.config_attribute)
            if self.config_attribute
            else None
        )

    @property
    def configured_regularizer(self):
        """The regularizer that the layer's attribute holds (persistence)."""
        return (
            getattr(self.config_layer, self.config_attribute)
            if self.config_attribute
            else None
        )

    @property
    def regularizer(self):
        """The regularizer in effect; for an unbuilt layer, the one to come."""
        if self.variable is None:
            return self.configured_regularizer
        return self.variable.regularizer

    @property
    def is_lora_factor(self):
        """Whether it is one of the two small kernels of LoRA."""
        return self.variable is not None and self.variable.name.startswith("lora_")

    @property
    def is_frozen_lora_base(self):
        """Whether LoRA trains two small kernels in place of this weight."""
        return bool(
            self.layers
            and getattr(self.layers[-1], "lora_enabled", False)
            and self.variable is not None
            and not self.variable.trainable
            and not self.variable.name.startswith("lora_")
        )


def find_weights(model):
    """Every distinct weight of a model that was made to be trained, frozen or not.

    Shared layers and tied weights come once; a weight belongs to the innermost
    layer that tracks it. Weights of unbuilt layers are foretold from the layers'
    `*_regularizer` attributes. Statistics and seeds are not weights.

    Args:
        model: A `keras.Model` or layer, built or not, or an `L2AllWeights`.

    Returns:
        A list of `Weight`, in the order of the walk.

    Example:

    >>> layer = keras.layers.Dense(2, name="twice")
    >>> x = keras.Input((2,))
    >>> [w.name for w in find_weights(keras.Model(x, layer(layer(x))))]
    ['twice/kernel', 'twice/bias']

    Source: `keras.layers.Layer.weights`, https://keras.io/api/layers/base_layer/
    """
    found, seen_layers, seen_variables, names = [], set(), set(), set()

    def visit(layer, layers):
        seen_layers.add(id(layer))
        children = _keras.sublayers(layer)
        inner = {id(v) for child in children for v in child.variables}
        own = [v for v in _keras.own_variables(layer) if id(v) not in inner]
        named = _named(layer, own)
        siblings = [name for name, _ in named]
        for name, variable in named:
            if variable is None or id(variable) not in seen_variables:
                seen_variables.add(id(variable))
                role = _role(name, variable, layer, siblings)
                found.append(_describe(name, role, variable, layers, layer, names))
        for child in children:
            if id(child) not in seen_layers:
                visit(child, (*layers, child))

    # The wrapper is skipped: names start within the model that it wraps.
    visit(inner_model(model), ())
    return found


def inner_model(model):
    """The model that an `L2AllWeights` wraps; any other model is returned as it is.

    >>> model = keras.Sequential([keras.layers.Dense(3)])
    >>> inner_model(model) is model
    True
    """
    # By a mark on the class: a user's model may have a `wrapped_model` of its own.
    is_wrapper = getattr(type(model), "_is_keras_l2reg_wrapper", False)
    return model.wrapped_model if is_wrapper else model


def _named(layer, variables):
    """`(name, variable)` of each; `None` for those that the layer is yet to make."""
    names = _own_names(layer, variables)
    to_come = [] if layer.built else _names_to_come(layer, set(names))
    named = zip(names, variables, strict=True)
    return [*named, *((name, None) for name in to_come)]


def _own_names(layer, variables):
    """The variables' names; for automatic ones, what the layer calls the variable.

    Keras counts variables without a name over the whole process, so that a model
    built again would have others.
    """
    if not any(_AUTOMATIC_NAME.fullmatch(v.name) for v in variables):
        return [v.name for v in variables]
    called = {}
    for attribute, value in vars(layer).items():
        # Keras' own lists of variables are private.
        if isinstance(value, keras.Variable) or not attribute.startswith("_"):
            for path, leaf in _leaves(value):
                name = "/".join([attribute.lstrip("_"), *path])
                called.setdefault(id(leaf), name)
    return [
        called.get(id(v), "variable") if _AUTOMATIC_NAME.fullmatch(v.name) else v.name
        for v in variables
    ]


def _leaves(value, path=()):
    """The variables in nested lists and dicts, each with its path."""
    if isinstance(value, keras.Variable):
        yield path, value
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _leaves(part, (*path, str(key)))
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _leaves(part, (*path, str(index)))


def _describe(own_name, role, variable, layers, owner, taken):
    name = _unused("/".join([*(layer.name for layer in layers), own_name]), taken)
    role, attribute, is_guess = role
    config_layer = owner
    if len(layers) > 1 and isinstance(layers[-2], _ATTENTION):
        config_layer = layers[-2]
    # MultiHeadAttention keeps its regularizers under private names.
    for candidate in (attribute, f"_{attribute}"):
        if _is_readable(config_layer, candidate):
            return Weight(
                name, role, variable, layers, config_layer, candidate, is_guess
            )
    return Weight(name, role, variable, layers, is_guess=is_guess)


def _is_readable(config_layer, attribute):
    # A property of the user's own may raise anything.
    try:
        getattr(config_layer, attribute)
    except Exception:
        return False
    return True


def _unused(name, taken):
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique


def _role(name, variable, owner, siblings):
    """The role, the attribute that persists the regularizer, whether it is a guess."""
    if name == "kernel" and isinstance(owner, _DEPTHWISE_CONV):
        return "depthwise", "depthwise_regularizer", False
    shape = None if variable is None else tuple(variable.shape)
    role, is_guess = role_of(name, shape, siblings)
    return role, _ATTRIBUTES.get(name, f"{name}_regularizer"), is_guess


def _names_to_come(layer, present):
    """Names of the variables that an unbuilt layer is about to make."""
    stems = [
        attribute.strip("_").removesuffix("_regularizer")
        for attribute in vars(layer)
        if attribute.endswith("_regularizer")
    ]
    by_attribute = {a: n for n, a in _ATTRIBUTES.items() if not n.startswith("lora_")}
    names = [by_attribute.get(f"{stem}_regularizer", stem) for stem in stems]
    if isinstance(layer, _DEPTHWISE_CONV):
        names = ["kernel" if n == "depthwise_kernel" else n for n in names]
    return [n for n in names if n not in {"activity", *present}]


def listed(names, shown=20):
    """Names for a message: the first of many, and how many more there are.

    >>> listed(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    names = list(names)
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")
