"""Whether a normalization takes the scale of a layer's kernel out again.

With `f(a * w) = f(w)` for every `a > 0`, the penalty on `w` can't limit `f`; it sets
the effective step size instead.

Reference: van Laarhoven, [L2 Regularization versus Batch and Weight Normalization](
https://arxiv.org/abs/1706.05350), 2017.
"""

import keras

layers = keras.layers

# Their output is linear in each kernel, but for bias and activation.
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
# They hand a factor on, `g(a * x) = a * g(x)`, but not every shift.
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


def is_normalized(layer, consumers):
    """Whether `layer`'s output goes nowhere but, linearly, into normalizations.

    Args:
        layer: A Keras layer.
        consumers: What reads each layer's output, from `_keras.consumers`.
    """
    if (
        not isinstance(layer, _LINEAR)
        or not _is_linear(getattr(layer, "activation", None))
        or layer.activity_regularizer is not None
        or getattr(layer, "lora_enabled", False)
    ):
        return False
    has_bias = getattr(layer, "bias", None) is not None
    return _all_normalize(layer, consumers, layer if has_bias else None)


def _is_linear(activation):
    return activation in (None, keras.activations.linear)


def _all_normalize(layer, consumers, biased):
    """`biased` is the layer whose bias is in the signal, or `None`."""
    # No recursion: a chain of layers may be longer than Python's stack. A shared
    # layer may even lead back to itself; what counts is where its output gets out.
    seen, todo = {id(layer)}, [layer]
    while todo:
        following = consumers.get(id(todo.pop()), [])
        for operation in following:
            if _takes_scale_out(operation, biased):
                continue
            if not _hands_on(operation, biased):
                return False
            if id(operation) not in seen:
                seen.add(id(operation))
                todo.append(operation)
        if not following:
            return False
    return True


def _takes_scale_out(operation, biased):
    if isinstance(operation, layers.BatchNormalization):
        # A frozen one divides by its moving statistics, which know no new scale.
        return operation.trainable and (
            biased is None or _subtracts_bias(operation, biased)
        )
    # These take the mean over channels, so that a bias, which does not grow with
    # the kernel, is not subtracted.
    return isinstance(operation, _PER_SAMPLE_NORM) and biased is None


def _subtracts_bias(norm, layer):
    """Whether the norm's statistics are those of each of the layer's channels."""
    if isinstance(layer, layers.EinsumDense):
        return False
    rank = norm.input_spec.ndim
    is_first = getattr(layer, "data_format", None) == "channels_first"
    return norm.axis % rank == (1 if is_first else rank - 1)


def _hands_on(operation, biased):
    if isinstance(operation, layers.Activation):
        return _is_linear(operation.activation)
    # These move or zero some of the biases, which the mean then no longer equals.
    return isinstance(operation, layers.Identity) or (
        biased is None and isinstance(operation, _PASS)
    )
