"""What the audit knows of a model, and the record of what it found."""

import contextlib
import dataclasses
import functools

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._audit.experiment import Experiment
from keras_l2reg._builtin import convert_to_builtin
from keras_l2reg._roles import KERNEL_ROLES
from keras_l2reg.regularizers import Scaled, Sum
from keras_l2reg.weights import find_weights


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing about a model's penalties that is not as it seems.

    Args:
        code: What it is, for programs: `"never-applied"`.
        severity: `"error"`, the training isn't what the model says; `"warning"`,
            probably not what was meant; `"info"`, good to know.
        where: Tuple of the names of the weights, or of the steps, concerned.
        message: One sentence: what is the matter.
        fix: One sentence: what to do about it.

    Example:

    >>> Finding("frozen", "info", ("a/kernel",), "It is frozen.", "Unfreeze it.").where
    ('a/kernel',)

    Source: the messages of linters, https://docs.astral.sh/ruff/rules/
    """

    code: str
    severity: str
    where: tuple[str, ...]
    message: str
    fix: str


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model, and what the checks need to know of it, found out once."""

    model: keras.Model
    batch: tuple | None
    max_share: float

    @functools.cached_property
    def weights(self):
        return [w for w in find_weights(self.model) if not w.is_frozen_lora_base]

    @functools.cached_property
    def trainable(self):
        """Weights that are or will be trained, be it a layer above that freezes."""
        ids = {id(v) for v in self.model.trainable_variables}
        return [
            w
            for w in self.weights
            if id(w.variable) in ids
            or (w.variable is None and all(layer.trainable for layer in w.layers))
        ]

    @functools.cached_property
    def penalized(self):
        """Trainable weights whose penalty is in `model.losses`."""
        return [w for w in self.made if w.regularizer is not None]

    @functools.cached_property
    def made(self):
        """Trainable weights that exist already."""
        return [w for w in self.trainable if w.variable is not None]

    @functools.cached_property
    def kernels(self):
        return [w for w in self.trainable if w.role in KERNEL_ROLES]

    @functools.cached_property
    def inputs(self):
        """The batch's inputs as tensors, or `None` without a batch."""
        if self.batch is None:
            return None
        return keras.tree.map_structure(ops.convert_to_tensor, self.batch[0])

    @functools.cached_property
    def experiment(self):
        """What becomes of the loss's terms when the weights are moved."""
        return Experiment(self)

    @functools.cached_property
    def outputs(self):
        """The model's outputs for the batch."""
        return _keras.added_losses_at(self.model, self.inputs)[0]


def names_of(weights):
    return tuple(weight.name for weight in weights)


def l2_of(weight):
    """The strength of the L2 part of a weight's penalty; 0 if there is none."""
    # Regularizers that a user wrote need have no config, or not of this kind.
    with contextlib.suppress(Exception):
        return float(convert_to_builtin(weight.regularizer).get_config()["l2"])
    return 0.0


def live_strengths(regularizer):
    """The ids of the variables that a penalty's strength is read from.

    >>> from keras_l2reg import L2
    >>> strength = keras.Variable(0.1)
    >>> added = Sum([keras.regularizers.L1(), Scaled(L2(strength), 0.5)])
    >>> live_strengths(added) == {id(strength)}
    True
    """
    if isinstance(regularizer, Scaled):
        return live_strengths(regularizer.regularizer)
    if isinstance(regularizer, Sum):
        return set().union(*map(live_strengths, regularizer.regularizers))
    # Those of a user's own keep theirs wherever they like, as attributes at best.
    values = getattr(regularizer, "__dict__", {}).values()
    return {id(value) for value in values if isinstance(value, keras.Variable)}
