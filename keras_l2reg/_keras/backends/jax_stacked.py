"""Several runs of one model at once: its state with a leading axis, a run each.

The steps are those of Keras' JAX trainer, mapped over that axis and scanned over the
batches of an epoch. The data are on the device once; batches are gathered by index.
"""

import concurrent.futures
import functools
import math
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_l2reg._keras.backends.base import StepCost

# Trainable, non-trainable and optimizer variables, each with the leading axis.
State = tuple[list[Any], list[Any], list[Any]]


class StackedModel:
    """The compiled steps of several runs of a model.

    Args:
        model: A built, compiled `keras.Model` with Keras' own steps.
    """

    def __init__(self, model: keras.Model):
        self._model = model
        self._variables = (
            model.trainable_variables,
            model.non_trainable_variables,
            model.optimizer.variables,
        )
        model.reset_metrics()
        self._no_metrics = [v.value for v in model.metrics_variables]
        # Traced once for each shape of a batch, for any numbers of runs and batches.
        self._train_step = jax.jit(model.train_step)
        self._test_step = jax.jit(model.test_step)
        self.compile_for(flops=0)

    def compile_for(self, flops: int) -> None:
        """Choose how well to compile, for so many operations of all runs."""
        often = _quick_compilation(2) if flops < _MANY_FLOPS else None
        self._train, self._train_rest = (
            jax.jit(self._train_batches, donate_argnums=0, compiler_options=options)
            for options in (often, _quick_compilation(0))
        )
        self._test = jax.jit(self._test_batches, compiler_options=_quick_compilation(0))

    def place(self, data: Any) -> Any:
        """A nest of arrays, on the device."""
        return jax.tree.map(jax.device_put, data)

    def stack(
        self, variables: Iterable[keras.Variable], values: Sequence[list[np.ndarray]]
    ) -> State:
        """The state of runs that start from these values of the variables."""
        columns = zip(*values, strict=True)
        stacked = {
            id(variable): np.stack(column)
            for variable, column in zip(variables, columns, strict=True)
        }
        of_model = [[stacked[id(v)] for v in part] for part in self._variables]
        return self.place(tuple(of_model))

    def unstack(
        self, variables: Iterable[keras.Variable], state: State
    ) -> list[np.ndarray]:
        """The values of the variables, with the leading axis, on the host."""
        parts = zip(self._variables, state, strict=True)
        found = {
            id(variable): value
            for part, values in parts
            for variable, value in zip(part, values, strict=True)
        }
        return [np.asarray(found[id(v)]) for v in variables]

    def step_cost(self, data: Any, size: int) -> StepCost | None:
        """What a training step of one run costs; `None` if steps can't be stacked.

        Args:
            data: All samples as one batch, as `place` returned it.
            size: Integer, the number of samples in a batch.
        """
        parts = [*self._variables, self._model.metrics_variables]
        state = tuple([_like(v.value) for v in part] for part in parts)
        batch = jax.tree.map(lambda a: _like(a, (size, *a.shape[1:])), data)
        jaxpr = self._train_step.trace(state, batch).jaxpr
        two = jax.tree.map(lambda a: _like(a, (2, *a.shape)), (state, batch))
        try:
            jax.eval_shape(jax.vmap(self._train_step), *two)
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
            convolves=any(
                e.primitive.name == "conv_general_dilated" for e, _ in equations
            ),
        )

    def compile(
        self, state: State, training: Sequence[Any], validation: Sequence[Any]
    ) -> None:
        """Compile what `train` and `test` need for such batches, on all cores.

        Args:
            state: A `State`; it remains usable.
            training, validation: The data and the batches, as for `train`, `test`.
        """
        metrics = self._fresh_metrics(state)
        data, batches = training
        lowered = [
            train.lower(state, metrics, data, indices)
            for train, indices in self._trainers(batches)
        ]
        data, batches = validation
        lowered += [
            self._test.lower(*state[:2], metrics, data, indices) for indices in batches
        ]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            for _ in pool.map(lambda program: program.compile(), lowered):
                pass

    def train(
        self, state: State, data: Any, batches: Sequence[np.ndarray]
    ) -> tuple[State, dict[str, np.ndarray]]:
        """The state and the logs after an epoch, as `fit` computes them.

        Args:
            state: A `State`; it can't be used any more.
            data: All samples as one batch, as `place` returned it.
            batches: Indices into `data` of the shape (batches, runs, samples).
        """
        metrics, logs = self._fresh_metrics(state), {}
        for train, indices in self._trainers(batches):
            state, metrics, logs = train(state, metrics, data, indices)
        return state, jax.device_get(logs)

    def _trainers(self, batches: Sequence[np.ndarray]) -> Iterator[tuple]:
        """The program for each array of batches: a lesser one for a small rest."""
        longest = max(map(len, batches))
        for indices in batches:
            is_rest = 8 * len(indices) <= longest
            yield self._train_rest if is_rest else self._train, indices

    def finalize(self, state: State) -> State:
        """The state after the last epoch: the optimizer may replace the weights."""
        trainable, fixed, optimizer = state

        def of_run(*values):
            pairs = self._pairs(*zip(self._variables[::2], values, strict=True))
            with keras.StatelessScope(state_mapping=pairs) as scope:
                self._model.optimizer.finalize_variable_values(self._variables[0])
            return [scope.get_current_value(v) for v in self._variables[0]]

        return jax.vmap(of_run)(trainable, optimizer), fixed, optimizer

    def test(
        self, state: State, data: Any, batches: Iterable[np.ndarray]
    ) -> tuple[State, dict[str, np.ndarray]]:
        """The state and the logs after an evaluation; the arguments are as `train`'s.

        The state that was passed remains usable.
        """
        metrics, logs = self._fresh_metrics(state), {}
        trainable, fixed, optimizer = state
        for indices in batches:
            fixed, metrics, logs = self._test(trainable, fixed, metrics, data, indices)
        return (trainable, fixed, optimizer), jax.device_get(logs)

    def _fresh_metrics(self, state: State) -> list[np.ndarray]:
        runs = len(jax.tree.leaves(state)[0])
        return [np.broadcast_to(v, (runs, *v.shape)) for v in self._no_metrics]

    def _train_batches(self, state, metrics, data, indices):
        def step(carry, rows):
            (trainable, fixed, optimizer), metrics = carry
            _, (trainable, fixed, optimizer, metrics) = jax.vmap(self._train_step)(
                (trainable, fixed, optimizer, metrics), _rows(data, rows)
            )
            return ((trainable, fixed, optimizer), metrics), None

        (state, metrics), _ = jax.lax.scan(step, (state, metrics), indices)
        return state, metrics, self._logs(metrics)

    def _test_batches(self, trainable, fixed, metrics, data, indices):
        def step(carry, rows):
            fixed, metrics = carry
            _, (_, fixed, metrics) = jax.vmap(self._test_step)(
                (trainable, fixed, metrics), _rows(data, rows)
            )
            return (fixed, metrics), None

        (fixed, metrics), _ = jax.lax.scan(step, (fixed, metrics), indices)
        return fixed, metrics, self._logs(metrics)

    def _logs(self, metrics):
        def of_run(values):
            pairs = self._pairs((self._model.metrics_variables, values))
            with keras.StatelessScope(state_mapping=pairs):
                return self._model.get_metrics_result()

        return jax.vmap(of_run)(metrics)

    @staticmethod
    def _pairs(*parts):
        return [pair for part in parts for pair in zip(*part, strict=True)]


def _rows(data, rows):
    """The samples with these indices: a batch for each run."""
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf).at[rows].get(mode="promise_in_bounds"), data
    )


# ------------------------------------------------------------------ XLA and costs


# From here on, better programs save more time than it takes to compile them.
_MANY_FLOPS = 10**11


@functools.cache
def _quick_compilation(level: int) -> dict[str, Any] | None:
    """Options to compile quickly; `None` for an XLA without these.

    Args:
        level: Integer. `2` takes half of the usual time, for programs that are a fifth
            slower; `0` an eighth, for programs that take three times as long.
    """
    options = {
        "xla_cpu_use_fusion_emitters": False,
        "xla_cpu_parallel_codegen_split_count": 1,
        "xla_backend_optimization_level": level,
    }
    if jax.default_backend() != "cpu":
        return None
    try:
        jax.jit(lambda x: x, compiler_options=options)(0.0)
    except RuntimeError:
        return None
    return options


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
