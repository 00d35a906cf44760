"""The one place that leans on Keras' private side, or asks which backend runs.

Each function names one thing that public Keras does not offer;
`tests/test_private_edge.py` fails loudly if Keras changes any of them.
"""

import collections
import contextlib
import re
import types

import keras
from keras.src.backend.common.global_state import get_global_attribute
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


def is_saving_legacy_file():
    """Whether Keras is writing a `.h5` file of a whole model, of Keras 2's form."""
    return bool(get_global_attribute("use_legacy_config"))


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
    return bool(
        getattr(optimizer, "weight_decay", None)
        and optimizer._use_weight_decay(variable)
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


def stale_steps(model, batch=None):
    """Those of "train", "test" whose compiled step is not what the model now says.

    The program that the step was compiled from is compared with a fresh trace;
    nothing runs. TensorFlow remembers the shapes that it traced. JAX does not, so
    there every batch size up to that of `batch` is asked for. torch runs eagerly.
    A step that can't be traced again, or not twice alike, is not called stale.
    """
    programs = {"tensorflow": _tf_programs, "jax": _jax_programs}
    compare = programs.get(keras.backend.backend())
    stale = []
    for step in traced_functions(model) if compare else ():
        # A step of the user's own may do anything when traced; then we can't tell.
        with contextlib.suppress(Exception), losses_kept(model):
            if any(
                new() != old and new() == new()
                for old, new in compare(model, step, batch)
            ):
                stale.append(step)
    return stale


def _within(function, wanted):
    """The first of the callables that `function` closes over that is `wanted`."""
    seen, todo = set(), [function]
    while todo:
        candidate = todo.pop()
        if id(candidate) in seen:
            continue
        seen.add(id(candidate))
        if wanted(candidate):
            return candidate
        python = getattr(candidate, "python_function", candidate)
        cells = getattr(python, "__closure__", None) or ()
        todo += [c.cell_contents for c in cells if callable(c.cell_contents)]
    return None


def _fresh_step(model, step, wrap=lambda function: function):
    function = getattr(model, f"{step}_step")
    # A new function: caches must not take it for the one they know.
    return model._make_function(wrap(lambda *args: function(*args)))


def _tf_programs(model, step, batch):
    def is_step(f):
        return hasattr(f, "_list_all_concrete_functions") and (
            f.__name__ == "one_step_on_data"
        )

    def program(concrete):
        # Only what depends on a variable: a first trace also makes the variables.
        live, operations = set(), collections.Counter()
        for op in concrete.graph.get_operations():
            sources = [tensor.op for tensor in op.inputs]
            if op.type == "ReadVariableOp" or live.intersection(sources):
                live.add(op)
                shapes = str([tensor.shape for tensor in op.outputs])
                values = [
                    source.get_attr("value").SerializeToString()
                    for source in sources
                    if source.type == "Const"
                ]
                operations[op.type, shapes, *values] += 1
        return operations

    traced = _within(getattr(model, f"{step}_function"), is_step)
    for concrete in traced._list_all_concrete_functions() if traced else ():
        args, kwargs = concrete.structured_input_signature

        def new(args=args, kwargs=kwargs):
            fresh = _within(_fresh_step(model, step), is_step)
            return program(fresh.get_concrete_function(*args, **kwargs))

        yield program(concrete), new


def _jax_programs(model, step, batch):
    import jax

    def is_step(f):
        return hasattr(f, "trace") and hasattr(f, "lower")

    def program(traced):
        text = re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr))
        values = [repr(jax.device_get(c).tolist()) for c in traced.jaxpr.consts]
        return text, values

    traced = _within(getattr(model, f"{step}_function"), is_step)
    if traced is None or batch is None:
        return
    sync_state(model)
    parts = [model.trainable_variables, model.non_trainable_variables]
    parts += [model.optimizer.variables] if step == "train" else []
    parts += [model.metrics_variables]
    state = tuple([v.value for v in variables] for variables in parts)
    for size in range(1, len(jax.tree.leaves(batch)[0]) + 1):
        data = jax.tree.map(lambda leaf, size=size: _as_fit_sees(leaf, size), batch)
        try:
            with _tracing_refused(model):
                old = program(traced.trace(state, data))
        except _NotTraced:
            continue

        def new(data=data):
            fresh = _within(_fresh_step(model, step, jax.jit), is_step)
            return program(fresh.trace(state, data))

        yield old, new


def _as_fit_sees(leaf, size):
    import jax

    leaf = jax.numpy.asarray(leaf)
    is_float = jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
    dtype = keras.config.floatx() if is_float else leaf.dtype
    return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), dtype)


class _NotTraced(Exception):
    """The compiled step was never traced for this shape."""


@contextlib.contextmanager
def _tracing_refused(model):
    """Within, a step that would have to be traced anew raises `_NotTraced`."""

    def refuse(*args, **kwargs):
        raise _NotTraced

    methods = ("compute_loss_and_updates", "stateless_call")
    vars(model).update(dict.fromkeys(methods, refuse))
    try:
        yield
    finally:
        for method in methods:
            del vars(model)[method]


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
