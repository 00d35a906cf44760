"""The separate terms of a model's loss."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from keras_l2reg._keras.backends import backend
from keras_l2reg._keras.layers import all_layers


def penalized_variables(model: keras.Model) -> list[keras.Variable]:
    """The trainable variables with a regularizer, one term in `model.losses` each."""
    return [v for v in model.trainable_weights if v.regularizer is not None]


def _without_penalties(losses: list, model: keras.Model) -> list:
    """`losses` of the model without the penalties, which Keras puts last."""
    return losses[: len(losses) - len(penalized_variables(model))]


def losses_of_calls(model: keras.Model) -> list:
    """What the last call added to `model.losses`: all but the penalties of weights."""
    # Set by the JAX trainer.
    if given := model._losses_override:
        return _without_penalties(given, model)
    return [loss for layer in all_layers(model) for loss in layer._get_own_losses()]


def adds_losses(model: keras.Model) -> bool:
    """Whether a call adds terms to `model.losses`, as far as is known."""
    return bool(losses_of_calls(model)) or any(
        getattr(layer, "activity_regularizer", None) is not None
        for layer in all_layers(model)
    )


@contextlib.contextmanager
def losses_kept(model: keras.Model) -> Iterator[None]:
    """The model may be called in this context; then `add_loss` terms are restored."""
    before = [
        (layer, layer._losses[:], set(layer._loss_ids)) for layer in all_layers(model)
    ]
    try:
        yield
    finally:
        for layer, losses, ids in before:
            layer._losses[:] = losses
            layer._loss_ids.clear()
            layer._loss_ids.update(ids)


def added_losses_at(
    model: keras.Model, x, changed: Iterable[tuple[keras.Variable, Any]] = ()
) -> tuple[Any, list]:
    """Outputs and `add_loss` terms of a call with other values for some variables.

    Nothing is assigned: the values replace those of the variables in this call only.

    Args:
        model: A built `keras.Model`.
        x: Its inputs, as for a call.
        changed: Iterable of `(variable, value)`. Defaults to none.

    Returns:
        The outputs, and a list of scalar tensors: the terms of activity regularizers
        and of `add_loss`, without the penalties of weights.
    """
    new_values = {id(variable): value for variable, value in changed}
    values = [
        [new_values.get(id(v), v.value) for v in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]
    with losses_kept(model):
        called: Any = model.stateless_call(*values, x, return_losses=True)
    outputs, _, losses = called
    return outputs, _without_penalties(losses, model)


def fresh_data_loss(model: keras.Model) -> Callable:
    """The compiled loss as a function of `y, y_pred`, separate from the model's."""
    loss = model._compile_loss
    return type(loss)(
        loss._user_loss, loss._user_loss_weights, output_names=loss.output_names
    )


def loss_gradients(model: keras.Model, x, y, sample_weight=None) -> list[np.ndarray]:
    """The gradient of the model's total loss, one array per trainable variable.

    At the current weights, in inference mode, not by the compiled step.
    """

    def loss():
        y_pred = model(x, training=False)
        return model.compute_loss(x, y, y_pred, sample_weight, training=False)

    gradients = backend.gradients(loss, model.trainable_variables)
    return [np.asarray(keras.ops.convert_to_numpy(g)) for g in gradients]
