"""The optimizer that decays: as Keras' own decay, wherever Keras has one.

The reference of most tests is a plain Keras optimizer with `weight_decay` whose biases
are excluded by name.
"""

import copy
import inspect
import json
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import L2AllWeights, audit, select_weights, set_weight_decay
from keras_l2reg._decay_rows import multipliers_for
from keras_l2reg._peak import peak_of
from keras_l2reg.optimizers import WeightDecayOptimizer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(4, 8, 4)).astype("float32")
Y = RNG.normal(size=(4, 8, 2)).astype("float32")
RATE, STEP = 0.3, 0.05
SLOW = pytest.mark.slow

ON_JAX = keras.backend.backend() == "jax"
MULTI = hasattr(keras.optimizers, "MultiOptimizer")
ALL = [
    name
    for name, kind in vars(keras.optimizers).items()
    if inspect.isclass(kind)
    and issubclass(kind, keras.optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
]
# JAX compiles the first of these at each step.
SLOW_OPTIONS = ("accumulation", "clipnorm", "clipvalue")
OPTIONS = {
    "accumulation": {"gradient_accumulation_steps": 2},
    "ema": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2},
    "clipnorm": {"clipnorm": 0.1},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "clipvalue": {"clipvalue": 0.01},
    "loss_scale_factor": {"loss_scale_factor": 128.0},
}


class Traces(layers.Layer):
    """Counts the calls in Python: one for each trace of a compiled step."""

    count = 0

    def call(self, x):
        self.count += 1
        return x


def network():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(6, "tanh", name="hidden", bias_initializer="ones"),
            layers.Dense(2, name="head", bias_initializer="ones"),
        ]
    )


def made(name, weight_decay=None, **options):
    kind = getattr(keras.optimizers, name)
    if "adam_weight_decay" in inspect.signature(kind).parameters:
        options["adam_weight_decay"] = weight_decay
    return kind(STEP, weight_decay=weight_decay, **options)


def by_keras(name, **options):
    optimizer = made(name, RATE, **options)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def weights_of(model):
    return [ops.convert_to_numpy(v).copy() for v in model.trainable_variables]


def trained(model, steps=4):
    for x, y in zip(X[:steps], Y[:steps], strict=True):
        model.train_on_batch(x, y)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    return weights_of(model)


def compiled(optimizer, model=None, **arguments):
    model = model or network()
    model.compile(optimizer, "mse", **arguments)
    return model


def twins(name, around=lambda optimizer: optimizer, compile_arguments=None, **options):
    """Two models with the same weights: with Keras' own decay, and with ours."""
    reference = compiled(around(by_keras(name, **options)), **compile_arguments or {})
    model = network()
    model.set_weights(reference.get_weights())
    # A decay of its own would be replaced.
    own = 0.7 if name == "AdamW" else None
    optimizer = set_weight_decay(made(name, own, **options), model, RATE)
    return reference, compiled(around(optimizer), model, **compile_arguments or {})


def assert_same(ours, theirs, **tolerance):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, **{"rtol": 2e-6, "atol": 1e-6, **tolerance})


def stepped(optimizer):
    """A kernel and a bias after four updates."""
    rng = np.random.default_rng(1)
    variables = [
        keras.Variable(rng.normal(size=shape), name=name, dtype="float32")
        for shape, name in (((4, 6), "kernel"), ((6,), "bias"))
    ]
    for _ in range(4):
        gradients = [rng.normal(size=v.shape).astype("float32") for v in variables]
        optimizer.apply([ops.convert_to_tensor(g) for g in gradients], variables)
    return [ops.convert_to_numpy(v) for v in variables]


@pytest.mark.parametrize(
    ("name", "option"),
    [
        pytest.param(name, option, marks=SLOW if option in SLOW_OPTIONS else ())
        for name in ALL
        for option in ("none", *OPTIONS)
    ],
)
def test_every_optimizer_steps_as_with_its_own_decay(name, option):
    options = OPTIONS.get(option, {})
    rows = [["kernel", 1.0], ["bias", 0.0]]
    ours = WeightDecayOptimizer(made(name, 0.7, **options), RATE, rows)
    expected = stepped(by_keras(name, **options))
    assert_same(stepped(ours), expected)
    # The decay is seen.
    assert abs(stepped(made(name, 0.0, **options))[0] - expected[0]).max() > 5e-6


@pytest.mark.parametrize("option", ["accumulation", "ema"])
def test_options_in_compiled_steps(option):
    reference, ours = twins("AdamW", **OPTIONS[option])
    assert_same(trained(ours), trained(reference))


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [{"run_eagerly": True}, {"jit_compile": True}, {"steps_per_execution": 2}],
)
def test_ways_to_compile(arguments):
    if "run_eagerly" not in arguments and keras.backend.backend() == "torch":
        pytest.skip("no steps_per_execution on torch; torch.compile takes a minute")
    reference, ours = twins("Adam", compile_arguments=arguments)
    for model in (reference, ours):
        x, y = X.reshape(-1, 4), Y.reshape(-1, 2)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
    assert_same(weights_of(ours), weights_of(reference))


def test_loss_scaling_around_the_decay():
    reference, ours = twins("Adam", keras.optimizers.LossScaleOptimizer)
    assert_same(trained(ours), trained(reference))


def test_a_step_that_loss_scaling_skips_does_not_decay():
    _, model = twins("SGD", keras.optimizers.LossScaleOptimizer)
    before = weights_of(model)
    model.train_on_batch(X[0], np.full_like(Y[0], np.inf))
    assert_same(weights_of(model), before, rtol=0, atol=0)
    model.train_on_batch(X[0], Y[0])
    assert abs(weights_of(model)[0] - before[0]).max() > 0


def test_the_decay_goes_within_loss_scaling_that_is_there():
    inner = keras.optimizers.Adam(STEP)
    scaling = keras.optimizers.LossScaleOptimizer(inner)
    model = compiled(scaling)
    assert set_weight_decay(scaling, model, RATE) is model.optimizer is scaling
    assert scaling.inner_optimizer.inner_optimizer is inner
    assert scaling.inner_optimizer.weight_decay == RATE
    reference = compiled(keras.optimizers.LossScaleOptimizer(by_keras("Adam")))
    reference.set_weights(model.get_weights())
    assert_same(trained(model), trained(reference))


@pytest.mark.slow
def test_mixed_precision_of_a_loaded_model(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        adam = keras.optimizers.Adam(STEP)
        model = compiled(adam)
        assert set_weight_decay(adam, model, RATE) is model.optimizer.inner_optimizer
        trained(model, 2)
        loaded = saved_and_loaded(model, tmp_path)
        assert isinstance(loaded.optimizer, keras.optimizers.LossScaleOptimizer)
        assert loaded.optimizer.inner_optimizer.weight_decay == RATE
        assert type(loaded.optimizer.inner_optimizer.inner_optimizer) is type(adam)
        assert_same(trained(loaded), trained(model))
    finally:
        keras.config.set_dtype_policy("float32")


# MultiOptimizer


def multi(weight_decay=None):
    chosen = keras.optimizers.OptimizerMap(made("SGD", weight_decay))
    chosen["(.*/)?head/.*"] = keras.optimizers.Adam(0.01, weight_decay=weight_decay)
    for optimizer in (chosen.default_optimizer, chosen["head/kernel"]):
        optimizer.exclude_from_weight_decay(var_names=["bias"])
    return keras.optimizers.MultiOptimizer(chosen)


@pytest.mark.skipif(not MULTI, reason="as of Keras 3.15")
@pytest.mark.parametrize("is_scaled", [False, True])
def test_each_optimizer_of_several_decays_by_its_learning_rate(is_scaled):
    scaled = keras.optimizers.LossScaleOptimizer
    around = scaled if is_scaled else (lambda optimizer: optimizer)
    reference = compiled(around(multi(RATE)))
    model = network()
    model.set_weights(reference.get_weights())
    optimizer = set_weight_decay(multi(0.9), model, RATE)
    assert len(optimizer.optimizers) == 2
    compiled(around(optimizer), model)
    assert_same(trained(model), trained(reference))


@pytest.mark.skipif(not MULTI, reason="as of Keras 3.15")
def test_several_optimizers_from_a_function():
    sgd, adam = made("SGD", 0.9), keras.optimizers.Adam(0.01)
    several = keras.optimizers.MultiOptimizer(
        lambda variable: adam if "head/" in variable.path else sgd
    )
    reference = compiled(multi(RATE))
    model = network()
    model.set_weights(reference.get_weights())
    compiled(set_weight_decay(several, model, RATE, couple="lr"), model)
    assert_same(trained(model), trained(reference))
    assert sgd.weight_decay == 0.0


# A model that is already trained


def test_adding_decay_to_a_trained_model_keeps_the_moments():
    plain, model = compiled(made("Adam")), compiled(made("Adam"))
    model.set_weights(plain.get_weights())
    trained(plain)
    trained(model)
    before = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    adam = model.optimizer
    optimizer = set_weight_decay(adam, model, RATE)
    assert model.optimizer is optimizer and optimizer.inner_optimizer is adam
    assert int(optimizer.iterations) == 4
    assert_same([ops.convert_to_numpy(v) for v in adam.variables], before)
    plain.optimizer.weight_decay = RATE
    plain.optimizer.exclude_from_weight_decay(var_names=["bias"])
    plain.make_train_function(force=True)
    assert_same(trained(model), trained(plain))


def test_a_second_call_with_the_first_optimizer_changes_the_same_decay():
    adam = made("Adam")
    model = compiled(adam)
    first = set_weight_decay(adam, model, 0.1)
    assert set_weight_decay(adam, model, 0.2, layers="head/*") is first
    assert set_weight_decay(first, model, 0.2, layers="head/*") is first
    assert first.weight_decay == 0.2 and first.inner_optimizer is adam


def test_a_compiled_wrapper():
    reference = compiled(by_keras("Adam"))
    wrapped = L2AllWeights(network(), l2=0.0)
    wrapped.set_weights(reference.get_weights())
    compiled(made("Adam"), wrapped)
    set_weight_decay(wrapped.optimizer, wrapped, RATE)
    assert_same(trained(wrapped), trained(reference))


# The live rate


@pytest.mark.parametrize("around", [None, "LossScaleOptimizer"])
def test_the_rate_is_live_without_a_new_trace(around):
    model = network()
    model.add(Traces(name="traces"))
    decaying = set_weight_decay(made("SGD"), model, 0.0)
    outer = getattr(keras.optimizers, around)(decaying) if around else decaying
    compiled(outer, model)
    targets = model.predict(X[0], verbose=0)  # no gradient
    model.train_on_batch(X[0], targets)
    model.train_on_batch(X[0], targets)
    count, before = model.layers[-1].count, weights_of(model)
    decaying.weight_decay = RATE
    model.train_on_batch(X[0], targets)
    if keras.backend.backend() != "torch":
        assert model.layers[-1].count == count
    after = weights_of(model)
    # The weights shrank in the step, after the gradient was taken.
    np.testing.assert_allclose(after[0], before[0] * (1 - STEP * RATE), atol=1e-6)


def test_a_callback_changes_the_rate_during_fit():
    class Off(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.model.optimizer.weight_decay = [RATE, 0.0][epoch]

    reference, ours = twins("Adam")
    for model in (reference, ours):
        callbacks = [Off()] if model is ours else []
        model.fit(X[0], Y[0], epochs=2 if model is ours else 1, verbose=0,
                  callbacks=callbacks)  # fmt: skip
    reference.optimizer.weight_decay = 0.0
    reference.make_train_function(force=True)
    reference.fit(X[0], Y[0], verbose=0)
    assert_same(weights_of(ours), weights_of(reference))


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), ValueError),
        (-0.1, ValueError),
        (float("inf"), ValueError),
        (1e39, ValueError),
        ("0.1", TypeError),
        (None, TypeError),
    ],
)
def test_an_invalid_rate_leaves_the_old_one(value, error):
    optimizer = set_weight_decay(made("SGD"), network(), RATE)
    with pytest.raises(error, match=r"`weight_decay`.* Received: "):
        optimizer.weight_decay = value
    assert optimizer.weight_decay == RATE


# Saving


def pickled_and_back(optimizer):
    return pickle.loads(pickle.dumps(optimizer))


def saved_and_loaded(model, tmp_path):
    model.save(tmp_path / "model.keras")
    return keras.saving.load_model(tmp_path / "model.keras")


QUICK = {"accumulation": "lr", "schedule": "corrected", "multi": "lr"}
SAVED = {
    "adam": lambda: made("Adam"),
    "adamw": lambda: made("AdamW", 0.5),
    "momentum": lambda: keras.optimizers.SGD(STEP, momentum=0.9),
    "muon": lambda: made("Muon", 0.5),
    "accumulation": lambda: made("Adam", gradient_accumulation_steps=3),
    "ema": lambda: made("Adam", use_ema=True),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(made("Adam")),
    "schedule": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(
            0.0, 10, warmup_target=STEP, warmup_steps=3
        )
    ),
    **({"multi": multi} if MULTI else {}),
}


@pytest.mark.parametrize(
    ("name", "couple"),
    [
        pytest.param(name, couple, marks=() if couple == QUICK.get(name) else SLOW)
        for name in SAVED
        for couple in ("lr", "corrected")
    ],
)
def test_a_loaded_model_continues_as_if_never_saved(name, couple, tmp_path):
    model = compiled(SAVED[name]())
    rule = {"biases": True, "multipliers": {"head/kernel": 0.25, "*/bias": 0.5}}
    set_weight_decay(model.optimizer, model, 0.9, couple=couple, **rule)
    decaying = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    decaying = decaying if name == "scaled" else model.optimizer
    decaying.weight_decay = RATE
    for x, y in zip(X[:2], Y[:2], strict=True):
        model.train_on_batch(x, y)
    loaded = saved_and_loaded(model, tmp_path)
    assert type(loaded.optimizer) is type(model.optimizer)
    for x, y in zip(X, Y, strict=True):
        model.train_on_batch(x, y)
        loaded.train_on_batch(x, y)
    assert_same(weights_of(loaded), weights_of(model), rtol=1e-6)
    found, expected = (
        [ops.convert_to_numpy(v) for v in m.optimizer.variables]
        for m in (loaded, model)
    )
    assert_same(found, expected)


def test_the_state_of_the_inner_optimizer_is_saved_once(tmp_path):
    h5py = pytest.importorskip("h5py")
    model = compiled(made("Adam"))
    trained(model)
    plain, ours = tmp_path / "plain.weights.h5", tmp_path / "ours.weights.h5"
    model.save_weights(plain)
    set_weight_decay(model.optimizer, model, RATE)
    model.save_weights(ours)

    def numbers(file):
        sizes = []
        with h5py.File(file) as opened:
            opened.visititems(lambda _, item: sizes.append(getattr(item, "size", 0)))
        return sum(sizes)

    # Three scalars of the wrapper: the rate, and what every Keras optimizer has.
    assert numbers(ours) - numbers(plain) <= 4


def test_the_config_is_json_and_restores_the_optimizer():
    model = network()
    optimizer = set_weight_decay(
        made("AdamW", 0.1), model, RATE, couple="independent", max_learning_rate=1.0,
        multipliers={"head/*": 0.5},
    )  # fmt: skip
    config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
    copies = [
        keras.optimizers.deserialize(config),
        keras.optimizers.get(config),
        WeightDecayOptimizer.from_config(optimizer.get_config()),
    ]
    for restored in copies:
        assert restored.get_config() == optimizer.get_config()
        assert restored.weight_decay == RATE
        assert restored.inner_optimizer.weight_decay == 0.0
    paths, multipliers = zip(*optimizer.get_config()["multipliers"], strict=True)
    assert list(paths) == [v.path for v in model.variables]
    assert multipliers == (1.0, 0.0, 0.5, 0.0)


def test_state_goes_through_variables_and_weights():
    first, second = (compiled(made("Adam")) for _ in range(2))
    for model in (first, second):
        set_weight_decay(model.optimizer, model, RATE)
        trained(model, 1)
    trained(first)
    first.optimizer.weight_decay = 0.125
    values = [ops.convert_to_numpy(v) for v in first.optimizer.variables]
    store = {}
    first.optimizer.save_own_variables(store)
    for load in (
        lambda: second.optimizer.set_weights(values),
        lambda: second.optimizer.load_own_variables(store),
    ):
        trained(second, 1)
        load()
        found = [ops.convert_to_numpy(v) for v in second.optimizer.variables]
        assert_same(found, values, rtol=0, atol=0)
        assert second.optimizer.weight_decay == 0.125


def test_a_copied_model_decays_too():
    model = compiled(made("Adam"))
    set_weight_decay(model.optimizer, model, RATE)
    trained(model, 2)
    copied = copy.deepcopy(model)
    assert copied.optimizer is not model.optimizer
    assert_same(trained(copied), trained(model))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled_and_back])
def test_an_unbuilt_optimizer_can_be_copied(copied):
    optimizer = set_weight_decay(made("Adam"), network(), RATE, couple="corrected")
    assert copied(optimizer).get_config() == optimizer.get_config()


@keras.saving.register_keras_serializable("test_decay")
class Unnamed(layers.Layer):
    """Its variables get automatic names, numbered across the process."""

    def build(self, shape):
        self.first = self.add_weight(shape=(shape[-1], 5))
        self.second = self.add_weight(shape=(5, 4))

    def call(self, x):
        return ops.matmul(ops.matmul(x, self.first), self.second)


@keras.saving.register_keras_serializable("test_decay")
class Subclassed(keras.Model):
    """Its layers get automatic names, numbered across the process."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.parts = [Unnamed(), layers.Dense(4), layers.Dense(4), layers.Dense(2)]

    def build(self, shape):
        for part in self.parts:
            part.build((None, 4))
        self.built = True

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


@pytest.mark.slow
def test_a_loaded_model_with_new_automatic_names_decays_the_same(tmp_path):
    model = Subclassed()
    model.build((None, 4))
    compiled(made("Adam"), model)
    names = [weight.name for weight, _ in select_weights(model)]
    assert len(names) == 5
    set_weight_decay(
        model.optimizer, model, RATE,
        multipliers={name: float(i) for i, name in enumerate(names)},
    )  # fmt: skip
    trained(model, 1)
    loaded = saved_and_loaded(model, tmp_path)
    paths = [[v.path for v in m.trainable_variables] for m in (loaded, model)]
    assert paths[0] != paths[1]
    assert_same(trained(loaded), trained(model))
    assert [f.code for f in audit(loaded)] == []


# Which weights, after names changed

ROWS = [
    ["dense/kernel", 1.0],
    ["dense/bias", 0.0],
    ["block/variable", 3.0],
    ["block/variable_1", 4.0],
    ["dense_1/kernel", 0.5],
]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["dense/kernel", "dense/bias"], [1.0, 0.0]),
        (["dense_1/kernel"], [0.5]),
        # Built again in the same process: the same layers with other numbers.
        (["dense_1/kernel", "dense_2/kernel", "dense_1/bias"], [1.0, 0.5, 0.0]),
        (["block/variable_7", "block/variable_8"], [3.0, 4.0]),
        (["model/dense/kernel", "model/dense/bias"], [1.0, 0.0]),
        (["model/dense_1/kernel"], [0.5]),
        # Which of the two it was can't be known.
        (["dense_7/kernel"], [None]),
        (["other/kernel", "dense/kernel"], [None, 1.0]),
    ],
)
def test_multipliers_are_found_by_path_or_else_by_order(paths, expected):
    assert multipliers_for(ROWS, paths) == expected


def test_paths_that_occur_twice_are_found_by_order():
    rows = [["a/w", 1.0], ["a/w", 2.0], ["b/w", 3.0]]
    assert multipliers_for(rows, ["a/w", "b/w", "a/w"]) == [1.0, 3.0, 2.0]


def test_a_weight_that_is_new_is_not_decayed_and_reported():
    optimizer = set_weight_decay(made("SGD"), network(), RATE)
    w = keras.Variable([1.0], name="new")
    with pytest.warns(UserWarning, match="not decayed.*new.*set_weight_decay"):
        optimizer.build([w])
    optimizer.apply([ops.zeros(1)], [w])
    assert ops.convert_to_numpy(w).tolist() == [1.0]


def test_a_weight_that_is_unfrozen_later_is_decayed():
    model = network()
    model.layers[0].trainable = False
    optimizer = set_weight_decay(made("SGD"), model, RATE)
    model.layers[0].trainable = True
    reference = compiled(by_keras("SGD"))
    reference.set_weights(model.get_weights())
    assert_same(trained(compiled(optimizer, model)), trained(reference))


# Own training loops


@pytest.mark.skipif(not ON_JAX, reason="TensorFlow does not have it, torch no gradient")
def test_stateless_apply_in_an_own_loop():
    import jax

    for name, option in (("Adam", {}), ("SGD", OPTIONS["accumulation"])):
        reference, model = twins(name, **option)
        optimizer = model.optimizer
        optimizer.build(model.trainable_variables)

        def loss_of(weights, x, y, model=model):
            outputs, _ = model.stateless_call(weights, [], x)
            return ops.mean((outputs - y) ** 2)

        @jax.jit
        def step(weights, state, x, y, optimizer=optimizer, loss_of=loss_of):
            gradients = jax.grad(loss_of)(weights, x, y)
            return optimizer.stateless_apply(state, gradients, weights)

        weights = [v.value for v in model.trainable_variables]
        state = [v.value for v in optimizer.variables]
        for x, y in zip(X, Y, strict=True):
            weights, state = step(weights, state, x, y)
        assert_same(weights, trained(reference))


@pytest.mark.parametrize("method", ["apply", "apply_gradients"])
def test_apply_in_an_own_loop(method):
    w, b, w2, b2 = (
        keras.Variable(value, name=name)
        for _ in range(2)
        for value, name in (([[1.0, 2.0]], "kernel"), ([3.0, 4.0], "bias"))
    )
    ours = WeightDecayOptimizer(made("Adam"), RATE, [["kernel", 1.0], ["bias", 0.0]])
    theirs = by_keras("Adam")
    for step in range(1, 4):
        for optimizer, variables in ((ours, [w, b]), (theirs, [w2, b2])):
            gradients = [ops.ones((1, 2)) * step, ops.ones(2)]
            if method == "apply":
                optimizer.apply(gradients, variables)
            else:
                done = optimizer.apply_gradients(zip(gradients, variables, strict=True))
                assert int(done) == step
        assert int(ours.iterations) == step
    assert_same([w, b], [w2, b2])


def test_weights_without_a_gradient_are_not_decayed():
    w, other = (keras.Variable([1.0], name=name) for name in ("w", "other"))
    optimizer = WeightDecayOptimizer(made("SGD"), RATE, [["w", 1.0], ["other", 1.0]])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([ops.zeros(1), None], [w, other])
    assert ops.convert_to_numpy(other).tolist() == [1.0]
    assert ops.convert_to_numpy(w).tolist() == pytest.approx([1 - STEP * RATE])


def test_variables_of_another_model_change_nothing():
    w, other = (keras.Variable([1.0], name="w") for _ in range(2))
    optimizer = WeightDecayOptimizer(made("SGD"), RATE, [["w", 1.0]])
    optimizer.build([w])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([ops.zeros(1)], [other])
    assert ops.convert_to_numpy(other).tolist() == [1.0]


# Callbacks, and what they ask of an optimizer


def test_the_learning_rate_is_that_of_the_inner_optimizer():
    reference, ours = twins("Adam")
    for model in (reference, ours):
        callbacks = [
            keras.callbacks.LearningRateScheduler(lambda epoch, rate: rate / 2),
            keras.callbacks.ReduceLROnPlateau("loss", 0.5, 0, min_delta=1e6),
        ]
        history = model.fit(X[0], Y[0], epochs=4, verbose=0, callbacks=callbacks)
    assert float(ours.optimizer.learning_rate) < STEP / 16
    assert history.history["learning_rate"][0] == pytest.approx(STEP / 2)
    assert_same(weights_of(ours), weights_of(reference))
    ours.optimizer.learning_rate = 0.5
    assert float(ours.optimizer.inner_optimizer.learning_rate) == 0.5


@pytest.mark.slow
@pytest.mark.parametrize("is_scaled", [pytest.param(False, marks=SLOW), True])
def test_averaged_weights_are_swapped(is_scaled):
    scaled = keras.optimizers.LossScaleOptimizer
    around = scaled if is_scaled else (lambda optimizer: optimizer)
    reference, ours = twins("Adam", around, use_ema=True, ema_momentum=0.5)
    for model in (reference, ours):
        swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
        model.fit(X[0], Y[0], epochs=2, batch_size=4, shuffle=False, verbose=0,
                  callbacks=[swap])  # fmt: skip
    assert_same(weights_of(ours), weights_of(reference))


@pytest.mark.slow
def test_training_resumes_from_a_backup(tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    whole = compiled(made("Adam"))
    start = whole.get_weights()
    set_weight_decay(whole.optimizer, whole, RATE, couple="independent")
    whole.fit(X[0], Y[0], epochs=3, verbose=0)
    for callbacks in ([Stop()], []):
        model = compiled(made("Adam"))
        model.set_weights(start)
        set_weight_decay(model.optimizer, model, RATE, couple="independent")
        backup = keras.callbacks.BackupAndRestore(tmp_path)
        try:
            model.fit(X[0], Y[0], epochs=3, verbose=0, callbacks=[backup, *callbacks])
        except KeyboardInterrupt:
            continue
    assert_same(weights_of(model), weights_of(whole))


# Errors


def test_wrong_optimizers_inside_are_refused():
    scaling = keras.optimizers.LossScaleOptimizer(made("SGD"))
    with pytest.raises(ValueError, match="without loss scaling"):
        WeightDecayOptimizer(scaling, RATE, [])
    with pytest.raises(ValueError, match="without weight decay around it"):
        WeightDecayOptimizer(WeightDecayOptimizer(made("SGD"), RATE, []), RATE, [])


def test_exclusions_are_arguments_of_the_rule():
    optimizer = set_weight_decay(made("SGD"), network(), RATE)
    with pytest.raises(ValueError, match="exclude="):
        optimizer.exclude_from_weight_decay(var_names=["bias"])


# The highest learning rate of a schedule

SCHEDULES = keras.optimizers.schedules


@pytest.mark.parametrize(
    ("schedule", "highest"),
    [
        (SCHEDULES.CosineDecay(0.1, 100), 0.1),
        (SCHEDULES.CosineDecay(0.0, 100, warmup_target=0.3, warmup_steps=7), 0.3),
        (SCHEDULES.CosineDecayRestarts(0.1, 50), 0.1),
        (SCHEDULES.ExponentialDecay(0.2, 10, 0.9), 0.2),
        (SCHEDULES.InverseTimeDecay(0.2, 10, 0.9), 0.2),
        (SCHEDULES.PolynomialDecay(0.1, 100, 0.5), 0.5),
        (SCHEDULES.PiecewiseConstantDecay([5, 12], [0.1, 0.4, 0.2]), 0.4),
    ],
)
def test_the_highest_learning_rate_of_keras_schedules(schedule, highest):
    assert peak_of(schedule) == pytest.approx(highest, rel=1e-6)


class Unknown(SCHEDULES.LearningRateSchedule):
    def __call__(self, step):
        return 0.1


def test_a_schedule_that_tells_nothing_needs_the_highest_learning_rate():
    model, optimizer = network(), keras.optimizers.SGD(Unknown(), weight_decay=0.5)
    with pytest.raises(ValueError, match="max_learning_rate"):
        set_weight_decay(optimizer, model, RATE, couple="corrected")
    assert optimizer.weight_decay == 0.5
    for arguments in ({}, {"couple": "corrected", "max_learning_rate": 0.1}):
        set_weight_decay(optimizer, model, RATE, **arguments)
