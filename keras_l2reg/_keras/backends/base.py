"""The interface of a backend; what it does here suits one that runs steps eagerly."""

import functools

from keras import ops


class Backend:
    """What the package needs to know of a backend, and to have done by it.

    Args:
        name: String, as Keras names the backend.
    """

    # Whether variables that the model in training does not track become constants of
    # its compiled step.
    traces_constants = False

    def __init__(self, name):
        self.name = name

    def compiles_steps(self, model):
        """Whether the steps of `fit` run as they were traced, not as Python."""
        return False

    def sync_state(self, model):
        """Bring the variables of a model up to date in the midst of an epoch."""

    def compiled_in_fit(self, model, function):
        """`function()` of the model's variables as they are between steps of `fit`.

        Compiled if the steps are.
        """
        return function

    def is_baked_in(self, variable, tensor):
        """Whether the step that is traced with `tensor` makes `variable` a constant."""
        return False

    def in_transform(self):
        """Whether functions are transformed now in ways that our kernels can't take."""
        return False

    def replicas(self):
        """How many replicas share the current step."""
        return 1

    def sum_of_squares(self, weights):
        """`sum_k sum(w_k**2)` of tensors of one float dtype of 32 bits or more.

        A float32 sum that is added up term by term loses its third digit at 1e8
        terms, so every backend adds in blocks, by its fastest means.
        """
        return functools.reduce(ops.add, [ops.sum(ops.square(w)) for w in weights])

    def gradients(self, loss, variables):
        """The gradient of `loss()`, a tensor per variable; zeros if it has none."""
        raise NotImplementedError(f"The backend {self.name!r} does not train models")

    def programs(self, model, step, batch):
        """The programs that a compiled step, `"train"` or `"test"`, holds.

        Yields:
            `(program, fresh)`: the program, and a function that traces it again. Both
            are compared by `==`.
        """
        return ()
