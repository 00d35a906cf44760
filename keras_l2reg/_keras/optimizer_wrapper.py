"""An optimizer around an optimizer, as Keras' `LossScaleOptimizer` is."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_l2reg._keras.optimizers import decay_of_zero_skipped


class OptimizerWrapper(keras.optimizers.Optimizer):
    """Hands gradients on to another optimizer; subclasses act before its update.

    Args:
        inner_optimizer: The `keras.optimizers.Optimizer` that updates the weights.
        name: String. Defaults to `None`, an automatic name.
    """

    inner_optimizer: Any

    def __init__(self, inner_optimizer: Any, name: str | None = None):
        super().__init__(learning_rate=0.0, name=name)
        self.inner_optimizer = inner_optimizer

    def before_update(self, variables: Sequence[keras.Variable]) -> None:
        """Called before the inner optimizer gets the gradients of `variables`."""

    def is_updated(self, variable: keras.Variable) -> bool:
        """Whether its gradient is one, and not the value to assign, as for scales."""
        return not self._overwrite_variable_with_gradient(variable)

    def index_of(self, variable: keras.Variable) -> int | None:
        """The index among the variables that it was built for, `None` if not there."""
        return self._trainable_variables_indices.get(self._var_key(variable))

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        if not self.inner_optimizer.built:
            self.inner_optimizer.build(var_list)
        super().build(var_list)

    def apply(self, grads, trainable_variables=None):
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            if not self.built:
                self.build(trainable_variables)
            self._check_variables_are_known(trainable_variables)
        variables = trainable_variables or self._trainable_variables
        # If the numbers differ, the inner optimizer raises.
        if len(grads) == len(variables):
            pairs = zip(grads, variables, strict=True)
            self.before_update([v for gradient, v in pairs if gradient is not None])
        with decay_of_zero_skipped(self.inner_optimizer):
            self.inner_optimizer.apply(grads, trainable_variables)

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Any]]) -> Any:
        super().apply_gradients(grads_and_vars)
        return self.inner_optimizer._iterations

    @property
    def variables(self):
        return [*self._variables, *self.inner_optimizer.variables]

    def set_weights(self, weights):
        for variable, value in zip(self.variables, weights, strict=True):
            variable.assign(value)

    def __dir__(self):
        # Keras walks these names when it saves: what the wrapper already saved as its
        # own `variables` would be written twice.
        within = {"inner_optimizer", "optimizers"}
        return [name for name in super().__dir__() if name not in within]

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate):
        self.inner_optimizer.learning_rate = learning_rate

    @property
    def loss_scale_factor(self):
        return self.inner_optimizer.loss_scale_factor

    @loss_scale_factor.setter
    def loss_scale_factor(self, value):
        # Keras' constructor sets it before there is an inner optimizer.
        if "inner_optimizer" in vars(self):
            self.inner_optimizer.loss_scale_factor = value

    @property
    def optimizers(self):
        """Those of a `MultiOptimizer`; callbacks ask whether there are some."""
        return self.inner_optimizer.optimizers

    @property
    def _model_variables_moving_average(self):
        # `SwapEMAWeights` looks for it within loss scaling.
        return self.inner_optimizer._model_variables_moving_average

    def scale_loss(self, loss):
        return self.inner_optimizer.scale_loss(loss)

    def finalize_variable_values(self, var_list):
        self.inner_optimizer.finalize_variable_values(var_list)
