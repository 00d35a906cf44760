"""Whether the compiled step of `fit` or `evaluate` still matches the model.

The program that the step was compiled from is compared with a fresh trace; nothing is
executed.
"""

import contextlib

import keras

from keras_l2reg._keras.backends import backend
from keras_l2reg._keras.losses import losses_kept
from keras_l2reg._keras.steps import Step, traced_functions


def stale_steps(model: keras.Model, batch: tuple | None = None) -> list[Step]:
    """Those of "train" and "test" whose compiled step no longer matches the model.

    TensorFlow records the shapes that it traced. JAX does not, so every batch size up
    to that of `batch` is tried. torch runs eagerly. A step that can't be
    traced again, or whose traces differ from each other, is not reported.
    """
    stale = []
    for step in traced_functions(model):
        # A custom step may raise any error when traced; then it is not reported.
        with contextlib.suppress(Exception), losses_kept(model):
            if any(
                fresh() != old and fresh() == fresh()
                for old, fresh in backend.programs(model, step, batch)
            ):
                stale.append(step)
    return stale
