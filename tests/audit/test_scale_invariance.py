"""Kernels whose scale a normalization cancels, compared with what Keras computes."""

import keras
import numpy as np
import pytest
from audit_helpers import where, wrap_and_replace
from keras import layers, ops


def conv_model(*following, use_bias=False, activation=None):
    conv = layers.Conv2D(
        3,
        3,
        activation=activation,
        use_bias=use_bias,
        kernel_regularizer="l2",
        name="conv",
    )
    inputs = keras.Input((6, 6, 2))
    x = conv(inputs)
    for layer in following:
        x = layer(x)
    return keras.Model(inputs, x)


def output_at_scale(model, scale):
    """The training-mode output, computed by Keras, for `scale` times the kernel."""
    conv = model.get_layer("conv")
    kernel = ops.convert_to_numpy(conv.kernel)
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 2)).astype("float32")
    keras.utils.set_random_seed(0)
    conv.kernel.assign(kernel * scale)
    with keras.StatelessScope():
        output = model(ops.convert_to_tensor(x), training=True)
    conv.kernel.assign(kernel)
    return ops.convert_to_numpy(output)


def frozen_norm():
    norm = layers.BatchNormalization()
    norm.trainable = False
    return norm


INVARIANT = {
    "conv-BN": lambda: conv_model(layers.BatchNormalization(epsilon=0.0)),
    "biased-conv-BN": lambda: conv_model(
        layers.BatchNormalization(epsilon=0.0), use_bias=True
    ),
    "conv-LN": lambda: conv_model(layers.LayerNormalization(epsilon=1e-12)),
    "conv-linear-pool-flatten-BN": lambda: conv_model(
        layers.Activation("linear"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.BatchNormalization(epsilon=0.0),
    ),
    "conv-pad-GN": lambda: conv_model(
        layers.ZeroPadding2D(), layers.GroupNormalization(1, epsilon=1e-12)
    ),
}


NOT_INVARIANT = {
    "conv": lambda: conv_model(),
    "conv-relu": lambda: conv_model(layers.ReLU()),
    "biased-conv-LN": lambda: conv_model(layers.LayerNormalization(), use_bias=True),
    "conv-tanh-BN": lambda: conv_model(layers.BatchNormalization(), activation="tanh"),
    "biased-conv-pad-BN": lambda: conv_model(
        layers.ZeroPadding2D(), layers.BatchNormalization(), use_bias=True
    ),
    "biased-conv-BN-of-rows": lambda: conv_model(
        layers.BatchNormalization(axis=1), use_bias=True
    ),
    "conv-frozen-BN": lambda: conv_model(frozen_norm()),
}


def set_biases(model):
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.arange(1.0, layer.bias.shape[0] + 1))


@pytest.mark.parametrize("name", INVARIANT)
def test_output_does_not_depend_on_the_kernels_scale(name):
    model = INVARIANT[name]()
    set_biases(model)
    np.testing.assert_allclose(
        output_at_scale(model, 1.0), output_at_scale(model, 5.0), atol=1e-3
    )
    assert where(model, "scale-invariant") == ["conv/kernel"]
    wrapped = wrap_and_replace(model)
    assert where(wrapped, "scale-invariant") == ["conv/kernel"]


@pytest.mark.parametrize("name", NOT_INVARIANT)
def test_output_depends_on_the_kernels_scale(name):
    model = NOT_INVARIANT[name]()
    set_biases(model)
    distance = np.abs(output_at_scale(model, 1.0) - output_at_scale(model, 5.0))
    assert distance.max() > 0.01
    assert where(model, "scale-invariant") == []


def test_scale_invariant_only_if_every_path_is_normalized():
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, use_bias=False, kernel_regularizer="l2", name="dense")(
        inputs
    )
    norm = layers.BatchNormalization()(hidden)
    assert where(keras.Model(inputs, norm), "scale-invariant") == ["dense/kernel"]
    assert where(keras.Model(inputs, norm + hidden), "scale-invariant") == []
    assert where(keras.Model(inputs, [norm, hidden]), "scale-invariant") == []


def test_scale_invariant_before_more_layers_than_pythons_stack_holds():
    many = [layers.Dropout(0.1) for _ in range(400)]
    model = conv_model(*many, layers.LayerNormalization())
    assert where(model, "scale-invariant") == ["conv/kernel"]
    assert where(conv_model(*many, layers.ReLU()), "scale-invariant") == []


def test_scale_invariant_before_a_layer_that_is_used_twice():
    drop = layers.Dropout(0.1)
    model = conv_model(drop, drop, layers.LayerNormalization())
    assert where(model, "scale-invariant") == ["conv/kernel"]
    assert where(conv_model(drop, drop), "scale-invariant") == []


def test_scale_invariant_in_a_nested_model():
    inner = conv_model(layers.BatchNormalization())
    inputs = keras.Input((6, 6, 2))
    outer = keras.Model(inputs, layers.Flatten()(inner(inputs)))
    assert len(where(outer, "scale-invariant")) == 1
    inner = conv_model()
    outer = keras.Model(inputs, layers.BatchNormalization()(inner(inputs)))
    # It is, but what stands outside of a model is not looked at.
    assert where(outer, "scale-invariant") == []
