"""The regularizers on one weight, or in one layer attribute, as a stack.

A `Stack` holds the original regularizer of its owner, and an entry for each regularizer
that was put on it later. The stack alone determines the regularizer in effect, in
whatever order entries are added and removed.

>>> variable = keras.Variable([1.0])
>>> stack = Stack(variable, "regularizer")
>>> first, second = keras.regularizers.L1(0.1), keras.regularizers.L2(0.2)
>>> stack.entries = [Entry(None, first, 1.0, False), Entry(None, second, 1.0, True)]
>>> [type(r).__name__ for r in stack.value().regularizers]
['L1', 'L2']
"""

import dataclasses
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_l2reg.regularizers import Sum
from keras_l2reg.weights import Weight

# A function from a weight to a scalar: a `keras.Regularizer`, or a plain function.
Regularizer = Callable[..., Any]


class Attachment:
    """One call of `attach`, or one wrapper, to which entries belong.

    Args:
        model: The `keras.Model` whose weights were chosen; referenced weakly.
        by_wrapper: Boolean, whether a wrapper made it. Defaults to `False`.
    """

    def __init__(self, model: keras.Model, by_wrapper: bool = False):
        self._model = weakref.ref(model)
        self.by_wrapper = by_wrapper
        self.is_removed = False
        self.stacks: weakref.WeakSet[Stack] = weakref.WeakSet()
        self._sums: dict[tuple[int, int], tuple[Regularizer, Regularizer, Sum]] = {}

    @property
    def model(self) -> keras.Model | None:
        """The model, or `None` once it was deleted."""
        return self._model()

    def sum(self, below: Regularizer, regularizer: Regularizer) -> Sum:
        """The sum of both: one object for all weights, so that they can be compared."""
        key = id(below), id(regularizer)
        if key not in self._sums:
            # The terms are kept with their sum, so that their ids are not reused.
            self._sums[key] = below, regularizer, Sum([below, regularizer])
        return self._sums[key][-1]

    @property
    def models(self) -> set[keras.layers.Layer]:
        """The models known to contain a weight that this attachment is on."""
        return {model for stack in self.stacks for model in stack.models}

    def reaches_a_weight(self) -> bool:
        """Whether one of its entries is in effect, or it has no entries yet."""
        stacks = list(self.stacks)
        return not self.is_removed and (
            not stacks or any(stack.entry_of(self) is not None for stack in stacks)
        )


@dataclasses.dataclass
class Entry:
    """A regularizer that an attachment put on a stack.

    Args:
        attachment: The `Attachment`, or `None` for an entry that is permanent.
        regularizer: The regularizer, or `None` if the layer can't save it.
        factor: Float, the multiplier that is part of `regularizer`.
        adds: Boolean, whether it adds to what is below instead of replacing it.
    """

    attachment: Attachment | None
    regularizer: Regularizer | None
    factor: float
    adds: bool

    def applied_to(self, below: Regularizer | None) -> Regularizer | None:
        """The regularizer in effect, given the one in effect below."""
        if not self.adds or below is None:
            return self.regularizer
        if self.regularizer is None:
            return below
        if self.attachment is None:
            return Sum([below, self.regularizer])
        return self.attachment.sum(below, self.regularizer)


class Stack:
    """The original regularizer of a variable or layer attribute, and later entries.

    Args:
        owner: A `keras.Variable`, or the layer whose attribute saves a regularizer;
            referenced weakly, since the owner references the stack.
        attribute: String, the attribute of `owner` that holds the regularizer.
    """

    # Two per weight: small, so that many of them do not trigger garbage collection.
    __slots__ = (
        "__weakref__",
        "_models",
        "_owner",
        "attribute",
        "base",
        "entries",
        "is_writable",
        "original",
    )

    def __init__(
        self, owner: keras.Variable | keras.layers.Layer, attribute: str
    ) -> None:
        self._owner = weakref.ref(owner)
        self._models: tuple[weakref.ref[keras.layers.Layer], ...] = ()
        self.attribute = attribute
        self.entries: Sequence[Entry] = ()
        self.is_writable = True
        self.update_original()

    def __reduce__(self):
        # A copy of a variable or of a layer starts without a stack.
        return type(None), ()

    @property
    def models(self) -> list[keras.layers.Layer]:
        """The models that are known to contain the weight."""
        return [model for ref in self._models if (model := ref()) is not None]

    def add_model(self, ref: weakref.ref[keras.layers.Layer]) -> None:
        """Record a model that contains the weight."""
        if ref not in self._models:
            self._models = (*self._models, ref)

    def update_original(self) -> None:
        """Without entries, the current regularizer of the owner is the original."""
        if not self.entries:
            self.original = self.base = self.read()

    def read(self) -> Regularizer | None:
        """The current regularizer of the owner."""
        return getattr(self._owner(), self.attribute)

    def write(self, regularizer: Regularizer | None) -> None:
        """Set the regularizer of the owner."""
        owner = self._owner()
        if owner is None or self.read() is regularizer:
            return
        try:
            setattr(owner, self.attribute, regularizer)
        except Exception:
            if isinstance(owner, keras.Variable):
                raise
            # The attribute may be read-only; then the layer can't save the regularizer.
            self.is_writable, self.entries = False, ()

    def value(
        self, without: Callable[[Attachment | None], bool] = lambda attachment: False
    ) -> Regularizer | None:
        """The regularizer in effect, or that without some entries.

        Args:
            without: Function from the attachment of an entry to whether to leave the
                entry out. Defaults to leaving out none.
        """
        if not self.entries:
            return self.original
        value = self.base
        for entry in self.entries:
            if not without(entry.attachment):
                value = entry.applied_to(value)
        return value

    def entry_of(self, attachment: Attachment) -> Entry | None:
        """The entry of the attachment, unless an entry above replaces it."""
        for entry in reversed(self.entries):
            if entry.attachment is attachment:
                return entry
            if not entry.adds:
                return None
        return None

    def above(self, attachment: Attachment) -> Sequence[Entry]:
        """The entries above that of the attachment."""
        own = [n for n, e in enumerate(self.entries) if e.attachment is attachment]
        return self.entries[own[-1] + 1 :] if own else []

    def value_for_config(self, attachment: Attachment) -> Regularizer | None:
        """The regularizer for a saved config, to which loading adds the attachment."""
        above, entry = self.above(attachment), self.entry_of(attachment)
        if not above or entry is None or entry.adds:
            return self.value(lambda other: other is attachment)
        # Once loaded, the attachment is on top and adds to what is above it now.
        value = None
        for other in above:
            value = other.applied_to(value)
        return value

    def copy_entries(self, other: "Stack") -> None:
        """Copy the entries of `other`, whose regularizer the owner was created with."""
        self.original, self.base = other.original, other.base
        self.entries = [dataclasses.replace(entry) for entry in other.entries]
        for entry in self.entries:
            if entry.attachment is not None:
                entry.attachment.stacks.add(self)


def stack_of(weight: Weight) -> Stack | None:
    """The stack of a weight's variable; for an unbuilt layer, of its attribute.

    `None` for an unbuilt layer without such an attribute.
    """
    if weight.variable is None:
        return config_stack(weight)
    stack = _stack(weight.variable, "regularizer")
    configured = config_stack(weight)
    # If the layer was built later, the variable got the regularizer of the attribute.
    if (
        configured is not None
        and configured.entries
        and not stack.entries
        and stack.read() is not None
        and stack.read() is configured.read()
    ):
        stack.copy_entries(configured)
    return stack


def config_stack(weight: Weight) -> Stack | None:
    """The stack of the layer attribute that saves a weight's regularizer.

    `None` if there is no such attribute, or if it can't be set.
    """
    if not weight.config_attribute:
        return None
    stack = _stack(weight.config_layer, weight.config_attribute)
    return stack if stack.is_writable else None


def stacks_of(weight: Weight) -> list[Stack]:
    """The stacks of a weight: of its variable and of its layer attribute, if any."""
    return [s for s in (stack_of(weight), config_stack(weight)) if s is not None]


def _stack(owner, attribute: str) -> Stack:
    key = f"_{attribute}_keras_l2reg_stack"
    stack = getattr(owner, key, None)
    if stack is None:
        stack = Stack(owner, attribute)
        # Bypasses Keras, which tracks what is set on a layer.
        object.__setattr__(owner, key, stack)
    stack.update_original()
    return stack
