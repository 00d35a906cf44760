"""The compiled steps of `fit` and `evaluate`."""

from collections.abc import Callable
from typing import Any, Literal

import keras

Step = Literal["train", "test"]
_STEPS: tuple[Step, ...] = ("train", "test")


def traced_functions(model: keras.layers.Layer) -> list[Step]:
    """Names of the step functions that `model` has: "train", "test" or both."""
    return [s for s in _STEPS if getattr(model, f"{s}_function", None) is not None]


def reset_compiled_steps(model: keras.layers.Layer) -> None:
    """Make the next step of `fit` and `evaluate` use the model as it is now.

    A model that was not compiled or not run is not changed.
    """
    for step in traced_functions(model):
        getattr(model, f"make_{step}_function")(force=True)


def function_within(function: Callable, wanted: Callable[[Any], bool]) -> Any:
    """The first callable in the closure of `function` for which `wanted` is true."""
    seen, todo = set(), [function]
    while todo:
        candidate = todo.pop()
        if id(candidate) in seen:
            continue
        seen.add(id(candidate))
        if wanted(candidate):
            return candidate
        python = getattr(candidate, "python_function", candidate)
        cells = getattr(python, "__closure__", None) or ()
        todo += [c.cell_contents for c in cells if callable(c.cell_contents)]
    return None


def fresh_step(
    model: keras.Model,
    step: Step,
    wrap: Callable[[Callable], Callable] = lambda function: function,
) -> Callable:
    """The step as Keras would compile it now, not yet traced."""
    function = getattr(model, f"{step}_step")
    # A new function, since caches would return the trace of the old one.
    return model._make_function(wrap(lambda *args: function(*args)))
