"""PenaltyLogger, followed by the callbacks of Keras."""

import csv
import io
import pickle
import re
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import (
    L2AllWeights,
    PenaltyLogger,
    StrengthScheduler,
    attach,
    penalties,
    print_penalties,
)

RNG = np.random.default_rng(0)
# 20 samples in batches of 4: five to an epoch.
X = RNG.normal(size=(20, 4)).astype("float32")
Y = RNG.normal(size=(20, 2)).astype("float32")


def two_layers():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "tanh", name="hidden"),
            layers.Dense(2, name="out"),
        ]
    )


def wrapped(l2=0.05, step_size=0.05):
    model = L2AllWeights(two_layers(), l2)
    model.compile(keras.optimizers.SGD(step_size), "mse")
    return model


def bare(l2=0.05):
    model = attach(two_layers(), l2)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def fit(model, *callbacks, **kwargs):
    arguments = {"batch_size": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    return model.fit(X, Y, callbacks=callbacks, **{**arguments, **kwargs}).history


def expected_penalties(model, l2=0.05):
    """The penalties, computed by NumPy in float64."""
    return {
        f"penalty/{name}/kernel": l2
        * np.sum(model.get_layer(name).get_weights()[0].astype("float64") ** 2)
        for name in ("hidden", "out")
    }


class Watch(keras.callbacks.Callback):
    """Records what a callback after PenaltyLogger finds in the logs."""

    def __init__(self):
        super().__init__()
        self.batches = {}

    def on_train_batch_end(self, batch, logs=None):
        self.batches[batch] = dict(logs)


# --- PenaltyLogger ---------------------------------------------------------------


@pytest.mark.parametrize("build", [wrapped, bare])
def test_history_csv_and_early_stopping_see_the_keys(build, tmp_path):
    model = build()
    path = tmp_path / "log.csv"
    stop = keras.callbacks.EarlyStopping(
        monitor="penalty/hidden/kernel", mode="max", patience=1
    )
    history = fit(
        model, PenaltyLogger(), keras.callbacks.CSVLogger(path), stop, epochs=5
    )
    assert len(history["loss"]) == 2, "the penalty falls, so it stops"
    expected = expected_penalties(model)
    with open(path) as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for key, value in expected.items():
        assert history[key][-1] == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose([float(r[key]) for r in rows], history[key])
    named = {key for key in history if key.startswith("penalty/")}
    assert named == set(expected)


def watching_penalty(kind):
    return kind(monitor="penalty/out/kernel", mode="min")


@pytest.mark.parametrize(
    ("before", "name"),
    [
        (lambda path: keras.callbacks.CSVLogger(path / "log.csv"), "CSVLogger"),
        (lambda path: keras.callbacks.TensorBoard(path), "TensorBoard"),
        (lambda path: keras.callbacks.History(), "History"),
        (lambda path: watching_penalty(keras.callbacks.EarlyStopping), "EarlyStopping"),
        (
            lambda path: watching_penalty(keras.callbacks.ReduceLROnPlateau),
            "ReduceLROnPlateau",
        ),
    ],
    ids=["csv", "tensorboard", "history", "early_stopping", "plateau"],
)
@pytest.mark.filterwarnings("ignore:Early stopping", "ignore:Learning rate reduction")
def test_a_callback_that_misses_the_penalties_is_named(before, name, tmp_path):
    if name == "TensorBoard":
        pytest.importorskip("tensorboard")
    message = f"{name} before PenaltyLogger .* 'penalty/...' .* put PenaltyLogger first"
    with pytest.warns(UserWarning, match=message):
        fit(bare(), before(tmp_path), PenaltyLogger())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(bare(), PenaltyLogger(), before(tmp_path))


def test_a_csv_logger_listed_first_lacks_the_columns_that_the_warning_names(tmp_path):
    path = tmp_path / "log.csv"
    with pytest.warns(UserWarning, match="CSVLogger before StrengthScheduler .* 'l2'"):
        fit(
            wrapped(),
            keras.callbacks.CSVLogger(path),
            StrengthScheduler(lambda epoch: 0.1),
        )
    with open(path) as file:
        assert "l2" not in csv.DictReader(file).fieldnames


def test_callbacks_that_read_other_keys_may_be_listed_first(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        fit(
            wrapped(),
            keras.callbacks.EarlyStopping("loss"),
            keras.callbacks.ModelCheckpoint(tmp_path / "a.keras", monitor="penalty"),
            PenaltyLogger(),
            keras.callbacks.TerminateOnNaN(),
        )


@pytest.mark.parametrize("build", [wrapped, bare])
def test_every_n_batches_adds_the_keys_to_every_nth_batch(build):
    model, watch = build(), Watch()
    fit(model, PenaltyLogger(every_n_batches=2), watch, epochs=1)
    found = [
        batch for batch, logs in watch.batches.items() if "penalty/out/kernel" in logs
    ]
    assert found == [1, 3]


def test_the_values_of_a_batch_are_those_after_its_step():
    stepped, watch = wrapped(), Watch()
    stepped.set_weights(weights := [w + 0.1 for w in stepped.get_weights()])
    fit(stepped, PenaltyLogger(every_n_batches=1), watch, epochs=1)
    again = wrapped()
    again.set_weights(weights)
    for batch in range(5):
        rows = slice(4 * batch, 4 * batch + 4)
        again.train_on_batch(X[rows], Y[rows])
        for key, value in expected_penalties(again, again.l2).items():
            assert watch.batches[batch][key] == pytest.approx(value, rel=1e-5)


@pytest.mark.filterwarnings("ignore:The penalty, ")
@pytest.mark.parametrize("is_eager", [False, True], ids=["compiled", "eager"])
def test_the_values_of_a_batch_follow_a_new_attach_call(is_eager):
    """From the next epoch on; in an eager step, from the next batch on."""
    strengths = {5: 0.3, 12: 0.7}  # by the count of batches before

    class Change(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.done, self.l2, self.rows = 0, 0.05, []

        def on_epoch_begin(self, epoch, logs=None):
            self.change_if_due()

        def on_train_batch_end(self, batch, logs=None):
            self.rows.append((self.l2, dict(logs)))
            self.done += 1
            if self.done % 5 and (is_eager or keras.backend.backend() == "torch"):
                self.change_if_due()

        def change_if_due(self):
            if self.done in strengths:
                self.l2 = strengths[self.done]
                attach(self.model, self.l2)

    model, change = bare(), Change()
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=is_eager)
    logger = PenaltyLogger(1)
    fit(model, logger, change, epochs=3)
    assert len({l2 for l2, _ in change.rows}) >= 2
    for l2, logs in change.rows:
        for key, value in expected_penalties(model, l2).items():
            assert logs[key] == pytest.approx(value, rel=1e-5)
    copy = pickle.loads(pickle.dumps(logger))
    assert copy.every_n_batches == 1


def test_keras_waits_for_a_logger_only_if_it_adds_to_batch_logs():
    assert PenaltyLogger().async_safe
    assert not PenaltyLogger(every_n_batches=2).async_safe


@pytest.mark.skipif(
    keras.backend.backend() == "torch", reason="no steps_per_execution on torch"
)
def test_every_n_batches_with_several_steps_per_execution():
    model, watch = wrapped(), Watch()
    model.compile("sgd", "mse", steps_per_execution=3)
    logger = PenaltyLogger(every_n_batches=2)
    fit(model, logger, watch, epochs=1)
    assert all("penalty/out/kernel" in logs for logs in watch.batches.values())


def test_activity_regularizers_and_add_loss_are_not_counted():
    class Extra(layers.Layer):
        def call(self, x):
            self.add_loss(100.0 * ops.mean(x**2))
            return x

    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activity_regularizer="l2", name="hidden"),
            Extra(),
            layers.Dense(2, name="out", kernel_regularizer=keras.regularizers.L2(0.05)),
        ]
    )
    model.compile("sgd", "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        history = fit(model, PenaltyLogger())
    named = [key for key in history if key.startswith("penalty/")]
    assert named == ["penalty/out/kernel"]
    kernel = model.get_layer("out").get_weights()[0]
    assert history[named[0]][-1] == pytest.approx(0.05 * np.sum(kernel**2), rel=1e-6)


def test_frozen_layers_have_no_penalty():
    model = two_layers()
    model.get_layer("hidden").trainable = False
    assert set(penalties(attach(model, 0.1))) == {"out/kernel"}
    model.trainable = False
    assert penalties(model) == {}


def test_the_table_of_a_model_without_penalties_says_so(capsys):
    model = two_layers()
    model.compile("sgd", "mse")
    assert set(fit(model, PenaltyLogger(verbose=1, every_n_batches=1))) == {"loss"}
    epochs = capsys.readouterr().out.split("Epoch ")[1:]
    assert [text[0] for text in epochs] == ["1", "2"]
    assert all("no weight has a regularizer" in text for text in epochs)


def test_a_table_without_rows_says_why(capsys):
    attached = attach(two_layers(), 0.1)
    attached.trainable = False
    unbuilt = keras.Sequential([layers.Dense(2, kernel_regularizer="l2")])
    for model, why in [
        (attached, "frozen: hidden/kernel, out/kernel"),
        (unbuilt, "build"),
        (two_layers(), "L2AllWeights"),
    ]:
        print_penalties(model)
        out = capsys.readouterr().out
        assert out.startswith("No penalties: ") and why in out and "|" not in out


def caught_warnings(model, *callbacks, **kwargs):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(model, *callbacks, **kwargs)
    return [str(w.message) for w in caught if "penalty" in str(w.message)]


def test_warns_once_of_a_penalty_that_is_most_of_the_loss():
    messages = caught_warnings(
        wrapped(l2=50.0, step_size=0.0), PenaltyLogger(), epochs=3
    )
    assert len(messages) == 1
    assert "90%" in messages[0]
    assert not caught_warnings(wrapped(l2=1e-4), PenaltyLogger())
    assert caught_warnings(
        wrapped(l2=1e-2, step_size=0.0), PenaltyLogger(warn_share=1e-3)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_warns_once_of_nan_by_name(value):
    model = wrapped()
    kernel = model.get_layer("out").kernel
    kernel.assign(np.full(kernel.shape, value))
    messages = caught_warnings(model, PenaltyLogger(), epochs=3)
    (message,) = [m for m in messages if "out/kernel" in m]
    assert "NaN" in message


def test_prints_a_table(capsys):
    model = wrapped(step_size=0.0)
    fit(model, PenaltyLogger(verbose=1))
    out = capsys.readouterr().out
    assert "Epoch 1" in out and "Epoch 2" in out
    for key, value in expected_penalties(model).items():
        name = key.removeprefix("penalty/")
        (row, _) = [line.split("|") for line in out.splitlines() if name in line]
        cells = [cell.strip() for cell in row]
        assert cells[:2] == [name, "l2=0.05"]
        assert float(cells[2]) == pytest.approx((value / 0.05) ** 0.5, rel=1e-3)
        assert float(cells[3]) == pytest.approx(value, rel=1e-3)
        assert cells[4].endswith("%")


@pytest.mark.parametrize("verbose, lines", [(0, 0), (1, 2), ("auto", 2), (2, 0)])
def test_the_table_does_not_begin_in_the_line_of_the_bar(capsys, verbose, lines):
    fit(wrapped(), PenaltyLogger(verbose=1), verbose=verbose)
    out = capsys.readouterr().out
    titles = [line for line in out.splitlines() if "Epoch" in line and "/" not in line]
    assert titles == ["Epoch 1", "Epoch 2"]
    # The bar that was cut off, once for each epoch.
    assert len(re.findall(r"step - .*\nEpoch \d\n", out)) == lines


# TensorFlow refuses such names, but only in a graph.
@pytest.mark.parametrize("name", ["dense[relu]", "enc[", "x]", "[b]", ":smile:", "é"])
def test_names_are_printed_as_they_are(capsys, name):
    model = attach(keras.Sequential([keras.Input((4,)), layers.Dense(2, name=name)]))
    print_penalties(model, title=name)
    title, _, _, row = capsys.readouterr().out.splitlines()
    assert title == name and row.startswith(f"{name}/kernel |")


def test_a_terminal_that_lacks_a_letter_does_not_end_the_training(monkeypatch):
    model = attach(keras.Sequential([keras.Input((4,)), layers.Dense(2, name="é")]))
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", terminal)
    print_penalties(model)
    terminal.flush()
    assert b"\\xe9/kernel" in terminal.buffer.getvalue()


# --- norms -----------------------------------------------------------------------


def normalized(optimizer):
    """A model whose first kernel's scale is cancelled by the normalization."""
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, use_bias=False, name="hidden"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(2, name="out"),
        ]
    )
    model = L2AllWeights(model, 0.05)
    model.compile(optimizer, "mse")
    return model


class SavedWeights(keras.callbacks.Callback):
    """Saves kernels and learning rate, and the logs of each batch and each epoch."""

    def __init__(self):
        super().__init__()
        self.batches, self.epochs = [], []

    def kernels(self):
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()
        found = {
            name: ops.convert_to_numpy(self.model.get_layer(name).kernel).copy()
            for name in ("hidden", "out")
        }
        rate = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        return found, rate

    def on_epoch_begin(self, epoch, logs=None):
        self.start = self.kernels()

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append((*self.kernels(), dict(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.epochs.append((self.start[0], *self.kernels(), dict(logs)))


def check_norms(before, kernels, rate, logs):
    """Compare the logs with NumPy in float64."""
    for name, kernel in kernels.items():
        now, old = kernel.astype("float64"), before[name].astype("float64")
        norm = np.linalg.norm(now)
        update = np.linalg.norm(now - old) / norm
        np.testing.assert_allclose(logs[f"norm/{name}/kernel"], norm, rtol=1e-6)
        np.testing.assert_allclose(
            logs[f"update/{name}/kernel"], update, rtol=1e-4, atol=1e-8
        )
    expected = rate / np.linalg.norm(kernels["hidden"]) ** 2
    np.testing.assert_allclose(
        logs["effective_rate/hidden/kernel"], expected, rtol=1e-5
    )
    assert "effective_rate/out/kernel" not in logs


RATES = {
    "constant": lambda: keras.optimizers.Adam(0.05),
    "schedule": lambda: keras.optimizers.SGD(
        keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.9), momentum=0.5
    ),
}


@pytest.mark.parametrize("rate", RATES)
def test_norms_and_updates_equal_those_of_numpy_on_saved_weights(rate):
    saved = SavedWeights()
    model = normalized(RATES[rate]())
    fit(model, PenaltyLogger(2, norms=True), saved, epochs=3)
    for record in saved.epochs:
        check_norms(*record)
    # Five batches of an epoch: logged after the second and the fourth.
    first, second, _, fourth, _ = saved.batches[:5]
    assert "norm/hidden/kernel" not in first[2]
    check_norms(second[0], *fourth)


def test_norms_follow_a_layer_that_is_frozen_between_two_fits():
    model, logger = normalized("sgd"), PenaltyLogger(norms=True)
    fit(model, logger)
    model.get_layer("out").trainable = False
    model.compile("sgd", "mse")
    history = fit(model, logger)
    assert "norm/hidden/kernel" in history
    assert "norm/out/kernel" not in history


def test_a_weight_that_stays_zero_has_an_update_of_zero():
    model = bare()
    model.set_weights([np.zeros_like(w) for w in model.get_weights()])
    history = fit(model, PenaltyLogger(norms=True))
    assert history["update/hidden/kernel"] == [0.0, 0.0]


def test_a_logger_of_norms_is_pickled_without_its_compiled_function():
    logger = PenaltyLogger(1, norms=True)
    fit(normalized("sgd"), logger)
    copy = pickle.loads(pickle.dumps(logger))
    assert "norm/out/kernel" in fit(normalized("sgd"), copy)


def test_norms_are_off_by_default_and_a_flag():
    assert not any("norm/" in key for key in fit(wrapped(), PenaltyLogger()))
    with pytest.raises(TypeError, match=r"argument `norms`.*Received: norms=1"):
        PenaltyLogger(norms=1)
