"""Which weights: one walk over a model, one rule.

`find_weights` walks a model and describes each distinct trainable-by-design
variable once, as a `Weight`; `select` keeps those that the rule covers and says
with which multiplier. Everything else in this package works on these records.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
...      keras.layers.Dense(2, name="output")])
>>> [(w.name, w.role, w.attribute) for w in find_weights(model)]  # doctest: +ELLIPSIS
[('hidden/kernel', 'kernel', 'kernel_regularizer'), ('hidden/bias', 'bias', ...
>>> [(w.name, factor) for w, factor in select(model, multipliers={"hidden/*": 0.1})]
[('hidden/kernel', 0.1), ('output/kernel', 1.0)]
"""

import dataclasses
import fnmatch
import glob
import inspect

import keras

from keras_l2reg import _keras
from keras_l2reg.regularizers import check_strength

KERNEL_ROLES = ("kernel", "recurrent", "depthwise", "pointwise")

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
    # The wrapper is see-through: names start within the model that it wraps.
    root = getattr(model, "wrapped_model", model)
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

    visit(root, ())
    return found


def _describe(variable_name, variable, layers, owner, taken):
    name = _unused("/".join([*(layer.name for layer in layers), variable_name]), taken)
    role, attribute = _role_and_attribute(variable_name, variable, owner)
    holder = owner
    if len(layers) > 1 and isinstance(layers[-2], _ATTENTION):
        holder = layers[-2]
    # MultiHeadAttention keeps its regularizers under private names.
    for candidate in (attribute, f"_{attribute}"):
        if hasattr(holder, candidate):
            return Weight(name, role, variable, layers, holder, candidate)
    return Weight(name, role, variable, layers)


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
    patterns = _as_list(layers)
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
    if layers is not None and not _as_list(layers):
        raise ValueError(
            "Invalid value for argument `layers`. Expected at least one layer class or "
            f"glob, or `None` for all. Received: layers={layers!r}"
        )
    for pattern in _as_list(layers):
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


def layers_to_config(layers):
    """The argument `layers` with each class said by name, for a config to carry.

    >>> layers_to_config(["head/*", keras.layers.Dense])
    ['head/*', {'layer_class': 'Dense'}]
    """
    if layers is None:
        return None
    return [
        pattern
        if isinstance(pattern, str)
        else {"layer_class": keras.saving.get_registered_name(pattern)}
        for pattern in _as_list(layers)
    ]


def layers_from_config(config, custom_objects=None):
    """The argument `layers` that `layers_to_config` said.

    >>> layers_from_config([{"layer_class": "Dense"}]) == [keras.layers.Dense]
    True
    """
    if config is None:
        return None
    return [
        pattern
        if isinstance(pattern, str)
        else _layer_class(pattern["layer_class"], custom_objects)
        for pattern in config
    ]


def with_new_names(patterns, before, after):
    """Globs over the names `before`, as globs that match the same places of `after`.

    A subclassed model made anew gets new automatic layer names, `dense_1` for `dense`;
    a saved rule must find the same weights under their new names.

    >>> with_new_names(["dense/*"], ["dense/kernel"], ["dense_1/kernel"])
    {'dense/*': ['dense_1/kernel']}
    """
    if before == after or len(before) != len(after):
        return {pattern: [pattern] for pattern in patterns}
    pairs = list(zip(before, after, strict=True))
    return {
        pattern: [
            glob.escape(n) for old, n in pairs if fnmatch.fnmatchcase(old, pattern)
        ]
        if isinstance(pattern, str)
        else [pattern]
        for pattern in patterns
    }


def _layer_class(name, custom_objects):
    registered = keras.saving.get_registered_object(name, custom_objects)
    found = registered or getattr(keras.layers, name, None)
    if found is None:
        raise ValueError(
            f"Expected the layer class {name!r}, which the penalty is narrowed to, to "
            "be registered or given in `custom_objects`."
        )
    return found


def _as_list(layers):
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
