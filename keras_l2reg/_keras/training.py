"""The Keras trainer: its members, its compile arguments, and its running calls."""

import sys
from typing import Any

import keras


def trainer_members() -> set[str]:
    """Names of all members of the Keras trainers: the steps, `fit`, `metrics`, ..."""
    classes = keras.Model.__mro__
    trainers = classes[1 : classes.index(keras.layers.Layer)]
    return {name for kind in trainers for name in vars(kind) if name[:2] != "__"}


def overridden(model: keras.Model) -> set[str]:
    """Names of the members of `keras.Model` that the model or its class overrides."""
    members = {name for name in dir(keras.Model) if name[0] != "_"}
    found = set()
    for name in members | trainer_members():
        owner = next((c for c in type(model).__mro__ if name in vars(c)), keras.Model)
        of_keras = owner in keras.Model.__mro__ or owner.__module__[:6] == "keras."
        # Keras sets these three on each model, in place of the methods of that name.
        on_model = name in vars(model) and name not in ("build", "quantize", "loss")
        is_method = callable(getattr(keras.Model, name, None))
        if not of_keras or (on_model and is_method):
            found.add(name)
    return found


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """The live arguments (not their configs) that `model` was compiled with."""
    # `compile` stores the optimizer without the loss scaling of mixed precision.
    return {
        **model._compile_config.config,
        "optimizer": model.optimizer,
        "auto_scale_loss": False,
    }


def loss_tracker(model: keras.Model) -> Any:
    """The metric that the trainer updates with the loss of each step."""
    return model._loss_tracker


def set_loss_tracker(model: keras.Model, metric: keras.metrics.Metric) -> None:
    """Let the trainer update `metric` with the loss of each step.

    Its `sample_weight` is the number of samples. Lasts until the next `compile`.
    """
    # Bypasses Keras, which does not track this one either.
    object.__setattr__(model, "_loss_tracker", metric)


def compiled_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics that `compile` made, the first of `model.metrics`."""
    own = model._get_own_metrics()
    return own[: len(own) - len(model._metrics)]


def is_limited_or_distributed() -> bool:
    """Whether Keras limits each `fit`, for debugging, or spreads it over devices."""
    limits = keras.config.max_epochs(), keras.config.max_steps_per_epoch()
    return any(limits) or keras.distribution.distribution() is not None


_RUNNING_METHODS = (
    *("fit", "evaluate", "predict"),
    *("train_on_batch", "test_on_batch", "predict_on_batch"),
)


def runs_with(model: keras.Model) -> list[tuple[str, keras.Model, int]]:
    """The running calls of `fit`, `evaluate` etc. that use some of the model's weights.

    All threads are searched.

    Returns:
        A list of `(method name, the model that runs, thread identifier)`.
    """
    variables = {id(v) for v in model.variables}
    found = []
    for thread, frame in sys._current_frames().items():
        while frame is not None:
            if frame.f_code.co_name in _RUNNING_METHODS:
                runner = frame.f_locals.get("self")
                if isinstance(runner, keras.Model) and (
                    runner is model or any(id(v) in variables for v in runner.variables)
                ):
                    found.append((frame.f_code.co_name, runner, thread))
            frame = frame.f_back
    return found


def callbacks_before(
    callback: keras.callbacks.Callback,
) -> list[keras.callbacks.Callback]:
    """The callbacks that come before `callback` in the list that is calling it.

    Empty if Keras is not calling a method of `callback`.
    """
    frame: Any = sys._getframe(1)
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, keras.callbacks.CallbackList):
            for position, other in enumerate(caller.callbacks):
                if other is callback:
                    return caller.callbacks[:position]
        frame = frame.f_back
    return []
