"""Everything that uses private Keras API, or depends on the backend.

Each function provides one thing that public Keras does not; `tests/test_keras.py` fails
if Keras changes any of them. Callers write `_keras.sublayers(...)`, so that every use
is easy to find.

===================  ===============================================================
`attributes`         which layer attributes hold the regularizers that are saved
`array_epochs`       epochs on arrays, which a backend runs by itself
`batches`            how `fit` converts arrays, and the samples of each batch
`callbacks`          whether Keras waits for a callback after each batch
`epochs`             fits and evaluations, by Keras
`layers`             the layers of a model, their variables, what reads their outputs
`losses`             the separate terms of a model's loss
`optimizer_wrapper`  an optimizer around an optimizer
`optimizers`         which optimizer updates a variable, and whether it decays it
`saving`             Keras' safe mode of loading, and its legacy format
`steps`              the compiled steps of `fit` and `evaluate`
`traces`             whether a compiled step still matches the model
`training`           the trainer: members, compile arguments, running calls
`variables`          which regularizers they accept, and which are seeds
`backends`           what differs between them, behind the interface `base.Backend`
===================  ===============================================================
"""

from keras.src.trainers.compile_utils import MetricsList

from keras_l2reg._keras.attributes import regularizer_attribute, unbuilt_names
from keras_l2reg._keras.backends import backend
from keras_l2reg._keras.backends.base import StepCost
from keras_l2reg._keras.batches import (
    are_arrays,
    as_one_batch,
    batches,
    build_for_metrics,
)
from keras_l2reg._keras.callbacks import BatchLogsCallback
from keras_l2reg._keras.epochs import Epochs
from keras_l2reg._keras.layers import (
    all_layers,
    consumers,
    copy_signature,
    example_inputs,
    is_built_throughout,
    is_graph,
    is_own,
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
from keras_l2reg._keras.optimizer_wrapper import OptimizerWrapper
from keras_l2reg._keras.optimizers import (
    decayed_after_loading,
    decays,
    decays_in,
    exchange_optimizer,
    is_update,
    learning_rate_of,
    optimizer_for,
    optimizers_within,
    stop_decay,
    updater_of,
    updaters,
)
from keras_l2reg._keras.saving import deserializing, is_saving_h5
from keras_l2reg._keras.steps import reset_compiled_steps, traced_functions
from keras_l2reg._keras.traces import stale_steps
from keras_l2reg._keras.training import (
    callbacks_before,
    compile_arguments,
    compiled_metrics,
    is_limited_or_distributed,
    loss_tracker,
    overridden,
    runs_with,
    set_loss_tracker,
    trainer_members,
)
from keras_l2reg._keras.variables import check_variables_accept, is_seed

__all__ = [
    "BatchLogsCallback",
    "Epochs",
    "MetricsList",
    "OptimizerWrapper",
    "StepCost",
    "added_losses_at",
    "adds_losses",
    "all_layers",
    "are_arrays",
    "as_one_batch",
    "backend",
    "batches",
    "build_for_metrics",
    "callbacks_before",
    "check_variables_accept",
    "compile_arguments",
    "compiled_metrics",
    "consumers",
    "copy_signature",
    "decayed_after_loading",
    "decays",
    "decays_in",
    "deserializing",
    "example_inputs",
    "exchange_optimizer",
    "fresh_data_loss",
    "is_built_throughout",
    "is_graph",
    "is_limited_or_distributed",
    "is_own",
    "is_saving_h5",
    "is_seed",
    "is_update",
    "learning_rate_of",
    "loss_gradients",
    "loss_tracker",
    "losses_kept",
    "losses_of_calls",
    "optimizer_for",
    "optimizers_within",
    "outermost_layer",
    "overridden",
    "own_metrics",
    "own_variables",
    "penalized_variables",
    "regularizer_attribute",
    "reset_compiled_steps",
    "runs_with",
    "set_loss_tracker",
    "stale_steps",
    "stop_decay",
    "sublayers",
    "traced_functions",
    "trainer_members",
    "unbuilt_names",
    "updater_of",
    "updaters",
]
