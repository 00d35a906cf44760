"""The interface of a backend, with defaults for one that runs steps eagerly."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_l2reg._keras.steps import Step

# As the backend has them: `tf.Tensor`, `jax.Array`, `torch.Tensor`.
Tensor = Any


class Backend:
    """What the package needs to know about a backend, and what it asks it to do.

    Args:
        name: String, as Keras names the backend.
    """

    # Whether variables that the trained model does not track become constants of its
    # compiled step.
    traces_constants: bool = False

    def __init__(self, name: str):
        self.name = name

    def compiles_steps(self, model: keras.Model) -> bool:
        """Whether the steps of `fit` run as they were traced, not as Python."""
        return False

    def sync_state(self, model: keras.layers.Layer) -> None:
        """Update the variables of a model during an epoch of `fit`."""

    def compiled_in_fit(
        self, model: keras.Model, function: Callable[[], Tensor]
    ) -> Callable[[], Tensor]:
        """`function`, reading the model's variables as they are between steps of `fit`.

        Compiled if the steps are.
        """
        return function

    def is_baked_in(self, variable: keras.Variable, tensor: Tensor) -> bool:
        """Whether the step being traced with `tensor` makes `variable` a constant."""
        return False

    def in_transform(self) -> bool:
        """Whether a function transform is active that custom kernels don't support."""
        return False

    def replicas(self) -> int:
        """How many replicas share the current step."""
        return 1

    def sum_of_squares(self, weights: Sequence[Tensor]) -> Tensor:
        """`sum_k sum(w_k**2)` of tensors of one float dtype of 32 bits or more.

        In float32, 1e8 terms added one by one give a sum that is off in its third
        digit, so every backend adds in blocks, by its fastest means.
        """
        return functools.reduce(ops.add, [ops.sum(ops.square(w)) for w in weights])

    def gradients(
        self, loss: Callable[[], Tensor], variables: Sequence[keras.Variable]
    ) -> Sequence[Tensor]:
        """The gradient of `loss()`, a tensor per variable, zeros where unconnected."""
        raise NotImplementedError(f"The backend {self.name!r} does not train models")

    def programs(
        self, model: keras.Model, step: Step, batch: tuple | None
    ) -> Iterable[tuple[Any, Callable[[], Any]]]:
        """The programs that a compiled step, `"train"` or `"test"`, holds.

        Returns:
            Iterable of `(program, fresh)`: `fresh()` traces the program again; the two
            are compared by `==`.
        """
        return ()
