"""What the audit knows of a model, and the record of what it found."""

import contextlib
import dataclasses
import functools
import math

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg.selection import KERNEL_ROLES
from keras_l2reg.stock import to_stock
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
        mend: One sentence: what to do about it.

    Example:

    >>> Finding("frozen", "info", ("a/kernel",), "It is frozen.", "Thaw it.").where
    ('a/kernel',)

    Source: the messages of linters, https://docs.astral.sh/ruff/rules/
    """

    code: str
    severity: str
    where: tuple[str, ...]
    message: str
    mend: str


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
        return [w for w in self.trainable if w.variable is not None and w.regularizer]

    @functools.cached_property
    def kernels(self):
        return [w for w in self.trainable if w.role in KERNEL_ROLES]

    @functools.cached_property
    def forward(self):
        """Outputs and terms of `model.losses` for the batch, or `None` and terms."""
        model = self.model
        if self.batch is None:
            return None, model.losses
        values = [
            [v.value for v in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        x = keras.tree.map_structure(ops.convert_to_tensor, self.batch[0])
        with _keras.losses_kept(model):
            outputs, _, losses = model.stateless_call(*values, x, return_losses=True)
        return outputs, losses

    @functools.cached_property
    def added_losses(self):
        """The numbers that `add_loss` and activity regularizers have put in."""
        terms = self.forward[1]
        numbers = [number(term) for term in terms[: len(terms) - len(self.penalized)]]
        return [n for n in numbers if n is not None and math.isfinite(n) and n != 0]


def number(tensor):
    # What a traced step has left behind is no number.
    with contextlib.suppress(Exception):
        return float(ops.convert_to_numpy(tensor))
    return None


def names_of(weights):
    return tuple(weight.name for weight in weights)


def l2_of(weight):
    """The strength of the L2 part of a weight's penalty; 0 if there is none."""
    # Regularizers that a user wrote need have no config, or not of this kind.
    with contextlib.suppress(Exception):
        return float(to_stock(weight.regularizer).get_config()["l2"])
    return 0.0
