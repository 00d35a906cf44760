"""The one place that leans on Keras' private side, or asks which backend runs.

Each function names one thing that public Keras does not offer;
`tests/test_private_edge.py` fails loudly if Keras changes any of them.
"""

import keras


def sublayers(layer):
    """The layers directly inside `layer`, each once, in Keras' order."""
    return layer._flatten_layers(include_self=False, recursive=False)


def all_layers(model):
    """`model` and every layer within it, at any depth, each once."""
    return model._flatten_layers()


def is_built_throughout(model):
    """Whether every layer of `model` has made its variables."""
    return all(layer.built for layer in all_layers(model))


def own_variables(layer):
    """The variables that `layer` itself made as trainable, frozen or not."""
    return layer._trainable_variables


def compile_arguments(model):
    """The live arguments (not their configs) that `model` was compiled with."""
    # `compile` stores the optimizer before mixed precision may wrap it.
    return dict(model._compile_config.config, optimizer=model.optimizer)


def traced_functions(model):
    """Names of the step functions that `model` holds: "train", "test" or both."""
    return [
        step
        for step in ("train", "test")
        if getattr(model, f"{step}_function", None) is not None
    ]


def sync_state(model):
    """Bring the variables of a model up to date in the midst of an epoch.

    Within `fit`, the JAX trainer keeps the state to itself and empties the
    variables; callbacks that read or assign one must ask for it back.
    """
    if keras.backend.backend() == "jax" and isinstance(model, keras.Model):
        model.jax_state_sync()


def traces_constants():
    """Whether untracked variables become constants of the compiled step."""
    return keras.backend.backend() == "jax"


def replicas():
    """How many replicas share the current step (`tf.distribute`), else 1."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync
