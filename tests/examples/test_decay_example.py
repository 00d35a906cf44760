"""examples/decay.py: for plain SGD, an L2 penalty is decay at twice the strength."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

# At the end: examples/distributed.py is not the package `distributed`.
sys.path.append(str(Path(__file__).parents[2] / "examples"))
import decay


@functools.cache
def experiment(name):
    """Compiled once for all tests."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-0.5, 0.5, (300, 28, 28)).astype("float32")
    y = rng.integers(0, 10, 300)
    data = {"x_train": x, "y_train": y, "x_valid": x, "y_valid": y}
    return decay.Experiment(decay.SETTINGS[name].make, data, epochs=3)


@pytest.mark.slow
@pytest.mark.parametrize("name, least, most", [("SGD", 0, 1e-5), ("Adam", 1e-4, 1)])
def test_the_penalty_is_decay_only_for_plain_sgd(name, least, most):
    penalized = experiment(name).run(0, l2=0.1)
    decayed, none = experiment(name).run(0, decay=0.2), experiment(name).run(0)
    assert least <= decay.distance(penalized, decayed, epoch=3) < most
    assert decay.distance(penalized, none, epoch=3) > 1e-4


@pytest.mark.slow
def test_a_run_starts_as_new_whatever_was_run_before():
    """The weights, the moments and the order of batches."""
    first = experiment("Adam").run(0)
    experiment("Adam").run(1, decay=3.0)
    again = experiment("Adam").run(0)
    assert decay.distance(first, again, epoch=3) < 1e-5
    losses = [run.history["val_data_loss"] for run in (first, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
