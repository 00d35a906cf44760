"""All that uses Keras' private API, and all that depends on the backend.

Each function offers one thing that public Keras does not; `tests/test_keras.py` fails
if Keras changes any of them. Callers write `_keras.sublayers(...)`, so that every use
can be seen.

============  ====================================================================
`attributes`  where a layer holds the regularizers of its weights for saving
`callbacks`   whether Keras waits for a callback after each batch
`layers`      a model's layers, their variables, and what reads their outputs
`losses`      the terms of a model's loss, apart from each other
`optimizers`  which optimizer updates a variable, and whether it decays it
`saving`      loading with or without Keras' safe mode
`steps`       the compiled steps of `fit` and `evaluate`
`traces`      whether a compiled step still matches the model
`training`    Keras' trainer: what it defines, what it was given, who runs it
`variables`   which regularizers they accept, and which one is a seed
`backends`    one module per backend, behind the interface `backends.base.Backend`
============  ====================================================================
"""

from keras.src.trainers.compile_utils import MetricsList

from keras_l2reg._keras.attributes import names_to_come, regularizer_attribute
from keras_l2reg._keras.backends import backend
from keras_l2reg._keras.callbacks import BatchLogsCallback
from keras_l2reg._keras.layers import (
    all_layers,
    consumers,
    copy_signature,
    example_inputs,
    is_built_throughout,
    outermost_layer,
    own_metrics,
    own_variables,
    sublayers,
)
from keras_l2reg._keras.losses import (
    added_losses_at,
    adds_losses,
    fresh_data_loss,
    loss_gradients,
    losses_kept,
    losses_of_calls,
    penalized_variables,
)
from keras_l2reg._keras.optimizers import (
    decay_comes_back_on_load,
    decays,
    decays_in,
    optimizer_for,
    set_decay_rate,
)
from keras_l2reg._keras.saving import deserializing
from keras_l2reg._keras.steps import reset_compiled_steps, traced_functions
from keras_l2reg._keras.traces import stale_steps
from keras_l2reg._keras.training import (
    callbacks_before,
    compile_arguments,
    overridden,
    runs_with,
    trainer_members,
)
from keras_l2reg._keras.variables import check_variables_accept, is_seed

__all__ = [
    "BatchLogsCallback",
    "MetricsList",
    "added_losses_at",
    "adds_losses",
    "all_layers",
    "backend",
    "callbacks_before",
    "check_variables_accept",
    "compile_arguments",
    "consumers",
    "copy_signature",
    "decay_comes_back_on_load",
    "decays",
    "decays_in",
    "deserializing",
    "example_inputs",
    "fresh_data_loss",
    "is_built_throughout",
    "is_seed",
    "loss_gradients",
    "losses_kept",
    "losses_of_calls",
    "names_to_come",
    "optimizer_for",
    "outermost_layer",
    "overridden",
    "own_metrics",
    "own_variables",
    "penalized_variables",
    "regularizer_attribute",
    "reset_compiled_steps",
    "runs_with",
    "set_decay_rate",
    "stale_steps",
    "sublayers",
    "traced_functions",
    "trainer_members",
]
