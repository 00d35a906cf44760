"""The layers and the graph of a model, where the public API does not expose them."""

import collections
import functools
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.models.functional import Functional


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers directly inside `layer`, each once, in Keras' order."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def all_layers(model: keras.layers.Layer) -> list[keras.layers.Layer]:
    """`model` and every layer within it, at any depth, each once."""
    return list(model._flatten_layers())


def is_built_throughout(model: keras.Model) -> bool:
    """Whether every layer of `model` is built."""
    return all(layer.built for layer in all_layers(model))


def is_graph(layer: keras.layers.Layer) -> bool:
    """Whether it is a `Sequential` or Functional model, no subclass of these.

    Its config consists of the configs of its layers.
    """
    return type(layer) in (keras.Sequential, Functional)


def is_own(layer: keras.layers.Layer) -> bool:
    """Whether its class is one of Keras' own."""
    return type(layer).__module__.startswith("keras.")


def own_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """The variables that `layer` itself created as trainable, frozen or not."""
    return layer._trainable_variables


def own_metrics(layer: keras.layers.Layer) -> list[keras.metrics.Metric]:
    """The metrics that `layer` itself created, without those of its sublayers."""
    return list(layer._metrics)


def copy_signature(model: keras.Model, layer: keras.layers.Layer) -> None:
    """Give `layer`, whose `call` takes any arguments, the call signature of `model`."""
    names = (
        "_call_signature",
        "call_signature_parameters",
        "_call_has_training_arg",
        "_call_has_mask_arg",
        "_call_context_args",
        "_call_has_context_arg",
    )
    for name in names:
        # Bypasses Keras, which tracks lists and dicts.
        object.__setattr__(layer, name, getattr(model, name))
    shape = getattr(model, "input_shape", None)
    shapes = {"input_shape": shape} if shape else model._build_shapes_dict
    object.__setattr__(layer, "_build_shapes_dict", shapes)


def outermost_layer() -> keras.layers.Layer | None:
    """During a call of a layer: the model (or layer) that the user called.

    `None` if unknown: on JAX, Keras sometimes runs `call` directly.
    """
    context: Any = get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def consumers(model: keras.Model) -> dict[int, list[keras.Operation | None]]:
    """What reads each layer's output: `{id(layer): [operation, ...]}`.

    `None` stands for an output of a model. Covers the layers of Functional and
    Sequential models, whether `model` itself or inside it; others are not in the dict.
    """
    found = collections.defaultdict(list)
    for layer in all_layers(model):
        graph = getattr(layer, "_functional", None) or layer
        for nodes in getattr(graph, "_nodes_by_depth", {}).values():
            for node in nodes:
                for tensor in node.input_tensors:
                    producer = tensor._keras_history.operation
                    found[id(producer)].append(node.operation)
        if hasattr(graph, "_nodes_by_depth"):
            for tensor in graph.outputs:
                found[id(tensor._keras_history.operation)].append(None)
    return dict(found)


def example_inputs(model: keras.Model) -> list:
    """Nested arrays that a built model may accept as inputs, most likely first.

    Keras knows their shapes and, for a graph of layers, their dtypes.
    """
    graph = getattr(model, "_functional", None) or model
    if hasattr(graph, "_nodes_by_depth"):
        return [
            keras.tree.map_structure(lambda t: _example(t.shape, t.dtype), graph.input)
        ]
    shape = (model.get_build_config() or {}).get("input_shape")
    if shape is None:
        return []
    return [
        keras.tree.map_shape_structure(functools.partial(_example, dtype=dtype), shape)
        for dtype in (model.input_dtype, "int32")
    ]


def _example(shape: Sequence[int | None], dtype: str) -> np.ndarray:
    shape = tuple(2 if size is None else size for size in shape)
    if not keras.backend.is_float_dtype(dtype):
        return np.zeros(shape, keras.backend.standardize_dtype(dtype))
    return np.random.default_rng(0).uniform(size=shape).astype("float32")
