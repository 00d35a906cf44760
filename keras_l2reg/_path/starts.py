"""The weights that each repeat of a path starts from."""

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._path.runs import Arrays, assign, read, state_of
from keras_l2reg.models import L2AllWeights


def starts_of(
    model: L2AllWeights, repeats: int, seed: int, new_starts: bool
) -> list[Arrays]:
    """For each repeat, the values of `state_of(model)` that its runs start from.

    Args:
        model: A built wrapper; it is not changed.
        repeats, seed, new_starts: as in `l2_path`.

    Raises:
        ValueError: new weights can't be drawn, since those of the clone have other
            shapes.
    """
    variables, inner = state_of(model), model.wrapped_model
    initial, starts = read(variables), []
    for repeat in range(repeats):
        if new_starts:
            keras.utils.set_random_seed(seed + repeat)
            inner.set_weights(_new_initial_weights(inner))
        starts.append(
            [
                _shifted(value, repeat) if _keras.is_seed(variable) else value
                for variable, value in zip(variables, read(variables), strict=True)
            ]
        )
    assign(variables, initial)
    return starts


def _shifted(seed: np.ndarray, repeat: int) -> np.ndarray:
    """The state of a `SeedGenerator`, different for each repeat."""
    return seed + np.array([repeat, 0], seed.dtype)


def _new_initial_weights(model: keras.Model) -> Arrays:
    clone = keras.models.clone_model(model)
    if [v.shape for v in clone.weights] != [v.shape for v in model.weights]:
        raise ValueError(
            "Expected a model that `keras.models.clone_model` builds, to draw new "
            f"initial weights. Received: new_starts=True, model={model.name!r}, whose "
            "clone has weights of other shapes; define `get_config` and `build`, or "
            "leave out `new_starts`"
        )
    return clone.get_weights()
