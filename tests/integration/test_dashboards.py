"""What dashboards show: TensorBoard, MLflow and KerasTuner on a wrapped model.

`CSVLogger` is in `test_callbacks.py`. Each part skips where its package is missing.
"""

import keras
import numpy as np
import pytest
from keras import layers

from keras_l2reg import L2AllWeights, PenaltyLogger, StrengthScheduler

RNG = np.random.default_rng(0)
X, X_VAL = RNG.normal(size=(2, 20, 30)).astype("float32")
Y, Y_VAL = (
    (x[:, :2] + 0.5 * RNG.normal(size=(20, 2))).astype("float32") for x in (X, X_VAL)
)
START = [0.3 * RNG.normal(size=shape) for shape in ((30, 3), (3,), (3, 2), (2,))]
STRENGTHS = [0.02, 0.05, 0.01]  # one an epoch


def two_layers(regularizer=None):
    model = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(3, "tanh", name="hidden", kernel_regularizer=regularizer),
            layers.Dense(2, name="out", kernel_regularizer=regularizer),
        ],
        name="net",
    )
    model.set_weights(START)
    return model


def wrapped(l2=0.02):
    model = L2AllWeights(two_layers(), l2)
    model.compile(keras.optimizers.SGD(0.3), "mse")
    return model


class Snapshots(keras.callbacks.Callback):
    """Keeps the weights before the first epoch and after each."""

    def on_train_begin(self, logs=None):
        self.weights = [self.model.wrapped_model.get_weights()]

    def on_epoch_end(self, epoch, logs=None):
        self.weights.append(self.model.wrapped_model.get_weights())


def fit(model, *callbacks, **kwargs):
    """Three epochs, of one step each unless `batch_size` says otherwise."""
    arguments = {"batch_size": len(X), "epochs": 3, "shuffle": False, "verbose": 0}
    return model.fit(
        X,
        Y,
        validation_data=(X_VAL, Y_VAL),
        callbacks=callbacks,
        **{**arguments, **kwargs},
    ).history


def expected_logs(snapshots):
    """The logs of epochs of one step, by NumPy in float64, from the weights alone."""

    def data_loss(weights, x, y):
        kernel, bias, out_kernel, out_bias = (w.astype("float64") for w in weights)
        predicted = np.tanh(x @ kernel + bias) @ out_kernel + out_bias
        return np.mean((predicted - y) ** 2)

    def squares(weights, index):
        return np.sum(weights[index].astype("float64") ** 2)

    logs = {"l2": STRENGTHS}
    # A step's loss is that of the weights before it; validation comes after it.
    for prefix, epochs, x, y in (
        ("", snapshots[:-1], X, Y),
        ("val_", snapshots[1:], X_VAL, Y_VAL),
    ):
        losses = [data_loss(weights, x, y) for weights in epochs]
        both = [
            l2 * (squares(weights, 0) + squares(weights, 2))
            for l2, weights in zip(STRENGTHS, epochs, strict=True)
        ]
        logs[prefix + "data_loss"] = losses
        logs[prefix + "penalty"] = both
        logs[prefix + "loss"] = np.add(losses, both)
    for name, index in (("hidden", 0), ("out", 2)):
        logs[f"penalty/{name}/kernel"] = [
            l2 * squares(weights, index)
            for l2, weights in zip(STRENGTHS, snapshots[1:], strict=True)
        ]
        kernels = [weights[index].astype("float64") for weights in snapshots]
        norms = [np.linalg.norm(kernel) for kernel in kernels[1:]]
        steps = [np.linalg.norm(step) for step in np.diff(kernels, axis=0)]
        logs[f"norm/{name}/kernel"] = norms
        logs[f"update/{name}/kernel"] = np.divide(steps, norms)
    return logs


# --- TensorBoard -----------------------------------------------------------------


def fit_with(dashboard):
    """The history of a fit that `dashboard` saw, and its weights epoch by epoch."""
    snapshots = Snapshots()
    schedule = StrengthScheduler(lambda epoch: STRENGTHS[epoch])
    logger = PenaltyLogger(norms=True)
    history = fit(wrapped(), logger, schedule, snapshots, dashboard)
    return history, snapshots


@pytest.fixture
def read_events():
    """A function from a directory of event files to their steps and values by tag."""
    accumulators = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    from tensorboard.util.tensor_util import make_ndarray

    def read(directory):
        events = accumulators.EventAccumulator(str(directory), {"tensors": 0})
        events.Reload()
        return {
            tag: {e.step: make_ndarray(e.tensor_proto) for e in events.Tensors(tag)}
            for tag in events.Tags()["tensors"]
        }

    return read


def test_tensorboard_shows_every_epoch(read_events, tmp_path):
    history, snapshots = fit_with(keras.callbacks.TensorBoard(tmp_path))
    expected = expected_logs(snapshots.weights)
    assert set(history) == set(expected)
    shown = read_events(tmp_path / "train"), read_events(tmp_path / "validation")
    for key, values in expected.items():
        events = shown[key.startswith("val_")]["epoch_" + key.removeprefix("val_")]
        assert list(events) == [0, 1, 2]
        np.testing.assert_array_equal(
            list(events.values()), np.float32(history[key]), key
        )
        np.testing.assert_allclose(list(events.values()), values, 1e-5, err_msg=key)


def test_tensorboard_shows_batches(read_events, tmp_path):
    history = fit(
        wrapped(),
        PenaltyLogger(every_n_batches=2),
        keras.callbacks.TensorBoard(tmp_path, update_freq="batch"),
        batch_size=5,
    )
    shown = read_events(tmp_path / "train")
    for name in ("hidden", "out"):
        events = shown[f"batch_penalty/{name}/kernel"]
        assert list(events) == [2, 4, 6, 8, 10, 12], "four batches to an epoch"
        ends = [events[step] for step in (4, 8, 12)]
        np.testing.assert_array_equal(
            ends, np.float32(history[f"penalty/{name}/kernel"])
        )
    assert list(shown["batch_penalty"]) == list(range(1, 13))


def test_tensorboard_shows_histograms_of_the_inner_weights(read_events, tmp_path):
    model = wrapped()
    fit(model, keras.callbacks.TensorBoard(tmp_path, histogram_freq=1))
    events = read_events(tmp_path / "train")
    if "kernel/histogram" in events:
        pytest.skip("before Keras 3.14 kernels hide each other here")
    histogram = events["net/hidden/kernel/histogram"][2]
    # Rows of left edge, right edge and count.
    assert histogram[:, 2].sum() == 30 * 3
    kernel = model.get_layer("hidden").get_weights()[0]
    assert histogram[0, 0] == pytest.approx(kernel.min())
    assert histogram[-1, 1] == pytest.approx(kernel.max())


# --- MLflow ----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # MLflow and what it stands on warn a lot
def test_mlflow_stores_every_epoch(monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    # In files, as mlflow-skinny would have it, `penalty` can't be a metric and the
    # folder of others at once; a database wants sqlalchemy.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.chdir(tmp_path)
    pytest.importorskip("sqlalchemy")
    mlflow = pytest.importorskip("mlflow")
    with mlflow.start_run() as run:
        history, snapshots = fit_with(mlflow.keras.MlflowCallback())
    for key, values in expected_logs(snapshots.weights).items():
        metrics = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
        stored = {metric.step: metric.value for metric in metrics}
        assert stored == dict(enumerate(history[key])), key
        np.testing.assert_allclose(list(stored.values()), values, 1e-5, err_msg=key)


# --- KerasTuner ------------------------------------------------------------------


def val_data_loss_of_stock_keras(l2):
    """The least of any epoch, without keras_l2reg or KerasTuner; loss by NumPy."""
    model = two_layers(keras.regularizers.L2(l2))
    model.compile(keras.optimizers.SGD(0.3), "mse")
    losses = []

    def measure(epoch, logs):
        predicted = model.predict(X_VAL, verbose=0).astype("float64")
        losses.append(np.mean((predicted - Y_VAL) ** 2))

    callback = keras.callbacks.LambdaCallback(on_epoch_end=measure)
    model.fit(X, Y, batch_size=len(X), epochs=20, verbose=0, callbacks=[callback])
    return min(losses)


@pytest.mark.filterwarnings("ignore:getName..")
@pytest.mark.filterwarnings("ignore:currentThread..")
@pytest.mark.slow
def test_keras_tuner_finds_the_strength(tmp_path):
    keras_tuner = pytest.importorskip("keras_tuner")
    grid = [0.001, 0.03, 0.3]
    tuner = keras_tuner.GridSearch(
        lambda hp: wrapped(hp.Choice("l2", grid)),
        objective=keras_tuner.Objective("val_data_loss", "min"),
        directory=tmp_path,
    )
    tuner.search(
        X,
        Y,
        batch_size=len(X),
        epochs=20,
        validation_data=(X_VAL, Y_VAL),
        verbose=0,
        callbacks=[PenaltyLogger()],
    )
    trials = tuner.oracle.get_best_trials(len(grid))
    scores = {trial.hyperparameters.get("l2"): trial.score for trial in trials}
    expected = {l2: val_data_loss_of_stock_keras(l2) for l2 in grid}
    assert scores == pytest.approx(expected, rel=1e-4)
    best = min(grid, key=expected.get)
    assert best == 0.03, "the one between, so that neither least nor most wins"
    assert tuner.get_best_hyperparameters()[0].get("l2") == best
    [model] = tuner.get_best_models()
    assert model.l2 == pytest.approx(best)
    model.compile(loss="mse")
    logs = model.evaluate(X_VAL, Y_VAL, verbose=0, return_dict=True)
    assert logs["data_loss"] == pytest.approx(expected[best], rel=1e-4)
