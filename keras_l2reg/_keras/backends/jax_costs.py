"""What a training step costs, read from the equations that JAX traced."""

import math
import pathlib
from collections.abc import Iterator
from typing import Any

import jax

from keras_l2reg._keras.backends.base import StepCost


def step_cost(train_step: Any, state: Any, data: Any, size: int) -> StepCost | None:
    """What a training step of one run costs; `None` if `vmap` can't map it.

    Args:
        train_step: A jitted function of a state and a batch.
        state: A nest of arrays.
        data: All samples as one batch.
        size: Integer, the number of samples in a batch.
    """
    state = jax.tree.map(_like, state)
    batch = jax.tree.map(lambda a: _like(a, (size, *a.shape[1:])), data)
    jaxpr = train_step.trace(state, batch).jaxpr
    two = jax.tree.map(lambda a: _like(a, (2, *a.shape)), (state, batch))
    try:
        jax.eval_shape(jax.vmap(train_step), *two)
    except NotImplementedError:
        # A primitive, such as a callback to Python, that `vmap` does not know.
        return None
    equations = [*_equations(jaxpr.jaxpr)]
    return StepCost(
        flops=sum(_flops(equation) * times for equation, times in equations),
        # The state is there twice, and so are the gradients, beside all
        # intermediate results: more than XLA needs, which reuses memory.
        bytes=4 * sum(map(_bytes, jax.tree.leaves(state)))
        + sum(_bytes(v.aval) for e, _ in equations for v in e.outvars),
        operations=len(equations),
        convolves=any(e.primitive.name == "conv_general_dilated" for e, _ in equations),
    )


def _like(array, shape=None):
    shape = array.shape if shape is None else shape
    return jax.ShapeDtypeStruct(shape, array.dtype)


def _bytes(array) -> int:
    # Keys of random numbers, for example, have no such size.
    return math.prod(array.shape) * getattr(array.dtype, "itemsize", 8)


def _equations(jaxpr, times: int = 1) -> Iterator[tuple[Any, int]]:
    """All equations, with those of inner programs, and how often each runs."""
    for equation in jaxpr.eqns:
        yield equation, times
        inner = times * equation.params.get("length", 1)
        for value in jax.tree.leaves(equation.params, is_leaf=_is_jaxpr):
            if _is_jaxpr(value):
                yield from _equations(getattr(value, "jaxpr", value), inner)


def _is_jaxpr(value) -> bool:
    return hasattr(value, "eqns")


def _flops(equation) -> int:
    """The floating point operations of a matrix product or a convolution."""
    if equation.primitive.name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        length = math.prod(left[axis] for axis in contracted)
    elif equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        length = math.prod(kernel) // max(kernel[0], 1)
    else:
        return 0
    return 2 * length * math.prod(equation.outvars[0].aval.shape)


def free_bytes() -> int:
    """The memory that is free on the device, as far as is known."""
    stats = jax.devices()[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 4 * 2**30
    (available,) = (line.split()[1] for line in lines if "MemAvailable" in line)
    return 1024 * int(available)
