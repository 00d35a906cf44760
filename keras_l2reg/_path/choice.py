"""Whether the runs of a path go together: whether they can, and whether it pays."""

from collections.abc import Mapping
from concurrent.futures import Executor
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._path.folds import Data


def check_together(
    together: Any,
    model: keras.Model,
    data: Data,
    fit_arguments: Mapping[str, Any],
    executor: Executor | None,
) -> bool:
    """Whether the runs can be compiled as one program.

    Raises:
        TypeError: `together` is neither a boolean nor `None`.
        ValueError: `together` is `True`, but they can't.
    """
    if together not in (True, False, None):
        raise TypeError(
            "Invalid type for argument `together`. Expected `True`, `False` or `None`. "
            f"Received: together={together!r} of type {type(together).__name__}"
        )
    obstacle = _obstacle(model, data, fit_arguments, executor)
    if together and obstacle is not None:
        raise ValueError(
            "Expected runs that can be compiled as one program, as together=True asks. "
            f"Received: {obstacle}; or leave out `together`, for one run after the "
            "other"
        )
    return obstacle is None


def _obstacle(
    model: keras.Model,
    data: Data,
    fit_arguments: Mapping[str, Any],
    executor: Executor | None,
) -> str | None:
    """Why the runs can't be compiled as one program, and what to do; `None` if so."""
    if not _keras.backend.stacks_runs:
        return f"the backend {_keras.backend.name!r}; use KERAS_BACKEND=jax"
    if executor is not None:
        return f"executor={executor!r}; leave it out, the runs share this process"
    if fit_arguments.get("callbacks"):
        return (
            "callbacks, which need each run's model after each epoch: "
            f"callbacks={fit_arguments['callbacks']!r}; leave them out"
        )
    if not _keras.backend.compiles_steps(model):
        return (
            f"a model with run_eagerly={model.run_eagerly}, "
            f"jit_compile={model.jit_compile}; compile it with jit_compile='auto'"
        )
    given = data.validation_data
    parts = given if isinstance(given, (tuple, list)) else [given]
    if not _keras.are_arrays(data.x, data.y, data.sample_weight, *parts):
        return "data that are not arrays; convert them, with `np.asarray` for example"
    if _keras.is_limited_or_distributed():
        return (
            "a `keras.distribution`, or a limit such as `keras.config.set_max_epochs`; "
            "unset it"
        )
    return None


def runs_at_once(model, setup, lines, together) -> int:
    return 1 if together is False else 10**9
