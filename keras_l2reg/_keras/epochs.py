"""Whole epochs of training and evaluation, as Keras' `fit` and `evaluate` do them.

`Epochs` calls these two. Most of the time of a small network lies between their steps,
so a backend may have a class of its own, such as an `ArrayEpochs`.

>>> import numpy as np
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
>>> model.compile("sgd", "mse")
>>> epochs = Epochs(model)
>>> samples = np.zeros((8, 4)), np.zeros((8, 1)), None
>>> epochs.fit(samples, 3, keras.callbacks.Callback()), epochs.evaluate(samples)
({'loss': 0.0}, {'loss': 0.0})
"""

from collections.abc import Mapping
from typing import Any

import keras

# `x`, `y` and `sample_weight`, as for `keras.Model.fit`.
Samples = tuple[Any, Any, Any]


class Epochs:
    """Trains and evaluates a model.

    Args:
        model: A compiled `keras.Model`.
    """

    def __init__(self, model: keras.Model):
        self.model = model

    def fit(
        self,
        samples: Samples,
        epochs: int,
        callback: keras.callbacks.Callback,
        arguments: Mapping[str, Any] | None = None,
        seed: int | None = None,
    ) -> dict[str, Any]:
        """Train the model: `keras.Model.fit`, after `keras.utils.set_random_seed`.

        Args:
            samples: `(x, y, sample_weight)`.
            epochs: Integer >= 1.
            callback: A callback whose methods `on_epoch_end` and `on_train_end` are
                called, after those of others in `arguments`; it may stop the training.
            arguments: Further arguments of `fit`. Defaults to none.
            seed: Integer. Defaults to `None`, which sets no seed.

        Returns:
            The logs of the last epoch.
        """
        if seed is not None:
            keras.utils.set_random_seed(seed)
        x, y, sample_weight = samples
        arguments = dict(arguments or {})
        callbacks = keras.tree.flatten(arguments.pop("callbacks", None) or [])
        history = self.model.fit(
            x,
            y,
            sample_weight=sample_weight,
            epochs=epochs,
            callbacks=[*callbacks, callback],
            verbose=0,  # pyright: ignore[reportArgumentType]
            **arguments,
        ).history
        return {key: values[-1] for key, values in history.items()}

    def evaluate(
        self,
        samples: Samples,
        batch_size: int = 32,
        steps: int | None = None,
    ) -> dict[str, Any]:
        """The logs of `keras.Model.evaluate`."""
        x, y, sample_weight = samples
        return self.model.evaluate(
            x,
            y,
            sample_weight=sample_weight,
            batch_size=batch_size,
            steps=steps,
            return_dict=True,
            verbose=0,  # pyright: ignore[reportArgumentType]
        )
