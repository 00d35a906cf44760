"""Save and load which weights a wrapper covers.

The rule is applied once; its outcome is saved as it is in effect: which weights, with
which multipliers. So a file can be loaded whatever happened to the model after it was
wrapped: quantization, LoRA, new layers, or the removal of its penalty.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
>>> rule = {"biases": False, "embeddings": False, "layers": [keras.layers.Dense],
...         "multipliers": {"a/*": 0.1}}
>>> config = rule_to_config(model, rule)
>>> config["layers"], config["weight_names"]
([{'layer_class': 'Dense'}], ['a/kernel'])
>>> rule_from_config(model, config) == rule
True
"""

import dataclasses
import fnmatch
import glob
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_l2reg._ledger import Choice
from keras_l2reg._persistence import Setting
from keras_l2reg._rule import Pattern
from keras_l2reg._selection import candidates
from keras_l2reg._stack import Attachment, config_stack, stack_of
from keras_l2reg._towards_start import TowardsStart
from keras_l2reg._validation import as_list
from keras_l2reg.weights import Weight, find_weights, listed

# The version of `L2AllWeights.get_config`: 1 has the rule, without its outcome; the
# rows of 2 do not have whether the penalty is towards the start.
FORMAT = 3

# Name, multiplier (`None` without a penalty), whether it is added to another one, and
# whether it is towards the weight's starting value.
Row = list[Any]


def outcome_of(attachment: Attachment, weights: Iterable[Weight]) -> list[Row]:
    """The effect of an attachment: one row per weight, in order.

    Returns:
        A list of `[name, multiplier, adds, towards_start]`: the multiplier is `None`
        where the attachment is not in effect; `adds` is whether it adds to the
        regularizer in the inner model's own config.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> from keras_l2reg import L2, _ledger, find_weights
    >>> weights, attachment = find_weights(model), Attachment(model)
    >>> choices = [Choice(weights[0], 0.5, False)]
    >>> _ledger.push(attachment, choices, weights, lambda choice: L2(choice.factor))
    >>> outcome_of(attachment, weights)
    [['a/kernel', 0.5, False, False], ['a/bias', None, False, False]]
    """
    rows = []
    for weight in weights:
        stack = stack_of(weight)
        entry = None if stack is None else stack.entry_of(attachment)
        if stack is None or entry is None:
            rows.append([weight.name, None, False, False])
        else:
            adds = entry.adds or bool(stack.above(attachment))
            towards_start = isinstance(entry.regularizer, TowardsStart)
            rows.append([weight.name, entry.factor, adds, towards_start])
    return rows


def starts_of(
    attachment: Attachment, weights: Iterable[Weight]
) -> dict[int, keras.Variable]:
    """The starting values that an attachment has in effect, by the weight's position.

    LoRA's factors do not count, which a loaded model does not have.
    """
    starts = {}
    own = [weight for weight in weights if not weight.is_lora_factor]
    for position, weight in enumerate(own):
        stack = stack_of(weight)
        entry = None if stack is None else stack.entry_of(attachment)
        if entry is not None and isinstance(entry.regularizer, TowardsStart):
            starts[position] = entry.regularizer.start
    return starts


def penalized_names(rows: Iterable[Row]) -> list[str]:
    """Names of the weights with a penalty, in the rows of `outcome_of`.

    >>> penalized_names(
    ...     [["a/kernel", 0.5, False, False], ["a/bias", None, False, False]])
    ['a/kernel']
    """
    return [name for name, multiplier, *_ in rows if multiplier is not None]


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a file contains about the weights of a wrapper.

    Args:
        outcome: The rows of `outcome_of`; `None` if the rule was not applied yet, or
            in a file of format 1, which has only the rule.
        is_removed: Boolean, whether the penalty had been removed.
    """

    outcome: list[Row] | None
    is_removed: bool

    @property
    def needs_rule(self) -> bool:
        """Whether the rule still has to be applied."""
        return self.outcome is None and not self.is_removed

    def choices(self, weights: Sequence[Weight], is_complete: bool) -> list[Choice]:
        """The weights with a penalty according to the outcome, in the loaded model.

        Weights are found by name. If names differ (the layers of a subclassed model
        get new automatic names), they are found by order, if their number is the same.

        Args:
            weights: All weights of the model that exist so far.
            is_complete: Boolean, whether all layers are built.
        """
        rows = self.outcome or []
        by_name = {weight.name: weight for weight in weights}
        names = {row[0] for row in rows}
        if is_complete and len(rows) == len(weights) and not names <= {*by_name}:
            by_name = {row[0]: w for row, w in zip(rows, weights, strict=True)}
        missing = [name for name in penalized_names(rows) if name not in by_name]
        if missing and is_complete:
            warnings.warn(
                "These weights had a penalty when the wrapper was saved, but the model "
                f"made from its config does not have them: {listed(missing)}. The "
                "others have their penalty. Build these layers in the model's `build` "
                "or `__init__`, or wrap the model again: `L2AllWeights(model, l2)`.",
                stacklevel=2,
            )
        return [
            Choice(by_name[name], multiplier, *flags)
            for name, multiplier, *flags in rows
            if multiplier is not None and name in by_name
        ]


def configs_without(attachment: Attachment, weights: Iterable[Weight]) -> list[Setting]:
    """The layers' regularizers as they should be in the config of the inner model.

    Returns:
        A list of `(layer, attribute name, regularizer)`.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> from keras_l2reg import L2, _ledger, find_weights
    >>> weights, attachment = find_weights(model), Attachment(model)
    >>> choices = [Choice(weights[0], 0.5, False)]
    >>> _ledger.push(attachment, choices, weights, lambda choice: L2(choice.factor))
    >>> [regularizer for _, _, regularizer in configs_without(attachment, weights)]
    [None, None]
    """
    settings = {}
    for weight in weights:
        stack = config_stack(weight)
        if stack is not None:
            regularizer = stack.value_for_config(attachment)
            setting = weight.config_layer, weight.config_attribute, regularizer
            settings[id(stack)] = setting
    return list(settings.values())


# The arguments that are lists of patterns.
_PATTERNS = ("layers", "exclude", "towards_start")


def rule_to_config(model: keras.Model, rule: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that chose the weights, as a serializable config.

    Classes are replaced by their names. The names of the weights are added, so that
    globs can be adapted if the names change.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> rule = {"biases": True, "embeddings": False, "layers": None}
    >>> rule_to_config(model, rule)["weight_names"]
    ['a/kernel', 'a/bias']
    """
    patterns = {
        key: [_pattern_to_config(pattern) for pattern in as_list(rule[key])]
        for key in _PATTERNS
        if rule.get(key) is not None
    }
    return {**rule, **patterns, "weight_names": _candidate_names(model, rule)}


def _pattern_to_config(pattern: Pattern) -> str | dict[str, str]:
    if isinstance(pattern, type):
        return {"layer_class": keras.saving.get_registered_name(pattern)}
    return pattern


def rule_from_config(
    model: keras.Model,
    config: Mapping[str, Any],
    custom_objects: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The inverse of `rule_to_config`, for a model made from its config.

    The layers of a subclassed model get new automatic names, such as `dense_1` for
    `dense`. Globs are replaced so that they match the same weights as before.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d_1")])
    >>> rule_from_config(model, {
    ...     "biases": False, "embeddings": False, "layers": None,
    ...     "multipliers": {"d/*": 0.1}, "weight_names": ["d/kernel"]})["multipliers"]
    {'d_1/kernel': 0.1}
    """
    rule = {name: v for name, v in config.items() if name != "weight_names"}
    before, after = config.get("weight_names", []), _candidate_names(model, rule)

    def renamed(pattern):
        if before == after or len(before) != len(after):
            return [pattern]
        pairs = zip(before, after, strict=True)
        return [glob.escape(n) for old, n in pairs if fnmatch.fnmatchcase(old, pattern)]

    def restored(pattern):
        if isinstance(pattern, str):
            return renamed(pattern)
        return [_layer_class(pattern, custom_objects)]

    for name in _PATTERNS:
        if rule.get(name) is not None:
            rule[name] = [
                r for pattern in as_list(rule[name]) for r in restored(pattern)
            ]
    for name in ("multipliers", "regularizer"):
        if rule.get(name) is not None:
            values = rule[name].items()
            rule[name] = {n: v for p, v in values for n in renamed(p)}
    return rule


def _candidate_names(model: keras.Model, rule: Mapping[str, Any]) -> list[str]:
    flags = {name: rule.get(name, False) for name in ("biases", "embeddings")}
    return [weight.name for weight in candidates(find_weights(model), **flags)]


def _layer_class(pattern: dict[str, str], custom_objects) -> Any:
    name = pattern["layer_class"]
    registered = keras.saving.get_registered_object(name, custom_objects)
    # An unknown class is left as it is: only applying the rule again needs it.
    return registered or getattr(keras.layers, name, None) or pattern
