"""set_weight_decay against other people's optimizers, on the same weights and batches.

torch's AdamW and SGD with parameter groups, optax; for the decay that is independent of
the learning rate torch-optimi, for the corrected one pytorch-optimizer; NumPy for both.
"""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import L2AllWeights, set_weight_decay
from keras_l2reg.optimizers import WeightDecayOptimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 8, 4)).astype("float32")
Y = RNG.normal(size=(5, 8, 2)).astype("float32")
RATE, STEP = 0.3, 0.05
# A warmup, its peak, and less; as Keras' schedule has them at steps 0 to 4.
LEARNING_RATES = [0.01, 0.02, 0.05, 0.03, 0.01]


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


def weights_of(model):
    return [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]


def by_torch(model, optimizer, multipliers=(1, 0, 1, 0), rates=(), **arguments):
    """The weights after each step, by torch alone, from the model's weights."""
    import torch

    weights = [torch.tensor(w, requires_grad=True) for w in weights_of(model)]
    kernel, bias, head, head_bias = weights
    groups = [
        {"params": [w], "weight_decay": RATE * multiplier}
        for w, multiplier in zip(weights, multipliers, strict=True)
    ]
    stepper = optimizer(groups, lr=STEP, **arguments)
    x, y = torch.tensor(X, dtype=kernel.dtype), torch.tensor(Y, dtype=kernel.dtype)
    for step in range(len(x)):
        for group in stepper.param_groups:
            group["lr"] = rates[step] if rates else STEP
        outputs = torch.tanh(x[step] @ kernel + bias) @ head + head_bias
        loss = torch.mean((outputs - y[step]) ** 2)
        stepper.zero_grad()
        loss.backward()
        stepper.step()
        yield [w.detach().numpy().copy() for w in weights]


def by_optax(model, optimizer):
    """The weights after each step, by optax alone, from the model's weights."""
    import jax
    import jax.numpy as jnp
    import optax

    def loss(weights, x, y):
        kernel, bias, head, head_bias = weights
        outputs = jnp.tanh(x @ kernel + bias) @ head + head_bias
        return jnp.mean((outputs - y) ** 2)

    found = []
    with jax.enable_x64(True):
        weights = [jnp.asarray(w) for w in weights_of(model)]
        state = optimizer.init(weights)
        for x, y in zip(X, Y, strict=True):
            gradients = jax.grad(loss)(weights, x.astype("float64"), y)
            updates, state = optimizer.update(gradients, state, weights)
            weights = optax.apply_updates(weights, updates)
            found.append([np.asarray(w) for w in weights])
    return found


def assert_steps_as(model, expected, tolerance=1e-5):
    for x, y, weights in zip(X, Y, expected, strict=True):
        model.train_on_batch(x, y)
        for ours, theirs in zip(weights_of(model), weights, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


# Keras and torch add epsilon at different places, and on TensorFlow Keras rounds betas
# to float32: these are exact there.
ADAM = {"epsilon": 1e-12, "beta_1": 0.875, "beta_2": 0.9375}
TORCH_ADAM = {"eps": 1e-12, "betas": (0.875, 0.9375)}
RULES = [
    ({}, (1, 0, 1, 0)),
    ({"biases": True}, (1, 1, 1, 1)),
    ({"layers": "hidden/*"}, (1, 0, 0, 0)),
    ({"multipliers": {"head/*": 0}}, (1, 0, 0, 0)),
    (
        {"biases": True, "multipliers": {"head/*": 0.25, "*/bias": 2.5}},
        (1, 2.5, 0.25, 2.5),
    ),
]


@pytest.mark.parametrize(("rule", "multipliers"), RULES)
def test_adam_steps_as_torch_adamw(rule, multipliers, torch, float64):
    model = compiled(keras.optimizers.Adam(STEP, **ADAM))
    expected = by_torch(model, torch.optim.AdamW, multipliers, **TORCH_ADAM)
    assert set_weight_decay(model.optimizer, model, RATE, **rule) is model.optimizer
    assert_steps_as(model, expected, 1e-6)


@pytest.mark.parametrize(("rule", "multipliers"), RULES[-1:])
def test_sgd_steps_as_torch_sgd(rule, multipliers, torch, float64):
    model = compiled(keras.optimizers.SGD(STEP))
    expected = by_torch(model, torch.optim.SGD, multipliers)
    set_weight_decay(model.optimizer, model, RATE, **rule)
    assert_steps_as(model, expected, 1e-6)


def test_float32_steps_as_torch_in_float32(torch):
    model = compiled(keras.optimizers.Adam(STEP, **ADAM))
    expected = by_torch(model, torch.optim.AdamW, **TORCH_ADAM)
    set_weight_decay(model.optimizer, model, RATE)
    assert_steps_as(model, expected)


OPTAX_ADAM = {"eps": 1e-12, "b1": 0.875, "b2": 0.9375}
KERNELS = [True, False, True, False]


def test_adam_steps_as_optax_adamw_with_a_mask(float64):
    optax = pytest.importorskip("optax")
    model = compiled(keras.optimizers.Adam(STEP, **ADAM))
    adamw = optax.adamw(STEP, weight_decay=RATE, mask=KERNELS, **OPTAX_ADAM)
    expected = by_optax(model, adamw)
    set_weight_decay(model.optimizer, model, RATE)
    assert_steps_as(model, expected, 1e-6)


def test_decay_before_optax_scales_is_a_penalty_and_after_it_decay(float64):
    optax = pytest.importorskip("optax")
    decay = optax.add_decayed_weights(RATE, mask=KERNELS)
    adam, step = optax.scale_by_adam(**OPTAX_ADAM), optax.scale(-STEP)
    penalized = compiled(keras.optimizers.Adam(STEP, **ADAM), l2=RATE / 2)
    assert_steps_as(
        penalized, by_optax(penalized, optax.chain(decay, adam, step)), 1e-6
    )
    model = compiled(keras.optimizers.Adam(STEP, **ADAM))
    expected = by_optax(model, optax.chain(adam, decay, step))
    set_weight_decay(model.optimizer, model, RATE)
    assert_steps_as(model, expected, 1e-6)


def warmup():
    """Keras' `LEARNING_RATES`."""
    schedules = keras.optimizers.schedules
    return schedules.PiecewiseConstantDecay([0, 1, 2, 3], LEARNING_RATES)


MULTIPLIERS = (1, 2.5, 0.25, 2.5)


@pytest.mark.filterwarnings("ignore:You are using weight_decay")
def test_independent_decay_steps_as_torch_optimi(torch, float64):
    optimi = pytest.importorskip("optimi")
    model = compiled(keras.optimizers.Adam(warmup(), **ADAM))
    expected = by_torch(
        model, optimi.AdamW, MULTIPLIERS, LEARNING_RATES, decouple_lr=True,
        max_lr=max(LEARNING_RATES), kahan_sum=False, **TORCH_ADAM,
    )  # fmt: skip
    set_weight_decay(model.optimizer, model, RATE, couple="independent", **RULES[-1][0])
    assert_steps_as(model, expected, 1e-6)


def test_corrected_decay_steps_as_adamc_of_pytorch_optimizer(torch, float64):
    others = pytest.importorskip("pytorch_optimizer")

    def adamc(groups, **arguments):
        groups = [{**group, "normalized": True} for group in groups]
        optimizer = others.AdamC(groups, **arguments)
        optimizer.max_lr = max(LEARNING_RATES)
        return optimizer

    model = compiled(keras.optimizers.Adam(warmup(), **ADAM))
    expected = by_torch(model, adamc, MULTIPLIERS, LEARNING_RATES, **TORCH_ADAM)
    set_weight_decay(model.optimizer, model, RATE, couple="corrected", **RULES[-1][0])
    assert_steps_as(model, expected, 1e-6)


def in_numpy(weights, couple, highest):
    """The weights after each step without gradients, from the formulas."""
    for rate, top in zip(LEARNING_RATES, highest, strict=True):
        share = {
            "lr": rate * RATE,
            "independent": rate / top * RATE,
            "corrected": rate**2 / top * RATE,
        }[couple]
        weights = [w - share * m * w for w, m in zip(weights, MULTIPLIERS, strict=True)]
        yield weights


def apply_without_gradients(optimizer, variables):
    optimizer.apply([ops.zeros(v.shape, v.dtype) for v in variables], variables)
    return [ops.convert_to_numpy(v).copy() for v in variables]


@pytest.mark.parametrize("couple", ["lr", "independent", "corrected"])
@pytest.mark.parametrize("source", ["schedule", "number", "argument"])
def test_the_formulas_in_numpy(couple, source, float64):
    variables = [keras.Variable([1.0, -2.0], name=name) for name in "abcd"]
    rows = [[v.path, m] for v, m in zip(variables, MULTIPLIERS, strict=True)]
    rate = warmup() if source == "schedule" else LEARNING_RATES[0]
    given = 0.1 if source == "argument" else None
    highest = {
        "schedule": [max(LEARNING_RATES)] * 5,
        # The highest so far.
        "number": np.maximum.accumulate(LEARNING_RATES),
        "argument": [0.1] * 5,
    }[source]
    optimizer = WeightDecayOptimizer(
        keras.optimizers.SGD(rate), RATE, rows, couple, given
    )
    start = [ops.convert_to_numpy(v).copy() for v in variables]
    for step, expected in enumerate(in_numpy(start, couple, highest)):
        if source != "schedule":
            optimizer.learning_rate = LEARNING_RATES[step]
        found = apply_without_gradients(optimizer, variables)
        # Keras' schedules compute in float32 on some backends.
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_learning_rate_of_zero_does_not_decay():
    w = keras.Variable([1.0], name="w")
    for couple in ("independent", "corrected"):
        sgd = keras.optimizers.SGD(0.0)
        optimizer = WeightDecayOptimizer(sgd, RATE, [["w", 1.0]], couple)
        assert apply_without_gradients(optimizer, [w]) == [[1.0]]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rounds_once(dtype):
    w = keras.Variable(np.linspace(1, 2, 7), dtype=dtype, name="w")
    before = ops.convert_to_numpy(ops.cast(w, "float32")).astype("float64")
    sgd = keras.optimizers.SGD(0.001)
    optimizer = WeightDecayOptimizer(sgd, 7.0, [["w", 1.0]])
    optimizer.apply([ops.zeros(7, dtype)], [w])
    exact = ops.cast(ops.convert_to_tensor(before * (1 - 0.007)), dtype)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(ops.cast(w, "float32")),
        ops.convert_to_numpy(ops.cast(exact, "float32")),
    )


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
    before = weights_of(model)[::2]
    model.fit(X[0], model.predict(X[0], verbose=0), verbose=0)
    after = weights_of(model)[::2]
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
    assert model.optimizer.inner_optimizer.weight_decay == RATE


def test_its_own_decay_is_replaced():
    own = {"weight_decay": 0.9}
    if hasattr(keras.optimizers.Muon(), "adam_weight_decay"):
        own["adam_weight_decay"] = 0.9
    model = compiled(keras.optimizers.Muon(STEP, **own))
    muon = model.optimizer
    set_weight_decay(muon, model, RATE)
    assert {getattr(muon, name) for name in own} == {0.0}
    assert model.optimizer.weight_decay == RATE


def test_a_loaded_model_decays_the_same_weights(tmp_path):
    model = compiled(keras.optimizers.SGD(STEP))
    set_weight_decay(model.optimizer, model, RATE, multipliers={"head/*": 0.5})
    decay_only(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    shares = [STEP * RATE, 0.5 * STEP * RATE]
    assert decay_only(loaded) == pytest.approx(shares, abs=1e-5)
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
        ({"rate": 1e39}, ValueError, "float32"),
        ({"multipliers": {"head/*": -0.5}}, ValueError, "-0.5"),
        ({"couple": "none"}, ValueError, "couple='none'"),
        ({"couple": ["lr"]}, ValueError, "couple="),
        ({"max_learning_rate": -1}, ValueError, "max_learning_rate=-1"),
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
    assert model.optimizer is optimizer
    assert optimizer.weight_decay == 0.7


def test_an_invalid_argument_leaves_an_earlier_decay_as_it_was():
    model = compiled(keras.optimizers.SGD(STEP))
    optimizer = set_weight_decay(model.optimizer, model, RATE)
    config = optimizer.get_config()
    for arguments in ({"rate": 1e39}, {"rate": 0.1, "couple": "none"}):
        with pytest.raises(ValueError, match="Expected"):
            set_weight_decay(optimizer, model, **arguments)
        assert optimizer.get_config() == config
