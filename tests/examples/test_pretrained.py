"""The parts of examples/pretrained.py that its table rests on."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

# At the end: examples/distributed.py is not the package `distributed`.
sys.path.append(str(Path(__file__).parents[2] / "examples"))
import pretrained


def test_the_distance_is_that_of_all_kernels_and_of_nothing_else():
    one, other = pretrained.new_backbone(), pretrained.new_backbone()
    moved = one.get_weights()
    moved[1] = moved[1] + 5.0  # a bias
    one.set_weights(moved)
    kernels = [
        np.concatenate([w.ravel() for w in backbone.get_weights() if w.ndim > 1])
        for backbone in (one, other)
    ]
    expected = np.linalg.norm(kernels[0] - kernels[1])
    assert pretrained.distance(one, other) == pytest.approx(expected, rel=1e-5)


def test_each_letter_has_its_few_images():
    labels = np.tile(np.arange(10), 20)
    glyphs = {"x_train": labels * 2, "y_train": labels}
    x, y = pretrained.some_of_each(glyphs, 3, seed=0)
    assert np.bincount(y).tolist() == [3] * 10 and np.array_equal(x, 2 * y)


def with_accuracies(*values):
    return [SimpleNamespace(test_accuracy=value) for value in values]


@pytest.mark.parametrize(
    "ours, theirs, result",
    [
        ([0.6, 0.7], [0.5, 0.6], "wins against"),
        ([0.5, 0.6], [0.6, 0.7], "loses to"),
        ([0.5, 0.8], [0.6, 0.6], "does about as well as"),  # ahead with one seed
        ([0.601, 0.701], [0.6, 0.7], "does about as well as"),
    ],
)
def test_a_way_wins_if_it_is_clearly_ahead_with_every_seed(ours, theirs, result):
    text = pretrained.compared(
        with_accuracies(*ours), with_accuracies(*theirs), "the other"
    )
    assert text.startswith(f"{result} 'the other' (")
