"""Several runs of one model at once: its state with a leading axis, a run each.

The steps are those of Keras' JAX trainer, mapped over that axis and scanned over the
batches of an epoch. The data are on the device once; batches are gathered by index.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np

# Trainable, non-trainable and optimizer variables, each with the leading axis.
State = tuple[list[jax.Array], list[jax.Array], list[jax.Array]]


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
        self._train = jax.jit(self._train_batches, donate_argnums=0)
        self._test = jax.jit(self._test_batches)

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

    def train(
        self, state: State, data: Any, batches: Iterable[np.ndarray]
    ) -> tuple[State, dict[str, np.ndarray]]:
        """The state and the logs after an epoch, as `fit` computes them.

        Args:
            state: A `State`; it can't be used any more.
            data: All samples as one batch, as `place` returned it.
            batches: Indices into `data` of the shape (batches, runs, samples).
        """
        metrics, logs = self._fresh_metrics(state), {}
        for indices in batches:
            state, metrics, logs = self._train(state, metrics, data, indices)
        return state, jax.device_get(logs)

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

    def _fresh_metrics(self, state: State) -> list[jax.Array]:
        runs = len(jax.tree.leaves(state)[0])
        return [np.broadcast_to(v, (runs, *v.shape)) for v in self._no_metrics]

    def _train_batches(self, state, metrics, data, indices):
        def step(carry, rows):
            (trainable, fixed, optimizer), metrics = carry
            _, (trainable, fixed, optimizer, metrics) = jax.vmap(
                self._model.train_step
            )((trainable, fixed, optimizer, metrics), _rows(data, rows))
            return ((trainable, fixed, optimizer), metrics), None

        (state, metrics), _ = jax.lax.scan(step, (state, metrics), indices)
        return state, metrics, self._logs(metrics)

    def _test_batches(self, trainable, fixed, metrics, data, indices):
        def step(carry, rows):
            fixed, metrics = carry
            _, (_, fixed, metrics) = jax.vmap(self._model.test_step)(
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
