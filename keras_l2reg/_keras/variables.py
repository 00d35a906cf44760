"""Variables: what they take, and what Keras makes them for."""

import types

import keras


def check_variables_take(regularizer):
    """Raise a ValueError if Keras refuses it: before 3.15, a plain function."""
    # The setter alone, on no variable: a step that is traced may not make one.
    keras.Variable.regularizer.fset(types.SimpleNamespace(), regularizer)


def is_seed(variable):
    """Whether a variable is the state of a `keras.random.SeedGenerator`."""
    return variable.name == "seed_generator_state"
