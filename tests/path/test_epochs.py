"""The runs of `l2_path` compared with Keras' own `fit` and `evaluate` of the wrapper.

A backend may take the steps of an epoch by itself; its figures are those of Keras.
"""

import contextlib

import keras
import models
import numpy as np
import pytest
from keras import layers
from paths import (
    VALIDATION,
    X,
    Y,
    assert_has_metrics,
    by_keras,
    compiled,
    network,
    path_of,
)

from keras_l2reg import L2AllWeights, _keras, l2_path

IS_TORCH = keras.backend.backend() == "torch"
# JAX runs `fit`.
IS_FAST = keras.backend.backend() in ("tensorflow", "torch")
WEIGHTS = np.linspace(0.5, 4, 24).astype("float32")


@pytest.fixture(autouse=True)
def record_soon(monkeypatch):
    if IS_TORCH:
        from keras_l2reg._keras.backends import torch_epochs

        monkeypatch.setattr(torch_epochs, "STEPS_BEFORE", 2)


@contextlib.contextmanager
def no_fit(wrapped):
    """In this context, an error is raised if Keras' `fit` of a model is called."""

    def fit(*args, **kwargs):
        raise AssertionError("Keras' `fit` was called")

    # Bypasses Keras, which tracks what is set on a layer.
    object.__setattr__(wrapped, "fit", fit)
    try:
        yield
    finally:
        object.__delattr__(wrapped, "fit")


def variables_of(model):
    return [*model.variables, *model.optimizer.variables]


def values_of(variables):
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_runs_are_those_of_keras(
    wrapped, x=X, y=Y, validation=VALIDATION, l2=(0.01,), repeats=1, **arguments
):
    arguments = {"epochs": 2, "batch_size": 9, "verbose": 0, **arguments}
    wrapped.evaluate(x, y, verbose=0)
    wrapped.optimizer.build(wrapped.trainable_variables)
    start = values_of(variables_of(wrapped))
    with no_fit(wrapped) if IS_FAST else contextlib.nullcontext():
        path = l2_path(
            wrapped,
            x,
            y,
            l2,
            validation,
            seed=3,
            repeats=repeats,
            restore_best_weights=False,
            **arguments,
        )
    for run in path.runs:
        for variable, value in zip(variables_of(wrapped), start, strict=True):
            variable.assign(value)
        wrapped.l2 = run["l2"]
        seed = 3 + run["repeat"]
        metrics = by_keras(wrapped, x, y, validation, seed, **arguments)
        assert_has_metrics(run, metrics, rel=1e-6)


def kinds():
    """Models of all kinds; all but two are for the slow tests."""
    chosen = {"functional_dict_inputs_and_outputs", "subclassed_built"}
    for name, entry in models.MODELS.items():
        marks = [] if name in chosen else [pytest.mark.slow]
        if name == "custom_weights_of_one_name" and IS_TORCH:
            reason = "Keras resets the gradient of only one of the two"
            marks.append(pytest.mark.xfail(reason=reason))
        yield pytest.param(entry, id=name, marks=marks)


@pytest.mark.parametrize("entry", [*kinds()])
def test_models_of_all_kinds(entry):
    model = entry.build()
    x = keras.tree.map_structure(lambda a: np.concatenate([a] * 3)[:11], entry.inputs)
    outputs = model(x)
    rng = np.random.default_rng(0)
    y = keras.tree.map_structure(
        lambda t: rng.normal(size=tuple(t.shape)).astype("float32"), outputs
    )
    wrapped = L2AllWeights(model, existing="keep")
    losses = keras.tree.map_structure(lambda _: "mse", y)
    wrapped.compile(keras.optimizers.Adam(1e-3), losses)
    assert_runs_are_those_of_keras(wrapped, x, y, (x, y), batch_size=4)


@pytest.fixture(scope="module")
def with_dropout():
    return compiled(L2AllWeights(network(dropout=0.3, norm=True)))


@pytest.mark.parametrize(
    "arguments",
    [
        {"l2": [0.1, 0.01], "epochs": 3},
        {"shuffle": "batch", "batch_size": 8},
        {"sample_weight": WEIGHTS, "validation": (*VALIDATION, WEIGHTS[:16])},
        pytest.param({"shuffle": False}, marks=pytest.mark.slow),
    ],
    ids=lambda arguments: ", ".join(arguments),
)
def test_batches_and_their_order(arguments, with_dropout):
    assert_runs_are_those_of_keras(with_dropout, **arguments)


def test_the_order_is_that_of_the_seed_at_each_strength():
    wrapped = compiled(L2AllWeights(network()))
    assert_runs_are_those_of_keras(wrapped, l2=[0.1, 0.01], repeats=2)


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="TensorFlow's random numbers"
)
class TestRandomNumbersOfTensorFlow:
    @pytest.mark.parametrize("of_python", [False, True])
    @pytest.mark.parametrize("in_training", [True, False])
    def test_a_layer_draws_the_same_in_each_run(self, in_training, of_python):
        wrapped = noisy(in_training, of_python)
        assert_runs_are_those_of_keras(wrapped, l2=[0.1, 0.01], repeats=2)

    def test_so_does_an_evaluation_by_keras(self):
        wrapped = noisy(in_training=False)
        path_of(wrapped, l2=[0.1])
        given = {"validation_steps": 2, "restore_best_weights": False}
        both = path_of(wrapped, l2=[0.1, 0.01], **given).runs
        for run in both:
            (alone,) = path_of(wrapped, l2=[run["l2"]], **given).runs
            assert run["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-6)

    def test_a_path_prepares_its_graphs_once(self, monkeypatch):
        from keras_l2reg._keras.backends import tensorflow_epochs

        cheap, set_seed = [], tensorflow_epochs.set_seed_outside_tensorflow
        monkeypatch.setattr(
            tensorflow_epochs,
            "set_seed_outside_tensorflow",
            lambda seed: cheap.append(seed) or set_seed(seed),
        )
        path_of(compiled(L2AllWeights(network(dropout=0.3))), l2=[0.1, 0.01, 0.001])
        assert len(cheap) == 2
        path_of(noisy(in_training=True), l2=[0.1, 0.01])
        assert len(cheap) == 2


def noisy(in_training, of_python=False):
    """A wrapped model whose layer draws from TensorFlow's own random state."""
    import tensorflow as tf

    def normal(shape):
        return tf.random.normal(shape, seed=1)

    class Noise(layers.Layer):
        def call(self, x, training=False):
            if training != in_training:
                return x
            shape = tf.shape(x)
            if not of_python:
                return x + normal(shape)
            noise = tf.py_function(normal, [shape], tf.float32)
            return x + tf.ensure_shape(noise, x.shape)

    return compiled(L2AllWeights(keras.Sequential([network(), Noise()])))


def test_class_weights():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(3, "softmax")])
    wrapped = L2AllWeights(model)
    loss = "sparse_categorical_crossentropy"
    metrics = {"metrics": ["accuracy"], "weighted_metrics": ["accuracy"]}
    wrapped.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, **metrics)
    y = np.repeat([0, 1, 2], 8)
    given = {"class_weight": {0: 1.0, 1: 0.5, 2: 4.0}}
    assert_runs_are_those_of_keras(wrapped, X, y, (X[:16], y[:16]), **given)


@pytest.mark.slow
def test_averages_of_weights_are_those_of_keras():
    wrapped = L2AllWeights(network())
    wrapped.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    assert_runs_are_those_of_keras(wrapped)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        part = slice(8 * index, 8 * index + 8)
        return X[part], Y[part]


@pytest.mark.parametrize(
    "arguments",
    [
        {"steps_per_epoch": 3},
        {"callbacks": [keras.callbacks.Callback()]},
        {"x": Batches(), "y": None, "batch_size": None},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_what_only_keras_can_run_is_left_to_it(arguments, with_dropout):
    with pytest.raises(AssertionError, match="was called"), no_fit(with_dropout):
        path_of(with_dropout, **arguments)


@pytest.mark.parametrize("compiled_with", ["run_eagerly", "steps_per_execution"])
def test_a_step_that_is_compiled_in_another_way_is_left_to_keras(compiled_with):
    if keras.backend.backend() == "torch" and compiled_with == "steps_per_execution":
        pytest.skip("torch has no steps_per_execution")
    wrapped = L2AllWeights(network())
    value = {"run_eagerly": True, "steps_per_execution": 2}[compiled_with]
    wrapped.compile("sgd", "mse", **{compiled_with: value})
    with pytest.raises(AssertionError, match="was called"), no_fit(wrapped):
        path_of(wrapped)


def test_averaged_weights_replace_the_others_at_the_end_of_a_run():
    wrapped = L2AllWeights(network())
    wrapped.compile(keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9), "mse")
    given = {"epochs": 2, "restore_best_weights": False, "shuffle": False}
    ours = path_of(wrapped, **given)
    theirs = path_of(wrapped, callbacks=[keras.callbacks.Callback()], **given)
    for one, other in zip(ours.records, theirs.records, strict=True):
        assert one["val_loss"] == pytest.approx(other["val_loss"], rel=1e-6)


def test_a_run_that_diverges_is_recorded_as_one_of_keras():
    wrapped = L2AllWeights(network())
    wrapped.compile(keras.optimizers.SGD(0.05), "mse")
    # Between epochs with validation, as callbacks need it, torch shuffles otherwise.
    given = {"epochs": 30, "restore_best_weights": False, "shuffle": False}
    given["l2"] = [1e5, 0.1]
    ours = path_of(wrapped, **given)
    theirs = path_of(wrapped, callbacks=[keras.callbacks.Callback()], **given)
    assert [run["diverged"] for run in ours.records] == [1, 0]
    for one, other in zip(ours.runs, theirs.runs, strict=True):
        assert one == pytest.approx(other, rel=1e-6, nan_ok=True)


def test_the_model_keeps_how_it_was_compiled_and_its_steps(with_dropout):
    # The first evaluation makes the functions.
    path_of(with_dropout)
    before = {
        name: getattr(with_dropout, name)
        for name in ("train_function", "test_function", "steps_per_execution")
    }
    path_of(with_dropout)
    assert {name: getattr(with_dropout, name) for name in before} == before
    assert not with_dropout.stop_training


@pytest.mark.skipif(not IS_FAST, reason="Keras' fit runs")
@pytest.mark.parametrize("epoch", [1, 5])
def test_ctrl_c_keeps_what_is_done_and_the_model(epoch, with_dropout, monkeypatch):
    kind = type(_keras.backend.epochs(with_dropout))
    train, before = kind.train, values_of(variables_of(with_dropout))
    epochs_left = [epoch]

    def pressed(*args):
        epochs_left[0] -= 1
        if epochs_left[0] < 0:
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(kind, "train", pressed)
    given = {"l2": [0.1, 0.01], "epochs": 4}
    if epoch < 4:
        with pytest.raises(KeyboardInterrupt):
            path_of(with_dropout, **given)
        for one, other in zip(
            values_of(variables_of(with_dropout)), before, strict=True
        ):
            np.testing.assert_array_equal(one, other)
        return
    path = path_of(with_dropout, **given)
    assert path.interrupted
    assert [run["l2"] for run in path.runs] == [0.1]
    loss = with_dropout.evaluate(*VALIDATION, return_dict=True, verbose=0)["loss"]
    assert loss == pytest.approx(path.best["val_loss"], rel=1e-5)


class Toggle(layers.Layer):
    """Negates its inputs in every other call, which a recording could not know."""

    calls = 0

    def call(self, x):
        Toggle.calls += 1
        return x if Toggle.calls % 2 else -x


class HalvedInTraining(keras.Model):
    """Reads torch's own flag, which `fit` sets."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x / 2 if self.training else x)


@pytest.mark.skipif(keras.backend.backend() != "torch", reason="only torch records")
class TestOnTorch:
    @pytest.fixture
    def replays(self, monkeypatch):
        from keras_l2reg._keras.backends.torch_epochs import RecordedStep

        replays, replay = [], RecordedStep._replay
        monkeypatch.setattr(
            RecordedStep,
            "_replay",
            lambda self, batch: replays.append(1) or replay(self, batch),
        )
        return replays

    def test_keras_own_steps_are_recorded(self, replays, with_dropout):
        path_of(with_dropout, epochs=20)
        # 3 runs of 20 epochs of 3 steps, and 2 steps of each evaluation.
        assert len(replays) > 170

    def test_a_step_with_code_of_a_user_is_not(self, replays):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(2), Toggle()])
        wrapped = compiled(L2AllWeights(model))
        path_of(wrapped, epochs=20)
        assert not replays

    def test_a_step_that_reads_a_value_is_not(self, replays):
        model = network()
        model = keras.Sequential([model, layers.GaussianNoise(0.1, seed=1)])
        wrapped = compiled(L2AllWeights(model))
        assert_runs_are_those_of_keras(wrapped)
        assert not any(replays[:-9])

    def test_modules_are_in_training_mode_as_in_fit(self):
        model = HalvedInTraining()
        model(X)
        assert_runs_are_those_of_keras(compiled(L2AllWeights(model)))

    @pytest.mark.parametrize("terms", [[1, 1, 1, 1, 1], [1, 1, 2, 1, 5]])
    def test_a_recording_is_dropped_if_the_next_step_differs(self, terms, monkeypatch):
        import torch

        from keras_l2reg._keras.backends import torch_epochs

        # As if this file were code that keeps nothing.
        monkeypatch.setattr(torch_epochs, "_KNOWN", {*torch_epochs._KNOWN, __name__})
        total, left = torch.zeros(()), []

        def add(batch):
            # Tracing it reads no term.
            total.add_(batch[0].sum() * (left[0] if left else 1))

        step = torch_epochs.RecordedStep(add, [0])
        for term in terms:
            left[:] = [term]
            step([torch.ones(2)])
        assert float(total) == 2 * sum(terms)
        assert (step._program is None) == (terms != [1] * 5)
