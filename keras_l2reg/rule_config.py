"""How the rule of a wrapper is saved with it, and read again.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
>>> rule = {"biases": False, "embeddings": False, "layers": [keras.layers.Dense],
...         "exclude": None, "multipliers": {"a/*": 0.1}, "existing": "keep"}
>>> config = rule_to_config(model, rule)
>>> config["layers"], config["weight_names"]
([{'layer_class': 'Dense'}], ['a/kernel'])
>>> rule_from_config(model, config) == rule
True
"""

import fnmatch
import glob

import keras

from keras_l2reg.selection import as_list, candidates

_PATTERNS = ("layers", "exclude")


def rule_to_config(model, rule):
    """The arguments `biases`, `embeddings`, `layers`, `exclude`, `multipliers`,
    `existing`, as a config can carry them: classes by name, and the names that the
    globs were meant for.

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


def _pattern_to_config(pattern):
    if isinstance(pattern, str):
        return pattern
    return {"layer_class": keras.saving.get_registered_name(pattern)}


def rule_from_config(model, config, custom_objects=None):
    """The rule that `rule_to_config` said, for the model as it was made anew.

    A subclassed model made anew gets new automatic layer names, `dense_1` for `dense`;
    a glob is to match the same weights as before, under their new names.

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="d_1")])
    >>> rule_from_config(model, {
    ...     "biases": False, "embeddings": False, "layers": None,
    ...     "multipliers": {"d/*": 0.1}, "weight_names": ["d/kernel"]})["multipliers"]
    {'d_1/kernel': 0.1}
    """
    rule = {name: value for name, value in config.items() if name != "weight_names"}
    before, after = config["weight_names"], _candidate_names(model, rule)

    def renamed(pattern):
        if before == after or len(before) != len(after):
            return [pattern]
        pairs = zip(before, after, strict=True)
        return [glob.escape(n) for old, n in pairs if fnmatch.fnmatchcase(old, pattern)]

    def from_config(pattern):
        if isinstance(pattern, str):
            return renamed(pattern)
        return [_layer_class(pattern["layer_class"], custom_objects)]

    for key in _PATTERNS:
        if rule.get(key) is not None:
            rule[key] = [p for pattern in rule[key] for p in from_config(pattern)]
    if rule["multipliers"] is not None:
        multipliers = rule["multipliers"].items()
        rule["multipliers"] = {n: v for p, v in multipliers for n in renamed(p)}
    return rule


def _candidate_names(model, rule):
    weights = candidates(model, rule["biases"], rule["embeddings"])
    return [weight.name for weight in weights]


def _layer_class(name, custom_objects):
    registered = keras.saving.get_registered_object(name, custom_objects)
    found = registered or getattr(keras.layers, name, None)
    if found is None:
        raise ValueError(
            f"Expected the layer class {name!r}, which the penalty is narrowed to, to "
            "be registered or given in `custom_objects`."
        )
    return found
