"""`ModelFacts`: a model and what the rules of an audit need to know about it."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._audit.experiment import Experiment
from keras_l2reg._builtin import split_by_target, strength_of
from keras_l2reg._penalties import penalties
from keras_l2reg._roles import KERNEL_ROLES
from keras_l2reg.weights import Weight, find_weights

NORM_OR_BIAS = ("bias", "scale", "shift")


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """A model and what the rules need to know about it, each computed at most once.

    Args:
        model: A `keras.Model`, wrapped or bare.
        batch: Tuple of a batch's inputs and targets, or `None`.
        max_share: Float, the largest ratio of penalty to data loss to accept.
    """

    model: keras.Model
    batch: tuple[Any, Any] | None
    max_share: float

    @functools.cached_property
    def weights(self) -> list[Weight]:
        """Every weight, except the frozen kernels of LoRA layers."""
        return [w for w in find_weights(self.model) if not w.is_frozen_lora_base]

    @functools.cached_property
    def trainable(self) -> list[Weight]:
        """Weights that are trained, or will be once they are built."""
        # A layer above may be frozen, and with it a weight that is trainable itself.
        ids = {id(v) for v in self.model.trainable_variables}
        return [
            w
            for w in self.weights
            if id(w.variable) in ids
            or (w.variable is None and all(layer.trainable for layer in w.layers))
        ]

    @functools.cached_property
    def built(self) -> list[Weight]:
        """Trainable weights that exist already."""
        return [w for w in self.trainable if w.variable is not None]

    @functools.cached_property
    def penalized(self) -> list[Weight]:
        """Trainable weights whose penalty is in `model.losses`."""
        return [w for w in self.built if w.regularizer is not None]

    @functools.cached_property
    def decayed(self) -> list[Weight]:
        """Weights that the optimizer's weight decay applies to."""
        return [
            w
            for w in self.built
            if w.variable is not None and _keras.decays_in(self.model, w.variable)
        ]

    @functools.cached_property
    def kernels(self) -> list[Weight]:
        """Trainable weights that multiply the inputs."""
        return [w for w in self.trainable if w.role in KERNEL_ROLES]

    @functools.cached_property
    def penalties(self) -> dict[str, float]:
        """The penalty of each penalized weight, by the weight's name."""
        return penalties(self.model)

    @functools.cached_property
    def inputs(self) -> Any:
        """The inputs of the batch as tensors, or `None` without a batch."""
        if self.batch is None:
            return None
        return keras.tree.map_structure(ops.convert_to_tensor, self.batch[0])

    @functools.cached_property
    def data_loss(self) -> float | None:
        """The compiled loss on the batch, without penalties; `None` without a batch."""
        if self.batch is None:
            return None
        outputs, _ = _keras.added_losses_at(self.model, self.inputs)
        loss = _keras.fresh_data_loss(self.model)(self.batch[1], outputs)
        return float(np.asarray(ops.convert_to_numpy(loss)))

    @functools.cached_property
    def experiment(self) -> Experiment:
        """How the loss terms respond to changes of the weights."""
        return Experiment(self.model, self.weights, self.penalized, self.inputs)


def names_of(weights: Iterable[Weight]) -> tuple[str, ...]:
    return tuple(weight.name for weight in weights)


def l2_of(regularizer: Any) -> float:
    """The strength of a penalty's L2 part, to zero or to a start; 0 if it has none.

    >>> l2_of(keras.regularizers.L1L2(0.1, 0.2)), l2_of(keras.regularizers.L1(0.1))
    (0.2, 0.0)
    """
    return strength_of(regularizer, "l2")


def l2_to_zero_of(regularizer: Any) -> float:
    """`l2_of` without a penalty on the distance from a starting value.

    >>> l2_to_zero_of(keras.regularizers.L2(0.1))
    0.1
    """
    to_zero, _ = split_by_target(regularizer)
    return sum((l2_of(term) for term in to_zero), 0.0)
