"""Which optimizer updates a variable, and whether it decays it."""

import contextlib


def optimizer_for(model, variable):
    """The optimizer that really updates `variable`, or `None` if there is none."""
    optimizer = getattr(model, "optimizer", None)
    # Loss scaling stands around a `MultiOptimizer`, never within.
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(optimizer, "_optimizer_map"):
        optimizer = optimizer._optimizer_map(variable)
    return optimizer


def decays(optimizer, variable):
    """Whether the optimizer's own weight decay reaches `variable`."""
    rate = getattr(optimizer, "weight_decay", None)
    if hasattr(optimizer, "adam_weight_decay") and optimizer._should_use_adamw(
        variable
    ):
        # Muon hands the weights that are no matrices to an Adam of its own.
        rate = optimizer.adam_weight_decay
    return bool(rate and optimizer._use_weight_decay(variable))


def decays_in(model, variable):
    """Whether the optimizer that `model` was compiled with decays `variable`."""
    return decays(optimizer_for(model, variable), variable)


def decay_comes_back_on_load(model, variables):
    """Those of `variables` that decay again once the model was saved and loaded.

    Found by trying: Keras' optimizers leave their exclusions out of their configs.
    """
    loaded, found = {}, []
    for variable in variables:
        optimizer = optimizer_for(model, variable)
        if optimizer is None or decays(optimizer, variable):
            continue
        if id(optimizer) not in loaded:
            loaded[id(optimizer)] = None
            # One of the user's own need not be saved at all.
            with contextlib.suppress(Exception):
                config = optimizer.get_config()
                loaded[id(optimizer)] = type(optimizer).from_config(config)
        if decays(loaded[id(optimizer)], variable):
            found.append(variable)
    return found


def set_decay_rate(optimizer, rate):
    """Give an optimizer one decay rate for all the weights that it decays."""
    optimizer.weight_decay = rate
    if hasattr(optimizer, "adam_weight_decay"):
        # Muon hands the weights that are no matrices to an Adam of its own.
        optimizer.adam_weight_decay = rate
