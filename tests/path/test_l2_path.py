"""l2_path compared with building a new model with Keras' L2 for each strength."""

import keras
import numpy as np
import pandas
import pytest
from keras import layers
from paths import (
    L2,
    VALIDATION,
    X_VAL,
    Y_VAL,
    Fail,
    Interrupt,
    X,
    Y,
    assert_has_metrics,
    assert_same_runs,
    assert_same_state,
    assert_same_weights,
    by_keras,
    compiled,
    network,
    path_of,
    state,
)
from sklearn.linear_model import Ridge

from keras_l2reg import L2AllWeights, L2Grid, l2_path
from keras_l2reg._path.grid import grid_from_data

# -------------------------------------------------------- compared with others


@pytest.mark.parametrize(
    ("warm", "bare"),
    [(False, True), pytest.param(True, False, marks=pytest.mark.slow)],
)
def test_each_run_equals_that_of_a_new_model_with_keras_l2(warm, bare):
    model = network(norm=True)
    start = model.get_weights()
    path = path_of(
        compiled(model if bare else L2AllWeights(model)), L2[:2], warm=warm, seed=3
    )
    for record in path.records:
        rebuilt = compiled(network(record["l2"], norm=True))
        rebuilt.set_weights(start)
        assert_has_metrics(record, by_keras(rebuilt))
        if warm:
            start = rebuilt.get_weights()


def test_a_linear_model_converges_to_ridge_regression():
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.5), "mse")
    path = path_of(model, [0.5, 0.1], epochs=60, batch_size=24)
    for record in path.records:
        # Keras' mse is a mean over the two outputs, too.
        ridge = Ridge(alpha=24 * 2 * record["l2"]).fit(X, Y)
        penalty = record["l2"] * np.sum(ridge.coef_**2)
        assert record["penalty"] == pytest.approx(penalty, rel=1e-3)
        data_loss = np.mean((ridge.predict(X) - Y) ** 2)
        assert record["data_loss"] == pytest.approx(data_loss, rel=1e-3)
        val_data_loss = np.mean((ridge.predict(X_VAL) - Y_VAL) ** 2)
        assert record["val_data_loss"] == pytest.approx(val_data_loss, rel=1e-3)


def test_means_and_standard_errors_equal_those_of_pandas():
    path = path_of(compiled(network(dropout=0.5)), repeats=3)
    assert [run["repeat"] for run in path.runs] == [0, 1, 2] * 3
    runs = pandas.DataFrame(path.runs).groupby("l2")
    records = pandas.DataFrame(path.records).set_index("l2").sort_index()
    assert (records["repeats"] == 3).all()
    for key in ("data_loss", "penalty", "val_data_loss", "mae", "val_mae"):
        np.testing.assert_allclose(records[key], runs[key].mean())
        np.testing.assert_allclose(records[f"{key}_se"], runs[key].sem())
        assert (records[f"{key}_se"].drop(0.0) > 0).all()


# --------------------------------------------------------------------- one trace


@keras.saving.register_keras_serializable(__name__)
class Counter(layers.Layer):
    """Counts how often Python runs it: once for each trace on TensorFlow and JAX."""

    calls = 0

    def call(self, x):
        Counter.calls += 1
        return x


@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has no trace")
@pytest.mark.parametrize("bare", [False, True])
def test_the_whole_path_is_traced_once(bare):
    def calls(l2, **arguments):
        model = keras.Sequential([keras.Input((5,)), layers.Dense(2), Counter()])
        model = compiled(model if bare else L2AllWeights(model))
        before = Counter.calls
        path_of(model, l2, **arguments)
        return Counter.calls - before

    assert calls([0.3]) == calls(L2, repeats=2) == calls([0.1, 0.2], warm=True)


@pytest.mark.slow
def test_a_trained_wrapper_keeps_its_compiled_steps():
    wrapped = compiled(L2AllWeights(network()))
    wrapped.fit(X, Y, 8, validation_data=VALIDATION, verbose=0)
    before = wrapped.train_function, wrapped.test_function
    path_of(wrapped)
    assert (wrapped.train_function, wrapped.test_function) == before


# ------------------------------------------------------- the model after the path


def test_a_wrapper_is_left_with_the_best_weights_and_strength():
    wrapped = compiled(L2AllWeights(network(dropout=0.2), 0.7))
    path = path_of(wrapped, repeats=2)
    assert wrapped.l2 == path.best["l2"]
    logs = wrapped.evaluate(*VALIDATION, return_dict=True, verbose=0)
    runs = [run for run in path.runs if run["l2"] == wrapped.l2]
    best = min(runs, key=lambda run: run["val_data_loss"])
    assert logs["data_loss"] == pytest.approx(best["val_data_loss"], rel=1e-5)
    assert int(keras.ops.convert_to_numpy(wrapped.optimizer.iterations)) == 0


@pytest.mark.slow
def test_without_restore_best_weights_a_wrapper_is_left_as_it_was():
    wrapped = compiled(L2AllWeights(network(dropout=0.2, norm=True), 0.7))
    wrapped.fit(X, Y, 8, verbose=0)
    before = state(wrapped)
    path_of(wrapped, restore_best_weights=False, repeats=2, new_starts=True)
    assert_same_state(wrapped, before)
    assert wrapped.l2 == 0.7


def test_a_bare_model_is_left_with_built_in_regularizers_of_the_best_strength():
    model = compiled(network(0.7))
    path = path_of(model)
    kernels = [layer.kernel_regularizer for layer in model.layers[:2]]
    assert [type(r) for r in kernels] == [keras.regularizers.L2] * 2
    assert [r.l2 for r in kernels] == pytest.approx([path.best["l2"]] * 2)
    loss = model.evaluate(*VALIDATION, return_dict=True, verbose=0)["loss"]
    assert loss == pytest.approx(path.best["val_loss"], rel=1e-5)


def test_without_restore_best_weights_a_bare_model_is_left_as_it_was():
    model = compiled(network(0.7))
    model.fit(X, Y, 8, verbose=0)
    before, config = state(model), model.get_config()
    path_of(model, restore_best_weights=False)
    assert_same_state(model, before)
    assert model.get_config() == config
    model.fit(X, Y, 8, verbose=0)


def test_an_unbuilt_model_is_built():
    model = compiled(keras.Sequential([layers.Dense(3), layers.Dense(2)]))
    path = path_of(model)
    assert len(path.records) == 3
    assert len(model.losses) == 2


# ---------------------------------------------------------------------- the seeds


@pytest.mark.slow
def test_a_path_with_the_same_seed_is_the_same():
    model = compiled(L2AllWeights(network(dropout=0.5)))
    arguments = {"repeats": 2, "epochs": 1, "restore_best_weights": False}
    both = path_of(model, [0.3, 0.03], **arguments).runs
    assert path_of(model, [0.03], **arguments).runs == both[2:]
    assert path_of(model, [0.03], seed=5, **arguments).runs != both[2:]


@pytest.mark.slow
def test_repeats_differ_by_shuffling_by_dropout_and_by_new_starts():
    def losses(dropout=0.0, **arguments):
        model = compiled(network(dropout=dropout))
        path = path_of(model, [0.1], repeats=3, epochs=1, **arguments)
        return len({run["val_data_loss"] for run in path.runs})

    assert losses(shuffle=False) == 1
    assert losses() == 3
    assert losses(dropout=0.5, shuffle=False) == 3
    assert losses(new_starts=True, shuffle=False) == 3


# ---------------------------------------------------- divergence, Ctrl-C, errors


@pytest.mark.slow
def test_a_strength_that_diverges_is_recorded_and_the_path_goes_on():
    model = network()
    model.compile(keras.optimizers.SGD(0.05), "mse", metrics=["mae"])
    path = path_of(model, [1e6, 0.1], epochs=30, warm=True)
    diverged, finite = path.records
    assert diverged["diverged"] == 1
    values = [diverged[name] for name in ("loss", "val_data_loss", "val_mae")]
    assert np.isnan(values).all()
    assert set(diverged) == set(finite)
    assert finite["diverged"] == 0
    assert np.isfinite(finite["val_data_loss"])
    assert path.best is finite
    assert "1 of 1 diverged" in str(path)


def test_if_all_runs_diverge_the_model_is_left_as_it_was():
    model = network()
    model.compile(keras.optimizers.SGD(0.05), "mse")
    before, config = state(model), model.get_config()
    with pytest.warns(UserWarning, match="Every run"):
        path = path_of(model, [1e7, 1e6], epochs=30)
    assert path.best is None
    assert path.one_standard_error is None
    assert model.get_config() == config
    assert_same_state(model, [*before[: len(model.weights)], *state(model)[-2:]])


@pytest.mark.slow
@pytest.mark.parametrize("bare", [False, True])
def test_an_interrupted_path_keeps_the_finished_runs(bare):
    model = compiled(network() if bare else L2AllWeights(network()))
    path = path_of(model, callbacks=[Interrupt(3)])
    assert path.interrupted
    assert [record["l2"] for record in path.records] == [0.3, 0.03]
    assert "interrupted" in str(path)
    loss = model.evaluate(*VALIDATION, return_dict=True, verbose=0)["loss"]
    assert loss == pytest.approx(path.best["val_loss"], rel=1e-5)
    assert np.isfinite(model.fit(X, Y, verbose=0).history["loss"]).all()


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX moves variables")
def test_a_path_interrupted_in_an_evaluation_keeps_the_finished_runs():
    class Data(keras.utils.PyDataset):
        is_armed = False

        def __len__(self):
            return 2

        def __getitem__(self, index):
            if self.is_armed and index == 1:
                self.is_armed = False
                raise KeyboardInterrupt
            return X_VAL[:8], Y_VAL[:8]

    class Arm(Interrupt):
        def on_train_batch_end(self, batch, logs=None):
            pass

        def on_train_end(self, logs=None):
            data.is_armed = self.runs_left == 0

    data, wrapped = Data(), compiled(L2AllWeights(network()))
    path = path_of(wrapped, validation_data=data, callbacks=[Arm(3)])
    assert path.interrupted
    assert wrapped.l2 == path.best["l2"]
    loss = wrapped.evaluate(data, return_dict=True, verbose=0)["loss"]
    assert loss == pytest.approx(path.best["val_loss"], rel=1e-5)


def test_an_error_carries_the_runs_finished_before_it():
    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    with pytest.raises(RuntimeError, match="no memory") as caught:
        path_of(wrapped, callbacks=[Fail(3)])
    assert [record["l2"] for record in caught.value.path.records] == [0.3, 0.03]
    assert_same_weights(wrapped, before)


def test_an_interrupt_in_the_first_run_is_raised():
    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    with pytest.raises(KeyboardInterrupt):
        path_of(wrapped, callbacks=[Interrupt(1)])
    assert_same_weights(wrapped, before)


# ----------------------------------------------------------------- data and arguments


class OneBatch(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X[:8], Y[:8]


def test_data_sets_and_arrays_give_the_same_path():
    model = compiled(L2AllWeights(network()))
    arguments = {"validation_data": VALIDATION, "epochs": 1, "verbose": 0}
    arguments = {**arguments, "restore_best_weights": False, "shuffle": False}
    arrays = l2_path(model, X[:8], Y[:8], L2[:1], batch_size=8, **arguments)
    batches = l2_path(
        model, OneBatch(), l2=L2[:1], validation_batch_size=8, **arguments
    )
    assert_same_runs(arrays, batches)
    grid = grid_from_data(model, OneBatch(), None)
    assert grid == grid_from_data(model, X[:8], Y[:8])


def test_inputs_and_outputs_may_be_dicts():
    inputs = {"a": keras.Input((5,), name="a"), "b": keras.Input((3,), name="b")}
    table = layers.Embedding(4, 2)(inputs["b"])
    joined = layers.Concatenate()([inputs["a"], layers.Flatten()(table)])
    model = keras.Model(inputs, {"one": layers.Dense(2, name="one")(joined)})
    model.compile(keras.optimizers.SGD(0.01), {"one": "mse"})
    x = {"a": X, "b": np.arange(72).reshape(24, 3) % 4}
    path = l2_path(
        model,
        x,
        {"one": Y},
        L2Grid(2),
        (x, {"one": Y}),
        epochs=1,
        batch_size=24,
        verbose=0,
    )
    assert len(path.records) == 3
    assert all(np.isfinite(record["val_data_loss"]) for record in path.records)


@pytest.mark.slow
def test_callbacks_see_the_validation_data():
    stop = keras.callbacks.EarlyStopping(
        "val_data_loss", mode="min", min_delta=1e9, patience=1
    )
    path = path_of(compiled(network()), epochs=9, callbacks=[stop])
    assert stop.stopped_epoch == 1
    two = path_of(compiled(network()), epochs=2)
    assert set(two.records[0]) == set(path.records[0])


@pytest.mark.slow
def test_verbose_0_hides_the_progress_bar(capsys):
    path_of(compiled(network()), [0.1])
    assert capsys.readouterr().out == ""
    path_of(compiled(network()), [0.1, 0.2], verbose=1)
    assert "4/4" in capsys.readouterr().out
