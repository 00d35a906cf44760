"""Which weights, in which role, under which attribute, by which rule."""

import keras
import numpy as np
import pytest
from keras import layers
from models import IMAGES, MODELS, SEQUENCES, VECTORS, around

from keras_l2reg import L2AllWeights, find_weights, select

# (layer, inputs, {weight: (role, attribute)}), written from the layers' documentation.
KERNEL = ("kernel", "kernel_regularizer")
BIAS = ("bias", "bias_regularizer")
DEPTHWISE = ("depthwise", "depthwise_regularizer")
LAYERS = [
    (layers.Dense(2), VECTORS, {"kernel": KERNEL, "bias": BIAS}),
    (
        layers.EinsumDense("abc,cd->abd", (None, 2), bias_axes="d"),
        SEQUENCES,
        {"kernel": KERNEL, "bias": BIAS},
    ),
    (layers.Conv1D(2, 2), SEQUENCES, {"kernel": KERNEL, "bias": BIAS}),
    (layers.Conv2DTranspose(2, 2), IMAGES, {"kernel": KERNEL, "bias": BIAS}),
    (layers.DepthwiseConv1D(2), SEQUENCES, {"kernel": DEPTHWISE, "bias": BIAS}),
    (layers.DepthwiseConv2D(2), IMAGES, {"kernel": DEPTHWISE, "bias": BIAS}),
    (
        layers.SeparableConv2D(2, 2),
        IMAGES,
        {
            "depthwise_kernel": DEPTHWISE,
            "pointwise_kernel": ("pointwise", "pointwise_regularizer"),
            "bias": BIAS,
        },
    ),
    (
        layers.LSTMCell(2),
        VECTORS,
        {
            "kernel": KERNEL,
            "recurrent_kernel": ("recurrent", "recurrent_regularizer"),
            "bias": BIAS,
        },
    ),
    (
        layers.Embedding(7, 2),
        np.zeros((2, 3), "int32"),
        {"embeddings": ("embeddings", "embeddings_regularizer")},
    ),
    (
        layers.BatchNormalization(),
        VECTORS,
        {
            "gamma": ("scale", "gamma_regularizer"),
            "beta": ("shift", "beta_regularizer"),
        },
    ),
    (
        layers.LayerNormalization(),
        VECTORS,
        {
            "gamma": ("scale", "gamma_regularizer"),
            "beta": ("shift", "beta_regularizer"),
        },
    ),
    (layers.PReLU(), VECTORS, {"alpha": ("slope", "alpha_regularizer")}),
]


def described(layer):
    return {w.name.split("/")[-1]: (w.role, w.attribute) for w in find_weights(layer)}


@pytest.mark.parametrize(
    "layer, inputs, expected", LAYERS, ids=lambda v: getattr(v, "name", "")
)
def test_role_and_attribute(layer, inputs, expected):
    config = layer.get_config()
    fresh = type(layer).from_config(config)
    if isinstance(layer, layers.LSTMCell):
        fresh.build(inputs.shape)
    else:
        fresh(inputs)
    assert described(fresh) == expected


@pytest.mark.parametrize(
    "name", ["recurrent", "conv_2d", "multi_head_attention", "lora"]
)
def test_every_attribute_is_in_the_config_of_its_holder(name):
    model = MODELS[name].build()
    for weight in find_weights(model):
        if weight.attribute:
            assert weight.attribute.strip("_") in weight.holder.get_config()


@pytest.mark.parametrize(
    "layer", [layers.Dense(2, name="x"), layers.SeparableConv1D(2, 2, name="x")]
)
def test_unbuilt_layers_foretell_their_weights(layer):
    model = keras.Sequential([layer])
    before = [(w.name, w.role, w.attribute) for w in find_weights(model)]
    assert all(w.variable is None for w in find_weights(model))
    model.build((None, 5, 6))
    after = [(w.name, w.role, w.attribute) for w in find_weights(model)]
    assert sorted(before) == sorted(after)


def test_names_are_unique_and_variables_come_once():
    for name in ("shared_layer", "tied_weights", "custom_weights_of_one_name"):
        model = MODELS[name].build()
        model(MODELS[name].inputs)
        found = find_weights(model)
        assert len({w.name for w in found}) == len(found)
        assert {id(w.variable) for w in found} == {
            id(v) for v in model.trainable_weights
        }
        assert len({id(w.variable) for w in found}) == len(found)


def two_layers():
    return around(
        layers.Dense(4, name="hidden"), layers.Dense(2, name="output"), shape=(6,)
    )


@pytest.mark.parametrize(
    "rule, expected",
    [
        ({}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        ({"layers": "out*"}, {"output/kernel": 1.0}),
        ({"layers": ["out*", "hid*"]}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        ({"layers": layers.Dense}, {"hidden/kernel": 1.0, "output/kernel": 1.0}),
        (
            {"layers": "*/kernel", "biases": True},
            {"hidden/kernel": 1, "output/kernel": 1},
        ),
        (
            {"multipliers": {"*": 0.5, "output/*": 2}},
            {"hidden/kernel": 0.5, "output/kernel": 2.0},
        ),
        (
            {"multipliers": {"output/*": 2, "*": 0.5}},
            {"hidden/kernel": 0.5, "output/kernel": 0.5},
        ),
        ({"multipliers": {"hidden/*": 0}}, {"output/kernel": 1.0}),
        (
            {"biases": True, "multipliers": {"*/bias": 0.1, "hidden/bias": 0}},
            {"hidden/kernel": 1.0, "output/kernel": 1.0, "output/bias": 0.1},
        ),
    ],
)
def test_rule(rule, expected):
    assert {w.name: m for w, m in select(two_layers(), **rule)} == expected


def test_layer_class_takes_in_what_stands_within():
    model = MODELS["bidirectional"].build()
    by_class = select(model, layers=layers.Bidirectional)
    assert len(by_class) == 4


@pytest.mark.parametrize(
    "rule",
    [
        {"layers": "nothing*"},
        {"layers": layers.Conv2D},
        {"multipliers": {"nothing*": 1}},
        {"multipliers": {"*": 0}},
        {"layers": []},
    ],
)
def test_what_matches_nothing_is_an_error(rule):
    with pytest.raises(ValueError, match=r"Received"):
        select(two_layers(), **rule)


def test_wrapper_is_seen_through():
    model = two_layers()
    names = [w.name for w in find_weights(model)]
    assert [w.name for w in find_weights(L2AllWeights(model))] == names


@pytest.mark.parametrize("pattern", [layers.Dense, "*/kernel"])
def test_narrowed_wrapper_loads_again(pattern, tmp_path):
    wrapped = L2AllWeights(two_layers(), layers=[pattern])
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.losses) == 2
