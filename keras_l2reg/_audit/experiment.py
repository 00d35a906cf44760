"""What the terms of a model's loss become when its weights or its data are moved.

Two equal numbers are no proof that they are one and the same term: a clamp makes equal
what is not. Terms that stay equal wherever the weights are moved are.

Nothing is assigned: other values stand in for the weights while a term is computed, so
there is nothing to put back.
"""

import contextlib
import dataclasses
import functools

import keras
import numpy as np
from keras import ops

from keras_l2reg import _keras
from keras_l2reg.weights import inner_model


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The terms of a subject's loss, at its weights and at others.

    Each term is a tuple of numbers: at the weights as they are, and at each of the
    `MOVES`, which move every weight in a way of its own.

    Args:
        subject: The `Subject` of the audit.
    """

    subject: object

    MOVES = (1, 2)

    @functools.cached_property
    def penalties(self):
        """The term of each penalized weight, by the weight's name."""
        read = [_penalties(self.subject, moved) for moved in self._moved]
        return {w.name: tuple(p[w.name] for p in read) for w in self.subject.penalized}

    @functools.cached_property
    def added(self):
        """The terms of `add_loss` and of activity regularizers, in Keras' order."""
        if self._inputs is None or not (now := _added(self.subject, self._inputs)):
            return []
        moved = [_added(self.subject, self._inputs, m) for m in self._moved[1:]]
        # A model may add other terms each time that it is called.
        is_steady = {len(terms) for terms in moved} == {len(now)}
        return list(zip(now, *moved, strict=True)) if is_steady else []

    @functools.cached_property
    def added_for_other_data(self):
        """The numbers of `added` at the weights as they are, for quite other data."""
        others = keras.tree.map_structure(_other, self._inputs)
        with contextlib.suppress(Exception):
            return _added(self.subject, others)
        return [None] * len(self.added)

    def answers_to_its_weight(self, weight):
        """Whether a weight's penalty changes when that weight alone is moved."""
        moved = [(weight.variable, _moved_value(weight.variable, move=1))]
        now = self.penalties[weight.name][0]
        return _penalties(self.subject, moved, [weight])[weight.name] != now

    @functools.cached_property
    def _moved(self):
        variables = [
            weight.variable
            for weight in self.subject.weights
            if weight.variable is not None
            and keras.backend.is_float_dtype(weight.variable.dtype)
        ]
        return [
            [],
            *[
                [(v, _moved_value(v, move, seed)) for seed, v in enumerate(variables)]
                for move in self.MOVES
            ],
        ]

    @functools.cached_property
    def _inputs(self):
        """The batch's inputs, or some that the model takes, or `None`."""
        if self.subject.batch is not None:
            return self.subject.inputs
        model = self.subject.model
        if not model.built or not _keras.losses_of_calls(model):
            return None
        with contextlib.suppress(Exception):
            for example in _keras.example_inputs(inner_model(model)):
                inputs = keras.tree.map_structure(ops.convert_to_tensor, example)
                with contextlib.suppress(Exception):
                    _added(self.subject, inputs)
                    return inputs
        return None


def number(tensor):
    """A scalar tensor as a float, or `None` for what a traced step has left behind.

    >>> number(ops.ones(())), number(keras.KerasTensor(()))
    (1.0, None)
    """
    with contextlib.suppress(Exception):
        return float(ops.convert_to_numpy(tensor))
    return None


def penalty_of(regularizer, weight):
    """A penalty as a float, or `None` where the regularizer fails on this weight.

    >>> penalty_of(keras.regularizers.L2(0.5), ops.ones((2, 3)))
    3.0
    """
    with contextlib.suppress(Exception):
        return number(regularizer(weight))
    return None


def moves(term):
    """Whether a term is a number throughout, and not always the same.

    >>> moves((1.0, 2.0, 1.5)), moves((1.0, 1.0, 1.0)), moves((1.0, None, 2.0))
    (True, False, False)
    """
    return None not in term and term[0] not in term[1:] and all(np.isfinite(term))


def _penalties(subject, moved, weights=None):
    weights = subject.penalized if weights is None else weights
    with keras.StatelessScope(state_mapping=moved):
        return {w.name: penalty_of(w.regularizer, w.variable) for w in weights}


def _added(subject, inputs, moved=()):
    _, terms = _keras.added_losses_at(subject.model, inputs, moved)
    return [number(term) for term in terms]


def _moved_value(variable, move, seed=0):
    """Another value for a variable, unlike that of any other variable or move."""
    random = np.random.default_rng((move, seed))
    value = ops.convert_to_numpy(ops.cast(variable, "float32"))
    # Small, and away from 0 even where the weight is.
    size = 0.1 * (np.sqrt(np.mean(np.square(value))) or 1.0)
    factor, shift = random.uniform(0.5, 1.5, (2, *value.shape))
    return ops.cast(value * factor + size * shift, variable.dtype)


def _other(tensor):
    is_zero = not np.any(ops.convert_to_numpy(tensor))
    return ops.ones_like(tensor) if is_zero else ops.zeros_like(tensor)
