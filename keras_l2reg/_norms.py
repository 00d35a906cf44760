"""The norms of a model's weights during `fit`, and how much the weights change.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="out")])
>>> model.compile("sgd")
>>> norms = Norms(model)
>>> before = norms.values()
>>> model.layers[0].kernel.assign(2.0 * model.layers[0].kernel) is None
False
>>> logs, _ = norms.since(before)
>>> sorted(logs), logs["update/out/kernel"]
(['norm/out/kernel', 'update/out/kernel'], 0.5)
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._audit.scale_invariance import is_scale_invariant
from keras_l2reg._roles import KERNEL_ROLES
from keras_l2reg._sums import sum_of_squares
from keras_l2reg.weights import Weight, find_weights

# The least normal float32.
_TINY = 1.1754944e-38


class Norms:
    """Measures the trainable kernels of a model, and its other penalized weights.

    `norm = ||w||`, `update = ||w - w_before|| / ||w||`, and for kernels whose scale a
    normalization cancels `effective_rate = learning_rate / ||w||**2`.

    Args:
        model: A built `keras.Model`, in `fit` or not.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        self._optimizer = model.optimizer
        self.weights = _watched(model)
        consumers = _keras.consumers(model) if model.optimizer else {}
        self._invariant = [
            index
            for index, weight in enumerate(self.weights)
            if is_scale_invariant(weight, consumers)
        ]
        self._measure = _keras.backend.compiled_in_fit(model, self._measured)
        self._copy = _keras.backend.compiled_in_fit(model, self._copies)

    def is_of(self, model: keras.Model) -> bool:
        """Whether these are the norms of `model`, as it is now."""
        now = [id(w.variable) for w in _watched(model)]
        is_same = model is self.model and model.optimizer is self._optimizer
        return is_same and now == [id(w.variable) for w in self.weights]

    def values(self) -> list[Any]:
        """Copies of the weights, as tensors."""
        return self._copy()

    def since(self, before: list[Any]) -> tuple[dict[str, float], list[Any]]:
        """The logs since earlier `values`, and the values now."""
        if not self.weights:
            return {}, []
        measured, values = self._measure(before)
        squares, squared_changes, rates = np.split(
            np.asarray(ops.convert_to_numpy(measured), "float64"),
            [len(self.weights), 2 * len(self.weights)],
        )
        norms = np.sqrt(squares)
        # 0, not NaN, for a weight that stays 0.
        updates = np.sqrt(squared_changes) / np.maximum(norms, _TINY)
        with np.errstate(divide="ignore", invalid="ignore"):
            effective_rates = rates / squares[self._invariant]
        numbers = np.concatenate([norms, updates, effective_rates])
        return dict(zip(self._keys(), numbers.tolist(), strict=True)), values

    def _keys(self) -> list[str]:
        names = [w.name for w in self.weights]
        return [
            *(f"norm/{name}" for name in names),
            *(f"update/{name}" for name in names),
            *(f"effective_rate/{names[index]}" for index in self._invariant),
        ]

    def _copies(self) -> list[Any]:
        # Copies, as the trainer gives the memory of its state away.
        variables: Any = [weight.variable for weight in self.weights]
        return [ops.copy(ops.stop_gradient(v.value)) for v in variables]

    def _measured(self, before: list[Any]) -> tuple[Any, list[Any]]:
        """Squared norms, squared norms of the changes, learning rates; the values.

        The rest is for NumPy: XLA would compute a norm again for each use of it.
        """
        values = self._copies()
        changes = [
            ops.subtract(value, old) for value, old in zip(values, before, strict=True)
        ]
        measured = [
            *(sum_of_squares(tensor) for tensor in [*values, *changes]),
            *(
                _learning_rate(self.model, self.weights[index])
                for index in self._invariant
            ),
        ]
        return ops.stack([ops.cast(m, "float32") for m in measured]), values


def _watched(model: keras.Model) -> list[Weight]:
    trainable = {id(v) for v in model.trainable_variables}
    return [
        w
        for w in find_weights(model)
        if id(w.variable) in trainable
        and (w.role in KERNEL_ROLES or w.regularizer is not None)
    ]


def _learning_rate(model: keras.Model, weight: Weight) -> Any:
    variable: Any = weight.variable
    optimizer: Any = _keras.optimizer_for(model, variable)
    return optimizer.learning_rate
