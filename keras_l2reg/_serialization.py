"""What a wrapper's config says of its weights, and how it is read again.

A rule is asked once; what is saved is its outcome as it is in effect: which weight,
with which multiplier. So a file can be loaded whatever became of the model since the
rule was asked: quantized, with LoRA, with other layers, taken off.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
>>> rule = {"biases": False, "embeddings": False, "layers": [keras.layers.Dense],
...         "multipliers": {"a/*": 0.1}, "existing": "keep"}
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

import keras

from keras_l2reg import _ledger
from keras_l2reg._ledger import Choice
from keras_l2reg._selection import candidates
from keras_l2reg._validation import as_list
from keras_l2reg.weights import listed

# Of what `L2AllWeights.get_config` returns: 1 held the rule, without its outcome.
FORMAT = 2


def outcome_of(attachment, weights):
    """What an attachment has in effect: a row for each weight, in order.

    Returns:
        A list of `[name, multiplier, adds]`; the multiplier is `None` where the
        attachment is not in effect, `adds` says whether it adds to what the inner
        model's own config says.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> from keras_l2reg import L2, find_weights
    >>> weights, attachment = find_weights(model), _ledger.Attachment(model)
    >>> choices = [Choice(weights[0], 0.5, False)]
    >>> _ledger.push(attachment, choices, weights, lambda _, l2: L2(l2))
    >>> outcome_of(attachment, weights)
    [['a/kernel', 0.5, False], ['a/bias', None, False]]
    """
    rows = []
    for weight in weights:
        stack = _ledger.stack_of(weight)
        entry = stack.entry_of(attachment) if stack is not None else None
        if entry is None:
            rows.append([weight.name, None, False])
        else:
            adds = entry.adds or bool(stack.above(attachment))
            rows.append([weight.name, entry.factor, adds])
    return rows


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a file says of a wrapper's weights.

    Args:
        outcome: The rows of `outcome_of`; `None` if the rule was not asked yet, or by
            a file of format 1, which holds the rule alone.
        is_lifted: Boolean, whether the penalty had been taken off.
    """

    outcome: list | None
    is_lifted: bool

    @property
    def asks_rule(self):
        """Whether the rule is still to be asked."""
        return self.outcome is None and not self.is_lifted

    def choices(self, weights, is_complete):
        """The weights that the outcome gives a penalty, in a model made again.

        Names tell them apart; where some are others now (a subclassed model made
        again gets new automatic layer names), their order does, if there are as many.
        """
        rows = self.outcome or []
        by_name = {weight.name: weight for weight in weights}
        names = {row[0] for row in rows}
        if is_complete and len(rows) == len(weights) and not names <= {*by_name}:
            by_name = {row[0]: w for row, w in zip(rows, weights, strict=True)}
        chosen = [row for row in rows if row[1] is not None]
        missing = [row[0] for row in chosen if row[0] not in by_name]
        if missing and is_complete:
            warnings.warn(
                "These weights had a penalty when the wrapper was saved, and are not "
                f"in the model that its config makes: {listed(missing)}. The "
                "others have theirs. Build these layers in the model's `build` or "
                "`__init__`, or wrap the model again: `L2AllWeights(model, l2)`.",
                stacklevel=2,
            )
        return [Choice(by_name[n], f, adds) for n, f, adds in chosen if n in by_name]


def configs_without(attachment, weights):
    """The layers' attributes as the inner model's own config is to say them.

    Returns:
        A list of `(layer, attribute name, regularizer)`.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> from keras_l2reg import L2, find_weights
    >>> weights, attachment = find_weights(model), _ledger.Attachment(model)
    >>> choices = [Choice(weights[0], 0.5, False)]
    >>> _ledger.push(attachment, choices, weights, lambda _, l2: L2(l2))
    >>> [regularizer for _, _, regularizer in configs_without(attachment, weights)]
    [None, None]
    """
    slots = {}
    for weight in weights:
        stack = _ledger.config_stack(weight)
        if stack is not None:
            place = weight.config_layer, weight.config_attribute
            slots[id(stack)] = *place, stack.value_for_file(attachment)
    return list(slots.values())


def rule_to_config(model, rule):
    """The arguments that chose the weights, as a config can carry them.

    Classes are named, and so are the weights that the globs were meant for.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> rule = {"biases": True, "embeddings": False, "layers": None}
    >>> rule_to_config(model, rule)["weight_names"]
    ['a/kernel', 'a/bias']
    """
    patterns = {
        key: [_pattern_to_config(pattern) for pattern in as_list(rule[key])]
        for key in ("layers", "exclude")
        if rule.get(key) is not None
    }
    return {**rule, **patterns, "weight_names": _candidate_names(model, rule)}


def _pattern_to_config(pattern):
    if isinstance(pattern, type):
        return {"layer_class": keras.saving.get_registered_name(pattern)}
    return pattern


def rule_from_config(model, config, custom_objects=None):
    """The rule that `rule_to_config` said, for the model as it was made again.

    A subclassed model made again gets new automatic layer names, `dense_1` for
    `dense`; a glob is to match the same weights as before, under their new names.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d_1")])
    >>> rule_from_config(model, {
    ...     "biases": False, "embeddings": False, "layers": None,
    ...     "multipliers": {"d/*": 0.1}, "weight_names": ["d/kernel"]})["multipliers"]
    {'d_1/kernel': 0.1}
    """
    rule = {name: value for name, value in config.items() if name != "weight_names"}
    before, after = config.get("weight_names", []), _candidate_names(model, rule)

    def renamed(pattern):
        if before == after or len(before) != len(after):
            return [pattern]
        pairs = zip(before, after, strict=True)
        return [glob.escape(n) for old, n in pairs if fnmatch.fnmatchcase(old, pattern)]

    for name in ("layers", "exclude"):
        if rule.get(name) is not None:
            rule[name] = [
                found
                for pattern in as_list(rule[name])
                for found in (
                    renamed(pattern)
                    if isinstance(pattern, str)
                    else [_layer_class(pattern, custom_objects)]
                )
            ]
    if rule.get("multipliers") is not None:
        multipliers = rule["multipliers"].items()
        rule["multipliers"] = {n: v for p, v in multipliers for n in renamed(p)}
    return rule


def _candidate_names(model, rule):
    weights = candidates(
        model, rule.get("biases", False), rule.get("embeddings", False)
    )
    return [weight.name for weight in weights]


def _layer_class(pattern, custom_objects):
    name = pattern["layer_class"]
    registered = keras.saving.get_registered_object(name, custom_objects)
    # An unknown class is left as it is: only asking the rule again needs it.
    return registered or getattr(keras.layers, name, None) or pattern
