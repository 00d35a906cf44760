"""The ledger: which regularizers are on each weight, and who put them there.

A variable may belong to many models, so the record is kept on the variable itself and,
for saving, on the layer whose attribute holds the regularizer: each has a `Stack`. The
functions here change many stacks at once: all of them, or none on an error.

>>> from keras_l2reg import find_weights
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
>>> weights = find_weights(model)
>>> first, second = Attachment(model), Attachment(model)
>>> for attachment, l2 in ((first, 0.1), (second, 0.2)):
...     choices = [Choice(weights[0], l2, False)]
...     push(attachment, choices, weights, lambda c: keras.regularizers.L2(c.factor))
>>> remove([first])
>>> weights[0].regularizer.l2, model.layers[0].kernel_regularizer.l2
(0.2, 0.2)
>>> remove([second])
>>> weights[0].regularizer is None
True
"""

import contextlib
import dataclasses
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._stack import (
    Attachment,
    Entry,
    Regularizer,
    Stack,
    config_stack,
    stack_of,
    stacks_of,
)
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg.weights import Weight


@dataclasses.dataclass(frozen=True)
class Choice:
    """A weight to put an entry on, with its multiplier.

    Args:
        weight: The `Weight`.
        factor: Float > 0.
        adds: Boolean, as in `Entry`.
        towards_start: Boolean, whether the penalty is on the distance from the
            weight's starting value. Defaults to `False`.
    """

    weight: Weight
    factor: float
    adds: bool
    towards_start: bool = False


def attachments(weights: Iterable[Weight]) -> list[Attachment]:
    """Every attachment that has an entry on one of the weights, oldest first."""
    found = {}
    for weight in weights:
        for stack in stacks_of(weight):
            for entry in stack.entries:
                if entry.attachment is not None:
                    found[id(entry.attachment)] = entry.attachment
    return list(found.values())


def push(
    attachment: Attachment,
    choices: Iterable[Choice],
    weights: Iterable[Weight],
    regularizer_of: Callable[[Choice], Regularizer],
    replaced: Sequence[Attachment] = (),
) -> None:
    """Put an entry on the stacks of each chosen weight.

    If an error is raised midway, nothing is changed.

    Args:
        attachment: The `Attachment` that the entries belong to.
        choices: Iterable of `Choice`.
        weights: All weights of the model, from `find_weights`.
        regularizer_of: Function from a choice to the regularizer.
        replaced: Attachments that are removed at the same time. Defaults to none.
    """
    entries: dict[int, tuple[Stack, Entry]] = {}  # by id(stack)
    for choice in choices:
        stack = stack_of(choice.weight)
        if stack is not None:
            regularizer = regularizer_of(choice)
            entry = Entry(attachment, regularizer, choice.factor, choice.adds)
            entries[id(stack)] = stack, entry
    entries |= _config_entries(entries, weights)
    stacks = [stack for stack, _ in entries.values()]
    with _changed(itertools.chain(stacks, *(old.stacks for old in replaced))):
        _remove_entries(replaced)
        for stack, entry in entries.values():
            stack.entries = [*stack.entries, entry]
            attachment.stacks.add(stack)
    for old in replaced:
        old.is_removed = True


def _config_entries(
    entries: dict[int, tuple[Stack, Entry]], weights: Iterable[Weight]
) -> dict[int, tuple[Stack, Entry]]:
    """The entries for the layer attributes that save the chosen weights' regularizers.

    The entry of a penalty towards a start has no regularizer, as no layer can save it.
    An attribute that is shared by several weights gets an entry only if all of them
    have the same entry, and none if a layer can't save the regularizer.
    """
    found = {}
    for configured, stacks in _stacks_by_config(weights):
        pairs = [entries[id(s)] for s in stacks if id(s) in entries]
        if len(pairs) < len(stacks):
            continue
        (stack, first), *others = pairs
        if all(
            _configurable(entry) is _configurable(first)
            and entry.adds == first.adds
            and other.value() is stack.value()
            for other, entry in others
        ):
            if not configured.entries:
                configured.base = stack.base
            entry = dataclasses.replace(first, regularizer=_configurable(first))
            found[id(configured)] = configured, entry
    return found


def _configurable(entry: Entry) -> Regularizer | None:
    """The regularizer as a layer can save it: none if it is towards a start."""
    is_to_start = isinstance(entry.regularizer, TowardsStart)
    return None if is_to_start else entry.regularizer


def _stacks_by_config(weights: Iterable[Weight]) -> Iterable[tuple[Stack, list[Stack]]]:
    """The stack of each layer attribute, with the stacks of the variables it is for."""
    found = {}
    for weight in weights:
        if weight.variable is not None and not weight.is_frozen_lora_base:
            configured = config_stack(weight)
            if configured is not None:
                _, stacks = found.setdefault(id(configured), (configured, []))
                stacks.append(stack_of(weight))
    return found.values()


def remove(removed: Sequence[Attachment]) -> None:
    """Remove the entries of some attachments, at any position in their stacks."""
    with _changed(itertools.chain(*(old.stacks for old in removed))):
        _remove_entries(removed)
    for attachment in removed:
        attachment.is_removed = True


def _remove_entries(removed: Iterable[Attachment]) -> None:
    for attachment in removed:
        for stack in attachment.stacks:
            stack.entries = [e for e in stack.entries if e.attachment is not attachment]


def make_permanent(
    attachment: Attachment,
    weights: Iterable[Weight],
    convert: Callable[[Any], Any],
) -> None:
    """End an attachment, but keep its entries, converted.

    Entries of `attach` on the same weights are converted too, but can still be removed.

    Args:
        attachment: The `Attachment` that ends.
        weights: All weights of its model.
        convert: Function from a regularizer to the one that replaces it.
    """
    stacks = {stack for weight in weights for stack in stacks_of(weight)}
    stacks |= {*attachment.stacks}
    converted = []
    for stack in stacks:
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
            base = convert(entries.pop(0).applied_to(base))
        converted.append((stack, base, entries))
    with _changed(stacks):
        for stack, base, entries in converted:
            stack.original = stack.base = base
            stack.entries = entries
    attachment.stacks.clear()
    attachment.is_removed = True


def record_model(model: keras.layers.Layer, weights: Iterable[Weight]) -> None:
    """Record that `model` contains these weights: its compiled steps depend on them."""
    ref = weakref.ref(model)
    for weight in weights:
        for stack in stacks_of(weight):
            stack.add_model(ref)


@contextlib.contextmanager
def _changed(stacks: Iterable[Stack]) -> Iterator[None]:
    """Change entries in this context; on exit, owners and compiled steps are updated.

    On an error, the stacks and their owners are restored.
    """
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
