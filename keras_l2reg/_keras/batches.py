"""What `fit` does with arrays: how it converts them, and the samples of each batch.

>>> [batch.tolist() for batch in next(batches(5, batch_size=2))]
[[0, 1], [2, 3], [4]]
"""

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
from keras.src.trainers.data_adapters.array_data_adapter import (
    ArrayDataAdapter,
    can_convert_arrays,
)
from keras.src.trainers.epoch_iterator import EpochIterator


def are_arrays(*parts: Any) -> bool:
    """Whether these data are dense arrays for `fit`, not batches of a dataset."""
    leaves = [leaf for leaf in keras.tree.flatten(parts) if leaf is not None]
    return can_convert_arrays(parts) and all(hasattr(a, "__array__") for a in leaves)


def as_one_batch(
    x: Any, y: Any = None, sample_weight: Any = None, class_weight: Any = None
) -> Any:
    """All samples as one batch of `fit`: `x`, `(x, y)` or `(x, y, sample_weight)`."""
    adapter = ArrayDataAdapter(x, y, sample_weight, steps=1, class_weight=class_weight)
    return next(adapter.get_jax_iterator())


def build_for_metrics(
    model: keras.Model, x: Any, y: Any, sample_weight: Any, batch_size: int
) -> list[str]:
    """Build a model, its loss and its metrics, without compiling a step.

    Returns:
        The names of its metrics in the logs.
    """
    batch = keras.tree.map_structure(
        lambda leaf: leaf[:batch_size],
        as_one_batch(x, y, sample_weight),
        none_is_leaf=False,
    )
    model._symbolic_build(data_batch=batch)
    return [*model.get_metrics_result()]


def batches(
    count: int,
    batch_size: int | None = None,
    steps: int | None = None,
    shuffle: bool | Literal["batch"] = False,
    steps_per_execution: int = 1,
) -> Iterator[list[np.ndarray]]:
    """The indices of the samples of each batch, epoch after epoch, as `fit` on JAX.

    Shuffling draws from NumPy's global random numbers just as `fit` does.

    Args:
        count: Integer, the number of samples.
        batch_size, steps, shuffle, steps_per_execution: as in `fit` and `compile`.
    """
    iterator: Any = _BatchIterator(
        np.arange(count, dtype="int32"),
        batch_size=batch_size,
        steps_per_epoch=steps,
        shuffle=shuffle,  # pyright: ignore
        steps_per_execution=steps_per_execution,
    )
    iterator.reset()
    while True:
        yield [
            batch
            for _, _, rest in iterator
            for batch in itertools.islice(rest, steps_per_execution)
        ]


class _BatchIterator(EpochIterator):
    """Yields an iterator of the batches left, as that of the JAX trainer does."""

    def __next__(self):
        assert self._epoch_iterator is not None
        return next(self._epoch_iterator)
