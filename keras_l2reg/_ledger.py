"""The ledger: what stands on each weight, and who put it there.

A variable may belong to many models, so the books are kept where the truth is: on the
variable itself and, for what is saved, on the layer whose attribute persists the
regularizer. Each such place has a `Stack`: what it held at first, and the entries of
those who put something on it. What is in effect always follows from the stack, in
whatever order entries come and go.

>>> from keras_l2reg import find_weights
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
>>> weights = find_weights(model)
>>> first, second = Attachment(model), Attachment(model)
>>> for attachment, l2 in ((first, 0.1), (second, 0.2)):
...     choices = [Choice(weights[0], l2, False)]
...     push(attachment, choices, weights, lambda _, l2: keras.regularizers.L2(l2))
>>> lift([first])
>>> weights[0].regularizer.l2, model.layers[0].kernel_regularizer.l2
(0.2, 0.2)
>>> lift([second])
>>> weights[0].regularizer is None
True
"""

import contextlib
import dataclasses
import itertools
import weakref

import keras

from keras_l2reg import _keras
from keras_l2reg.regularizers import Sum
from keras_l2reg.weights import Weight


class Attachment:
    """One call of `attach`, or one wrapper: whose entries stand on the stacks.

    Args:
        model: The `keras.Model` that the weights were chosen from; held weakly.
        by_wrapper: Boolean, whether a wrapper made it. Defaults to `False`.
    """

    def __init__(self, model, by_wrapper=False):
        self._model = weakref.ref(model)
        self.by_wrapper = by_wrapper
        self.is_lifted = False
        self.stacks = weakref.WeakSet()
        self._sums = {}

    @property
    def model(self):
        """The model, or `None` once it is gone."""
        return self._model()

    def sum(self, below, regularizer):
        """Both together: one object for all places, so that they can be compared."""
        key = id(below), id(regularizer)
        if key not in self._sums:
            # The terms are kept with their sum, so that their ids stay theirs.
            self._sums[key] = below, regularizer, Sum([below, regularizer])
        return self._sums[key][-1]

    @property
    def models(self):
        """The models known to hold a weight that this attachment is on."""
        return {model for stack in self.stacks for model in stack.models}

    def reaches_a_weight(self):
        """Whether one of its entries is in effect, or none was ever needed."""
        stacks = list(self.stacks)
        return not self.is_lifted and (
            not stacks or any(stack.has_in_effect(self) for stack in stacks)
        )


@dataclasses.dataclass
class Entry:
    """What one attachment put on one place.

    Args:
        attachment: The `Attachment`, or `None` for what stays for good.
        regularizer: What was put there.
        factor: Float, the multiplier that is part of `regularizer`.
        adds: Boolean, whether it adds to what is below instead of replacing it.
    """

    attachment: Attachment | None
    regularizer: object
    factor: float
    adds: bool

    def on(self, below):
        """The regularizer in effect, given what is in effect below."""
        if not self.adds or below is None:
            return self.regularizer
        if self.attachment is None:
            return Sum([below, self.regularizer])
        return self.attachment.sum(below, self.regularizer)


@dataclasses.dataclass(frozen=True)
class Choice:
    """A weight that is to get an entry, with its multiplier.

    Args:
        weight: The `Weight`.
        factor: Float > 0.
        adds: Boolean, as in `Entry`.
    """

    weight: Weight
    factor: float
    adds: bool


class Stack:
    """What one place held at first, and what was put on it since.

    Args:
        owner: A `keras.Variable`, or the layer that persists its regularizer; held
            weakly, as the owner holds the stack.
        attribute: String, the attribute of `owner` that holds the regularizer.
    """

    # One per weight and one per slot: small, so that many do not wake the collector.
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

    def __init__(self, owner, attribute):
        self._owner = weakref.ref(owner)
        self._models = ()
        self.attribute = attribute
        self.entries = ()
        self.is_writable = True
        self.renew()

    def __reduce__(self):
        # The books stay with the original: a copy of a variable has none.
        return type(None), ()

    @property
    def models(self):
        """The models that are known to hold the weight."""
        return [model for ref in self._models if (model := ref()) is not None]

    def note(self, ref):
        """Remember a model, given as a weak reference."""
        if ref not in self._models:
            self._models = (*self._models, ref)

    def renew(self):
        """Without entries, what the place holds is its original."""
        if not self.entries:
            self.original = self.base = self.read()

    def read(self):
        """What the place holds."""
        return getattr(self._owner(), self.attribute)

    def write(self, regularizer):
        """Let the place hold `regularizer`."""
        owner = self._owner()
        if owner is None or self.read() is regularizer:
            return
        try:
            setattr(owner, self.attribute, regularizer)
        except Exception:
            if isinstance(owner, keras.Variable):
                raise
            # A layer may forbid it; then it has no place that persists anything.
            self.is_writable, self.entries = False, ()

    def value(self, without=lambda attachment: False):
        """What the entries make of the original, some attachments left out."""
        if not self.entries:
            return self.original
        value = self.base
        for entry in self.entries:
            if not without(entry.attachment):
                value = entry.on(value)
        return value

    def entry_of(self, attachment):
        """The attachment's entry if it is in effect, else `None`."""
        for entry in reversed(self.entries):
            if entry.attachment is attachment:
                return entry
            if not entry.adds:
                return None
        return None

    def has_in_effect(self, attachment):
        """Whether the attachment's entry is in effect, not replaced from above."""
        return self.entry_of(attachment) is not None

    def above(self, attachment):
        """The entries on top of the attachment's own."""
        mine = [n for n, e in enumerate(self.entries) if e.attachment is attachment]
        return self.entries[mine[-1] + 1 :] if mine else []

    def value_for_file(self, attachment):
        """What a config says that is to be read before the attachment is put on."""
        above, mine = self.above(attachment), self.entry_of(attachment)
        if not above or mine is None or mine.adds:
            return self.value(lambda other: other is attachment)
        # Read again, it is put on last, and may not replace what is above it now.
        value = None
        for entry in above:
            value = entry.on(value)
        return value

    def copy_entries(self, other):
        """Take over what stands on `other`, from which this place was made."""
        self.original, self.base = other.original, other.base
        self.entries = [dataclasses.replace(entry) for entry in other.entries]
        for entry in self.entries:
            if entry.attachment is not None:
                entry.attachment.stacks.add(self)


def stack_of(weight):
    """The stack of a weight's variable; for an unbuilt layer's weight, of its slot."""
    if weight.variable is None:
        return config_stack(weight)
    stack = _stack(weight.variable, "regularizer")
    slot = config_stack(weight)
    # Made after the attachment, so what it has comes from the layer's attribute.
    if (
        slot is not None
        and slot.entries
        and not stack.entries
        and stack.read() is slot.read()
    ):
        stack.copy_entries(slot)
    return stack


def config_stack(weight):
    """The stack of the attribute that persists a weight's regularizer.

    `None` where there is no such attribute, or one that can't be set.
    """
    if not weight.config_attribute:
        return None
    stack = _stack(weight.config_layer, weight.config_attribute)
    return stack if stack.is_writable else None


def _stack(owner, attribute):
    key = f"_{attribute}_keras_l2reg_stack"
    stack = getattr(owner, key, None)
    if stack is None:
        stack = Stack(owner, attribute)
        # Past Keras, which tracks what is set on a layer.
        object.__setattr__(owner, key, stack)
    stack.renew()
    return stack


def attachments(weights):
    """Every attachment that has an entry on one of the weights, the oldest first."""
    found = {}
    for weight in weights:
        for stack in (stack_of(weight), config_stack(weight)):
            for entry in stack.entries if stack is not None else ():
                if entry.attachment is not None:
                    found[id(entry.attachment)] = entry.attachment
    return list(found.values())


def push(attachment, choices, weights, regularizer_of, instead_of=()):
    """Put an entry on the stack of each chosen weight, and on its slot.

    Either all of it happens or, if an error is raised midway, nothing.

    Args:
        attachment: The `Attachment` that the entries belong to.
        choices: List of `Choice`.
        weights: All weights of the model, from `find_weights`.
        regularizer_of: Function from a weight and its multiplier to the regularizer.
        instead_of: Attachments that are lifted at the same time.
    """
    entries = {}  # id(stack): (stack, entry)
    for choice in choices:
        stack = stack_of(choice.weight)
        if stack is not None:
            regularizer = regularizer_of(choice.weight, choice.factor)
            entry = Entry(attachment, regularizer, choice.factor, choice.adds)
            entries[id(stack)] = stack, entry
    entries |= _entries_of_slots(entries, weights)
    stacks = [stack for stack, _ in entries.values()]
    with _changed(itertools.chain(stacks, *(old.stacks for old in instead_of))):
        _remove(instead_of)
        for stack, entry in entries.values():
            stack.entries = [*stack.entries, entry]
            attachment.stacks.add(stack)
    for old in instead_of:
        old.is_lifted = True


def _entries_of_slots(entries, weights):
    """The entries for the attributes that persist the chosen weights' regularizers.

    One attribute can't say different things of the weights that it stands for; then
    it is left alone.
    """
    sharers = {}
    for weight in weights:
        if weight.variable is not None and not weight.is_frozen_lora_base:
            slot = config_stack(weight)
            if slot is not None:
                sharers.setdefault(id(slot), (slot, []))[1].append(stack_of(weight))
    found = {}
    for slot, stacks in sharers.values():
        pairs = [entries.get(id(stack)) for stack in stacks]
        if None in pairs:
            continue
        (stack, first), *others = pairs
        if all(
            entry.regularizer is first.regularizer
            and entry.adds == first.adds
            and other.value() is stack.value()
            for other, entry in others
        ):
            if not slot.entries:
                slot.base = stack.base
            found[id(slot)] = slot, dataclasses.replace(first)
    return found


def lift(lifted):
    """Take the entries of some attachments away, wherever they lie in their stacks."""
    with _changed(itertools.chain(*(old.stacks for old in lifted))):
        _remove(lifted)
    for attachment in lifted:
        attachment.is_lifted = True


def _remove(gone):
    for attachment in gone:
        for stack in attachment.stacks:
            stack.entries = [e for e in stack.entries if e.attachment is not attachment]


def keep_for_good(attachment, weights, convert):
    """Let an attachment's entries stay without it, in a form that Keras knows.

    What `attach` put beside them is converted too, but stays as it was: its own.

    Args:
        attachment: The `Attachment` that ends.
        weights: All weights of its model.
        convert: Function from a regularizer to the one that is to stand in its place.
    """
    places = {stack for w in weights for stack in (stack_of(w), config_stack(w))}
    places = {*places, *attachment.stacks} - {None}
    converted = []
    for stack in places:
        entries = []
        for old in stack.entries:
            entry = dataclasses.replace(old)
            if old.attachment is attachment:
                entry.attachment = None
            if entry.attachment is None or not entry.attachment.by_wrapper:
                entry.regularizer = convert(old.regularizer)
            entries.append(entry)
        base = convert(stack.base)
        while entries and entries[0].attachment is None:
            base = convert(entries.pop(0).on(base))
        converted.append((stack, base, entries))
    with _changed(places):
        for stack, base, entries in converted:
            stack.original = stack.base = base
            stack.entries = entries
    attachment.stacks.clear()
    attachment.is_lifted = True


def record_model(model, weights):
    """Remember that `model` holds these weights: its compiled steps depend on them."""
    ref = weakref.ref(model)
    for weight in weights:
        for stack in (stack_of(weight), config_stack(weight)):
            if stack is not None:
                stack.note(ref)


@contextlib.contextmanager
def _changed(stacks):
    """Within, entries change; after, all places and compiled steps follow, or none."""
    stacks = list({id(stack): stack for stack in stacks}.values())
    before = [(s, s.entries, s.original, s.base, s.read()) for s in stacks]
    try:
        yield
        for stack in stacks:
            stack.write(stack.value())
    except BaseException:
        for stack, entries, original, base, value in before:
            stack.entries, stack.original, stack.base = entries, original, base
            with contextlib.suppress(Exception):
                stack.write(value)
        raise
    for model in {model for stack in stacks for model in stack.models}:
        _keras.reset_compiled_steps(model)
