"""Whether the compiled step of `fit` or `evaluate` is still what the model says.

The program that the step was compiled from is compared with a fresh trace; nothing
runs.
"""

import contextlib

from keras_l2reg._keras.backends import backend
from keras_l2reg._keras.losses import losses_kept
from keras_l2reg._keras.steps import traced_functions


def stale_steps(model, batch=None):
    """Those of "train", "test" whose compiled step is not what the model now says.

    TensorFlow remembers the shapes that it traced. JAX does not, so there every batch
    size up to that of `batch` is tried. torch runs eagerly. A step that can't be
    traced again, or not twice alike, is not called stale.
    """
    stale = []
    for step in traced_functions(model):
        # A step of the user's own may do anything when traced; then we can't tell.
        with contextlib.suppress(Exception), losses_kept(model):
            if any(
                fresh() != old and fresh() == fresh()
                for old, fresh in backend.programs(model, step, batch)
            ):
                stale.append(step)
    return stale
