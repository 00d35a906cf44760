"""The interface of a backend, with defaults for one that runs steps eagerly."""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_l2reg._keras.epochs import Epochs
from keras_l2reg._keras.steps import Step

# `tf.Tensor`, `jax.Array` or `torch.Tensor`.
Tensor = Any


class StepCost(NamedTuple):
    """What a training step of one run costs, estimated without compiling it.

    Args:
        flops: Integer, floating point operations of matrix products, convolutions.
        bytes: Integer, memory of the state, the gradients and intermediate results.
        operations: Integer, how many there are to compile.
        convolves: Boolean, whether it has convolutions.
    """

    flops: int
    bytes: int
    operations: int
    convolves: bool


class Backend:
    """What the package needs to know about a backend, and what the backend does for it.

    Args:
        name: String, the name of the backend in Keras.
    """

    # Whether variables that the trained model does not track become constants of its
    # compiled step.
    traces_constants: bool = False
    # Whether `stacked` compiles the steps of several runs of a model as one program.
    stacks_runs: bool = False

    def __init__(self, name: str):
        self.name = name

    def compiles_steps(self, model: keras.Model) -> bool:
        """Whether the steps of `fit` run compiled, as they were traced."""
        return False

    def sync_state(self, model: keras.layers.Layer) -> None:
        """Update the variables of a model during an epoch of `fit`."""

    def epochs(self, model: keras.Model) -> Epochs:
        """What trains and evaluates a model for many epochs."""
        return Epochs(model)

    def compiled_in_fit(
        self, model: keras.Model, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        """`function`, which reads the model's current variables between steps of `fit`.

        It is compiled if the steps are compiled. Its arguments are nests of tensors.
        """
        return function

    def is_baked_in(self, variable: keras.Variable, tensor: Tensor) -> bool:
        """Whether the step being traced with `tensor` makes `variable` a constant."""
        return False

    def may_call_directly(
        self, layer: keras.layers.Layer, args: tuple, kwargs: dict[str, Any]
    ) -> bool:
        """Whether a layer that only calls another one need not be called by Keras.

        Args:
            layer: A layer whose `call` passes its arguments on to another layer, for
                which Keras does all that it would do for this one.
            args, kwargs: The arguments of the call.
        """
        return False

    def in_transform(self) -> bool:
        """Whether a function transform is active that custom kernels don't support."""
        return False

    def replicas(self) -> int:
        """How many replicas share the current step."""
        return 1

    def sum_of_squares(self, weights: Sequence[Tensor]) -> Tensor:
        """`sum_k sum(w_k**2)` of tensors of one float dtype of 32 bits or more.

        In float32, 1e8 terms added one by one give a sum whose third digit is wrong,
        so every backend adds in blocks, in its fastest way.
        """
        return functools.reduce(ops.add, [ops.sum(ops.square(w)) for w in weights])

    def decay(
        self,
        variables: Sequence[keras.Variable],
        share: Tensor,
        multiplier: float = 1.0,
    ) -> None:
        """`w -= multiplier * share * w`, with the product in 32 bits or more."""
        share = scaled(share, multiplier)
        for variable in variables:
            wide = keras.backend.result_type(variable.dtype, share.dtype)
            w = ops.cast(variable, wide)
            variable.assign(ops.cast(w - w * share, variable.dtype))

    def assign_row(self, row: keras.Variable, values: Sequence[Any]) -> None:
        """Assign scalars, cast to the dtype of the variable."""
        row.assign(ops.stack([ops.cast(value, row.dtype) for value in values]))

    def add_row(
        self, sums: keras.Variable, loss: Any, parts: keras.Variable, weight: Any
    ) -> None:
        """`sums += weight * [loss, *parts, 1]`, for `means` of `sums`."""
        loss = ops.reshape(ops.cast(loss, sums.dtype), (1,))
        row = ops.concatenate([loss, parts, ops.ones((1,), sums.dtype)])
        sums.assign_add(ops.multiply(weight, row))

    def means(self, sums: Tensor) -> list[Tensor]:
        """The weighted means of values, from the sum of their rows; 0 if it is 0."""
        # The same as `divide_no_nan` for sample counts, in a third of the time.
        count = ops.maximum(sums[-1], keras.config.epsilon())
        means: Any = ops.unstack(sums / count)
        return means[:-1]

    def sum_of_absolutes(self, weights: Sequence[Tensor]) -> Tensor:
        """`sum_k sum(|w_k|)` of such tensors, as precise as `sum_of_squares`."""
        return functools.reduce(ops.add, [ops.sum(ops.abs(w)) for w in weights])

    def gradients(
        self, loss: Callable[[], Tensor], variables: Sequence[keras.Variable]
    ) -> Sequence[Tensor]:
        """The gradient of `loss()`, a tensor per variable, zeros where unconnected."""
        raise NotImplementedError(f"The backend {self.name!r} does not train models")

    def stacked(self, model: keras.Model) -> Any:
        """The compiled steps of several runs of a model at once."""
        raise NotImplementedError(f"The backend {self.name!r} does not stack runs")

    def free_bytes(self) -> int:
        """The memory that is free on the device, as far as is known."""
        raise NotImplementedError(f"The backend {self.name!r} does not stack runs")

    def programs(
        self, model: keras.Model, step: Step, batch: tuple | None
    ) -> Iterable[tuple[Any, Callable[[], Any]]]:
        """The programs that a compiled step, `"train"` or `"test"`, holds.

        Returns:
            Iterable of `(program, fresh)`: `fresh()` traces the program again; the two
            are compared by `==`.
        """
        return ()


def scaled(share: Tensor, multiplier: float) -> Tensor:
    """`multiplier * share`, without an operation for 1."""
    return share if multiplier == 1.0 else share * multiplier
