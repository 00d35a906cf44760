"""Which layer attribute holds the regularizer of a weight that the config saves."""

from collections.abc import Collection

import keras

# Weight name -> attribute, where it is not the name followed by `_regularizer`.
_ATTRIBUTES = {
    "lora_kernel_a": "kernel_regularizer",
    "lora_kernel_b": "kernel_regularizer",
    "recurrent_kernel": "recurrent_regularizer",
    "depthwise_kernel": "depthwise_regularizer",
    "pointwise_kernel": "pointwise_regularizer",
    "lora_embeddings_a": "embeddings_regularizer",
    "lora_embeddings_b": "embeddings_regularizer",
}
_DEPTHWISE_CONV = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
# These have one regularizer for all their projections, the first as a private one.
_ATTENTION = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)


def regularizer_attribute(
    name: str, owner: keras.layers.Layer, parent: keras.layers.Layer | None = None
) -> tuple[keras.layers.Layer, str] | tuple[None, None]:
    """The layer, and its attribute, whose regularizer the config saves for a weight.

    Args:
        name: Name of the weight within its layer, such as `"kernel"`.
        owner: The layer that created the weight.
        parent: The layer that contains `owner`. Defaults to `None`, the model.

    Returns:
        The layer and the attribute's name, or `(None, None)` if there is none.
    """
    layer = parent if isinstance(parent, _ATTENTION) else owner
    attribute = _ATTRIBUTES.get(name, f"{name}_regularizer")
    if name == "kernel" and isinstance(owner, _DEPTHWISE_CONV):
        attribute = "depthwise_regularizer"
    for candidate in (attribute, f"_{attribute}"):
        if _is_readable(layer, candidate):
            return layer, candidate
    return None, None


def _is_readable(layer, attribute):
    # A property of a custom layer may raise any error.
    try:
        getattr(layer, attribute)
    except Exception:
        return False
    return True


def unbuilt_names(layer: keras.layers.Layer, existing: Collection[str]) -> list[str]:
    """Names of the weights that an unbuilt layer will create, by its attributes."""
    stems = [
        attribute.strip("_").removesuffix("_regularizer")
        for attribute in vars(layer)
        if attribute.endswith("_regularizer")
    ]
    by_attribute = {a: n for n, a in _ATTRIBUTES.items() if not n.startswith("lora_")}
    names = [by_attribute.get(f"{stem}_regularizer", stem) for stem in stems]
    if isinstance(layer, _DEPTHWISE_CONV):
        names = ["kernel" if n == "depthwise_kernel" else n for n in names]
    return [n for n in names if n not in {"activity", *existing}]
