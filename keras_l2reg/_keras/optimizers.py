"""Which optimizer updates a variable, and whether it decays it."""

import contextlib
from collections.abc import Iterable
from typing import Any

import keras


def optimizer_for(
    model: keras.Model, variable: keras.Variable
) -> keras.optimizers.Optimizer | None:
    """The optimizer that actually updates `variable`, or `None` if there is none."""
    optimizer: Any = getattr(model, "optimizer", None)
    # Loss scaling wraps a `MultiOptimizer`, never the other way round.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(optimizer, "_optimizer_map"):
        optimizer = optimizer._optimizer_map(variable)
    return optimizer


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
    return decays(optimizer_for(model, variable), variable)


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


def set_decay_rate(optimizer: Any, rate: float) -> None:
    """Give an optimizer one decay rate for all the weights that it decays."""
    optimizer.weight_decay = rate
    if hasattr(optimizer, "adam_weight_decay"):
        # Muon updates weights that are not matrices as Adam does, with another rate.
        optimizer.adam_weight_decay = rate
