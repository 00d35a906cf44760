"""The state of an `L2AllWeights` that Keras does not track."""

import weakref
from collections.abc import Mapping
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._ledger import Choice
from keras_l2reg._parts import Parts
from keras_l2reg._plan import Plan, plan_attachment
from keras_l2reg._rule import Existing, Pattern, Rule
from keras_l2reg._selection import covered_weights
from keras_l2reg._serialization import Saved
from keras_l2reg._stack import Attachment, Regularizer
from keras_l2reg.weights import Weight


class WrapperState:
    """Hides the state of a wrapper from Keras, which tracks lists and dicts."""

    def __init__(
        self,
        model: keras.Model,
        regularizer: Regularizer,
        rule: Rule,
        existing: Existing | None,
        towards_start: list[Pattern],
        saved: Saved | None,
    ):
        self.model = model
        self.regularizer: Any = regularizer
        self.rule = rule
        self.existing: Existing | None = existing
        self.towards_start = towards_start
        self.saved = saved
        # The starting values by the id of their variable, which is kept with them.
        self.starts: dict[int, tuple[keras.Variable, keras.Variable]] = {}
        self.weight_decay: float | None = None
        # Weights that are created later have no starting value.
        self.is_starting = True
        self.attachment = Attachment(model, by_wrapper=True)
        self.attachment.is_removed = saved is not None and saved.is_removed
        # Models that contain the wrapper, once they were called.
        self.outer_models: weakref.WeakSet[keras.layers.Layer] = weakref.WeakSet()
        # Whether all layers are built, so that all weights have their penalty.
        self.is_complete = _keras.is_built_throughout(model)

    @property
    def parts(self) -> Mapping[str, Regularizer | None] | None:
        """The regularizers by globs, if there is one for each part of the model."""
        return self.regularizer.by_glob if isinstance(self.regularizer, Parts) else None

    def plan(self, weights: list[Weight]) -> Plan | None:
        """The plan for these weights according to the rule.

        `None` if a file contains its outcome.
        """
        if self.saved is not None and not self.saved.needs_rule:
            return None
        if self.regularizer is None:
            self._check_rule(weights)
            return [], []
        return plan_attachment(
            self.model,
            self.regularizer,
            self.existing,
            self.towards_start,
            weights,
            **self.rule,
        )

    def _check_rule(self, weights: list[Weight]) -> None:
        """Raise the errors of a plan, where there is no penalty, only weight decay."""
        if self.towards_start:
            raise ValueError(
                "Expected a penalty for `towards_start`: weight decay is towards zero. "
                f"Received: towards_start={self.towards_start!r}; pass `l2` as well"
            )
        covered_weights(self.model, weights, **self.rule)

    def start_of(self, choice: Choice) -> keras.Variable | None:
        """The starting value that a weight's penalty is towards, if any."""
        known = self.starts.get(id(choice.weight.variable))
        return known[1] if choice.towards_start and known else None
