"""The state of an `L2AllWeights` that Keras does not track."""

import weakref
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._plan import Plan, plan_attachment
from keras_l2reg._rule import Existing, Rule
from keras_l2reg._serialization import Saved
from keras_l2reg._stack import Attachment, Regularizer


class WrapperState:
    """Hides the state of a wrapper from Keras, which tracks lists and dicts."""

    def __init__(
        self,
        model: keras.Model,
        regularizer: Regularizer,
        rule: Rule,
        existing: Existing | None,
        saved: Saved | None,
    ):
        self.model = model
        self.regularizer: Any = regularizer
        self.rule = rule
        self.existing: Existing | None = existing
        self.saved = saved
        self.attachment = Attachment(model, by_wrapper=True)
        self.attachment.is_removed = saved is not None and saved.is_removed
        # Models that contain the wrapper, once they were called.
        self.outer_models: weakref.WeakSet[keras.layers.Layer] = weakref.WeakSet()
        # Whether all layers are built, so that all weights have their penalty.
        self.is_complete = _keras.is_built_throughout(model)

    def plan(self) -> Plan | None:
        """The plan according to the rule; `None` if a file contains its outcome."""
        if self.saved is not None and not self.saved.needs_rule:
            return None
        return plan_attachment(self.model, self.regularizer, self.existing, **self.rule)
