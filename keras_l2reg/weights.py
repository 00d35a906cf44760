"""Every weight of a model, described once: the one walk.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
...      keras.layers.BatchNormalization(name="norm")])
>>> [(w.name, w.role) for w in find_weights(model)]
[('hidden/kernel', 'kernel'), ('hidden/bias', 'bias'), ('norm/gamma', 'scale'),
 ('norm/beta', 'shift')]
"""

import dataclasses

import keras

from keras_l2reg import _keras

# variable name -> its role and the layer attribute that persists its regularizer
_BY_NAME = {
    "kernel": ("kernel", "kernel_regularizer"),
    "lora_kernel_a": ("kernel", "kernel_regularizer"),
    "lora_kernel_b": ("kernel", "kernel_regularizer"),
    "recurrent_kernel": ("recurrent", "recurrent_regularizer"),
    "depthwise_kernel": ("depthwise", "depthwise_regularizer"),
    "pointwise_kernel": ("pointwise", "pointwise_regularizer"),
    "embeddings": ("embeddings", "embeddings_regularizer"),
    "lora_embeddings_a": ("embeddings", "embeddings_regularizer"),
    "lora_embeddings_b": ("embeddings", "embeddings_regularizer"),
    "reverse_embeddings": ("embeddings", "reverse_embeddings_regularizer"),
    "bias": ("bias", "bias_regularizer"),
    "gamma": ("scale", "gamma_regularizer"),
    "scale": ("scale", "scale_regularizer"),
    "beta": ("shift", "beta_regularizer"),
    "alpha": ("slope", "alpha_regularizer"),
}
_DEPTHWISE_CONV = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# Attention layers build their projections anew from an attribute of their own.
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """One distinct weight of a model, described once.

    Args:
        name: Readable name, unique in the model: `"hidden/kernel"`.
        role: `"kernel"`, `"recurrent"`, `"depthwise"`, `"pointwise"`,
            `"embeddings"`, `"bias"`, `"scale"`, `"shift"`, `"slope"` or `"other"`.
        variable: The `keras.Variable`, or `None` while the layer is unbuilt.
        layers: The layers on the way from the model (left out) to the owner (last).
        holder: The layer whose attribute persists the regularizer, or `None`.
        attribute: The name of that attribute, or `None`.

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
    holder: keras.layers.Layer | None = None
    attribute: str | None = None

    @property
    def slot(self):
        """A key for the attribute (persistence), or `None` where there is none."""
        return (id(self.holder), self.attribute) if self.attribute else None

    @property
    def slot_value(self):
        """The regularizer that the layer's attribute holds (persistence)."""
        return getattr(self.holder, self.attribute) if self.attribute else None

    @property
    def regularizer(self):
        """The regularizer in effect; for an unbuilt layer, the one to come."""
        if self.variable is None:
            return self.slot_value
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
        for variable in own:
            if id(variable) not in seen_variables:
                seen_variables.add(id(variable))
                found.append(_describe(variable.name, variable, layers, layer, names))
        if not layer.built:
            for name in _names_to_come(layer, {v.name for v in own}):
                found.append(_describe(name, None, layers, layer, names))
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


def _describe(variable_name, variable, layers, owner, taken):
    name = _unused("/".join([*(layer.name for layer in layers), variable_name]), taken)
    role, attribute = _role_and_attribute(variable_name, variable, owner)
    holder = owner
    if len(layers) > 1 and isinstance(layers[-2], _ATTENTION):
        holder = layers[-2]
    # MultiHeadAttention keeps its regularizers under private names.
    for candidate in (attribute, f"_{attribute}"):
        if _is_readable(holder, candidate):
            return Weight(name, role, variable, layers, holder, candidate)
    return Weight(name, role, variable, layers)


def _is_readable(holder, attribute):
    # A property of the user's own may raise anything.
    try:
        getattr(holder, attribute)
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


def _role_and_attribute(variable_name, variable, owner):
    if variable_name == "kernel" and isinstance(owner, _DEPTHWISE_CONV):
        return "depthwise", "depthwise_regularizer"
    if variable_name in _BY_NAME:
        return _BY_NAME[variable_name]
    is_matrix = variable is not None and len(variable.shape) >= 2
    role = "kernel" if is_matrix else "other"
    if "embedding" in variable_name:
        role = "embeddings"
    elif "bias" in variable_name:
        role = "bias"
    return role, f"{variable_name}_regularizer"


def _names_to_come(layer, present):
    """Names of the variables that an unbuilt layer is about to make."""
    stems = [
        attribute.strip("_").removesuffix("_regularizer")
        for attribute in vars(layer)
        if attribute.endswith("_regularizer")
    ]
    by_attribute = {a: n for n, (_, a) in reversed(_BY_NAME.items())}
    names = [by_attribute.get(f"{stem}_regularizer", stem) for stem in stems]
    if isinstance(layer, _DEPTHWISE_CONV):
        names = ["kernel" if n == "depthwise_kernel" else n for n in names]
    return [n for n in names if n not in {"activity", *present}]
