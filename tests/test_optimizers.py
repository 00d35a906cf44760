"""set_weight_decay against torch's optimizers, on the same weights and batches."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import L2AllWeights, set_weight_decay

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 8, 4)).astype("float32")
Y = RNG.normal(size=(5, 8, 2)).astype("float32")
RATE, STEP = 0.3, 0.05


def network():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "tanh", name="hidden", bias_initializer="ones"),
            layers.Dense(2, name="head", bias_initializer="ones"),
        ]
    )


def compiled(optimizer, l2=None):
    model = network() if l2 is None else L2AllWeights(network(), l2)
    model.compile(optimizer, "mse")
    return model


def kernels_and_biases(model):
    weights = [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]
    return weights[::2], weights[1::2]


def by_torch(model, optimizer, decayed=("kernels",), **arguments):
    """The weights after each step, by torch alone, from the model's weights."""
    import torch

    kernels, biases = (
        [torch.tensor(w, device="cpu", requires_grad=True) for w in part]
        for part in kernels_and_biases(model)
    )
    parts = {"kernels": kernels, "biases": biases, "hidden": kernels[:1]}
    chosen = [w for name in decayed for w in parts[name]]
    others = [w for w in kernels + biases if not any(w is c for c in chosen)]
    stepper = optimizer(
        [
            {"params": chosen, "weight_decay": RATE},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=STEP,
        **arguments,
    )
    for x, y in zip(torch.tensor(X), torch.tensor(Y), strict=True):
        hidden = torch.tanh(x @ kernels[0] + biases[0])
        loss = torch.mean((hidden @ kernels[1] + biases[1] - y) ** 2)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        yield [w.detach().numpy().copy() for w in kernels + biases]


def assert_steps_as(model, expected):
    for x, y, weights in zip(X, Y, expected, strict=True):
        model.train_on_batch(x, y)
        kernels, biases = kernels_and_biases(model)
        for ours, theirs in zip(kernels + biases, weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


# Keras and torch add epsilon at different places.
ADAM = {"epsilon": 1e-12}


@pytest.mark.parametrize(
    ("rule", "decayed"),
    [
        ({}, ["kernels"]),
        ({"biases": True}, ["kernels", "biases"]),
        ({"layers": "hidden/*"}, ["hidden"]),
        ({"multipliers": {"head/*": 0}}, ["hidden"]),
    ],
)
def test_adam_steps_as_torch_adamw(rule, decayed, torch):
    model = compiled(keras.optimizers.Adam(STEP, **ADAM))
    expected = by_torch(model, torch.optim.AdamW, decayed, eps=1e-12)
    assert set_weight_decay(model.optimizer, model, RATE, **rule) is model.optimizer
    assert_steps_as(model, expected)


def test_sgd_steps_as_torch_sgd(torch):
    model = compiled(keras.optimizers.SGD(STEP))
    expected = by_torch(model, torch.optim.SGD)
    set_weight_decay(model.optimizer, model, RATE)
    assert_steps_as(model, expected)


# torch's SGD adds its decay to the gradient: with momentum it is an L2 penalty.
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_l2_of_half_the_rate_steps_as_torch_sgd(momentum, torch):
    model = compiled(keras.optimizers.SGD(STEP, momentum=momentum), l2=RATE / 2)
    assert_steps_as(model, by_torch(model, torch.optim.SGD, momentum=momentum))


def ends(model, start):
    model.set_weights(start)
    for x, y in zip(X, Y, strict=True):
        model.train_on_batch(x, y)
    return np.concatenate([np.ravel(w) for w in model.get_weights()])


@pytest.mark.parametrize(
    ("optimizer", "arguments", "same"),
    [("SGD", {}, True), ("SGD", {"momentum": 0.9}, False), ("Adam", {}, False)],
)
def test_l2_and_decay_are_equivalent_for_plain_sgd_only(optimizer, arguments, same):
    make = getattr(keras.optimizers, optimizer)
    penalized = network()
    start = penalized.get_weights()
    for layer in penalized.layers:
        # A built-in regularizer, as this tests the formula and not our penalty.
        layer.kernel.regularizer = keras.regularizers.L2(0.1)
    penalized.compile(make(STEP, **arguments), "mse")
    decayed = compiled(make(STEP, **arguments))
    set_weight_decay(decayed.optimizer, decayed, 2 * 0.1)
    by_penalty, by_decay = ends(penalized, start), ends(decayed, start)
    assert np.allclose(by_penalty, by_decay, rtol=1e-5, atol=1e-6) == same


def decay_only(model):
    """The share that each kernel loses in a step without a gradient."""
    before, _ = kernels_and_biases(model)
    model.fit(X[0], model.predict(X[0], verbose=0), verbose=0)
    after, _ = kernels_and_biases(model)
    return [float(np.mean(1 - a / b)) for a, b in zip(after, before, strict=True)]


def test_a_second_call_replaces_the_first_on_a_trained_model():
    model = compiled(keras.optimizers.SGD(STEP))
    set_weight_decay(model.optimizer, model, RATE, layers="hidden/*")
    assert decay_only(model) == pytest.approx([STEP * RATE, 0.0], abs=1e-5)
    set_weight_decay(model.optimizer, model, 2 * RATE, layers="head/*")
    assert decay_only(model) == pytest.approx([0.0, 2 * STEP * RATE], abs=1e-5)


def test_the_optimizer_inside_a_loss_scale_optimizer_decays():
    inner = keras.optimizers.SGD(STEP)
    model = compiled(keras.optimizers.LossScaleOptimizer(inner, initial_scale=1.0))
    set_weight_decay(model.optimizer, model, RATE, layers="head/*")
    assert decay_only(model) == pytest.approx([0.0, STEP * RATE], abs=1e-5)
    assert inner.weight_decay == RATE


@pytest.mark.skipif(
    not hasattr(keras.optimizers.Muon(), "adam_weight_decay"),
    reason="one rate before Keras 3.13",
)
def test_both_rates_of_muon_are_set():
    model = compiled(keras.optimizers.Muon(STEP))
    set_weight_decay(model.optimizer, model, RATE)
    assert model.optimizer.weight_decay == model.optimizer.adam_weight_decay == RATE


def test_a_loaded_model_needs_another_call(tmp_path):
    model = compiled(keras.optimizers.SGD(STEP))
    set_weight_decay(model.optimizer, model, RATE, layers="hidden/*")
    decay_only(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Keras saves the rate, not what is left out of it.
    assert decay_only(loaded) == pytest.approx([STEP * RATE] * 2, abs=1e-5)
    set_weight_decay(loaded.optimizer, loaded, RATE, layers="hidden/*")
    assert decay_only(loaded) == pytest.approx([STEP * RATE, 0.0], abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"optimizer": "adamw"}, TypeError, "'adamw'"),
        ({"model": "model"}, TypeError, "'model'"),
        ({"model": keras.Sequential([layers.Dense(2)])}, ValueError, "unbuilt"),
        ({"rate": -1.0}, ValueError, "rate=-1.0"),
        ({"rate": float("nan")}, ValueError, "rate=nan"),
        ({"rate": "0.1"}, TypeError, "rate='0.1'"),
        ({"multipliers": {"head/*": 0.5}}, ValueError, "'head/kernel': 0.5"),
        ({"layers": "tail/*"}, ValueError, "tail"),
        ({"biases": 1}, TypeError, "biases=1"),
    ],
)
def test_an_invalid_argument_leaves_the_optimizer_as_it_was(arguments, error, said):
    model = compiled(keras.optimizers.SGD(STEP, weight_decay=0.7))
    optimizer = model.optimizer
    with pytest.raises(error, match=said):
        set_weight_decay(
            **{"optimizer": optimizer, "model": model, "rate": RATE, **arguments}
        )
    assert optimizer.weight_decay == 0.7


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="as of Keras 3.15"
)
def test_a_multi_optimizer_is_refused():
    optimizer = keras.optimizers.MultiOptimizer(
        keras.optimizers.OptimizerMap(keras.optimizers.SGD())
    )
    with pytest.raises(ValueError, match="MultiOptimizer"):
        set_weight_decay(optimizer, network(), RATE)
