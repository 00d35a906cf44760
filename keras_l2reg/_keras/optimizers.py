"""Which optimizer updates a variable, whether it decays it, and its exchange."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops


def optimizers_within(optimizer: Any) -> Iterator[Any]:
    """An optimizer, and those around which it is, from the outermost inwards."""
    while optimizer is not None:
        yield optimizer
        optimizer = vars(optimizer).get("inner_optimizer")


def updaters(optimizer: Any) -> list[Any]:
    """The optimizer, or those of a `MultiOptimizer`, as far as it knows them yet."""
    return list(getattr(optimizer, "optimizers", [optimizer]))


def updater_of(optimizer: Any, variable: keras.Variable) -> Any:
    """The optimizer itself, or that of a `MultiOptimizer` which updates `variable`."""
    if not hasattr(optimizer, "_optimizer_map"):
        return optimizer
    # A map may be a function that makes a new optimizer at each call.
    known = vars(optimizer).get("_var_to_optimizer_idx", {})
    index = known.get(optimizer._var_key(variable))
    if index is None:
        return optimizer._optimizer_map(variable)
    return optimizer.optimizers[index]


def optimizer_for(
    model: keras.Model, variable: keras.Variable
) -> keras.optimizers.Optimizer | None:
    """The optimizer that actually updates `variable`, or `None` if there is none."""
    *_, innermost = None, *optimizers_within(getattr(model, "optimizer", None))
    return innermost and updater_of(innermost, variable)


def decays(optimizer: Any, variable: keras.Variable) -> bool:
    """Whether the optimizer's weight decay applies to `variable`."""
    rate = getattr(optimizer, "weight_decay", None)
    if hasattr(optimizer, "adam_weight_decay") and optimizer._should_use_adamw(
        variable
    ):
        # Muon updates weights that are not matrices as Adam does, with another rate.
        rate = optimizer.adam_weight_decay
    return bool(rate and optimizer._use_weight_decay(variable))


def decays_in(model: keras.Model, variable: keras.Variable) -> bool:
    """Whether the optimizer that `model` was compiled with decays `variable`."""
    around = optimizers_within(getattr(model, "optimizer", None))
    return any(
        decays(updater_of(optimizer, variable), variable) for optimizer in around
    )


def decayed_after_loading(
    model: keras.Model, variables: Iterable[keras.Variable]
) -> list[keras.Variable]:
    """Those of `variables` that are decayed only once the model was saved and loaded.

    Found by trying: Keras optimizers do not save their exclusions.
    """
    loaded, found = {}, []
    for variable in variables:
        optimizer = optimizer_for(model, variable)
        if optimizer is None or decays(optimizer, variable):
            continue
        if id(optimizer) not in loaded:
            loaded[id(optimizer)] = None
            # A custom optimizer may have no config.
            with contextlib.suppress(Exception):
                config = optimizer.get_config()
                loaded[id(optimizer)] = type(optimizer).from_config(config)
        if decays(loaded[id(optimizer)], variable):
            found.append(variable)
    return found


def stop_decay(optimizer: Any) -> list[tuple[Any, str, float]]:
    """Set the optimizer's own weight decay, if it has one, to 0.

    Not to `None`, which `AdamW` does not accept when it is loaded.

    Returns:
        What was replaced: a list of `(optimizer, attribute, rate)`.
    """
    replaced = []
    for updater in updaters(optimizer):
        # Muon updates weights that are not matrices as Adam does, with another rate.
        for name in ("weight_decay", "adam_weight_decay"):
            if rate := getattr(updater, name, None):
                replaced.append((updater, name, rate))
                setattr(updater, name, 0.0)
    return replaced


@contextlib.contextmanager
def decay_of_zero_skipped(optimizer: Any) -> Iterator[None]:
    """In this context, a weight decay of 0 is `None`, for which Keras does nothing.

    For 0.0, it would multiply every weight by 1.0.
    """
    skipped = [u for u in updaters(optimizer) if getattr(u, "weight_decay", None) == 0]
    for updater in skipped:
        updater.weight_decay = None
    try:
        yield
    finally:
        for updater in skipped:
            updater.weight_decay = 0.0


def learning_rate_of(optimizer: Any) -> Any:
    """What the learning rate comes from: a variable, a schedule or a function."""
    return optimizer._learning_rate


def is_update(optimizer: Any) -> Any:
    """Whether the next `apply` updates the weights, and does not only add up gradients.

    Returns:
        `True`, or a boolean tensor if the optimizer accumulates gradients.
    """
    steps = optimizer.gradient_accumulation_steps
    return not steps or ops.equal((optimizer._iterations + 1) % steps, 0)


def exchange_optimizer(model: keras.Model, old: Any, new: Any) -> None:
    """Let `model` train with `new` where it was compiled with `old`."""
    optimizer: Any = getattr(model, "optimizer", None)
    if optimizer is old:
        model.optimizer = new
    # The loss scaling that `compile` adds for mixed precision.
    elif getattr(optimizer, "inner_optimizer", None) is old:
        optimizer.inner_optimizer = new
    compiled_with = getattr(model, "_compile_config", None)
    if compiled_with is not None and compiled_with.config["optimizer"] is old:
        # Of this, the saved config is made.
        compiled_with.config["optimizer"] = new
