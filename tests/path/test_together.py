"""`l2_path(together=True)`: all runs as one program, equal to those of Keras' `fit`.

On JAX. The other backends refuse it.
"""

import concurrent.futures
import importlib

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import MODELS
from paths import (
    L2,
    VALIDATION,
    X,
    Y,
    assert_same_runs,
    assert_same_state,
    compiled,
    network,
    path_of,
    state,
)

from keras_l2reg import L2AllWeights, _keras, l2_path
from keras_l2reg._path import choice

BACKEND = keras.backend.backend()
on_jax = pytest.mark.skipif(BACKEND != "jax", reason="only JAX maps over runs")
slow = pytest.mark.slow


def fresh(**kwargs):
    keras.utils.set_random_seed(1)
    return compiled(network(**kwargs))


@pytest.fixture
def by_fit(monkeypatch):
    """A path of `fit`, one run after the other."""
    module = importlib.import_module("keras_l2reg._path.l2_path")

    def path(model, **arguments):
        with monkeypatch.context() as patch:
            patch.setattr(module, "check_together", lambda *_: False)
            return path_of(model, **arguments)

    return path


# ---------------------------------------------------------- equal to Keras' own fit


def fits(wrapped, x, y, strengths, **arguments):
    """The logs of Keras' `fit` and `evaluate` at each strength, from the same start."""
    size = arguments["batch_size"]
    wrapped.evaluate(x, y, size, verbose=0)
    wrapped.optimizer.build(wrapped.trainable_variables)
    variables = [*wrapped.variables, *wrapped.optimizer.variables]
    start = [np.array(ops.convert_to_numpy(v)) for v in variables]
    for strength in strengths:
        for variable, value in zip(variables, start, strict=True):
            variable.assign(value)
        wrapped.l2 = strength
        keras.utils.set_random_seed(0)
        history = wrapped.fit(x, y, verbose=0, **arguments).history
        logs = {key: values[-1] for key, values in history.items()}
        evaluated = wrapped.evaluate(x, y, size, verbose=0, return_dict=True)
        yield logs | {f"val_{key}": value for key, value in evaluated.items()}
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)


def wrapped_entry(name):
    """A model of the battery, with data in two full batches and a short one."""
    keras.utils.set_random_seed(0)
    entry = MODELS[name]
    x = keras.tree.map_structure(lambda a: np.concatenate([a, a, a]), entry.inputs)
    wrapped = L2AllWeights(entry.build(), existing="keep", **entry.rule)
    rng = np.random.default_rng(0)
    y = keras.tree.map_structure(
        lambda a: rng.normal(size=a.shape).astype("float32"),
        wrapped.predict(x, verbose=0),
    )
    wrapped.compile("adam", keras.tree.map_structure(lambda _: "mse", y))
    return wrapped, x, y


@on_jax
@slow
@pytest.mark.parametrize("name", MODELS)
def test_each_model_of_the_battery_is_trained_as_by_fit(name):
    wrapped, x, y = wrapped_entry(name)
    arguments = {"batch_size": 5, "epochs": 2}
    expected = [*fits(wrapped, x, y, [0.1, 0.0], **arguments)]
    path = l2_path(
        wrapped, x, y, [0.1, 0.0], (x, y), together=True, verbose=0, **arguments
    )
    # Half precision rounds the results of each compiled kernel.
    rel = 1e-3 if "float16" in name else 1e-5
    for record, logs in zip(path.records, expected, strict=True):
        assert {k: record[k] for k in logs} == pytest.approx(logs, rel=rel, abs=1e-7)


@on_jax
def test_runs_with_dropout_norm_and_sample_weights_equal_those_of_fit():
    wrapped = L2AllWeights(fresh(dropout=0.3, norm=True))
    arguments = {
        "batch_size": 7,
        "epochs": 3,
        "sample_weight": np.linspace(0.5, 2, len(X), dtype="float32"),
    }
    expected = [*fits(wrapped, X, Y, L2, **arguments)]
    path = path_of(wrapped, together=True, validation_data=(X, Y), **arguments)
    for record, logs in zip(path.records, expected, strict=True):
        assert {k: record[k] for k in logs} == pytest.approx(logs, rel=1e-5)


OPTIMIZERS = {
    "momentum": lambda: keras.optimizers.SGD(0.01, momentum=0.9, clipnorm=1.0),
    "ema": lambda: keras.optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "ema at the end": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "accumulation": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2),
    "decay": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "schedule": lambda: keras.optimizers.RMSprop(
        keras.optimizers.schedules.ExponentialDecay(0.01, 2, 0.5)
    ),
    "loss scale": lambda: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.Adam(0.01), dynamic_growth_steps=2
    ),
}


@on_jax
@slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_state_of_any_optimizer_goes_along(name):
    wrapped = L2AllWeights(fresh())
    wrapped.compile(OPTIMIZERS[name](), "mse")
    arguments = {"batch_size": 7, "epochs": 3}
    expected = [*fits(wrapped, X, Y, L2, **arguments)]
    path = path_of(wrapped, together=True, validation_data=(X, Y), **arguments)
    for record, logs in zip(path.records, expected, strict=True):
        assert {k: record[k] for k in logs} == pytest.approx(logs, rel=1e-5)


@on_jax
@slow
def test_metrics_with_a_vector_as_state_go_along():
    wrapped = L2AllWeights(fresh())
    labels = (Y > 0).astype("float32")
    wrapped.compile(
        "adam",
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=[keras.metrics.AUC(20, from_logits=True), "binary_accuracy"],
    )
    arguments = {"batch_size": 7, "epochs": 2}
    expected = [*fits(wrapped, X, labels, L2, **arguments)]
    path = path_of(
        wrapped, y=labels, validation_data=(X, labels), together=True, **arguments
    )
    for record, logs in zip(path.records, expected, strict=True):
        assert {k: record[k] for k in logs} == pytest.approx(logs, rel=1e-5)


PATHS = {
    "warm": {"warm": True, "repeats": 2},
    "repeats and new starts": {"repeats": 2, "new_starts": True},
    "folds of two sizes": {"cv": 5, "repeats": 2},
    "warm folds": {"cv": 3, "warm": True},
    "ratios": {"l1_ratio": [0, 0.5], "cv": 2},
    "warm ratios": {"l1_ratio": [0, 0.5], "warm": True},
    "weight decay": {"strength": "weight_decay"},
    "weighted folds": {"cv": 2, "sample_weight": np.arange(1.0, 25.0)},
    "batches in order": {"shuffle": False, "batch_size": 7},
    "shuffled within batches": {"shuffle": "batch", "batch_size": 7},
    "less steps than batches": {"steps_per_epoch": 2, "epochs": 3},
    "steps without batch size": {"steps_per_epoch": 5, "batch_size": None},
    "part of the validation": {"validation_steps": 1, "validation_batch_size": 3},
}


@on_jax
@slow
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("name", PATHS)
def test_each_kind_of_path_equals_that_of_fit(name, together, by_fit, monkeypatch):
    monkeypatch.setattr(choice, "_FEWEST_STEPS", 0)
    arguments = PATHS[name]
    if "cv" in arguments:
        arguments = {**arguments, "validation_data": None}
    one, other = fresh(dropout=0.3, norm=True), fresh(dropout=0.3, norm=True)
    expected = by_fit(one, **arguments)
    path = path_of(other, together=together, **arguments)
    assert_same_runs(path, expected)
    assert path.best == pytest.approx(expected.best, rel=1e-5, nan_ok=True)
    for ours, theirs in zip(state(other), state(one), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@on_jax
@slow
def test_class_weights_weight_the_training_of_folds_only(by_fit):
    labels = (Y[:, :1] > 0).astype("float32")
    arguments = {
        "y": labels,
        "cv": 2,
        "validation_data": None,
        "class_weight": {0: 1.0, 1: 3.0},
    }

    def classifier():
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((5,)), layers.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy", weighted_metrics=["accuracy"])
        return model

    path = path_of(classifier(), together=True, **arguments)
    assert_same_runs(path, by_fit(classifier(), **arguments))


# ------------------------------------------------------------------ what is left


@on_jax
def test_a_run_that_diverges_does_not_touch_the_others():
    def path(l2):
        keras.utils.set_random_seed(1)
        model = network()
        # The accuracy of NaN is finite.
        metrics = ["mae", "binary_accuracy"]
        model.compile(keras.optimizers.SGD(0.05), "mse", metrics=metrics)
        return path_of(model, l2, epochs=30, together=True)

    diverged, finite = path([1e6, 0.1]).runs
    assert diverged["l2"] == 1e6
    names = ("loss", "val_data_loss", "val_mae", "val_binary_accuracy")
    assert np.isnan([diverged[name] for name in names]).all()
    (alone,) = path([0.1]).runs
    assert finite == pytest.approx(alone, rel=1e-5)


class CtrlC:
    """Presses Ctrl-C at the n-th epoch."""

    def __init__(self, n, monkeypatch):
        self.epochs_left, train = n, _train_method()

        def pressed(*args):
            self.epochs_left -= 1
            if self.epochs_left == 0:
                raise KeyboardInterrupt
            return train(*args)

        monkeypatch.setattr(type(_keras.backend.stacked(fresh())), "train", pressed)


def _train_method():
    return type(_keras.backend.stacked(fresh())).train


@on_jax
def test_ctrl_c_keeps_the_runs_of_finished_chunks(monkeypatch):
    wrapped = L2AllWeights(fresh(), 0.7)
    # Room for two runs at once.
    monkeypatch.setattr(
        type(_keras.backend), "free_bytes", lambda self: 5 * cost_of(wrapped).bytes
    )
    CtrlC(3, monkeypatch)
    path = path_of(wrapped, together=True)
    assert path.interrupted
    assert [record["l2"] for record in path.records] == L2[:2]
    loss = wrapped.evaluate(*VALIDATION, return_dict=True, verbose=0)["loss"]
    assert loss == pytest.approx(path.best["val_loss"], rel=1e-5)


def cost_of(wrapped):
    steps = _keras.backend.stacked(wrapped)
    return steps.step_cost(steps.place((X, Y)), 8)


@on_jax
def test_ctrl_c_in_the_first_chunk_leaves_the_model_as_it_was(monkeypatch):
    wrapped = L2AllWeights(fresh(dropout=0.2), 0.7)
    wrapped.optimizer.build(wrapped.trainable_variables)
    before = state(wrapped)
    CtrlC(2, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        path_of(wrapped, together=True)
    assert_same_state(wrapped, before)
    assert wrapped.l2 == 0.7


@on_jax
@slow
def test_the_progress_bar_counts_the_epochs_of_all_runs(capsys):
    path_of(fresh(), [0.1, 0.2], cv=2, validation_data=None, verbose=1, together=True)
    assert "8/8" in capsys.readouterr().out


# -------------------------------------------------------------------- how it is done


@keras.saving.register_keras_serializable(__name__)
class Counted(layers.Layer):
    calls = 0

    def call(self, x):
        Counted.calls += 1
        return x


@on_jax
@slow
def test_any_number_of_runs_is_traced_as_often_as_one():
    def calls(l2, **arguments):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(2), Counted()])
        before = Counted.calls
        path_of(compiled(model), l2, together=True, **arguments)
        return Counted.calls - before

    one = calls([0.1])
    assert calls(L2, repeats=2) == one
    # A last batch of another size, to train and to validate on.
    assert calls(L2, batch_size=7) == one + 2


@on_jax
@pytest.mark.parametrize("cores", [1, 2, 8])
def test_any_number_of_cores_gives_the_same_runs(cores, by_fit, monkeypatch):
    expected = by_fit(fresh(dropout=0.2))
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert_same_runs(path_of(fresh(dropout=0.2), together=True), expected)


def epochs_together(monkeypatch, model, **arguments):
    """How many epochs of a path are compiled as one program."""
    kind, count = type(_keras.backend.stacked(fresh())), []
    train = kind.train

    def counted(*args):
        count.append(1)
        return train(*args)

    with monkeypatch.context() as patch:
        patch.setattr(kind, "train", counted)
        path_of(model, restore_best_weights=False, **arguments)
    return len(count)


@on_jax
def test_together_is_chosen_where_it_pays(monkeypatch):
    model = fresh()
    model.optimizer.build(model.trainable_variables)
    # 3 runs of 3 batches each: two steps for each operation, or a few less.
    enough = -(-2 * cost_of(L2AllWeights(model)).operations // 9)
    model = fresh()
    assert epochs_together(monkeypatch, model, epochs=enough - 8) == 0
    assert epochs_together(monkeypatch, model, epochs=enough + 8) == enough + 8
    alone = epochs_together(monkeypatch, model, epochs=enough + 8, together=False)
    assert alone == 3 * (enough + 8)


@on_jax
@slow
def test_large_steps_and_convolutions_are_left_to_fit(monkeypatch):
    monkeypatch.setattr(choice, "_STEPS_PER_OPERATION", 0)
    wide = keras.Sequential([keras.Input((5,)), layers.Dense(2**19), layers.Dense(2)])
    table = keras.Sequential(
        [keras.Input((5,)), layers.Embedding(2**18, 16), layers.GlobalMaxPooling1D()]
    )
    table.add(layers.Dense(2))
    shapes = [layers.Reshape((5, 1)), layers.Conv1D(2, 2), layers.Flatten()]
    convolution = keras.Sequential([keras.Input((5,)), *shapes, layers.Dense(2)])
    for model in (wide, table, convolution):
        model.compile("sgd", "mse")
        assert epochs_together(monkeypatch, model, epochs=1) == 0
    assert epochs_together(monkeypatch, convolution, epochs=1, together=True) == 1


# ------------------------------------------------------------------------ refused


class OneBatch(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X[:8], Y[:8]


class FromHost(layers.Layer):
    """Calls back to Python, which `jax.vmap` can't map."""

    def call(self, x):
        import jax

        def identity(x):
            return x

        result = jax.pure_callback(identity, jax.ShapeDtypeStruct(x.shape, x.dtype), x)
        return jax.lax.stop_gradient(result)


def with_callback_to_python():
    model = keras.Sequential([keras.Input((5,)), FromHost(), layers.Dense(2)])
    return compiled(model)


@on_jax
def test_what_can_not_be_mapped_is_left_to_fit_or_refused():
    path = path_of(with_callback_to_python(), [0.1], epochs=1)
    assert np.isfinite(path.best["val_data_loss"])
    with pytest.raises(ValueError, match=r"callback to Python.*leave out `together`"):
        path_of(with_callback_to_python(), [0.1], together=True)


REFUSED = {
    "callbacks": {"callbacks": [keras.callbacks.TerminateOnNaN()]},
    "executor": {"executor": concurrent.futures.ThreadPoolExecutor(1)},
    "not arrays": {"validation_data": OneBatch()},
}


@on_jax
@pytest.mark.parametrize("words", REFUSED)
def test_what_can_not_go_together_is_refused(words):
    model = fresh()
    before = state(model)
    with pytest.raises(ValueError, match=rf"Received: .*{words}.*leave out `together`"):
        path_of(model, together=True, **REFUSED[words])
    assert_same_state(model, before)
    assert model.losses == []
    path = path_of(model, [0.1], epochs=1, **REFUSED[words])
    assert len(path.records) == 1


@on_jax
@pytest.mark.parametrize("arguments", [{"run_eagerly": True}, {"jit_compile": False}])
def test_steps_that_are_not_compiled_can_not_go_together(arguments):
    model = network()
    model.compile("adam", "mse", **arguments)
    with pytest.raises(ValueError, match="jit_compile='auto'"):
        path_of(model, together=True)


@pytest.mark.skipif(BACKEND == "jax", reason="JAX maps over runs")
def test_other_backends_refuse():
    with pytest.raises(ValueError, match="KERAS_BACKEND=jax"):
        path_of(fresh(), together=True)
    assert len(path_of(fresh(), [0.1], epochs=1, together=False).records) == 1


def test_together_is_a_boolean_or_none():
    with pytest.raises(TypeError, match="`together`"):
        path_of(fresh(), together="yes")
