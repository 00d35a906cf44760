"""StrengthScheduler: strengths that change while a model trains."""

import functools
import os
import re
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers
from test_callbacks import expected_penalties, fit, two_layers, wrapped

from keras_l2reg import L2AllWeights, PenaltyLogger, StrengthScheduler


def test_l2_follows_a_function_of_the_epoch():
    model = wrapped(step_size=0.0)
    history = fit(model, StrengthScheduler(lambda epoch: 0.1 / (epoch + 1)), epochs=3)
    expected = [0.1, 0.05, 0.1 / 3]
    np.testing.assert_allclose(history["l2"], expected, rtol=1e-6)
    squares = sum(expected_penalties(model, 1.0).values())
    np.testing.assert_allclose(
        history["penalty"], np.multiply(expected, squares), rtol=1e-6
    )


def test_l2_follows_a_function_of_the_epoch_and_the_strength():
    history = fit(
        wrapped(0.4), StrengthScheduler(lambda e, l2: l2 / 2 if e else l2), epochs=3
    )
    np.testing.assert_allclose(history["l2"], [0.4, 0.2, 0.1], rtol=1e-6)


def test_l2_follows_a_schedule_over_epochs():
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay(
        [0, 1], [0.3, 0.2, 0.1]
    )
    history = fit(wrapped(), StrengthScheduler(schedule), epochs=4)
    np.testing.assert_allclose(history["l2"], [0.3, 0.2, 0.1, 0.1], rtol=1e-6)


class Strengths(keras.callbacks.Callback):
    """Records the strength of each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.l2)


def test_a_schedule_over_steps_continues_in_the_next_fit():
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 20, 0.0)
    model, strengths = wrapped(step_size=0.0), Strengths()
    history = fit(model, StrengthScheduler(schedule, unit="step"), strengths)
    expected = 1 - np.arange(10) / 20
    np.testing.assert_allclose(strengths.seen, expected, rtol=1e-5)
    np.testing.assert_allclose(history["l2"], expected[[4, 9]], rtol=1e-5)
    squares = sum(expected_penalties(model, 1.0).values())
    means = squares * expected.reshape(2, 5).mean(axis=1)
    np.testing.assert_allclose(history["penalty"], means, rtol=1e-5)
    strengths.seen.clear()
    fit(model, StrengthScheduler(schedule, unit="step"), strengths, epochs=1)
    np.testing.assert_allclose(strengths.seen, 0.5 - np.arange(5) / 20, rtol=1e-5)


@pytest.mark.parametrize(
    "wrap", [wrapped, lambda: L2AllWeights(two_layers(), 0.1, weight_decay=0.1)]
)
def test_steps_are_the_optimizers_when_gradients_are_accumulated(wrap):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 10, 0.0)
    model, strengths = wrap(), Strengths()
    accumulating = keras.optimizers.SGD(0.01, gradient_accumulation_steps=5)
    model.compile(accumulating, "mse")
    fit(model, StrengthScheduler(schedule, unit="step"), strengths, epochs=3)
    expected = 1 - np.repeat([0, 1, 2], 5) / 10
    np.testing.assert_allclose(strengths.seen, expected, rtol=1e-5)


@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_scheduler_causes_no_new_trace(unit):
    count = []

    class Counting(layers.Layer):
        def call(self, x):
            count.append(1)
            return x

    model = L2AllWeights(
        keras.Sequential([keras.Input((4,)), Counting(), layers.Dense(2)]), 0.1
    )
    model.compile("sgd", "mse")
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 1, 0.5)
    fit(model, StrengthScheduler(schedule, unit=unit), epochs=1)
    traced = len(count)
    fit(model, StrengthScheduler(schedule, unit=unit), PenaltyLogger(1), epochs=3)
    if keras.backend.backend() != "torch":  # which runs the Python at each step
        assert len(count) == traced


def test_verbose_prints_the_strength(capsys):
    fit(wrapped(), StrengthScheduler(lambda epoch: 0.125, verbose=1), epochs=1)
    assert "Epoch 1: StrengthScheduler sets l2 to 0.125." in capsys.readouterr().out


def test_verbose_prints_the_strength_at_the_start_of_an_epoch_of_steps(capsys):
    schedule = keras.optimizers.schedules.PolynomialDecay(1.0, 20, 0.0)
    fit(wrapped(), StrengthScheduler(schedule, unit="step", verbose=1))
    out = capsys.readouterr().out
    assert re.findall(r"Epoch (\d): StrengthScheduler sets l2 to (\S+),", out) == [
        ("1", "1"),
        ("2", "0.75"),
    ]


def test_a_function_is_called_as_its_signature_allows():
    for function in [
        lambda *args: 0.1 * len(args),
        lambda epoch=0, **_: 0.1,
        lambda epoch, l2=None, *, factor=0.1: factor,
        functools.partial(lambda factor, epoch: factor, 0.1),
    ]:
        history = fit(wrapped(), StrengthScheduler(function), epochs=1)
        assert history["l2"] == pytest.approx([0.1])


@pytest.mark.parametrize(
    "schedule", [max, dict, lambda epoch, *, factor: factor, lambda: 0.1]
)
def test_a_function_of_unknown_arguments_is_refused_with_a_way_out(schedule):
    with pytest.raises(TypeError, match=r"argument `l2`.*lambda epoch, l2"):
        StrengthScheduler(schedule)


def test_a_number_is_refused_as_a_schedule():
    with pytest.raises(TypeError, match=r"Received: l2=0\.1; .*`model\.l2`"):
        StrengthScheduler(0.1)


def test_a_function_of_the_step_is_called_at_each_step():
    model, strengths = wrapped(), Strengths()
    fit(model, StrengthScheduler(lambda step: 0.1 * step, unit="step"), strengths)
    np.testing.assert_allclose(strengths.seen, 0.1 * np.arange(10), rtol=1e-6)


def with_l1(l2=0.05, l1=0.02):
    model = L2AllWeights(two_layers(), l2, l1=l1)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def test_both_strengths_follow_their_own_schedules():
    model = with_l1()
    halve = StrengthScheduler(
        l2=lambda epoch: 0.1 * 0.5**epoch, l1=lambda epoch, l1: l1 + 0.01
    )
    history = fit(model, halve, PenaltyLogger(), epochs=3)
    np.testing.assert_allclose(history["l2"], [0.1, 0.05, 0.025], rtol=1e-6)
    np.testing.assert_allclose(history["l1"], [0.03, 0.04, 0.05], rtol=1e-6)
    for name in ("hidden", "out"):
        w = model.get_layer(name).get_weights()[0].astype("float64")
        expected = 0.025 * np.sum(w**2) + 0.05 * np.sum(np.abs(w))
        last = history[f"penalty/{name}/kernel"][-1]
        np.testing.assert_allclose(last, expected, rtol=1e-5)


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("nonsense", [np.nan, -1.0, np.inf, None, "0.1"])
def test_nonsense_in_training_is_an_error_that_leaves_all_strengths(nonsense, unit):
    model = with_l1(0.25, 0.5)
    callback = StrengthScheduler(
        l2=lambda time: 0.1 if time else 0.2,
        l1=lambda time: nonsense if time else 0.3,
        unit=unit,
    )
    with pytest.raises((TypeError, ValueError), match="`l1`") as caught:
        fit(model, callback)
    assert f"at {unit} 1" in caught.value.__notes__[0]
    assert (model.l2, model.l1) == (0.2, 0.3)
    assert np.isfinite(fit(model)["loss"]).all()


def test_a_schedule_of_a_strength_that_is_missing_is_refused():
    with pytest.raises(ValueError, match=r"L1 strength.*l1=0\.0"):
        fit(wrapped(), StrengthScheduler(l1=lambda epoch: 0.1))
    with pytest.raises(ValueError, match="at least one strength"):
        StrengthScheduler()


# --- Killed and resumed ----------------------------------------------------------

TRAINING = '''
import os, signal, sys
import keras, numpy as np
sys.path.insert(0, sys.argv[1])
from test_callbacks import fit
from test_schedulers import all_live, scheduler

class Kill(keras.callbacks.Callback):
    """Kills the process in the middle of the third epoch."""
    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 2:
            os.kill(os.getpid(), signal.SIGKILL)

keras.utils.set_random_seed(7)
model = all_live()
model.load_weights(sys.argv[2] + "/start.weights.h5")
backup = keras.callbacks.BackupAndRestore(sys.argv[2] + "/backup-" + sys.argv[3])
fit(model, backup, scheduler(sys.argv[3]), Kill(), epochs=4)
'''


def all_live():
    """A wrapper whose three strengths can all be scheduled."""
    model = L2AllWeights(two_layers(), 0.05, l1=0.02, weight_decay=0.03)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    return model


def scheduler(kind):
    names = ("l2", "l1", "weight_decay")
    if kind == "function":

        def halved(epoch, strength):
            return strength * 0.5 if epoch else strength

        return StrengthScheduler(**dict.fromkeys(names, halved))
    decay = keras.optimizers.schedules.ExponentialDecay
    schedules = [decay(start, 1, 0.9) for start in (0.5, 0.02, 0.03)]
    return StrengthScheduler(**dict(zip(names, schedules, strict=True)), unit=kind)


class AllStrengths(keras.callbacks.Callback):
    """Records the three strengths of each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        model = self.model
        self.seen.append([model.l2, model.l1, model.weight_decay])


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
@pytest.mark.parametrize(
    "kind",
    [pytest.param(k, marks=pytest.mark.slow) for k in ("step", "function", "epoch")],
)
def test_a_killed_run_resumes_as_if_it_was_never_stopped(kind, tmp_path):
    start = all_live()
    start.save_weights(tmp_path / "start.weights.h5")
    died = subprocess.run(
        [sys.executable, "-c", TRAINING, os.path.dirname(__file__), tmp_path, kind],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-3000:]

    def run(*callbacks):
        model, strengths = all_live(), AllStrengths()
        model.load_weights(tmp_path / "start.weights.h5")
        return fit(model, *callbacks, scheduler(kind), strengths, epochs=4), strengths

    unbroken, all_strengths = run()
    backup = keras.callbacks.BackupAndRestore(tmp_path / f"backup-{kind}")
    resumed, strengths = run(backup)
    assert len(resumed["loss"]) == 2, "the two epochs that were not finished"
    for key, values in unbroken.items():
        np.testing.assert_allclose(resumed[key], values[2:], rtol=1e-5)
    np.testing.assert_allclose(strengths.seen, all_strengths.seen[10:], rtol=1e-6)
