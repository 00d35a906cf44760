"""TensorFlow: steps are graphs that remember the shapes they were traced for."""

import collections
import hashlib
import math

import keras
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

from keras_l2reg._keras.backends import base
from keras_l2reg._keras.backends.tensorflow_epochs import TensorFlowEpochs, is_step
from keras_l2reg._keras.steps import fresh_step, function_within

# Short enough that adding up a row term by term keeps the precision of float32.
_XLA_ROW = 8
# The longest axis that XLA sums in a single pass.
_XLA_AXIS = 32


class Backend(base.Backend):
    """See `base.Backend`."""

    def compiles_steps(self, model):
        return not model.run_eagerly

    def epochs(self, model):
        return TensorFlowEpochs(model)

    def compiled_in_fit(self, model, function):
        return tf.function(function) if self.compiles_steps(model) else function

    def replicas(self):
        return tf.distribute.get_strategy().num_replicas_in_sync

    def sum_of_squares(self, weights):
        if in_xla():
            return tf.add_n([_xla_sum(tf.square(w)) for w in weights])
        # The native operation reads the weight once and does not store its square.
        return 2.0 * tf.add_n([tf.nn.l2_loss(w) for w in weights])

    def decay(self, variables, share, multiplier=1.0):
        share = base.scaled(share, multiplier)

        # As Keras' optimizers do, for mirrored variables.
        def in_cross_replica(strategy, share):
            for variable in variables:
                strategy.extended.update(
                    variable.value, _decay, args=(share,), group=False
                )

        strategy = tf.distribute.get_strategy()
        tf.__internal__.distribute.interim.maybe_merge_call(
            in_cross_replica, strategy, share
        )

    def sum_of_absolutes(self, weights):
        total = _xla_sum if in_xla() else tf.reduce_sum
        return tf.add_n([total(tf.abs(w)) for w in weights])

    def gradients(self, loss, variables):
        with tf.GradientTape() as tape:
            total = loss()
        values = [v.value for v in variables]
        return tape.gradient(
            total, values, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def programs(self, model, step, batch):
        traced = function_within(getattr(model, f"{step}_function"), is_step)
        for concrete in _traces_in_use(traced) if traced else ():
            args, kwargs = concrete.structured_input_signature

            def fresh(args=args, kwargs=kwargs):
                again = function_within(fresh_step(model, step), is_step)
                return _program(again.get_concrete_function(*args, **kwargs).graph)

            yield _program(concrete.graph), fresh


def _decay(variable, share):
    wide = keras.backend.result_type(variable.dtype.name, share.dtype.name)
    product = tf.cast(variable, wide) * tf.cast(share, wide)
    variable.assign_sub(tf.cast(product, variable.dtype))


def in_xla() -> bool:
    """Whether the current code is being traced for XLA (`jit_compile=True`)."""
    graph = tf.compat.v1.get_default_graph()
    return tf.inside_function() and control_flow_util.GraphOrParentsInXlaContext(graph)


def _xla_sum(w):
    # XLA on CPU adds up term by term. It would merge two sums of the same dtype, and
    # take several passes over a long axis, the first of which stores all the terms.
    flat = tf.reshape(w, [-1])
    size = flat.shape[0]
    if size is None:
        axes, missing = [-1], -tf.size(flat) % _XLA_ROW
    else:
        axes = _short_axes(math.ceil(size / _XLA_ROW))
        missing = math.prod(axes) * _XLA_ROW - size
    rows = tf.reshape(tf.pad(flat, [[0, missing]]), [*axes, _XLA_ROW])
    sums = tf.cast(tf.reduce_sum(rows, axis=-1), "float64")
    return tf.cast(tf.reduce_sum(sums), w.dtype)


def _short_axes(size):
    """A shape of `size` elements, or slightly more, whose axes are short."""
    axes = []
    while size > _XLA_AXIS:
        axis = min(range(_XLA_AXIS, 1, -1), key=lambda length: -size % length)
        axes.append(axis)
        size = math.ceil(size / axis)
    return [*axes, size]


def _traces_in_use(function):
    """The traces of a `tf.function` that its next call may run.

    A first trace that creates variables (as loss scaling does) contains their creation
    and never runs: TensorFlow traces the function again for the run.
    """
    creates_variables = bool(function._created_variables)
    return [
        concrete
        for concrete in function._list_all_concrete_functions()
        if not (
            creates_variables and concrete is function._concrete_variable_creation_fn
        )
    ]


def _program(graph):
    """The number of times a graph has each operation that depends on its variables.

    Two operations are the same if they have the same type, shapes and dtypes of the
    outputs, constants and called functions, and the same inputs in this sense, down to
    the identity of the variables: the same L2 on another kernel is another program.
    """
    bodies = {f.signature.name: f for f in graph.as_graph_def().library.function}
    captured = {inner.op: _captured(outer) for outer, inner in graph.captures}
    keys, live, program = {}, set(), collections.Counter()
    for operation in graph.get_operations():
        sources = [tensor.op for tensor in operation.inputs]
        keys[operation] = captured.get(operation) or hash(
            (
                operation.type,
                str([(tensor.dtype, tensor.shape) for tensor in operation.outputs]),
                _details(operation.node_def, bodies),
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


def _captured(tensor):
    """A key for a tensor from outside the graph: which variable, or which values."""
    if tensor.dtype == "resource":
        return "variable", id(tensor)
    return "values", hashlib.sha256(tensor.numpy().tobytes()).hexdigest()


def _details(node, bodies):
    """The value of a constant node; of others, the contents of called functions."""
    if node.op == "Const":
        return node.attr["value"].SerializeToString(deterministic=True)
    # By name, as the attributes have no fixed order.
    attributes = [node.attr[name] for name in sorted(node.attr)]
    called = [
        function.name
        for attribute in attributes
        for function in (attribute.func, *attribute.list.func)
        if function.name in bodies
    ]
    return tuple(_contents(bodies[name], bodies) for name in called)


def _contents(body, bodies):
    nodes = [(node.op, _details(node, bodies)) for node in body.node_def]
    return hash(frozenset(collections.Counter(nodes).items()))
