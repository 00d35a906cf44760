"""Generated models: penalties equal NumPy's, and detach undoes attach."""

import fnmatch

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers

from keras_l2reg import attach, detach, find_weights

KINDS = [
    "dense",
    "einsum",
    "conv",
    "depthwise",
    "separable",
    "gru",
    "attention",
    "norm",
]
COVERED = ("kernel", "recurrent_kernel", "depthwise_kernel", "pointwise_kernel")
GLOBS = ["*", "*kernel", "layer_0/*", "layer_1*", "*recurrent*"]


def make_layer(kind, width, name, regularizer):
    own = {"kernel_regularizer": regularizer, "name": name}
    if kind == "dense":
        return layers.Dense(width, **own)
    if kind == "einsum":
        return layers.EinsumDense("abc,cd->abd", (None, width), bias_axes="d", **own)
    if kind == "conv":
        return layers.Conv1D(width, 2, padding="same", **own)
    if kind == "depthwise":
        return layers.DepthwiseConv1D(2, padding="same", name=name)
    if kind == "separable":
        return layers.SeparableConv1D(width, 2, padding="same", name=name)
    if kind == "gru":
        return layers.GRU(width, return_sequences=True, name=name)
    if kind == "attention":
        return layers.MultiHeadAttention(2, 2, name=name)
    return layers.LayerNormalization(name=name)


layer_plans = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(KINDS),
        "width": st.integers(1, 4),
        "shared": st.booleans(),
        "frozen": st.booleans(),
        "regularizer": st.sampled_from([None, None, "l1", "l2"]),
    }
)
rules = st.fixed_dictionaries(
    {
        "biases": st.booleans(),
        "multipliers": st.dictionaries(
            st.sampled_from(GLOBS), st.sampled_from([0.0, 0.1, 1.0, 3.0]), max_size=3
        ),
        "existing": st.sampled_from(["keep", "replace"]),
    }
)


def build(plans):
    """A functional model; a shared layer is called once more on what fits it."""
    x = inputs = keras.Input((3, 2))
    for number, plan in enumerate(plans):
        layer = make_layer(
            plan["kind"], plan["width"], f"layer_{number}", plan["regularizer"]
        )
        before = x
        x = layer(x, x) if plan["kind"] == "attention" else layer(x)
        if plan["shared"] and plan["kind"] != "attention":
            x = layers.concatenate([x, layer(before)])
        layer.trainable = not plan["frozen"]
    return keras.Model(inputs, layers.Dense(1, name="head")(x))


def reference(model, rule, l2):
    """The penalties that the rule asks for, found by the paths of the variables."""
    terms = []
    for variable in model.trainable_variables:
        short = variable.path.split("/")[-1]
        if short not in COVERED and not (rule["biases"] and short == "bias"):
            continue
        multiplier = 1.0
        for pattern, value in rule["multipliers"].items():
            if fnmatch.fnmatchcase(variable.path, pattern):
                multiplier = value
        own = variable.regularizer
        kernel = keras.ops.convert_to_numpy(variable).astype("float64")
        if own is not None and (rule["existing"] == "keep" or multiplier == 0):
            power = 1 if type(own) is keras.regularizers.L1 else 2
            terms.append(0.01 * np.sum(np.abs(kernel) ** power))
        elif multiplier:
            terms.append(l2 * multiplier * np.sum(kernel**2))
    return terms


def losses(model):
    return [float(keras.ops.convert_to_numpy(term)) for term in model.losses]


def state(model):
    weights = find_weights(model)
    return (
        model.get_config(),
        losses(model),
        [w.regularizer for w in weights],
        [w.configured_regularizer for w in weights],
        [keras.ops.convert_to_numpy(v).tolist() for v in model.weights],
    )


def check_penalties_and_detach(plans, rule):
    model = build(plans)
    rule = dict(rule)
    names = [v.path for v in model.weights]
    # A glob that matches nothing is an error, and tested elsewhere.
    rule["multipliers"] = {
        pattern: value
        for pattern, value in rule["multipliers"].items()
        if any(fnmatch.fnmatchcase(n, pattern) and n.endswith(COVERED) for n in names)
    }
    rule["multipliers"]["head/kernel"] = 1.0
    before = state(model)
    expected = reference(model, rule, 0.05)
    attach(model, 0.05, **rule)
    np.testing.assert_allclose(losses(model), expected, rtol=1e-5, atol=1e-9)
    assert state(detach(model)) == before


plans_of_a_model = st.lists(layer_plans, min_size=1, max_size=4)


@given(plans_of_a_model, rules)
@settings(max_examples=20, deadline=None, derandomize=True)
@pytest.mark.filterwarnings("ignore:The configuration of")
def test_penalties_and_detach_of_generated_models(plans, rule):
    check_penalties_and_detach(plans, rule)


@pytest.mark.slow
@given(plans_of_a_model, rules)
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.filterwarnings("ignore:The configuration of")
def test_penalties_and_detach_of_many_generated_models(plans, rule):
    check_penalties_and_detach(plans, rule)
