"""Whether the runs of a path go together: whether they can, and whether it pays."""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._path import batches
from keras_l2reg._path.folds import Data
from keras_l2reg._path.runs import Setup
from keras_l2reg._path.together import Fitter, Program
from keras_l2reg.models import L2AllWeights

# Of the matrix products of a training step.
_MOST_FLOPS = 30_000_000
# Of a training step of one run.
_MOST_BYTES = 20_000_000
# Steps of all runs for each operation of one: in fewer steps, `fit` takes less time
# than it takes to compile the runs.
_STEPS_PER_OPERATION = 2


def check_together(
    together: Any,
    model: keras.Model,
    data: Data,
    fit_arguments: Mapping[str, Any],
    executor: Executor | None,
) -> bool:
    """Whether the runs can be compiled as one program.

    Raises:
        TypeError: `together` is neither a boolean nor `None`.
        ValueError: `together` is `True`, but they can't.
    """
    if together not in (True, False, None):
        raise TypeError(
            "Invalid type for argument `together`. Expected `True`, `False` or `None`. "
            f"Received: together={together!r} of type {type(together).__name__}"
        )
    obstacle = _obstacle(model, data, fit_arguments, executor)
    if together and obstacle is not None:
        raise ValueError(
            "Expected runs that can be compiled as one program, as together=True asks. "
            f"Received: {obstacle}; or leave out `together`, for one run after the "
            "other"
        )
    return obstacle is None


def _obstacle(
    model: keras.Model,
    data: Data,
    fit_arguments: Mapping[str, Any],
    executor: Executor | None,
) -> str | None:
    """Why the runs can't be compiled as one program, and what to do; `None` if so."""
    if not _keras.backend.stacks_runs:
        return f"the backend {_keras.backend.name!r}; use KERAS_BACKEND=jax"
    if executor is not None:
        return f"executor={executor!r}; leave it out, the runs share this process"
    if fit_arguments.get("callbacks"):
        return (
            "callbacks, which need each run's model after each epoch: "
            f"callbacks={fit_arguments['callbacks']!r}; leave them out"
        )
    if not _keras.backend.compiles_steps(model):
        return (
            f"a model with run_eagerly={model.run_eagerly}, "
            f"jit_compile={model.jit_compile}; compile it with jit_compile='auto'"
        )
    given = data.validation_data
    parts = given if isinstance(given, (tuple, list)) else [given]
    if not _keras.are_arrays(data.x, data.y, data.sample_weight, *parts):
        return "data that are not arrays; convert them, with `np.asarray` for example"
    if _keras.is_limited_or_distributed():
        return (
            "a `keras.distribution`, or a limit such as `keras.config.set_max_epochs`; "
            "unset it"
        )
    return None


def fitter_for(
    model: L2AllWeights, setup: Setup, runs: int, together: bool | None
) -> Fitter:
    """Does the runs as one compiled program, or by `fit` where that is as good.

    It pays where the time of `fit` is spent between the steps: a step of a small
    network takes 0.05 ms of the 0.5 to 1 ms that `fit` takes. From some 30 million
    operations on, a step takes as long as what is between the steps; from some 20 MB
    on, it waits for memory. A convolution in a compiled loop takes XLA five times as
    long on a CPU as outside of one.

    Half of the memory that is free is used, by an estimate from above.

    Args:
        model, setup: as for `runs`.
        runs: Integer, the number of all runs.
        together: as in `l2_path`.

    Raises:
        ValueError: `together` is `True`, but a layer can't be mapped over runs.
    """
    by_fit = Fitter(model, setup, None)
    free = _keras.backend.free_bytes() // 2 - batches.bytes_of_data(setup)
    if free < 0 and not together:
        return by_fit
    program = Program(model, setup)
    cost, steps = program.step_cost()
    # A layer that is never built makes `fit` draw one shuffle more.
    if cost is None or not _keras.is_built_throughout(model):
        if not together:
            return by_fit
        raise ValueError(
            "Expected layers that `jax.vmap` can map over the runs, as together=True "
            "asks. Received: a model with a layer that is never built, or with an "
            "operation that can't be mapped, such as a callback to Python; leave out "
            "`together`, for one run after the other"
        )
    is_small = cost.flops < _MOST_FLOPS and cost.bytes < _MOST_BYTES
    are_many = runs * steps >= _STEPS_PER_OPERATION * cost.operations
    if not together and (cost.convolves or not is_small or not are_many):
        return by_fit
    program.compile_for(cost.flops * runs * steps)
    length = 1 if together is False else max(1, free // cost.bytes)
    return Fitter(model, setup, program, length)
