"""What a model's configuration carries of its penalties, and to whom.

`lost_on_save` finds, by trying, the penalties that save, load and clone would drop;
`configured` lets a model be saved with other regularizers than it has.
"""

import contextlib
import warnings

import keras

from keras_l2reg.weights import find_weights, listed


class _Probe(keras.Regularizer):
    """A regularizer that notices when it is saved."""

    saved = False

    def get_config(self):
        self.saved = True
        return {}


def lost_on_save(model):
    """Names of the penalized weights whose penalty the model's config does not carry.

    Found by trying: `model.get_config()` is called with a probe in the place of each
    regularizer, which notices whether it is asked for its config.

    Args:
        model: A `keras.Model`.

    Returns:
        A list of weight names; empty if save, load and clone keep every penalty.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> model.layers[0].kernel.regularizer = keras.regularizers.L2(0.1)
    >>> lost_on_save(model)
    ['a/kernel']

    Source: `keras.Model.get_config`, https://keras.io/api/models/model_saving_apis/
    """
    penalized = [
        weight
        for weight in find_weights(model)
        if weight.regularizer is not None and not weight.is_frozen_lora_base
    ]
    probes = {
        w.config_key: (w.config_layer, w.config_attribute, _Probe())
        for w in penalized
        if w.config_key
    }
    # If a model can't be saved at all, no probe notices anything: all is lost.
    with configured(probes.values()) as in_place, contextlib.suppress(Exception):
        model.get_config()
    carried = {key for key, (_, _, probe) in probes.items() if probe.saved}
    # Where no probe could be put, the layer's own config tells what is saved.
    untried = [
        w for w in penalized if w.config_key and probes[w.config_key] not in in_place
    ]
    carried |= {w.config_key for w in untried if _names_its_regularizer(w)}
    return [
        weight.name
        for weight in penalized
        if weight.config_key not in carried
        or not has_config(weight.regularizer)
        or not same_regularizer(weight.configured_regularizer, weight.regularizer)
    ]


def has_config(regularizer):
    """Whether a regularizer gives a config; Keras' own base class raises instead.

    >>> has_config(keras.regularizers.L2(0.1)), has_config(keras.Regularizer())
    (True, False)
    """
    try:
        getattr(regularizer, "get_config", dict)()
    except Exception:
        return False
    return True


def _names_its_regularizer(weight):
    with contextlib.suppress(Exception):
        return weight.config_attribute.strip("_") in weight.config_layer.get_config()
    return False


def same_regularizer(a, b):
    """Whether two regularizers are one object, or of one class and configuration.

    >>> same_regularizer(keras.regularizers.L2(0.1), keras.regularizers.L2(0.1))
    True
    """
    if a is b or a is None or b is None:
        return a is b
    if not hasattr(a, "get_config"):
        return type(a) is type(b)
    with contextlib.suppress(Exception):  # a user's own need not have a config
        return type(a) is type(b) and a.get_config() == b.get_config()
    return False


@contextlib.contextmanager
def configured(entries):
    """Within, the named attributes of the named layers hold other regularizers.

    Args:
        entries: Iterable of `(layer, attribute name, regularizer)`.

    Yields:
        Those of `entries` that could be set.

    >>> layer = keras.layers.Dense(3)
    >>> with configured([(layer, "kernel_regularizer", "anything")]):
    ...     print(layer.kernel_regularizer)
    anything
    >>> print(layer.kernel_regularizer)
    None
    """
    before, in_place = [], []
    try:
        for entry in entries:
            layer, attribute, regularizer = entry
            value = getattr(layer, attribute)
            # A layer may forbid it; then its config says what it says.
            with contextlib.suppress(Exception):
                setattr(layer, attribute, regularizer)
                before.append((layer, attribute, value))
                in_place.append(entry)
        yield in_place
    finally:
        for layer, attribute, value in reversed(before):
            setattr(layer, attribute, value)


def warn_of_builtin(model, weights):
    """Warn where Keras' own regularizers can't do what this package's did."""
    lost = lost_on_save(model)
    if lost:
        warnings.warn(
            f"The configuration of {model.name!r} can't carry the penalty of "
            f"these weights; loading it drops them: {listed(lost)}. Save the "
            "wrapper instead, before `unwrap`, or attach again after loading.",
            stacklevel=3,
        )
    narrow = [
        w.name
        for w in weights
        if w.regularizer is not None and getattr(w.variable, "dtype", "") == "float16"
    ]
    if narrow:
        warnings.warn(
            "Keras' own regularizers add up in float16, which ends at 65504, so that "
            "the penalty of these weights may become infinite: "
            f"{listed(narrow)}. `keras_l2reg.attach` adds up in float32.",
            stacklevel=3,
        )


def warn_of_lost_lora(model, outcome, weights):
    """Warn if LoRA's kernels have a penalty and are not there after a load.

    Args:
        model: A `keras.Model`.
        outcome: The rows that `outcome_of` gave for the wrapper around it.
        weights: All weights of the model.
    """
    factors = {w.name for w in weights if w.is_lora_factor}
    penalized = [name for name, multiplier, _ in outcome if multiplier is not None]
    if factors.intersection(penalized):
        lost = factors.intersection(lost_on_save(model))
        if lost:
            warnings.warn(
                f"The configuration of {model.name!r} can't carry the LoRA of these "
                "weights: Keras merges them into the kernels, and what is loaded has "
                f"no penalty in their place: {listed(sorted(lost))}. After loading, "
                "call `enable_lora` and wrap the model again.",
                stacklevel=3,
            )
