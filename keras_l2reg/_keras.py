"""The one place that leans on Keras' private side, or asks which backend runs.

Each function names one thing that public Keras does not offer;
`tests/test_private_edge.py` fails loudly if Keras changes any of them.
"""

import collections
import contextlib
import functools
import sys
import types

import keras
import numpy as np
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.saving.serialization_lib import SafeModeScope
from keras.src.trainers.compile_utils import MetricsList

__all__ = ["MetricsList"]  # the kind of metric whose parts callbacks can monitor


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


def own_metrics(layer):
    """The metrics that `layer` itself made, without those of its layers."""
    return list(layer._metrics)


def trainer_members():
    """Names of all that Keras' trainers define: the steps, `fit`, `metrics`, ..."""
    classes = keras.Model.__mro__
    trainers = classes[1 : classes.index(keras.layers.Layer)]
    return {name for kind in trainers for name in vars(kind) if name[:2] != "__"}


def overridden(model):
    """Names of Keras' members that a user's class, or the model itself, redefines."""
    members = {name for name in dir(keras.Model) if name[0] != "_"}
    found = set()
    for name in members | trainer_members():
        owner = next((c for c in type(model).__mro__ if name in vars(c)), keras.Model)
        of_keras = owner in keras.Model.__mro__ or owner.__module__[:6] == "keras."
        # Keras sets these three on each model, past the methods of their names.
        on_model = name in vars(model) and name not in ("build", "quantize", "loss")
        is_method = callable(getattr(keras.Model, name, None))
        if not of_keras or (on_model and is_method):
            found.add(name)
    return found


def take_signature(layer, model):
    """Let `layer`, whose `call` takes anything, be called as `model` is."""
    names = (
        "_call_signature",
        "call_signature_parameters",
        "_call_has_training_arg",
        "_call_has_mask_arg",
        "_call_context_args",
        "_call_has_context_arg",
    )
    for name in names:
        # Past Keras, which tracks lists and dicts.
        object.__setattr__(layer, name, getattr(model, name))
    shape = getattr(model, "input_shape", None)
    shapes = {"input_shape": shape} if shape else model._build_shapes_dict
    object.__setattr__(layer, "_build_shapes_dict", shapes)


def outermost_layer():
    """Within a call of a layer: the model (or layer) that the user called, or `None`.

    Keras on JAX also runs `call` alone; then there is none to be told of.
    """
    context = get_global_attribute("current_call_ctx")
    return None if context is None else context.entry_layer


def losses_of_calls(model):
    """What the last call added to `model.losses`: all but the weights' penalties."""
    given = model._losses_override
    if given:
        # By the JAX trainer, with the weights' penalties last.
        penalized = sum(v.regularizer is not None for v in model.trainable_weights)
        return given[: len(given) - penalized]
    return [loss for layer in all_layers(model) for loss in layer._get_own_losses()]


def check_variables_take(regularizer):
    """Raise a ValueError if Keras refuses it: before 3.15, a plain function."""
    # The setter alone, on no variable: a step that is traced may not make one.
    keras.Variable.regularizer.fset(types.SimpleNamespace(), regularizer)


def compile_arguments(model):
    """The live arguments (not their configs) that `model` was compiled with."""
    # `compile` stores the optimizer before mixed precision may wrap it, or not.
    return {
        **model._compile_config.config,
        "optimizer": model.optimizer,
        "auto_scale_loss": False,
    }


def traced_functions(model):
    """Names of the step functions that `model` holds: "train", "test" or both."""
    return [
        step
        for step in ("train", "test")
        if getattr(model, f"{step}_function", None) is not None
    ]


def reset_compiled_steps(model):
    """Make the next step of `fit` and `evaluate` see the model as it is now.

    A model that was not compiled or not run is left alone.
    """
    for step in traced_functions(model):
        getattr(model, f"make_{step}_function")(force=True)


def sync_state(model):
    """Bring the variables of a model up to date in the midst of an epoch.

    Within `fit`, the JAX trainer keeps the state to itself and empties the
    variables; callbacks that read or assign one must ask for it back.
    """
    if keras.backend.backend() == "jax" and isinstance(model, keras.Model):
        model.jax_state_sync()


def compiles_steps(model):
    """Whether the steps of `fit` run as they were traced, not as Python."""
    backend = keras.backend.backend()
    if backend == "jax":
        return bool(model.jit_compile) and not model.run_eagerly
    return backend == "tensorflow" and not model.run_eagerly


def compiled_in_fit(model, function):
    """`function()` of the model's variables as they are between two steps of `fit`.

    Compiled if the steps are.
    """
    backend = keras.backend.backend()
    if backend == "tensorflow" and compiles_steps(model):
        import tensorflow as tf

        return tf.function(function)
    if backend == "jax":
        import jax

        variables = [*model.trainable_variables, *model.non_trainable_variables]

        def of_values(values):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return function()

        compiled = jax.jit(of_values) if compiles_steps(model) else of_values
        return lambda: compiled(_jax_values(model, variables))
    return function


def _jax_values(model, variables):
    """The variables' values, which the JAX trainer keeps to itself within `fit`."""
    state = getattr(model, "_jax_state", None)
    if not state or model._jax_state_synced:
        return [v.value for v in variables]
    return [*state["trainable_variables"], *state["non_trainable_variables"]]


def is_baked_in(variable, tensor):
    """Whether the step in which `tensor` is traced takes `variable` for a constant."""
    if keras.backend.backend() != "jax":
        return False
    import jax
    from keras.src.backend.common.stateless_scope import get_stateless_scope
    from keras.src.backend.common.symbolic_scope import in_symbolic_scope

    scope = get_stateless_scope()
    if scope is None or in_symbolic_scope():
        return False
    # Tracers of a gradient or a `vmap` stand around what is compiled, if anything is.
    while isinstance(tensor, jax.core.Tracer):
        within = getattr(tensor, "primal", getattr(tensor, "val", None))
        if not isinstance(within, (jax.Array, jax.core.Tracer)):
            return scope.get_current_value(variable) is None
        tensor = within
    return False


def traces_constants():
    """Whether untracked variables become constants of the compiled step."""
    return keras.backend.backend() == "jax"


def in_tf_xla():
    """Whether what runs now is traced for XLA (`jit_compile=True`) on TensorFlow."""
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util

    graph = tf.compat.v1.get_default_graph()
    return tf.inside_function() and control_flow_util.GraphOrParentsInXlaContext(graph)


def in_torch_transform():
    """Whether `torch.compile` or `torch.func`, such as `vmap`, transforms what runs."""
    if keras.backend.backend() != "torch":
        return False
    import torch

    compiling = torch.compiler.is_compiling()
    return compiling or torch._C._are_functorch_transforms_active()


def replicas():
    """How many replicas share the current step (`tf.distribute`), else 1."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def optimizer_for(model, variable):
    """The optimizer that really updates `variable`, or `None` if there is none."""
    optimizer = getattr(model, "optimizer", None)
    # Loss scaling stands around a `MultiOptimizer`, never within.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(optimizer, "_optimizer_map"):
        optimizer = optimizer._optimizer_map(variable)
    return optimizer


def decays(optimizer, variable):
    """Whether the optimizer's own weight decay reaches `variable`."""
    rate = getattr(optimizer, "weight_decay", None)
    if hasattr(optimizer, "adam_weight_decay") and optimizer._should_use_adamw(
        variable
    ):
        # Muon hands the weights that are no matrices to an Adam of its own.
        rate = optimizer.adam_weight_decay
    return bool(rate and optimizer._use_weight_decay(variable))


def decays_in(model, variable):
    """Whether the optimizer that `model` was compiled with decays `variable`."""
    return decays(optimizer_for(model, variable), variable)


def decay_comes_back_on_load(model, variables):
    """Those of `variables` that decay again once the model was saved and loaded.

    Found by trying: Keras' optimizers leave their exclusions out of their configs.
    """
    loaded, found = {}, []
    for variable in variables:
        optimizer = optimizer_for(model, variable)
        if optimizer is None or decays(optimizer, variable):
            continue
        if id(optimizer) not in loaded:
            loaded[id(optimizer)] = None
            # One of the user's own need not be saved at all.
            with contextlib.suppress(Exception):
                config = optimizer.get_config()
                loaded[id(optimizer)] = type(optimizer).from_config(config)
        if decays(loaded[id(optimizer)], variable):
            found.append(variable)
    return found


def adds_losses(model):
    """Whether a call puts terms into `model.losses`, as far as can be told."""
    return bool(losses_of_calls(model)) or any(
        getattr(layer, "activity_regularizer", None) is not None
        for layer in all_layers(model)
    )


def consumers(model):
    """What reads each layer's output: `{id(layer): [operation, ...]}`.

    `None` stands for an output of a model. Known for Functional and Sequential
    models, `model` itself or within it; other layers are not in the dict.
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


def fresh_data_loss(model):
    """The compiled loss as a function of `y, y_pred`, apart from the model's own."""
    ours = model._compile_loss
    return type(ours)(
        ours._user_loss, ours._user_loss_weights, output_names=ours.output_names
    )


@contextlib.contextmanager
def losses_kept(model):
    """Within, the model may be called; after, `add_loss` terms are as before."""
    before = [
        (layer, layer._losses[:], set(layer._loss_ids)) for layer in all_layers(model)
    ]
    try:
        yield
    finally:
        for layer, losses, ids in before:
            layer._losses[:] = losses
            layer._loss_ids.clear()
            layer._loss_ids.update(ids)


_RUNS = (
    *("fit", "evaluate", "predict"),
    *("train_on_batch", "test_on_batch", "predict_on_batch"),
)


def callbacks_before(callback):
    """The callbacks that come before `callback` in the list that calls it now.

    Known within a method that Keras calls; else, the list is empty.
    """
    frame = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            for position, other in enumerate(caller.callbacks):
                if other is callback:
                    return caller.callbacks[:position]
        frame = frame.f_back
    return []


def deserializing(safe_mode):
    """Within, Keras restores Python lambdas if `safe_mode` is false.

    Keras offers that for `load_model`, for all that follows, but not for
    `from_config` and `clone_model` alone.
    """
    return contextlib.nullcontext() if safe_mode else SafeModeScope(False)


def runs_with(model):
    """The calls of `fit` and its kin, in any thread, that use some of these weights.

    Returns:
        A list of `(method name, the model that runs, thread identifier)`.
    """
    mine = {id(v) for v in model.variables}
    found = []
    for thread, frame in sys._current_frames().items():
        while frame is not None:
            if frame.f_code.co_name in _RUNS:
                runner = frame.f_locals.get("self")
                if isinstance(runner, keras.Model) and (
                    runner is model or any(id(v) in mine for v in runner.variables)
                ):
                    found.append((frame.f_code.co_name, runner, thread))
            frame = frame.f_back
    return found


def added_losses_at(model, x, moved=()):
    """Outputs and `add_loss` terms of a call with other values for some variables.

    Nothing is assigned: the values stand in for the variables during the call.

    Args:
        model: A built `keras.Model`.
        x: Its inputs, as for a call.
        moved: Iterable of `(variable, value)`. Defaults to none.

    Returns:
        The outputs, and a list of scalar tensors: the terms of activity regularizers
        and of `add_loss`, without the penalties of weights.
    """
    moved = {id(variable): value for variable, value in moved}
    values = [
        [moved.get(id(v), v.value) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    with losses_kept(model):
        outputs, _, losses = model.stateless_call(*values, x, return_losses=True)
    penalized = sum(v.regularizer is not None for v in model.trainable_weights)
    return outputs, losses[: len(losses) - penalized]


def example_inputs(model):
    """Nests of arrays that a built model may take as inputs, the likeliest first.

    What Keras knows of them is the shape, and for a graph of layers the type.
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


def _example(shape, dtype):
    shape = [2 if size is None else size for size in shape]
    if not keras.backend.is_float_dtype(dtype):
        return np.zeros(shape, keras.backend.standardize_dtype(dtype))
    return np.random.default_rng(0).uniform(size=shape).astype("float32")


def loss_gradients(model, x, y, sample_weight=None):
    """The gradient of the model's whole loss, one array per trainable variable.

    At the present weights, in inference mode, without the compiled step's trace.
    """
    variables = model.trainable_variables
    values = [v.value for v in variables]

    def loss():
        y_pred = model(x, training=False)
        return model.compute_loss(x, y, y_pred, sample_weight, training=False)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            total = loss()
        gradients = tape.gradient(total, values, unconnected_gradients="zero")
    elif keras.backend.backend() == "jax":
        import jax

        def loss_of(values):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return loss()

        gradients = jax.grad(loss_of)(values)
    else:
        import torch

        gradients = torch.autograd.grad(loss(), values, materialize_grads=True)
    return [keras.ops.convert_to_numpy(gradient) for gradient in gradients]
