"""The compiled steps of `fit` and `evaluate`."""


def traced_functions(model):
    """Names of the step functions that `model` holds: "train", "test" or both."""
    return [
        step
        for step in ("train", "test")
        if getattr(model, f"{step}_function", None) is not None
    ]


def reset_compiled_steps(model):
    """Make the next step of `fit` and `evaluate` see the model as it is now.

    A model that was not compiled or not run is left alone.
    """
    for step in traced_functions(model):
        getattr(model, f"make_{step}_function")(force=True)


def function_within(function, wanted):
    """The first of the callables that `function` closes over that is `wanted`."""
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


def fresh_step(model, step, wrap=lambda function: function):
    """The step as Keras would compile it now, not yet traced."""
    function = getattr(model, f"{step}_step")
    # A new function: caches must not take it for the one they know.
    return model._make_function(wrap(lambda *args: function(*args)))
