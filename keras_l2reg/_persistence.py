"""Which penalties the config of a model contains, and warnings about the others.

`lost_on_save` finds, by trying, the penalties that saving or cloning would lose;
`temporary_regularizers` replaces the regularizers of a model while it is saved.
"""

import contextlib
import itertools
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg.weights import Weight, find_weights, listed

# A layer, the name of its attribute, and the regularizer to set there.
Setting = tuple[keras.layers.Layer, str, Any]


class _Probe(keras.Regularizer):
    """A regularizer that records whether it was saved."""

    saved = False

    def get_config(self):
        self.saved = True
        return {}


def lost_on_save(
    model: keras.Model, weights: Iterable[Weight] | None = None
) -> list[str]:
    """Names of the penalized weights whose penalty is not in the model's config.

    Found by trying: `get_config()` is called with a probe in place of a regularizer,
    which records whether its config is requested. Of Keras' own layers in a graph of
    layers, one of each kind is tried; of others, the whole model.

    Args:
        model: A `keras.Model`.
        weights: What `find_weights(model)` returned. Defaults to `None`, find them.

    Returns:
        A list of weight names; empty if saving and cloning keep every penalty.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> model.layers[0].kernel.regularizer = keras.regularizers.L2(0.1)
    >>> lost_on_save(model)
    ['a/kernel']
    """
    penalized = [
        weight
        for weight in (find_weights(model) if weights is None else weights)
        if weight.regularizer is not None and not weight.is_frozen_lora_base
    ]
    configurable = [weight for weight in penalized if weight.config_key]
    kinds = [_kind(weight, model) for weight in configurable]
    if None in kinds:
        saved = _saved_in(model, configurable)
    else:
        pairs = [*zip(kinds, configurable, strict=True)]
        tried = {kind: weight for kind, weight in pairs}
        is_saved = {
            kind: bool(_saved_in(_below_graphs(weight)[0], [weight]))
            for kind, weight in tried.items()
        }
        saved = {weight.config_key for kind, weight in pairs if is_saved[kind]}
    return [
        weight.name
        for weight in penalized
        if weight.config_key not in saved
        or not _has_config(weight.regularizer)
        or not same_regularizer(weight.configured_regularizer, weight.regularizer)
    ]


def _kind(weight: Weight, model: keras.Model) -> tuple[Any, ...] | None:
    """What decides whether the config of a model has the penalty of a weight.

    `None` if a class that is not Keras' own decides.
    """
    below = _below_graphs(weight)
    graphs = [model, *weight.layers[: len(weight.layers) - len(below)]]
    if below and all(map(_keras.is_graph, graphs)) and all(map(_keras.is_own, below)):
        return *map(type, below), weight.config_attribute
    return None


def _below_graphs(weight: Weight) -> list[keras.layers.Layer]:
    """The layers around a weight, from the outermost that is no graph of layers."""
    return [*itertools.dropwhile(_keras.is_graph, weight.layers)]


def _saved_in(layer: keras.layers.Layer, weights: Iterable[Weight]) -> set[Any]:
    """Keys of the attributes whose regularizer is in the config of a layer."""
    probes: dict[Any, Any] = {
        w.config_key: (w.config_layer, w.config_attribute, _Probe()) for w in weights
    }
    # If a model can't be saved at all, no probe is saved: all penalties are lost.
    with (
        temporary_regularizers(probes.values()) as in_place,
        contextlib.suppress(Exception),
    ):
        layer.get_config()
    return {
        key
        for key, setting in probes.items()
        # Where no probe can be set, the config of the layer shows what is saved.
        if (
            setting[2].saved
            if setting in in_place
            else _is_configured(setting[0], setting[1])
        )
    }


def _has_config(regularizer: Any) -> bool:
    # The base class of Keras raises an error; a plain function needs no config.
    try:
        getattr(regularizer, "get_config", dict)()
    except Exception:
        return False
    return True


def _is_configured(layer: keras.layers.Layer, attribute: str) -> bool:
    with contextlib.suppress(Exception):
        return attribute.strip("_") in layer.get_config()
    return False


def same_regularizer(a: Any, b: Any) -> bool:
    """Whether two regularizers are the same object, or have the same class and config.

    >>> same_regularizer(keras.regularizers.L2(0.1), keras.regularizers.L2(0.1))
    True
    """
    if a is b or a is None or b is None:
        return a is b
    if not hasattr(a, "get_config"):
        return type(a) is type(b)
    with contextlib.suppress(Exception):  # a custom class may have no config
        return type(a) is type(b) and a.get_config() == b.get_config()
    return False


@contextlib.contextmanager
def temporary_regularizers(settings: Iterable[Setting]) -> Iterator[list[Setting]]:
    """Temporarily set layer attributes to other regularizers.

    Args:
        settings: Iterable of `(layer, attribute name, regularizer)`.

    Yields:
        Those of `settings` that could be set.

    >>> layer = keras.layers.Dense(3)
    >>> with temporary_regularizers([(layer, "kernel_regularizer", "anything")]):
    ...     print(layer.kernel_regularizer)
    anything
    >>> print(layer.kernel_regularizer)
    None
    """
    before, in_place = [], []
    try:
        for setting in settings:
            layer, attribute, regularizer = setting
            value = getattr(layer, attribute)
            # It may be read-only; then the layer's config stays as it is.
            with contextlib.suppress(Exception):
                setattr(layer, attribute, regularizer)
                before.append((layer, attribute, value))
                in_place.append(setting)
        yield in_place
    finally:
        for layer, attribute, value in reversed(before):
            setattr(layer, attribute, value)


def warn_about_builtin_limits(model: keras.Model, weights: Iterable[Weight]) -> None:
    """Warn about what is lost if built-in regularizers replace this package's."""
    lost = lost_on_save(model)
    if lost:
        warnings.warn(
            f"The configuration of {model.name!r} does not include the penalty of "
            f"these weights, so a loaded model does not have it: {listed(lost)}. Save "
            "the wrapper instead, before `unwrap`, or attach again after loading.",
            stacklevel=3,
        )
    half = [
        w.name
        for w in weights
        if w.regularizer is not None and getattr(w.variable, "dtype", "") == "float16"
    ]
    if half:
        warnings.warn(
            "The regularizers of Keras sum in float16, whose maximum is 65504, so "
            "the penalty of these weights may become infinite: "
            f"{listed(half)}. `keras_l2reg.attach` sums in float32.",
            stacklevel=3,
        )


def warn_about_lost_lora(
    model: keras.Model, penalized: Iterable[str], weights: Iterable[Weight]
) -> None:
    """Warn if LoRA kernels have a penalty, but will not exist after loading.

    Args:
        model: A `keras.Model`.
        penalized: Names of the weights with a penalty of the wrapper.
        weights: All weights of the model.
    """
    factors = {w.name for w in weights if w.is_lora_factor}.intersection(penalized)
    # Only if needed, since it is slow.
    lost = factors.intersection(lost_on_save(model, weights)) if factors else ()
    if lost:
        warnings.warn(
            f"The configuration of {model.name!r} does not include these LoRA "
            "weights: Keras merges them into the kernels, which have no penalty once "
            f"loaded: {listed(sorted(lost))}. After loading, call `enable_lora` and "
            "wrap the model again.",
            stacklevel=3,
        )
