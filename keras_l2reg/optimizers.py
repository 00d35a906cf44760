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
>>> set_weight_decay(model.optimizer, model, 2 * 0.01) is model.optimizer
True
>>> model.optimizer.weight_decay
0.02
"""

from typing import Any, Unpack

import keras

from keras_l2reg import _keras
from keras_l2reg._decay import WeightDecayOptimizer
from keras_l2reg._decay_rows import Row
from keras_l2reg._decay_rule import Couple
from keras_l2reg._rule import Rule
from keras_l2reg._selection import select_weights
from keras_l2reg._validation import Patterns, check_number
from keras_l2reg.weights import find_weights

__all__ = ["WeightDecayOptimizer", "set_weight_decay"]


def set_weight_decay(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    rate: float,
    *,
    biases: bool = False,
    embeddings: bool = False,
    layers: Patterns = None,
    exclude: Patterns = None,
    multipliers: dict[str, float] | None = None,
    couple: Couple = "lr",
    max_learning_rate: float | None = None,
) -> keras.optimizers.Optimizer:
    """Return an optimizer that decays only the selected weights of a model.

    Before each step, for each selected weight with its multiplier `m`, where `lr` is
    the learning rate of the step and `lr_max` the highest one:

    ===============  ====================================================
    `"lr"`           `w -= lr * rate * m * w`, as Keras and torch do
    `"independent"`  `w -= lr / lr_max * rate * m * w`
    `"corrected"`    `w -= lr**2 / lr_max * rate * m * w`
    ===============  ====================================================

    The optimizer is a `keras_l2reg.optimizers.WeightDecayOptimizer` around the given
    one, which keeps its state. If the model is compiled with the given one, it is
    exchanged there; otherwise, compile with what is returned. Loss scaling stays
    around it: a `LossScaleOptimizer` gets it as its `inner_optimizer`, and is returned.

    The decay is saved with the model, and in effect again after `load_model` once
    `keras_l2reg` is imported. The rate is live: assign to `weight_decay` of the
    `WeightDecayOptimizer` at any time, without a new trace.

    It replaces the weight decay and the exclusions of the given optimizer, and the
    decay of an earlier call.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, built or not.
        model: The built `keras.Model` or `L2AllWeights` that the optimizer trains. If
            it is already compiled, the next training step uses the new decay.
        rate: Finite float >= 0: the share of a weight that is taken per step, for
            `"lr"` and `"corrected"` per unit of the learning rate.
        biases, embeddings, layers, exclude, multipliers: Which weights, and finite
            floats >= 0 that multiply their rate, as in `keras_l2reg.attach`.
        couple: How the decay depends on the learning rate: `"lr"`, `"independent"` or
            `"corrected"`, as above. Defaults to `"lr"`.
        max_learning_rate: Finite float >= 0, the `lr_max` above. Defaults to `None`:
            for a number, the highest learning rate so far; for a
            `LearningRateSchedule`, its highest value at the numbers of steps in its
            config and at 16 steps between them, or a higher one if it occurs.

    Returns:
        The optimizer to compile the model with.

    Raises:
        TypeError, ValueError: an invalid argument; nothing is changed.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...      keras.layers.Dense(2, name="head")])
    >>> optimizer = keras.optimizers.AdamW(0.001)
    >>> optimizer = set_weight_decay(
    ...     optimizer, model, 0.004, multipliers={"head/*": 0.1})
    >>> model.compile(optimizer, "mse")
    >>> model.optimizer.weight_decay = 0.002
    >>> model.optimizer.weight_decay
    0.002

    References:
        - Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
          https://arxiv.org/abs/1711.05101), ICLR 2019 (independent of the learning
          rate, with a schedule).
        - Defazio, [Why Gradients Rapidly Increase Near the End of Training](
          https://arxiv.org/abs/2506.02285), 2025 (corrected).
    """
    _check_optimizer(optimizer)
    rate = check_number(rate, "rate")
    rows = rows_for(
        model,
        biases=biases,
        embeddings=embeddings,
        layers=layers,
        exclude=exclude,
        multipliers=multipliers,
    )
    return decay_rows(optimizer, model, rate, rows, couple, max_learning_rate)


def decay_rows(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    rate: float,
    rows: list[Row],
    couple: Couple = "lr",
    max_learning_rate: float | None = None,
) -> keras.optimizers.Optimizer:
    """`set_weight_decay` for the multipliers that `rows_for` returned."""
    is_scaled = isinstance(optimizer, keras.optimizers.LossScaleOptimizer)
    inner: Any = optimizer.inner_optimizer if is_scaled else optimizer
    decaying = _decay_around(inner, model)
    if decaying is None:
        decaying = WeightDecayOptimizer(inner, rate, rows, couple, max_learning_rate)
        if inner.built:
            decaying.build(inner._trainable_variables)
        if is_scaled:
            optimizer.inner_optimizer = decaying
        _keras.exchange_optimizer(model, inner, decaying)
    else:
        decaying.set_decay(rate, rows, couple, max_learning_rate)
    _keras.reset_compiled_steps(model)
    return optimizer if is_scaled else decaying


def _decay_around(
    optimizer: keras.optimizers.Optimizer, model: keras.Model
) -> WeightDecayOptimizer | None:
    """The decay of an earlier call: the optimizer itself, or that around it."""
    compiled = _keras.optimizers_within(getattr(model, "optimizer", None))
    for candidate in (optimizer, *compiled):
        if isinstance(candidate, WeightDecayOptimizer) and (
            optimizer in (candidate, candidate.inner_optimizer)
        ):
            return candidate
    return None


def _check_optimizer(optimizer: Any) -> None:
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return
    raise TypeError(
        "Invalid type for argument `optimizer`. Expected a "
        "`keras.optimizers.Optimizer` instance. "
        f"Received: optimizer={optimizer!r} of type {type(optimizer).__name__}; "
        "pass `model.optimizer` of a compiled model, or "
        "`keras.optimizers.get(name)`"
    )


def _check_built(model: keras.Model) -> None:
    unbuilt = [weight.name for weight in find_weights(model) if weight.variable is None]
    if unbuilt:
        raise ValueError(
            "Expected a built model, since an optimizer identifies weights by their "
            f"variables. Received: a model with the unbuilt weights {unbuilt}; call "
            "it on a batch of data, or `model.build(input_shape)`, first"
        )


def rows_for(model: keras.Model, **rule: Unpack[Rule]) -> list[Row]:
    """The multiplier of each weight, in the order of the model's variables.

    Raises:
        TypeError, ValueError: an invalid rule, or a model that is not built.
    """
    covered = select_weights(model, **rule)
    _check_built(model)
    multipliers = {id(weight.variable): factor for weight, factor in covered}
    weights = {id(weight.variable) for weight in find_weights(model)}
    return [
        (variable.path, multipliers.get(id(variable), 0.0))
        for variable in model.variables
        if id(variable) in weights
    ]
