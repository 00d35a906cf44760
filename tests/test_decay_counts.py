"""Decay by this package takes no more operations than Keras' own decay."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg.optimizers import set_weight_decay

BACKEND = keras.backend.backend()
# Those of the share of a step, once for each optimizer or multiplier.
SCALAR = 3


def network(depth):
    return keras.Sequential(
        [
            keras.Input((32,)),
            *[layers.Dense(32, name=f"dense_of_{i}") for i in range(depth)],
        ]
    )


def operations(model, optimizer):
    """How many operations, on tensors of any size, `optimizer.apply` consists of."""
    variables = model.trainable_variables
    optimizer.build(variables)
    gradients = [ops.zeros(v.shape) for v in variables]
    return COUNT[BACKEND](optimizer, gradients, variables)


def of_a_graph(optimizer, gradients, variables):
    import tensorflow as tf

    step = tf.function(lambda *gradients: optimizer.apply([*gradients], variables))
    return len(step.get_concrete_function(*gradients).graph.get_operations())


def of_a_jaxpr(optimizer, gradients, variables):
    import jax

    state = [v.value for v in optimizer.variables], gradients
    step = jax.make_jaxpr(optimizer.stateless_apply)
    jaxpr = step(*state, [v.value for v in variables]).jaxpr
    return len(_equations(jaxpr))


def _equations(jaxpr):
    found = []
    for equation in jaxpr.eqns:
        values = equation.params.values()
        inner = [v.jaxpr for v in values if hasattr(v, "jaxpr")]
        found += [e for sub in inner for e in _equations(sub)] or [equation]
    return found


def of_a_profile(optimizer, gradients, variables):
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            foreach = "_foreach" in func.name()
            self.count += len(args[0]) if foreach else not func.is_view
            return func(*args, **(kwargs or {}))

    with torch.no_grad():
        optimizer.apply(gradients, variables)
        with Count() as counted:
            optimizer.apply(gradients, variables)
    return counted.count


COUNT = {"tensorflow": of_a_graph, "jax": of_a_jaxpr, "torch": of_a_profile}


def added(depth, optimizer_class, multipliers):
    """What the decay of kernels adds to a step: by Keras, and by this package."""
    counts = {}
    for way in ("none", "keras", "ours"):
        model = network(depth)
        optimizer = optimizer_class(0.01, weight_decay=0.1)
        if way == "none":
            optimizer.weight_decay = None
        if way == "keras":
            optimizer.exclude_from_weight_decay(var_names=["bias"])
        if way == "ours":
            optimizer = set_weight_decay(optimizer, model, 0.1, multipliers=multipliers)
        counts[way] = operations(model, optimizer)
    return counts["keras"] - counts["none"], counts["ours"] - counts["none"]


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
@pytest.mark.parametrize("multipliers", [None, {"dense_of_0/*": 0.5}])
def test_decay_takes_no_more_operations_for_each_weight(name, multipliers):
    optimizer_class = getattr(keras.optimizers, name)
    few, many = (added(depth, optimizer_class, multipliers) for depth in (3, 9))
    by_keras, ours = np.subtract(many, few)
    assert ours <= by_keras
    assert few[1] <= few[0] + SCALAR
