"""Several runs of one model at once: its state with a leading axis, a run each.

The steps are those of Keras' JAX trainer, mapped over that axis and scanned over the
batches of an epoch. The data are on the device once; batches are gathered by index.

XLA computes small operations on one core of a CPU, so each core gets a share of the
runs. Shares are of one size, for one program: the last run may be there several times.
"""

import functools
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

from keras_l2reg._keras.backends.base import StepCost
from keras_l2reg._keras.backends.jax_costs import step_cost

# Trainable, non-trainable and optimizer variables, each with the leading axis.
Share = tuple[list[Any], list[Any], list[Any]]
# That of each core.
State = list[Share]


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
        on_cpu = jax.default_backend() == "cpu"
        self._cores = os.cpu_count() or 1 if on_cpu else 1
        self._pool = ThreadPoolExecutor(self._cores)
        self._compiled: dict[tuple[Any, tuple[int, ...]], Any] = {}

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
        shares = (
            tuple([stacked[id(v)][runs] for v in part] for part in self._variables)
            for runs in self._shares(len(values))
        )
        return [self.place(share) for share in shares]

    def unstack(
        self, variables: Iterable[keras.Variable], state: State
    ) -> list[np.ndarray]:
        """The values of the variables, with the leading axis, on the host."""
        found = {}
        for part, *values in zip(self._variables, *state, strict=True):
            for variable, *shares in zip(part, *values, strict=True):
                found[id(variable)] = shares
        return [np.concatenate(found[id(v)]) for v in variables]

    def step_cost(self, data: Any, size: int) -> StepCost | None:
        """What a training step of one run costs; `None` if steps can't be stacked.

        Args:
            data: All samples as one batch, as `place` returned it.
            size: Integer, the number of samples in a batch.
        """
        parts = [*self._variables, self._model.metrics_variables]
        state = tuple([v.value for v in part] for part in parts)
        return step_cost(self._train_step, state, data, size)

    def compile(
        self, state: State, training: Sequence[Any], validation: Sequence[Any]
    ) -> None:
        """Compile what `train` and `test` need for such batches, on all cores.

        Args:
            state: A `State`; it remains usable.
            training, validation: The data and the batches, as for `train`, `test`.
        """
        self._compiled = {}
        self._compile(
            [*self._trainings(state, *training), *self._tests(state, *validation)]
        )

    def _compile(self, calls: Iterable[tuple[Any, tuple, np.ndarray]]) -> None:
        """Compile the programs of calls: a program, its arguments, the batches."""
        found = {}
        for program, arguments, indices in calls:
            indices = indices[:, : len(jax.tree.leaves(arguments)[0])]
            key = program, indices.shape
            if key not in self._compiled:
                lowered = program.lower(*arguments, indices)
                # XLA compiles while Python lowers the next one.
                found[key] = self._pool.submit(lowered.compile)
        self._compiled |= {key: future.result() for key, future in found.items()}

    def _trainings(
        self, state: State, data: Any, batches: Sequence[np.ndarray]
    ) -> Iterator[tuple[Any, tuple, np.ndarray]]:
        metrics = self._fresh_metrics(state[0])
        for program, indices in self._trainers(batches):
            yield program, (state[0], metrics, data), indices

    def _tests(
        self, state: State, data: Any, batches: Sequence[np.ndarray]
    ) -> Iterator[tuple[Any, tuple, np.ndarray]]:
        metrics = self._fresh_metrics(state[0])
        for indices in batches:
            yield self._test, (*state[0][:2], metrics, data), indices

    def train(
        self, state: State, data: Any, batches: Sequence[np.ndarray]
    ) -> tuple[State, dict[str, np.ndarray]]:
        """The state and the logs after an epoch, as `fit` computes them.

        Args:
            state: A `State`; it can't be used any more.
            data: All samples as one batch, as `place` returned it.
            batches: Indices into `data` of the shape (batches, runs, samples).
        """

        def train(share, runs):
            metrics, logs = self._fresh_metrics(share), {}
            for program, indices in self._trainers(batches):
                share, metrics, logs = self._call(
                    program, (share, metrics, data), indices[:, runs]
                )
            return share, jax.device_get(logs)

        # An epoch of fewer steps than batches may start in the middle of the data.
        self._compile(self._trainings(state, data, batches))
        return self._on_all_cores(train, state, batches)

    def _trainers(self, batches: Sequence[np.ndarray]) -> Iterator[tuple]:
        """The program for each array of batches: a lesser one for a small rest."""
        longest = max(map(len, batches))
        for indices in batches:
            is_rest = 8 * len(indices) <= longest
            yield self._train_rest if is_rest else self._train, indices

    def finalize(self, state: State) -> State:
        """The state after the last epoch: the optimizer may replace the weights."""

        def of_run(*values):
            pairs = self._pairs(*zip(self._variables[::2], values, strict=True))
            with keras.StatelessScope(state_mapping=pairs) as scope:
                self._model.optimizer.finalize_variable_values(self._variables[0])
            return [scope.get_current_value(v) for v in self._variables[0]]

        finalized = jax.vmap(of_run)
        return [(finalized(share[0], share[2]), *share[1:]) for share in state]

    def test(
        self, state: State, data: Any, batches: Sequence[np.ndarray]
    ) -> tuple[State, dict[str, np.ndarray]]:
        """The state and the logs after an evaluation; the arguments are as `train`'s.

        The state that was passed remains usable.
        """

        def test(share, runs):
            metrics, logs = self._fresh_metrics(share), {}
            trainable, fixed, optimizer = share
            for indices in batches:
                fixed, metrics, logs = self._call(
                    self._test, (trainable, fixed, metrics, data), indices[:, runs]
                )
            return (trainable, fixed, optimizer), jax.device_get(logs)

        return self._on_all_cores(test, state, batches)

    def _shares(self, runs: int) -> np.ndarray:
        """The runs of each core, as integers of the shape (cores in use, runs)."""
        size = math.ceil(runs / self._cores)
        count = math.ceil(runs / size)
        return np.minimum(np.arange(count * size), runs - 1).reshape(count, size)

    def _call(self, program: Any, arguments: tuple, indices: np.ndarray) -> Any:
        # What is compiled, not the function: Keras would trace with the settings of
        # this thread, such as another `floatx`.
        return self._compiled[program, indices.shape](*arguments, indices)

    def _on_all_cores(
        self, step: Any, state: State, batches: Sequence[np.ndarray]
    ) -> tuple[State, dict[str, np.ndarray]]:
        """`step(share, runs)` of each share, and the logs of all runs."""
        runs = batches[0].shape[1]
        results = [*self._pool.map(step, state, self._shares(runs))]
        logs = [logs for _, logs in results]
        joined = {
            key: np.concatenate([of[key] for of in logs])[:runs] for key in logs[0]
        }
        return [share for share, _ in results], joined

    def _fresh_metrics(self, share: Share) -> list[np.ndarray]:
        runs = len(jax.tree.leaves(share)[0])
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
