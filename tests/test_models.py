"""L2AllWeights as it is used: compile, fit, change, save, load, unwrap."""

import copy
import inspect
import os
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import L2AllWeights, L2Loss
from keras_l2reg._live_strength import DEFAULT_L2

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
# 21 samples in batches of 8: the last one has 5.
X = RNG.normal(size=(21, 4)).astype("float32")
Y = RNG.normal(size=(21, 2)).astype("float32")
VX, VY = X[:11] + 1, Y[:11] - 1


# --- The models ------------------------------------------------------------------


def sequential():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "tanh", name="a"),
            layers.Dense(2, name="b"),
        ]
    )


def sequential_unbuilt():
    return keras.Sequential([layers.Dense(3, "tanh"), layers.Dense(2)])


def functional():
    inputs = keras.Input((4,))
    x = layers.Dense(4)(inputs)
    x = layers.BatchNormalization()(x)
    return keras.Model(inputs, layers.Dense(2)(layers.add([x, inputs])))


def nested():
    return keras.Sequential([keras.Input((4,)), functional(), layers.Dense(2)])


@keras.saving.register_keras_serializable(__name__)
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(8)
        self.dropout = layers.Dropout(0.5, seed=1)
        self.head = layers.Dense(2)
        self.traces = Counter()

    def call(self, inputs, training=False):
        self.traces.count += 1
        return self.head(self.dropout(self.hidden(inputs), training=training))


class Counter:
    count = 0


MODELS = [sequential, sequential_unbuilt, functional, nested, Subclassed]


def several():
    """Dict inputs, dict outputs."""
    left, right = keras.Input((4,), name="left"), keras.Input((2,), name="right")
    x = layers.concatenate([layers.Dense(3)(left), layers.Dense(3)(right)])
    outputs = {"mean": layers.Dense(2)(x), "side": layers.Dense(1)(x)}
    return keras.Model({"left": left, "right": right}, outputs)


SEVERAL_X = {"left": X, "right": X[:, :2]}
SEVERAL_Y = {"mean": Y, "side": Y[:, :1]}


# --- References ------------------------------------------------------------------


def sum_of_squared_kernels(model):
    """By NumPy, over all variables that are called kernel."""
    kernels = [v for v in model.trainable_variables if v.name == "kernel"]
    arrays = [ops.convert_to_numpy(v).astype("float64") for v in kernels]
    return sum(np.sum(array**2) for array in arrays)


def no_updates():
    """An optimizer that leaves the weights as they are, so that NumPy can follow."""
    return keras.optimizers.SGD(0.0)


def wrapped(
    build=sequential, l2=0.05, loss="mse", optimizer="sgd", **compile_arguments
):
    model = L2AllWeights(build(), l2)
    model.compile(optimizer, loss, **compile_arguments)
    return model


def fit(model, x=X, y=Y, **kwargs):
    arguments = {"batch_size": 8, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit(x, y, **{**arguments, **kwargs}).history


def assert_splits(logs):
    for prefix in ("", "val_") if "val_loss" in logs else ("",):
        whole = np.add(logs[f"{prefix}data_loss"], logs[f"{prefix}penalty"])
        np.testing.assert_allclose(whole, logs[f"{prefix}loss"], rtol=1e-6)


# --- Logs ------------------------------------------------------------------------


@pytest.mark.parametrize("build", MODELS)
def test_logged_parts_of_the_loss_agree_with_numpy(build):
    model = wrapped(build, optimizer=no_updates())
    logs = fit(model, validation_data=(VX, VY))
    assert_splits(logs)
    expected = 0.05 * sum_of_squared_kernels(model)
    assert expected > 0
    np.testing.assert_allclose(logs["penalty"], [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(logs["val_penalty"], [expected] * 2, rtol=1e-6)
    error = model.predict(VX, verbose=0) - VY
    if build is not functional and build is not nested:  # whose statistics change
        np.testing.assert_allclose(
            logs["val_data_loss"][-1], np.mean(error**2), rtol=1e-5
        )
    assert len(model.losses) == sum(
        v.name == "kernel" for v in model.trainable_variables
    )
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-6)


WEIGHTINGS = {
    "plain": {},
    "sample_weight": {"sample_weight": RNG.uniform(0, 3, 21).astype("float32")},
    "zero_weights": {"sample_weight": np.zeros(21, "float32")},
    "one_batch": {"batch_size": 21},
    "batch_of_one": {"batch_size": 1},
    "validation_split": {"validation_split": 0.4},
}


@pytest.mark.parametrize("weighting", WEIGHTINGS.values(), ids=WEIGHTINGS)
def test_fit_gives_the_losses_of_built_in_regularizers(weighting):
    ours = wrapped(optimizer=keras.optimizers.SGD(0.1))
    reference = keras.models.clone_model(ours.wrapped_model)
    for layer in reference.layers:
        layer.kernel.regularizer = keras.regularizers.L2(0.05)
    reference.set_weights(ours.wrapped_model.get_weights())
    reference.compile(keras.optimizers.SGD(0.1), "mse")
    logs = fit(ours, **weighting)
    assert_splits(logs)
    np.testing.assert_allclose(
        logs["loss"], fit(reference, **weighting)["loss"], rtol=1e-5
    )


def test_multipliers_train_as_built_in_regularizers_of_these_strengths():
    """Also where the penalties of several weights are computed together."""
    widths, factors = [5, 5, 4, 2], [1.0, 0.1, 1.0, 3.0]

    def network(regularizers):
        stack = [keras.Input((4,))]
        for width, regularizer in zip(widths, regularizers, strict=True):
            stack.append(layers.Dense(width, "tanh", kernel_regularizer=regularizer))
        return keras.Sequential(stack)

    ours = network([None, None, None, keras.regularizers.L1(0.02)])
    names = [layer.name for layer in ours.layers]
    multipliers = {f"{name}/*": f for name, f in zip(names, factors, strict=True)}
    regularizers = [keras.regularizers.L2(0.05 * factor) for factor in factors]
    regularizers[-1] = keras.regularizers.L1L2(0.02, 0.15)
    reference = network(regularizers)
    reference.set_weights(ours.get_weights())
    ours = L2AllWeights(ours, l2=0.05, multipliers=multipliers, existing="add")
    for model in (ours, reference):
        model.compile(keras.optimizers.SGD(0.1), "mse")
    np.testing.assert_allclose(fit(ours)["loss"], fit(reference)["loss"], rtol=1e-5)
    for one, other in zip(ours.wrapped_model.weights, reference.weights, strict=True):
        values = [ops.convert_to_numpy(v) for v in (one, other)]
        np.testing.assert_allclose(*values, rtol=1e-4, atol=1e-6)


def test_logged_parts_add_up_with_class_weights():
    y = (Y[:, 0] > 0).astype("int32")
    model = wrapped(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    logs = fit(model, y=y, class_weight={0: 0.2, 1: 3.0}, validation_data=(VX, y[:11]))
    assert_splits(logs)
    assert {"accuracy", "val_accuracy"} <= set(logs)


@pytest.mark.parametrize("weights", [None, {"mean": 0.3, "side": 2.0}])
def test_data_loss_is_the_weighted_sum_over_several_outputs(weights):
    losses = {"mean": "mse", "side": "mae"}
    model = wrapped(several, loss=losses, optimizer=no_updates(), loss_weights=weights)
    logs = fit(model, SEVERAL_X, SEVERAL_Y, validation_data=(SEVERAL_X, SEVERAL_Y))
    assert_splits(logs)
    a, b = (weights or {"mean": 1, "side": 1}).values()
    out = model.predict(SEVERAL_X, verbose=0)
    expected = a * np.mean((out["mean"] - SEVERAL_Y["mean"]) ** 2)
    expected += b * np.mean(np.abs(out["side"] - SEVERAL_Y["side"]))
    np.testing.assert_allclose(logs["data_loss"], [expected] * 2, rtol=1e-5)


MODES = {
    "eager": {"run_eagerly": True},
    "jit": {"jit_compile": True},
    "no_jit": {"jit_compile": False},
    "steps_per_execution": {"steps_per_execution": 2},
}


# On torch, inductor calls a C++ compiler, which takes half a minute.
SLOW_ON_TORCH = [pytest.mark.slow] if BACKEND == "torch" else []


@pytest.mark.parametrize(
    "mode", [pytest.param("jit", marks=SLOW_ON_TORCH), *sorted({*MODES} - {"jit"})]
)
def test_modes_of_execution_train_alike(mode):
    if BACKEND == "torch" and mode == "steps_per_execution":
        pytest.skip("Keras does not support it on torch")
    keras.utils.set_random_seed(3)
    model = wrapped(optimizer=keras.optimizers.SGD(0.1), **MODES[mode])
    logs = fit(model, validation_data=(VX, VY))
    keras.utils.set_random_seed(3)
    expected = fit(
        wrapped(optimizer=keras.optimizers.SGD(0.1)), validation_data=(VX, VY)
    )
    assert_splits(logs)
    for key in expected:
        np.testing.assert_allclose(logs[key], expected[key], rtol=1e-5)


def test_logged_parts_add_up_with_mixed_float16():
    def build():
        inputs = keras.Input((4,), dtype="float32")
        x = layers.Dense(3, dtype="mixed_float16")(inputs)
        return keras.Model(inputs, layers.Dense(2, dtype="float32")(x))

    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = wrapped(build)
        logs = fit(model)
        assert_splits(logs)
        assert np.isfinite(logs["loss"]).all()
        assert {v.dtype for v in model.trainable_variables} == {"float32"}
        compiled = build()
        compiled.compile("sgd", "mse")
        logs = fit(L2AllWeights(compiled, 0.05))
        assert_splits(logs)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("dtype", ["float64", "float16", "bfloat16"])
def test_the_penalty_of_layers_of_another_dtype_agrees_with_numpy(dtype):
    if BACKEND == "jax" and dtype == "float64":
        pytest.skip("JAX has no float64 unless asked")

    def build():
        stack = [layers.Dense(3, dtype=dtype), layers.Dense(2)]
        return keras.Sequential([keras.Input((4,)), *stack])

    model = wrapped(build, optimizer=no_updates())
    logs = fit(model)
    assert_splits(logs)
    kernels = [layer.kernel for layer in model.layers]
    arrays = [ops.convert_to_numpy(ops.cast(k, "float32")) for k in kernels]
    expected = 0.05 * sum(np.sum(a.astype("float64") ** 2) for a in arrays)
    np.testing.assert_allclose(logs["penalty"], [expected] * 2, rtol=1e-3)


def test_train_on_batch_and_evaluate_return_the_parts_of_the_loss():
    model = wrapped(optimizer=no_updates())
    logs = model.train_on_batch(X, Y, return_dict=True)
    assert_splits(logs)
    expected = 0.05 * sum_of_squared_kernels(model)
    assert logs["penalty"] == pytest.approx(expected, rel=1e-6)
    for logs in (
        model.test_on_batch(X, Y, return_dict=True),
        model.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True),
    ):
        assert_splits(logs)
        error = model.predict(X, verbose=0) - Y
        assert logs["data_loss"] == pytest.approx(np.mean(error**2), rel=1e-5)


def test_a_model_compiled_without_a_loss_trains_on_the_penalty():
    model = L2AllWeights(sequential(), 0.5)
    model.compile(keras.optimizers.SGD(0.1))
    before = sum_of_squared_kernels(model)
    logs = fit(model, y=None, epochs=1)
    assert logs["data_loss"] == [0.0]
    # Each of three steps takes 2 * 0.5 * 0.1 of each weight away.
    assert sum_of_squared_kernels(model) == pytest.approx(before * 0.9**6, rel=1e-5)


def test_activity_regularizers_and_add_loss_count_as_data_loss():
    @keras.saving.register_keras_serializable(__name__)
    class Extra(layers.Layer):
        def call(self, x):
            self.add_loss(0.25 * ops.mean(ops.square(x)))
            return x

    inputs = keras.Input((4,))
    x = layers.Dense(3, activity_regularizer=keras.regularizers.L2(0.1))(inputs)
    plain = keras.Model(inputs, Extra()(layers.Dense(2)(x)))
    plain.compile(no_updates(), "mse")
    # Keras divides the activity's term by the batch's size as of 3.14.
    expected = plain.evaluate(X, Y, batch_size=21, verbose=0)
    out = plain.predict(X, verbose=0)
    assert expected > np.mean((out - Y) ** 2) + 0.25 * np.mean(out**2)
    model = L2AllWeights(plain, 0.05)
    model.compile(no_updates(), "mse")
    logs = fit(model, batch_size=21, epochs=1)
    assert_splits(logs)
    assert logs["penalty"][0] == pytest.approx(
        0.05 * sum_of_squared_kernels(model), rel=1e-6
    )
    assert logs["data_loss"][0] == pytest.approx(expected, rel=1e-5)


# --- Custom loops ----------------------------------------------------------------


def test_a_custom_loop_takes_the_penalty_from_losses():
    model = L2AllWeights(sequential(), 0.5)
    kernel = model.get_layer("a").kernel
    expected = ops.convert_to_numpy(kernel)  # l2 = 0.5: the gradient is the kernel
    if BACKEND == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            model(X, training=True)
            penalty = sum(model.losses)
        gradient = tape.gradient(penalty, kernel.value)
    elif BACKEND == "jax":
        import jax

        def penalty_of(trainable):
            state = [v.value for v in model.non_trainable_variables]
            *_, losses = model.stateless_call(trainable, state, X, return_losses=True)
            return sum(losses)

        gradient = jax.grad(penalty_of)([v.value for v in model.trainable_variables])[0]
    else:
        model(X, training=True)
        sum(model.losses).backward()
        gradient = kernel.value.grad
    np.testing.assert_allclose(ops.convert_to_numpy(gradient), expected, rtol=1e-6)


# --- The live strength -----------------------------------------------------------


class PerEpoch(keras.callbacks.Callback):
    def __init__(self, strengths):
        super().__init__()
        self.strengths = strengths

    def on_epoch_begin(self, epoch, logs=None):
        self.model.l2 = self.strengths[epoch]


class PerBatch(keras.callbacks.Callback):
    """Sets the strength during an epoch, not by `self.model`.

    That would bring JAX's variables up to date by itself.
    """

    def __init__(self, wrapper, strengths):
        super().__init__()
        self.wrapper, self.strengths, self.seen = wrapper, strengths, []

    def on_train_batch_begin(self, batch, logs=None):
        self.wrapper.l2 = self.strengths[batch]

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.wrapper.l2)


@pytest.mark.parametrize("mode", ["auto", "eager"])
def test_the_strength_acts_at_once_without_a_new_trace(mode):
    model = wrapped(Subclassed, optimizer=no_updates(), run_eagerly=mode == "eager")
    fit(model, epochs=1, validation_data=(VX, VY))
    counter = model.wrapped_model.traces
    traced = counter.count
    strengths = [0.5, 0.0, 0.25]
    logs = fit(
        model, epochs=3, callbacks=[PerEpoch(strengths)], validation_data=(VX, VY)
    )
    squares = sum_of_squared_kernels(model)
    expected = np.multiply(strengths, squares)
    np.testing.assert_allclose(logs["penalty"], expected, rtol=1e-6)
    np.testing.assert_allclose(logs["val_penalty"], expected, rtol=1e-6)
    assert_splits(logs)

    midway = PerBatch(model, [0.1, 0.2, 0.4])
    logs = fit(model, epochs=1, callbacks=[midway])
    mean = np.dot([0.1, 0.2, 0.4], [8, 8, 5]) / 21
    np.testing.assert_allclose(logs["penalty"], [mean * squares], rtol=1e-6)
    np.testing.assert_allclose(midway.seen, [0.1, 0.2, 0.4], rtol=1e-7)
    assert_splits(logs)

    model.l2 = 0.125
    evaluated = model.evaluate(VX, VY, batch_size=8, verbose=0, return_dict=True)
    assert evaluated["penalty"] == pytest.approx(0.125 * squares, rel=1e-6)
    if mode == "auto" and BACKEND != "torch":
        assert counter.count == traced


def test_a_changed_strength_changes_the_fit():
    model = wrapped(optimizer=keras.optimizers.SGD(0.1), l2=0.0)
    fit(model)
    before = sum_of_squared_kernels(model)
    model.l2 = 3.0
    fit(model, epochs=1)
    assert sum_of_squared_kernels(model) < 0.1 * before


# --- Training or not -------------------------------------------------------------


def test_dropout_is_on_in_training_and_off_in_prediction():
    model = wrapped(Subclassed, optimizer=no_updates())
    first, second = (model.predict(X, verbose=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    evaluated = model.evaluate(X, Y, verbose=0, return_dict=True)["data_loss"]
    assert evaluated == pytest.approx(np.mean((first - Y) ** 2), rel=1e-5)
    trained = fit(model, epochs=2)["data_loss"]
    assert abs(trained[0] - evaluated) > 1e-3 * evaluated
    assert trained[0] != trained[1]
    noisy = ops.convert_to_numpy(model(X, training=True))
    assert np.abs(noisy - first).max() > 1e-3


# --- Compiled before, trained before ---------------------------------------------


def test_a_trained_model_keeps_its_optimizer_and_trains_on():
    keras.utils.set_random_seed(5)
    model = sequential()
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    fit(model)
    state = [ops.convert_to_numpy(v) for v in model.optimizer.variables]
    ours = L2AllWeights(model, 0.0)
    assert ours.compiled and ours.optimizer is model.optimizer
    for variable, value in zip(ours.optimizer.variables, state, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    twin = keras.models.clone_model(model)
    twin.set_weights(model.get_weights())
    twin.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae"])
    twin.optimizer.build(twin.trainable_variables)
    for variable, value in zip(twin.optimizer.variables, state, strict=True):
        variable.assign(value)
    logs, expected = fit(ours), fit(twin)
    np.testing.assert_allclose(logs["loss"], expected["loss"], rtol=1e-6)
    np.testing.assert_allclose(logs["mae"], expected["mae"], rtol=1e-6)


# --- Interrupted -----------------------------------------------------------------


class Interrupt(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def test_an_interrupted_fit_leaves_a_usable_model(tmp_path):
    model = wrapped(l2=0.05)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Interrupt()])
    assert model.l2 == 0.05
    assert np.isfinite(model.predict(X, verbose=0)).all()
    model.l2 = 0.1
    expected = 0.1 * sum_of_squared_kernels(model)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-6)
    model.save(tmp_path / "model.keras")
    assert_splits(fit(model, validation_data=(VX, VY)))


# --- Keras' callbacks ------------------------------------------------------------


def test_checkpoints_and_early_stopping_can_monitor_the_data_loss(tmp_path):
    model = wrapped(optimizer=keras.optimizers.SGD(3.0))  # gets worse each epoch
    path = tmp_path / "best.keras"
    stop = keras.callbacks.EarlyStopping(
        monitor="val_data_loss", mode="min", patience=1, restore_best_weights=True
    )
    best = keras.callbacks.ModelCheckpoint(
        path, monitor="val_data_loss", mode="min", save_best_only=True
    )
    logs = fit(model, epochs=5, validation_data=(VX, VY), callbacks=[best, stop])
    assert len(logs["loss"]) < 5
    lowest = min(logs["val_data_loss"])
    for each in (model, keras.saving.load_model(path)):
        again = each.evaluate(VX, VY, batch_size=8, verbose=0, return_dict=True)
        assert again["data_loss"] == pytest.approx(lowest, rel=1e-5)


# --- Copies, files, other processes ----------------------------------------------


def assert_same(a, b):
    np.testing.assert_allclose(
        a.predict(X, verbose=0), b.predict(X, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert a.l2 == b.l2
    np.testing.assert_allclose(
        [float(v) for v in a.losses], [float(v) for v in b.losses], rtol=1e-6
    )
    for ours, theirs in zip(a.optimizer.variables, b.optimizer.variables, strict=True):
        np.testing.assert_array_equal(
            ops.convert_to_numpy(ours), ops.convert_to_numpy(theirs)
        )


@pytest.mark.parametrize(
    ("how", "build"),
    [
        ("file", MODELS[0]),
        *(pytest.param("file", b, marks=pytest.mark.slow) for b in MODELS[1:]),
        ("pickle", sequential),
        ("deepcopy", Subclassed),
    ],
)
def test_copies_are_the_same_and_train_on(build, how, tmp_path):
    model = wrapped(build, optimizer="adam")
    model.l2 = 0.003
    fit(model, epochs=1)
    if how == "file":
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
    elif how == "pickle":
        again = pickle.loads(pickle.dumps(model))
    else:
        again = copy.deepcopy(model)
    assert isinstance(again, L2AllWeights)
    assert again.wrapped_model is not model.wrapped_model
    assert_same(again, model)
    if build is not Subclassed:  # whose dropout draws other numbers
        expected, logs = fit(model), fit(again)
        np.testing.assert_allclose(logs["loss"], expected["loss"], rtol=1e-5)
    again.l2 = 0.7
    assert model.l2 == 0.003
    penalty = fit(again, epochs=1)["penalty"]
    assert (
        penalty[0] > 10 * model.evaluate(X, Y, verbose=0, return_dict=True)["penalty"]
    )


def run(program, *arguments):
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


IN_A_FRESH_PROCESS = """
import sys, glob
import numpy as np
import keras
if sys.argv[2] == "with":
    import keras_l2reg
x = np.load(sys.argv[1] + "/x.npy")
for path in sorted(glob.glob(sys.argv[1] + "/*.keras")):
    model = keras.saving.load_model(path)
    out = model.predict(x, verbose=0)
    losses = [float(loss) for loss in model.losses]
    if sys.argv[2] == "with":
        assert int(keras.ops.convert_to_numpy(model.optimizer.iterations)) == 3
        logs = model.fit(x, x[:, :2], verbose=0).history
        assert abs(logs["data_loss"][0] + logs["penalty"][0] - logs["loss"][0]) < 1e-5
    else:
        assert "keras_l2reg" not in sys.modules
    np.savez(path.replace(".keras", ".npz"), out=out, losses=losses)
"""

FILES = {"sequential": sequential, "functional": functional, "nested": nested}


@pytest.mark.slow
def test_files_load_in_a_fresh_process(tmp_path):
    models = {name: wrapped(build) for name, build in FILES.items()}
    for name, model in models.items():
        fit(model, epochs=1)
        model.l2 = 0.25
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "x.npy", X)
    run(IN_A_FRESH_PROCESS, tmp_path, "with")
    check_against_files(models, tmp_path)


@pytest.mark.slow
def test_files_of_unwrapped_models_load_without_keras_l2reg(tmp_path):
    models = {}
    for name, build in FILES.items():
        model = wrapped(build)
        fit(model, epochs=1)
        model.l2 = 0.25
        expected = [float(loss) for loss in model.losses]
        inner = models[name] = model.unwrap()
        np.testing.assert_allclose([float(v) for v in inner.losses], expected)
        inner.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "x.npy", X)
    run(IN_A_FRESH_PROCESS, tmp_path, "without")
    check_against_files(models, tmp_path)


def check_against_files(models, folder):
    for name, model in models.items():
        there = np.load(folder / f"{name}.npz")
        here = model.predict(X, verbose=0)
        np.testing.assert_allclose(there["out"], here, rtol=1e-5, atol=1e-6)
        losses = [float(loss) for loss in model.losses]
        assert losses
        np.testing.assert_allclose(there["losses"], losses, rtol=1e-6)


def test_unwrap_with_strip_restores_the_original_model():
    model = sequential()
    config = model.get_config()
    wrapper = L2AllWeights(model, 0.1)
    wrapper.compile("sgd", "mse")
    fit(wrapper)
    assert wrapper.unwrap(strip=True) is model
    assert model.get_config() == config and model.losses == []
    with pytest.raises(ValueError, match="`l2` has no effect"):
        wrapper.l2 = 0.1


@pytest.mark.skipif(BACKEND == "torch", reason="tf_saved_model: TensorFlow and JAX")
def test_an_exported_wrapper_predicts_the_same(tmp_path):
    if BACKEND == "jax":
        pytest.importorskip("jax.experimental.jax2tf")
    import tensorflow as tf

    model = wrapped()
    fit(model)
    model.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    np.testing.assert_allclose(
        loaded.serve(tf.constant(X)).numpy(),
        model.predict(X, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


# --- As the inner model ----------------------------------------------------------


def test_layers_shapes_and_summary_are_those_of_the_inner_model(capsys):
    model = sequential()
    wrapper = L2AllWeights(model, 0.1)
    assert wrapper.layers == model.layers
    assert wrapper.get_layer("a") is model.layers[0]
    assert wrapper.get_layer(index=1) is model.layers[1]
    assert wrapper.inputs == model.inputs and wrapper.outputs == model.outputs
    assert wrapper.input_shape == (None, 4) and wrapper.output_shape == (None, 2)
    wrapper.summary()
    assert "Dense" in capsys.readouterr().out
    assert len(wrapper.trainable_variables) == 4


@pytest.mark.parametrize("build", [sequential, functional, Subclassed])
def test_a_wrapper_can_be_a_layer_of_another_model(build):
    inner = build()
    inner(X)
    wrapper = L2AllWeights(inner, 0.05)
    outer = keras.Sequential([keras.Input((4,)), wrapper, layers.Softmax()])
    assert outer.predict(X, verbose=0).shape == (21, 2)
    expected = 0.05 * sum_of_squared_kernels(outer)
    assert float(sum(outer.losses)) == pytest.approx(expected, rel=1e-6)


def test_freezing_a_layer_drops_its_penalty_and_unfreezing_restores_it():
    model = wrapped(optimizer=no_updates())
    whole = fit(model, epochs=1)["penalty"][0]
    model.get_layer("a").trainable = False
    assert len(model.losses) == 1
    model.compile(no_updates(), "mse")
    logs = fit(model, epochs=1)
    assert_splits(logs)
    head = ops.convert_to_numpy(model.get_layer("b").kernel)
    assert logs["penalty"][0] == pytest.approx(0.05 * np.sum(head**2), rel=1e-6)
    model.get_layer("a").trainable = True
    model.compile(no_updates(), "mse")
    assert fit(model, epochs=1)["penalty"][0] == pytest.approx(whole, rel=1e-6)


# --- Arguments -------------------------------------------------------------------


def test_the_default_strength_shows_in_the_signature():
    default = inspect.signature(L2AllWeights).parameters["l2"].default
    assert default == DEFAULT_L2 == L2AllWeights(sequential()).l2


@pytest.mark.parametrize("l2", [0.1, 0.0, 1, None, "0.01"])
def test_a_strength_beside_a_regularizer_is_refused(l2):
    model = sequential()
    with pytest.raises(ValueError, match="either `l2` and `l1`, or `regularizer`"):
        L2AllWeights(model, l2, regularizer=L2Loss(0.5))
    assert model.losses == []


@pytest.mark.parametrize("regularizer", [L2Loss(0.5), keras.regularizers.L2(0.25)])
def test_a_regularizer_in_place_of_a_strength_is_live_as_well(regularizer):
    model = L2AllWeights(sequential(), regularizer=regularizer)
    assert model.l2 == 0.25
    model.l2 = 1.0
    expected = sum_of_squared_kernels(model)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-6)
