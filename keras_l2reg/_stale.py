"""Whether the compiled step of `fit` or `evaluate` is still what the model says.

The program that the step was compiled from is compared with a fresh trace; nothing
runs. Leans on the private side of Keras, TensorFlow and JAX;
`tests/test_private_edge.py` fails loudly if one of them changes.
"""

import collections
import contextlib
import hashlib
import re

import keras

from keras_l2reg import _keras


def stale_steps(model, batch=None):
    """Those of "train", "test" whose compiled step is not what the model now says.

    TensorFlow remembers the shapes that it traced. JAX does not, so there every batch
    size up to that of `batch` is tried. torch runs eagerly. A step that can't be
    traced again, or not twice alike, is not called stale.
    """
    programs = {"tensorflow": _tf_programs, "jax": _jax_programs}
    compare = programs.get(keras.backend.backend())
    stale = []
    for step in _keras.traced_functions(model) if compare else ():
        # A step of the user's own may do anything when traced; then we can't tell.
        with contextlib.suppress(Exception), _keras.losses_kept(model):
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


# --- TensorFlow ------------------------------------------------------------------


def _tf_programs(model, step, batch):
    def is_step(f):
        return hasattr(f, "_list_all_concrete_functions") and (
            f.__name__ == "one_step_on_data"
        )

    traced = _within(getattr(model, f"{step}_function"), is_step)
    for concrete in _tf_traces_in_use(traced) if traced else ():
        args, kwargs = concrete.structured_input_signature

        def new(args=args, kwargs=kwargs):
            fresh = _within(_fresh_step(model, step), is_step)
            return _tf_program(fresh.get_concrete_function(*args, **kwargs).graph)

        yield _tf_program(concrete.graph), new


def _tf_traces_in_use(function):
    """The traces of a `tf.function` that its next call may run.

    A first trace that made variables (as loss scaling does) also holds what makes
    them, and never runs: TensorFlow traces once more for the run.
    """
    made_variables = bool(function._created_variables)
    return [
        concrete
        for concrete in function._list_all_concrete_functions()
        if not (made_variables and concrete is function._concrete_variable_creation_fn)
    ]


def _tf_program(graph):
    """What the graph makes of its variables: how often it has each operation.

    An operation is told apart by its type, the shape and type of what it returns,
    its constants, the functions it calls, and all of this of its inputs, down to the
    identity of the variables: the same L2 on another kernel is another program.
    """
    bodies = {f.signature.name: f for f in graph.as_graph_def().library.function}
    captured = {inner.op: _tf_captured(outer) for outer, inner in graph.captures}
    keys, live, program = {}, set(), collections.Counter()
    for operation in graph.get_operations():
        sources = [tensor.op for tensor in operation.inputs]
        keys[operation] = captured.get(operation) or hash(
            (
                operation.type,
                str([(tensor.dtype, tensor.shape) for tensor in operation.outputs]),
                _tf_details(operation.node_def, bodies),
                *[
                    (keys.get(tensor.op), tensor.value_index)
                    for tensor in operation.inputs
                ],
            )
        )
        if operation in captured or not live.isdisjoint(sources):
            live.add(operation)
            program[keys[operation]] += 1
    return program


def _tf_captured(tensor):
    """A key for what a graph takes from outside: which variable, or which values."""
    if tensor.dtype == "resource":
        return "variable", id(tensor)
    return "values", hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def _tf_details(node, bodies):
    """The constant that a node is, and what is in the functions that it calls."""
    if node.op == "Const":
        return node.attr["value"].SerializeToString(deterministic=True)
    # By name: the attributes come in no order.
    attributes = [node.attr[name] for name in sorted(node.attr)]
    called = [
        function.name
        for attribute in attributes
        for function in (attribute.func, *attribute.list.func)
        if function.name in bodies
    ]
    return tuple(_tf_contents(bodies[name], bodies) for name in called)


def _tf_contents(body, bodies):
    nodes = [(node.op, _tf_details(node, bodies)) for node in body.node_def]
    return hash(frozenset(collections.Counter(nodes).items()))


# --- JAX -------------------------------------------------------------------------


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
    _keras.sync_state(model)
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
    """Within, a step that would have to be traced again raises `_NotTraced`."""

    def refuse(*args, **kwargs):
        raise _NotTraced

    methods = ("compute_loss_and_updates", "stateless_call")
    vars(model).update(dict.fromkeys(methods, refuse))
    try:
        yield
    finally:
        for method in methods:
            del vars(model)[method]
