"""What the tests of `l2_path` share: data, small models, and short paths."""

import keras
import numpy as np
import pandas
import pytest
from keras import layers

from keras_l2reg import l2_path

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 5)).astype("float32")
Y = (X @ RNG.normal(size=(5, 2)) + RNG.normal(size=(24, 2))).astype("float32")
X_VAL = RNG.normal(size=(16, 5)).astype("float32")
Y_VAL = (X_VAL[:, :2] ** 2).astype("float32")
VALIDATION = (X_VAL, Y_VAL)
L2 = [0.3, 0.03, 0.0]


def network(l2=None, dropout=0.0, norm=False):
    regularizer = None if l2 is None else keras.regularizers.L2(l2)
    return keras.Sequential(
        [
            keras.Input((5,)),
            layers.Dense(4, "tanh", kernel_regularizer=regularizer),
            *[layers.BatchNormalization()] * norm,
            *[layers.Dropout(dropout)] * bool(dropout),
            layers.Dense(2, kernel_regularizer=regularizer),
        ]
    )


def compiled(model):
    model.compile(keras.optimizers.Adam(0.05), "mse", metrics=["mae"])
    return model


def path_of(model, l2=L2, x=X, y=Y, **arguments):
    arguments = {"epochs": 2, "batch_size": 8, "verbose": 0, **arguments}
    arguments.setdefault("validation_data", VALIDATION)
    return l2_path(model, x, y, l2, **arguments)


def by_keras(model, x=X, y=Y, validation=VALIDATION, seed=3, **arguments):
    """The metrics of a run, by Keras' `fit` and `evaluate` of a compiled model."""
    arguments = {"epochs": 2, "batch_size": 8, "verbose": 0, **arguments}
    x_val, y_val, sample_weight = (*validation, None)[:3]
    held_out = {"sample_weight": sample_weight, "batch_size": arguments["batch_size"]}
    # Otherwise `fit` makes the metrics first, and draws one more shuffle.
    model.evaluate(x_val, y_val, **held_out, verbose=0)
    keras.utils.set_random_seed(seed)
    logs = model.fit(x, y, **arguments).history
    metrics = {key: values[-1] for key, values in logs.items()}
    logs = model.evaluate(x_val, y_val, **held_out, verbose=0, return_dict=True)
    return metrics | {f"val_{key}": value for key, value in logs.items()}


def assert_has_metrics(run, metrics, rel=1e-4):
    """Whether a run or a record has these metrics."""
    assert {key: run[key] for key in metrics} == pytest.approx(metrics, rel=rel)


def full_batches(folds, x, steps):
    """The folds of a splitter, with the samples to train on so many times in a row.

    Unshuffled, and in batches of one time, an epoch is steps of gradient descent.
    """
    return [(np.tile(train, steps), valid) for train, valid in folds.split(x)]


def state(model):
    variables = [*model.weights, *model.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


def assert_same_state(model, before):
    for now, then in zip(state(model), before, strict=True):
        np.testing.assert_array_equal(now, then)


def assert_same_runs(one, other):
    one, other = (pandas.DataFrame(path.runs) for path in (one, other))
    pandas.testing.assert_frame_equal(one, other, rtol=1e-5, check_exact=False)


def assert_same_weights(model, before):
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


class InNthRun(keras.callbacks.Callback):
    """Does something at the start of the n-th run."""

    def __init__(self, n):
        super().__init__()
        self.runs_left = n

    def on_train_begin(self, logs=None):
        self.runs_left -= 1
        if self.runs_left == 0:
            self.act()

    def act(self):
        pass


class Interrupt(InNthRun):
    """Ctrl-C during an epoch of the n-th run."""

    def on_train_batch_end(self, batch, logs=None):
        if self.runs_left == 0:
            raise KeyboardInterrupt


class Fail(InNthRun):
    """An error at the start of the n-th run."""

    def act(self):
        raise RuntimeError("no memory")
