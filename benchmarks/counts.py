"""What a step consists of: counts that are the same in every run.

On JAX, and on TensorFlow with `L2REG_JIT=1`, of the program that XLA compiles; else of
the graph that TensorFlow runs:

    KERAS_BACKEND=jax python benchmarks/counts.py --quick
"""

import collections
import json
import os
import re
import sys
from typing import NamedTuple

import keras
import numpy as np
from rivals import NETWORKS, RIVALS, rivals_for

from keras_l2reg._keras.steps import function_within

JIT = "L2REG_JIT" in os.environ
COUNTED = ("no penalty", "keras.regularizers.L2", "attach", "L2AllWeights")
COUNTED += ("Keras' L2, logged", "Keras' L2, live", "gradient alone")
COUNTED += ("weight_decay", "decay of L2AllWeights")
# What XLA does not run: names, groups and views of what is in memory.
NOT_RUN = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}
# What TensorFlow does not run: the interface of the graph, and values known before.
NO_OPERATION = {"_Arg", "_Retval", "Const", "NoOp"}
INSTRUCTION = re.compile(r"\s+(?:ROOT )?%(\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*)")


class Instruction(NamedTuple):
    """A line of a program of XLA."""

    shape: str
    kind: str
    # The operands, and what else the line says.
    rest: str

    def operands(self):
        return re.findall(r"%([^\s,)]+)", self.rest.split("), ")[0])

    def called(self):
        found = re.search(r"calls=%([^\s,]+)", self.rest)
        return found and found[1]


def counts(quick):
    """A step of each network with each rival: a list of one value for each count."""
    names = list(NETWORKS)[:2] if quick else NETWORKS
    return {
        name: {
            rival: {key: [n] for key, n in counts_of_rival(name, rival).items()}
            for rival in COUNTED
            if rival in rivals_for(name)
        }
        for name in names
    }


def counts_of_rival(network, rival):
    build, shape, batch, _ = NETWORKS[network]
    keras.backend.clear_session()
    model, decay = RIVALS[rival](build)
    optimizer = keras.optimizers.SGD(1e-6, weight_decay=decay)
    model.compile(optimizer, "mse", jit_compile=JIT or "auto")
    return counts_of_step(model, shape, batch)


def counts_of_step(model, shape, batch):
    """The counts of the training step that `fit` of a compiled model runs."""
    x = np.zeros((batch, *shape), "float32")
    y = np.zeros((batch, *model.output_shape[1:]), "float32")
    model.fit(x, y, batch, verbose=0)
    if keras.backend.backend() == "jax":
        return counts_of_program(program_of_jax(model, x, y))
    if model.jit_compile:
        return counts_of_program(program_of_tensorflow(model, x, y))
    return counts_of_graph(model, x, y)


# ------------------------------------------------------------------------- XLA


def program_of_jax(model, x, y):
    """The text of the compiled step."""
    step = function_within(model.train_function, lambda f: hasattr(f, "lower"))
    model.jax_state_sync()
    parts = [model.trainable_variables, model.non_trainable_variables]
    parts += [model.optimizer.variables, model.metrics_variables]
    state = tuple([v.value for v in variables] for variables in parts)
    return step.lower(state, (x, y)).compile().as_text()


def program_of_tensorflow(model, x, y):
    """The text of the compiled step."""
    import tensorflow as tf

    data = (tf.constant(x), tf.constant(y))
    program = step_of_tensorflow(model).experimental_get_compiler_ir(data)
    return program(stage="optimized_hlo")


def step_of_tensorflow(model):
    def is_step(function):
        name = getattr(function, "__name__", "")
        return name == "one_step_on_data" and hasattr(function, "get_concrete_function")

    return function_within(model.train_function, is_step)


def counts_of_program(text):
    """The counts of a compiled program of XLA."""
    computations = instructions(text)
    entry = computations["ENTRY"]
    run = [each for each in entry.values() if each.kind not in NOT_RUN]
    kinds = collections.Counter(each.kind for each in run)
    for each in run:
        body = computations.get(each.called(), {})
        kinds.update(within.kind for within in body.values())
    arrays = arrays_given(entry)
    costs = cost_analysis(text)
    return {
        "bytes accessed": int(costs["bytes accessed"]),
        "flops": int(costs["flops"]),
        "kernels run": len(run),
        "reductions": kinds["reduce"] + kinds["reduce-window"],
        "reads of weights and data": sum(
            name in arrays for each in run for name in each.operands()
        ),
    }


def arrays_given(entry):
    """Names of the parameters of a program that are no scalars, and of their copies."""
    arrays = {
        name
        for name, each in entry.items()
        if each.kind == "parameter" and "[]" not in each.shape
    }
    copies = {name for name, each in entry.items() if each.kind == "copy"}
    return arrays | {name for name in copies if {*entry[name].operands()} <= arrays}


def instructions(text):
    """The instructions of each computation of a program, by name."""
    computations, name = {}, None
    for line in text.splitlines():
        if line.endswith("{") and not line.startswith((" ", "HloModule")):
            name = "ENTRY" if line.startswith("ENTRY") else line.split()[0].lstrip("%")
            computations[name] = {}
        elif found := INSTRUCTION.match(line):
            computations[name][found[1]] = Instruction(*found.groups()[1:])
    return computations


def cost_analysis(text):
    """What `compiled.cost_analysis()` of JAX returns, for the text of a program."""
    import jax
    from jaxlib import _hlo, _jax

    client = jax.devices("cpu")[0].client
    return _jax.hlo_module_cost_analysis(client, _hlo.hlo_module_from_text(text))


# ------------------------------------------------------------ graphs of TensorFlow


def counts_of_graph(model, x, y):
    """The operations of the step, as Grappler rewrites it for its first run."""
    import tensorflow as tf
    from tensorflow.python.eager import context

    step = step_of_tensorflow(model)
    data = (tf.constant(x), tf.constant(y))
    context.context().enable_graph_collection()
    step(data)
    collected = context.context().export_run_metadata()
    context.context().disable_graph_collection()
    (graph,) = collected.function_graphs
    nodes = [n for n in graph.post_optimization_graph.node if n.op not in NO_OPERATION]
    return {"operations": len(nodes), **collections.Counter(n.op for n in nodes)}


if __name__ == "__main__":
    json.dump(counts("--quick" in sys.argv), sys.stdout, indent=1)
