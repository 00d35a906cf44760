"""set_weight_decay: decoupled weight decay for the weights that a penalty would cover.

An L2 penalty and decoupled weight decay both shrink the weights, in different ways:

=================  =============================================================
L2 penalty         the gradient becomes `g + 2 * l2 * w`, to which the optimizer
                   applies momentum and scaling; the loss includes the penalty
decoupled decay    `w -= learning_rate * rate * w` before the optimizer's step;
                   neither the gradient nor the loss changes
=================  =============================================================

For SGD without momentum the two are equivalent, with `rate = 2 * l2` (or `rate = beta`
for `beta * tf.nn.l2_loss`) at any learning rate. Momentum also applies to the
gradient of the penalty. Adam and other adaptive optimizers divide it by the running
magnitude of the whole gradient, so weights with large gradients shrink less, while
weight decay shrinks all weights by the same factor (Loshchilov & Hutter, 2019). For
these, no `rate` is equivalent to an `l2`; tune it separately.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> model.compile(keras.optimizers.SGD(0.1), "mse")
>>> set_weight_decay(model.optimizer, model, 2 * 0.01).weight_decay
0.02
"""

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._selection import select_weights
from keras_l2reg._validation import Patterns, check_number
from keras_l2reg.weights import Weight, find_weights


def set_weight_decay(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    rate: float,
    *,
    biases: bool = False,
    embeddings: bool = False,
    layers: Patterns = None,
    exclude: Patterns = None,
    multipliers: Mapping[str, float] | None = None,
) -> keras.optimizers.Optimizer:
    """Set an optimizer to decay only the selected weights of a model.

    `w -= learning_rate * rate * w` before each step, for each selected weight

    Replaces the weight decay of the optimizer and its exclusions. Keras saves an
    optimizer's `weight_decay` but not its exclusions: call this again on a loaded
    model.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, built or not.
        model: The built `keras.Model` or `L2AllWeights` that the optimizer trains. If
            it is already compiled, the next training step uses the new decay.
        rate: Finite float >= 0, per unit of the learning rate.
        biases, embeddings, layers, exclude: Which weights, as in
            `keras_l2reg.attach`.
        multipliers: As in `keras_l2reg.attach`, but only 0 and 1, since an optimizer
            has one rate. Defaults to `None`.

    Returns:
        The optimizer.

    Raises:
        TypeError, ValueError: an invalid argument; the optimizer is not changed.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...      keras.layers.Dense(2, name="head")])
    >>> optimizer = keras.optimizers.AdamW(0.001)
    >>> set_weight_decay(optimizer, model, 0.004, layers="hidden/*").weight_decay
    0.004

    References:
        - Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
          https://arxiv.org/abs/1711.05101), ICLR 2019.
    """
    inner = _decaying(optimizer)
    rate = check_number(rate, "rate")
    covered = select_weights(
        model,
        biases=biases,
        embeddings=embeddings,
        layers=layers,
        exclude=exclude,
        multipliers=multipliers,
    )
    _check_built(model)
    _check_multipliers(covered)
    chosen = {id(weight.variable) for weight, _ in covered}
    inner.exclude_from_weight_decay(
        var_list=[v for v in model.variables if id(v) not in chosen]
    )
    _keras.set_decay_rate(inner, rate)
    _keras.reset_compiled_steps(model)
    return optimizer


def _decaying(optimizer: Any) -> Any:
    """The optimizer that takes the steps, without the wrapper for loss scaling."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Invalid type for argument `optimizer`. Expected a "
            "`keras.optimizers.Optimizer` instance. "
            f"Received: optimizer={optimizer!r} of type {type(optimizer).__name__}; "
            "pass `model.optimizer` of a compiled model, or "
            "`keras.optimizers.get(name)`"
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(inner, "optimizers"):
        raise ValueError(
            "Expected an optimizer with one weight decay. Received: "
            f"optimizer={optimizer!r}; pass the optimizers of a `MultiOptimizer` one "
            "by one"
        )
    return inner


def _check_built(model: keras.Model) -> None:
    unbuilt = [weight.name for weight in find_weights(model) if weight.variable is None]
    if unbuilt:
        raise ValueError(
            "Expected a built model, since an optimizer identifies weights by their "
            f"variables. Received: a model with the unbuilt weights {unbuilt}; call "
            "it on a batch of data, or `model.build(input_shape)`, first"
        )


def _check_multipliers(covered: Iterable[tuple[Weight, float]]) -> None:
    scaled = {weight.name: factor for weight, factor in covered if factor != 1.0}
    if scaled:
        raise ValueError(
            "Invalid value for argument `multipliers`. Expected factors 0 and 1: an "
            "optimizer has one decay rate for all weights. "
            f"Received: {scaled}; use an L2 penalty (`L2AllWeights`) instead"
        )
