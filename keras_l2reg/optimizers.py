"""set_weight_decay: the same choice of weights, as decoupled decay.

An L2 penalty and decoupled weight decay both shrink the weights, by another way:

=================  =============================================================
L2 penalty         the gradient becomes `g + 2 * l2 * w`, and passes through the
                   optimizer's momentum and scaling; the loss shows it
decoupled decay    `w -= learning_rate * rate * w` before the optimizer's step;
                   neither the gradient nor the loss know of it
=================  =============================================================

For plain SGD, without momentum, the two are one: `rate = 2 * l2` (or `rate = beta`
for `beta * tf.nn.l2_loss`), whatever the learning rate. With momentum, the penalty's
pull goes through the momentum as well. With Adam and its kin they differ in kind: the
penalty is divided by the gradient's running size, so that weights with large gradients
shrink less; decay shrinks all weights by the same share (Loshchilov & Hutter 2019).
No `rate` stands for an `l2` there; tune it anew.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
>>> model.compile(keras.optimizers.SGD(0.1), "mse")
>>> set_weight_decay(model.optimizer, model, 2 * 0.01).weight_decay
0.02
"""

import keras

from keras_l2reg import _keras
from keras_l2reg._selection import select_weights
from keras_l2reg._validation import check_number
from keras_l2reg.weights import find_weights


def set_weight_decay(
    optimizer,
    model,
    rate,
    *,
    biases=False,
    embeddings=False,
    layers=None,
    exclude=None,
    multipliers=None,
):
    """Have an optimizer decay the covered weights of a model, and no others.

    `w -= learning_rate * rate * w` before each step, for each covered weight

    Replaces the decay, and the exclusions from it, that the optimizer had. Keras
    saves an optimizer's `weight_decay` without its exclusions: call this again on a
    model that was loaded.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, built or not.
        model: The built `keras.Model` or `L2AllWeights` that the optimizer trains. If
            it is compiled already, its next step sees the new decay.
        rate: Finite float >= 0, per unit of the learning rate.
        biases, embeddings, layers, exclude: Which weights, as in
            `keras_l2reg.attach`.
        multipliers: As in `keras_l2reg.attach`, but of 0 and 1 only: an optimizer
            has one rate. Defaults to `None`.

    Returns:
        The optimizer.

    Raises:
        TypeError, ValueError: a bad argument; the optimizer is left as it was.

    Example:

    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...      keras.layers.Dense(2, name="head")])
    >>> optimizer = keras.optimizers.AdamW(0.001)
    >>> set_weight_decay(optimizer, model, 0.004, layers="hidden/*").weight_decay
    0.004

    Reference: Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
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


def _decaying(optimizer):
    """The optimizer that takes the steps: mixed precision wraps it."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            "Invalid type for argument `optimizer`. Expected a "
            "`keras.optimizers.Optimizer` instance. "
            f"Received: optimizer={optimizer!r} of type {type(optimizer).__name__}; "
            "give `model.optimizer` of a compiled model, or "
            "`keras.optimizers.get(name)`"
        )
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(inner, "optimizers"):
        raise ValueError(
            "Expected an optimizer with a decay of its own; give each one of a "
            f"`MultiOptimizer` by itself. Received: optimizer={optimizer!r}"
        )
    return inner


def _check_built(model):
    unbuilt = [weight.name for weight in find_weights(model) if weight.variable is None]
    if unbuilt:
        raise ValueError(
            "Expected a built model: an optimizer tells weights apart by their "
            f"variables. Received: a model with the unbuilt weights {unbuilt}; call "
            "it on a batch of data, or `model.build(input_shape)`, first"
        )


def _check_multipliers(covered):
    scaled = {weight.name: factor for weight, factor in covered if factor != 1.0}
    if scaled:
        raise ValueError(
            "Invalid value for argument `multipliers`. Expected factors 0 and 1: an "
            "optimizer has one decay rate for all weights. "
            f"Received: {scaled}; use an L2 penalty (`L2AllWeights`) instead"
        )
