"""How the loss terms of a model respond when its weights or its data change.

Two terms with equal values need not be the same term: a regularizer that clips small
values, for instance, may return the same penalty for different weights. Terms that stay
equal when the weights change are taken to be the same.

Nothing is assigned to the model: the changed values replace the weights only while a
term is computed.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l2reg import _keras
from keras_l2reg.weights import Weight, inner_model

Term = tuple[float | None, ...]
Change = Sequence[tuple[Any, Any]]  # variables and other values for them

_SEEDS = (1, 2)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The loss terms of a model, at its current weights and at changed ones.

    A term is a tuple of its values: at the current weights, and after each of two
    random changes of all weights. `None` stands for a value that could not be computed.

    Args:
        model: A `keras.Model`.
        weights: All of its weights, as from `find_weights`.
        penalized: Those of them whose penalty is in `model.losses`.
        batch_inputs: Inputs as tensors, or `None` to make some if they are needed.
    """

    model: keras.Model
    weights: Sequence[Weight]
    penalized: Sequence[Weight]
    batch_inputs: Any

    @functools.cached_property
    def penalties(self) -> dict[str, Term]:
        """The term of each penalized weight, by the weight's name."""
        values = [_penalties(self.penalized, change) for change in self._changes]
        return {w.name: tuple(v[w.name] for v in values) for w in self.penalized}

    @functools.cached_property
    def added(self) -> list[Term]:
        """The terms of `add_loss` and of activity regularizers, in Keras' order."""
        if self._inputs is None or not (now := _added(self.model, self._inputs)):
            return []
        changed = [
            _added(self.model, self._inputs, change) for change in self._changes[1:]
        ]
        # A model may add a different number of terms each time it is called.
        is_constant = {len(terms) for terms in changed} == {len(now)}
        return list(zip(now, *changed, strict=True)) if is_constant else []

    @functools.cached_property
    def added_for_other_data(self) -> list[float | None]:
        """The values of `added` at the current weights, for other inputs."""
        others = keras.tree.map_structure(_other, self._inputs)
        with contextlib.suppress(Exception):
            return _added(self.model, others)
        return [None] * len(self.added)

    def depends_on_its_weight(self, weight: Weight) -> bool:
        """Whether a weight's penalty changes when that weight alone changes."""
        change = [(weight.variable, _changed_value(weight.variable, _SEEDS[0]))]
        now = self.penalties[weight.name][0]
        return _penalties([weight], change)[weight.name] != now

    @functools.cached_property
    def _changes(self) -> list[Change]:
        """No change, and a random one for each seed."""
        variables = [
            weight.variable
            for weight in self.weights
            if weight.variable is not None
            and keras.backend.is_float_dtype(weight.variable.dtype)
        ]
        return [
            [],
            *[
                [(v, _changed_value(v, seed, i)) for i, v in enumerate(variables)]
                for seed in _SEEDS
            ],
        ]

    @functools.cached_property
    def _inputs(self) -> Any:
        """The inputs of the batch, else example inputs that work, else `None`."""
        if self.batch_inputs is not None:
            return self.batch_inputs
        model = self.model
        if not model.built or not _keras.losses_of_calls(model):
            return None
        with contextlib.suppress(Exception):
            for example in _keras.example_inputs(inner_model(model)):
                inputs = keras.tree.map_structure(ops.convert_to_tensor, example)
                with contextlib.suppress(Exception):
                    _added(model, inputs)
                    return inputs
        return None


def number(tensor: Any) -> float | None:
    """A scalar tensor as a float, or `None` if it is symbolic.

    >>> number(ops.ones(())), number(keras.KerasTensor(()))
    (1.0, None)
    """
    # A traced step may leave symbolic tensors of the backend behind.
    with contextlib.suppress(Exception):
        return float(np.asarray(ops.convert_to_numpy(tensor)))
    return None


def penalty_of(regularizer: Any, weight: Any) -> float | None:
    """A penalty as a float, or `None` if the regularizer fails on this weight.

    >>> penalty_of(keras.regularizers.L2(0.5), ops.ones((2, 3)))
    3.0
    """
    with contextlib.suppress(Exception):
        return number(regularizer(weight))
    return None


def responds(term: Term) -> bool:
    """Whether all values of a term are finite, and each change changes it.

    >>> responds((1.0, 2.0, 1.5)), responds((1.0, 1.0, 1.0)), responds((1.0, None, 2.0))
    (True, False, False)
    """
    is_finite = all(value is not None and math.isfinite(value) for value in term)
    return is_finite and term[0] not in term[1:]


def _penalties(weights: Iterable[Weight], change: Change) -> dict[str, float | None]:
    with keras.StatelessScope(state_mapping=change):
        return {w.name: penalty_of(w.regularizer, w.variable) for w in weights}


def _added(model: keras.Model, inputs: Any, change: Change = ()) -> list[float | None]:
    _, terms = _keras.added_losses_at(model, inputs, change)
    return [number(term) for term in terms]


def _changed_value(variable: Any, seed: int, index: int = 0) -> Any:
    """A random value near that of a variable, different for each seed and index."""
    random = np.random.default_rng((seed, index))
    value = np.asarray(ops.convert_to_numpy(ops.cast(variable, "float32")))
    # Small, but not 0 even if the weight is 0.
    size = 0.1 * (np.sqrt(np.mean(np.square(value))) or 1.0)
    factor, shift = random.uniform(0.5, 1.5, (2, *value.shape))
    return ops.cast(value * factor + size * shift, variable.dtype)


def _other(tensor: Any) -> Any:
    is_zero = not np.any(ops.convert_to_numpy(tensor))
    return ops.ones_like(tensor) if is_zero else ops.zeros_like(tensor)
