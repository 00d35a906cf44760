"""The samples of each batch of a run, as indices, so that the data are needed once.

>>> one, other = [np.array([0, 1]), np.array([2])], [np.array([2, 0]), np.array([1])]
>>> [part.tolist() for part in stacked([one, other])]
[[[[0, 1], [2, 0]]], [[[2], [1]]]]
"""

import itertools
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path.runs import Setup, evaluation_batch_size

# The indices of the samples of each batch of an epoch.
Batches = list[np.ndarray]


def training_data(setup: Setup, fold: int | None) -> Any:
    """The data of which the batches of a fold are taken, all as one batch of `fit`."""
    data = setup.data
    parts = data.x, data.y, data.sample_weight
    if fold is not None:
        parts = _as_arrays(parts)
    class_weight = setup.fit_arguments.get("class_weight")
    return _keras.as_one_batch(*parts, class_weight=class_weight)


def validation_data(setup: Setup, fold: int | None) -> Any:
    """The data of which the batches of a validation are taken; `None` without one."""
    data = setup.data
    if fold is not None:
        return _keras.as_one_batch(*_as_arrays((data.x, data.y, data.sample_weight)))
    given = data.validation_data
    if given is None:
        return None
    return _keras.as_one_batch(
        *(given if isinstance(given, (tuple, list)) else [given])
    )


def bytes_of_data(setup: Setup) -> int:
    """The memory of all data."""
    data = setup.data
    parts = data.x, data.y, data.sample_weight, data.validation_data
    leaves = (
        np.asarray(leaf) for leaf in keras.tree.flatten(parts) if leaf is not None
    )
    return sum(leaf.nbytes for leaf in leaves)


def epochs(
    model: keras.Model, setup: Setup, fold: int | None, repeat: int
) -> Iterator[Batches]:
    """The batches of each epoch of a run, with the shuffles of its seed."""
    keras.utils.set_random_seed(setup.seed + repeat)
    random_state = np.random.get_state()
    samples = _samples(setup, fold, part=0)
    arguments = setup.fit_arguments
    batches = _keras.batches(
        len(samples),
        arguments.get("batch_size"),
        arguments.get("steps_per_epoch"),
        arguments.get("shuffle", True),
        model.steps_per_execution,
    )
    for _ in range(setup.epochs):
        # Other runs draw in between.
        np.random.set_state(random_state)
        epoch = [samples[batch] for batch in next(batches)]
        random_state = np.random.get_state()
        yield epoch


def validation(model: keras.Model, setup: Setup, fold: int | None) -> Batches:
    """The batches of the validation of a run; none without validation data."""
    samples = _samples(setup, fold, part=1)
    if not samples.size:
        return []
    batches = _keras.batches(
        len(samples),
        evaluation_batch_size(setup.fit_arguments),
        setup.fit_arguments.get("validation_steps"),
        steps_per_execution=model.steps_per_execution,
    )
    return [samples[batch] for batch in next(batches)]


def sizes(setup: Setup, fold: int | None) -> tuple[int, int]:
    """The numbers of samples to train and to validate on, which make the batches."""
    return len(_samples(setup, fold, part=0)), len(_samples(setup, fold, part=1))


def stacked(of_runs: list[Batches]) -> list[np.ndarray]:
    """The batches of all runs: an array for consecutive ones of the same size.

    Returns:
        A list of arrays of integers of the shape (batches, runs, samples).
    """
    steps = [np.stack(step) for step in zip(*of_runs, strict=True)]
    groups = itertools.groupby(steps, key=np.shape)
    return [np.stack([*group]) for _, group in groups]


def _samples(setup: Setup, fold: int | None, part: int) -> np.ndarray:
    """The indices of the samples to train on (part 0), or to validate on (part 1)."""
    data = setup.data
    if fold is not None and data.folds is not None:
        return data.folds[fold][part].astype("int32")
    leaves = keras.tree.flatten((data.x, data.validation_data)[part])
    count = next((len(leaf) for leaf in leaves if leaf is not None), 0)
    return np.arange(count, dtype="int32")


def _as_arrays(parts: tuple) -> Any:
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else np.asarray(leaf), parts
    )
