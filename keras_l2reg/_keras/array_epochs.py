"""Epochs on arrays, which are converted once for many fits and evaluations.

The figures are those of Keras' `fit` and `evaluate`: the same batches in the same
order, since Keras converts, weights and shuffles the samples.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras.src.trainers.data_adapters.array_data_adapter import (
    ArrayDataAdapter,
    can_convert_arrays,
)

from keras_l2reg._keras.epochs import Epochs, Samples

Tensor = Any

# Arguments of `fit` that say what is in a batch, and those that only validation needs.
_OF_BATCHES = {"batch_size", "shuffle", "class_weight"}
_OF_VALIDATION = {"validation_steps", "validation_batch_size", "validation_freq"}


@dataclasses.dataclass(frozen=True)
class Batches:
    """The batches of an epoch on arrays.

    Args:
        samples: The arrays that they are made of.
        arguments: Those of `fit` that say what is in a batch.
        tensors: All samples in one batch, a nest of tensors.
        count: Integer, the number of samples.
    """

    samples: Samples
    arguments: dict[str, Any]
    tensors: Any
    count: int

    @property
    def size(self) -> int:
        """The number of samples in each batch; the last one may have fewer."""
        return self.arguments.get("batch_size", 32)

    @property
    def shuffle(self) -> Any:
        """Whether the samples are shuffled, or `"batch"`, as in `fit`."""
        return self.arguments.get("shuffle", False)

    def are_of(self, samples: Samples, arguments: dict[str, Any]) -> bool:
        """Whether they are made of these very arrays."""
        pairs = zip(self.samples, samples, strict=True)
        return all(a is b for a, b in pairs) and self.arguments == arguments


class ArrayEpochs(Epochs):
    """Epochs on arrays that a backend runs by itself; Keras runs any others."""

    def __init__(self, model: keras.Model):
        super().__init__(model)
        # The batches of the last fit and of the last evaluation.
        self._kept: dict[str, Batches] = {}
        # Whether Keras had to run some epochs.
        self._is_left_to_keras = False

    # ------------------------------------------------- what a backend overrides

    def can_run(self, batches: Batches) -> bool:
        """Whether `train` and `test` do what Keras does for this model."""
        raise NotImplementedError

    def converted(self, adapter: ArrayDataAdapter) -> Any:
        """The only batch of an adapter, a nest of tensors."""
        raise NotImplementedError

    def set_seed(self, seed: int, batches: Batches) -> None:
        """Set what the epochs draw random numbers from, before a fit on batches."""
        keras.utils.set_random_seed(seed)

    def orders(self, batches: Batches) -> Iterator[Iterable[Tensor]]:
        """For each epoch of a fit, the indices of the samples in each batch.

        They are to be read as the steps are taken, since both may draw random numbers.
        """
        raise NotImplementedError

    def train(self, batches: Batches, order: Iterable[Tensor]) -> dict[str, Tensor]:
        """Take a training step on each batch; the metrics after the last one."""
        raise NotImplementedError

    def test(self, batches: Batches, order: Iterable[Tensor]) -> dict[str, Tensor]:
        """Evaluate the model on each batch; the metrics after the last one."""
        raise NotImplementedError

    # --------------------------------------------------------- as in `Epochs`

    def fit(self, samples, epochs, callback, arguments=None, seed=None):
        given = {k: v for k, v in (arguments or {}).items() if v is not None}
        of_batches = {k: v for k, v in given.items() if k in _OF_BATCHES}
        batches = self._batches("train", samples, {"shuffle": True} | of_batches)
        is_usual = {*given} <= _OF_BATCHES | _OF_VALIDATION
        if not is_usual or batches is None:
            self._is_left_to_keras = True
            return super().fit(samples, epochs, callback, arguments, seed)
        if seed is not None:
            self.set_seed(seed, batches)
        model, logs = self.model, {}
        callback.set_model(model)
        model.stop_training = False
        for epoch, order in zip(range(epochs), self.orders(batches), strict=False):
            model.reset_metrics()
            logs = _as_numbers(self.train(batches, order))
            callback.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        model.optimizer.finalize_variable_values(model.trainable_weights)
        callback.on_train_end(logs)
        return logs

    def evaluate(self, samples, batch_size=32, steps=None):
        batches = self._batches("test", samples, {"batch_size": batch_size})
        if steps is not None or batches is None:
            self._is_left_to_keras = True
            return super().evaluate(samples, batch_size, steps)
        self.model.reset_metrics()
        return _as_numbers(self.test(batches, next(self.orders(batches))))

    def _batches(
        self, step: str, samples: Samples, arguments: dict[str, Any]
    ) -> Batches | None:
        """The batches; `None` if Keras has to make them."""
        is_limited = keras.config.max_epochs() or keras.config.max_steps_per_epoch()
        if is_limited or not can_convert_arrays(samples):
            return None
        kept = self._kept.get(step)
        if kept is None or not kept.are_of(samples, arguments):
            # Frees the memory of the other samples first.
            self._kept.pop(step, None)
            kept = self._kept[step] = self._load(samples, arguments)
        return kept if self.can_run(kept) else None

    def _load(self, samples: Samples, arguments: dict[str, Any]) -> Batches:
        x, y, sample_weight = samples
        count = len(keras.tree.flatten(x)[0])
        class_weight = arguments.get("class_weight")
        adapter = ArrayDataAdapter(
            x, y, sample_weight, batch_size=count, class_weight=class_weight
        )
        return Batches(samples, arguments, self.converted(adapter), count)


def _as_numbers(logs: dict[str, Tensor]) -> dict[str, float]:
    """The logs as Keras hands them to callbacks."""
    return {key: float(value) for key, value in sorted(logs.items())}
