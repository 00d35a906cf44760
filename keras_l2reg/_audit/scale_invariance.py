"""The rule about kernels whose scale a normalization cancels.

If `f(a * w) = f(w)` for every `a > 0`, a penalty on `w` does not limit `f`; it sets
the effective learning rate instead.

References:
    - van Laarhoven, [L2 Regularization versus Batch and Weight Normalization](
      https://arxiv.org/abs/1706.05350), 2017.
"""

from collections.abc import Mapping
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._audit.facts import ModelFacts, l2_to_zero_of, names_of
from keras_l2reg._roles import KERNEL_ROLES
from keras_l2reg.weights import Weight

layers = keras.layers

# Layers whose output is linear in each kernel, apart from bias and activation.
_LINEAR = (
    layers.Dense,
    layers.EinsumDense,
    layers.Conv1D,
    layers.Conv2D,
    layers.Conv3D,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
    layers.Conv3DTranspose,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.SeparableConv1D,
    layers.SeparableConv2D,
)
# Layers that preserve a factor, `g(a * x) = a * g(x)`, but not every shift.
_PASS = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.Cropping1D,
    layers.Cropping2D,
    layers.Cropping3D,
    layers.Dropout,
    layers.Flatten,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.Permute,
    layers.RepeatVector,
    layers.Reshape,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.ZeroPadding1D,
    layers.ZeroPadding2D,
    layers.ZeroPadding3D,
)
_PER_SAMPLE_NORM = (
    layers.GroupNormalization,
    layers.LayerNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)


def scale_invariant(facts: ModelFacts) -> tuple[str, ...]:
    """Kernels with an L2 penalty whose output is only used after a normalization."""
    consumers = _keras.consumers(facts.model)
    return names_of(
        w
        for w in facts.penalized
        if l2_to_zero_of(w.regularizer) and is_scale_invariant(w, consumers)
    )


def is_scale_invariant(
    weight: Weight, consumers: Mapping[int, list[keras.Operation | None]]
) -> bool:
    """Whether a weight is a kernel whose scale normalizations cancel.

    Args:
        weight: The `Weight`.
        consumers: What `_keras.consumers` returns for its model.
    """
    return (
        weight.role in KERNEL_ROLES
        # A weight of the model itself belongs to no layer of the graph.
        and bool(weight.layers)
        and _is_normalized(weight.layers[-1], consumers)
    )


def _is_normalized(
    layer: layers.Layer, consumers: Mapping[int, list[keras.Operation | None]]
) -> bool:
    """Whether the output of `layer` is only used, linearly, by normalizations."""
    if (
        not isinstance(layer, _LINEAR)
        or not _is_linear(getattr(layer, "activation", None))
        or layer.activity_regularizer is not None
        or getattr(layer, "lora_enabled", False)
    ):
        return False
    has_bias = getattr(layer, "bias", None) is not None
    return _all_paths_normalize(layer, consumers, layer if has_bias else None)


def _is_linear(activation: object) -> bool:
    return activation in (None, keras.activations.linear)


def _all_paths_normalize(
    layer: layers.Layer,
    consumers: Mapping[int, list[keras.Operation | None]],
    biased: layers.Layer | None,
) -> bool:
    """Whether every path from `layer` has a normalization that cancels the scale.

    Args:
        layer: The layer whose kernel is scaled.
        consumers: The operations that read each layer's output, by the layer's id.
        biased: The layer whose bias is part of the signal, or `None`.
    """
    # Not recursive, since a chain of layers may exceed Python's recursion limit. A
    # shared layer may lead back to itself, so each layer is visited once.
    seen: set[int] = {id(layer)}
    todo: list[keras.Operation | None] = [layer]
    while todo:
        following = consumers.get(id(todo.pop()), [])
        for operation in following:
            if _cancels_scale(operation, biased):
                continue
            if not _passes_on_scale(operation, biased):
                return False
            if id(operation) not in seen:
                seen.add(id(operation))
                todo.append(operation)
        if not following:
            return False
    return True


def _cancels_scale(
    operation: keras.Operation | None, biased: layers.Layer | None
) -> bool:
    if isinstance(operation, layers.BatchNormalization):
        # A frozen one divides by its moving statistics, which do not change with w.
        return operation.trainable and (
            biased is None or _subtracts_bias(operation, biased)
        )
    # These subtract the mean over channels, which leaves a bias in the signal, and a
    # bias does not scale with the kernel.
    return isinstance(operation, _PER_SAMPLE_NORM) and biased is None


def _subtracts_bias(norm: Any, layer: layers.Layer) -> bool:
    """Whether the normalization has statistics for each channel of the layer."""
    if isinstance(layer, layers.EinsumDense):
        return False
    rank = norm.input_spec.ndim
    is_first = getattr(layer, "data_format", None) == "channels_first"
    return norm.axis % rank == (1 if is_first else rank - 1)


def _passes_on_scale(
    operation: keras.Operation | None, biased: layers.Layer | None
) -> bool:
    if isinstance(operation, layers.Activation):
        return _is_linear(operation.activation)
    # These move some of the biases or set some to 0, so that the mean no longer equals
    # the bias.
    return isinstance(operation, layers.Identity) or (
        biased is None and isinstance(operation, _PASS)
    )
