"""Whether the compiled step of `fit` or `evaluate` still matches the model.

The program that the step was compiled from is compared with a fresh trace; nothing
runs.
"""

import contextlib

import keras

from keras_l2reg._keras.backends import backend
from keras_l2reg._keras.losses import losses_kept
from keras_l2reg._keras.steps import Step, traced_functions


def stale_steps(model: keras.Model, batch: tuple | None = None) -> list[Step]:
    """Those of "train" and "test" whose compiled step differs from the model's now.

    TensorFlow remembers the shapes that it traced. JAX does not, so there every batch
    size up to that of `batch` is tried. torch runs eagerly. A step that can't be
    traced again, or whose traces differ from each other, is not reported.
    """
    stale = []
    for step in traced_functions(model):
        # A user's step may do anything when traced; then there is no telling.
        with contextlib.suppress(Exception), losses_kept(model):
            if any(
                fresh() != old and fresh() == fresh()
                for old, fresh in backend.programs(model, step, batch)
            ):
                stale.append(step)
    return stale
