"""The logged loss and its parts, beside Keras' own mean of the loss."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import L2AllWeights
from keras_l2reg._loss_split import LossSplit

BACKEND = keras.backend.backend()
RNG = np.random.default_rng(0)
# Exact in float32, as strengths are.
L2 = 0.0625
# 21 samples in batches of 8: the last one has 5.
X, Y = RNG.normal(size=(21, 4)), RNG.normal(size=(21, 2))


def network(regularizer=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "tanh", kernel_regularizer=regularizer),
            layers.Dense(2, kernel_regularizer=regularizer),
        ]
    )


def wrapper(kind=L2AllWeights):
    model = kind(network(), l2=L2)
    model.compile("sgd", "mse", metrics=["mae"])
    return model


def fit(model, **arguments):
    return model.fit(X, Y, 8, 3, verbose=0, shuffle=False, **arguments).history


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        (2.0, None),
        (2.0, 3),
        ([1.0, 2.0, 4.0], None),
        ([1.0, 2.0, 4.0], [1, 0, 2]),
        ([1.0, 2.0, 4.0], 2.0),
    ],
)
def test_the_mean_of_the_loss_is_that_of_keras(values, weights):
    split, mean = LossSplit(), keras.metrics.Mean()
    for factor in (1, 3):
        batch = ops.convert_to_tensor(values) * factor
        split.update_state(batch, sample_weight=weights)
        if weights is not None:
            weights = ops.convert_to_tensor(weights, "float32")
        mean.update_state(batch, sample_weight=weights)
    assert float(split.result()["loss"]) == pytest.approx(float(mean.result()))
    split.reset_state()
    assert [float(value) for value in split.result().values()] == [0.0] * 3


def test_a_reset_forgets_the_parts_of_the_last_batch():
    split = LossSplit()
    split.set_parts(1.0, 2.0)
    split.reset_state()
    # As in a step of one's own that does not call `compute_loss`.
    split.update_state(3.0)
    assert [float(value) for value in split.result().values()] == [3.0, 0.0, 0.0]


def test_there_are_no_more_metrics_and_variables_of_metrics_than_without_wrapper():
    bare = network()
    bare.compile("sgd", "mse", metrics=["mae"])
    model = wrapper()
    for each in (bare, model):
        fit(each)
    assert model.metrics_names == bare.metrics_names
    assert len(model.metrics_variables) == len(bare.metrics_variables)


@pytest.mark.skipif(BACKEND == "torch", reason="its mean by Keras is in float32")
@pytest.mark.usefixtures("float64")
def test_the_loss_is_logged_as_precisely_as_by_keras():
    bare = network(keras.regularizers.L2(L2))
    bare.compile("sgd", "mse", metrics=["mae"])
    np.testing.assert_allclose(fit(wrapper())["loss"], fit(bare)["loss"], rtol=1e-12)


def test_before_compile_the_loss_is_that_of_keras():
    bare, model = network(keras.regularizers.L2(L2)), L2AllWeights(network(), l2=L2)
    losses = [float(each.compute_loss(X, Y, each(X))) for each in (bare, model)]
    assert losses[1] == pytest.approx(losses[0])


def test_a_loss_that_is_computed_between_batches_is_not_logged():
    class Compute(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.compute_loss(X, Y, 10 * self.model(X), training=False)

    logs, expected = fit(wrapper(), callbacks=[Compute()]), fit(wrapper())
    for key, values in expected.items():
        np.testing.assert_allclose(logs[key], values, rtol=1e-6)


class OwnStep(L2AllWeights):
    """With a step as in Keras' guide "Customizing what happens in fit()"."""

    if BACKEND == "tensorflow":

        def train_step(self, data):
            import tensorflow as tf

            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x, y, y_pred)
            weights = self.trainable_variables
            gradients = tape.gradient(loss, weights)
            self.optimizer.apply(gradients, weights)
            return self.updated_metrics(x, y, y_pred, loss)

    if BACKEND == "torch":

        def train_step(self, data):
            import torch

            x, y = data
            self.zero_grad()
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred)
            loss.backward()
            weights = self.trainable_weights
            with torch.no_grad():
                self.optimizer.apply([w.value.grad for w in weights], weights)
            return self.updated_metrics(x, y, y_pred, loss)

    if BACKEND == "jax":

        def train_step(self, state, data):
            import jax

            trainable, fixed, optimizer, metrics = state
            x, y = data
            compute = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
            (loss, (_, y_pred, fixed, metrics)), gradients = compute(
                trainable, fixed, metrics, x, y, None, True, optimizer
            )
            trainable, optimizer = self.optimizer.stateless_apply(
                optimizer, gradients, trainable
            )
            logs, updated = {}, []
            for metric in self.metrics:
                own = metrics[len(updated) : len(updated) + len(metric.variables)]
                batch = (loss, len(x)) if metric.name == "loss" else (y, y_pred)
                own = metric.stateless_update_state(own, *batch)
                logs[metric.name] = metric.stateless_result(own)
                updated += own
            return logs, (trainable, fixed, optimizer, updated)

    def updated_metrics(self, x, y, y_pred, loss):
        for metric in self.metrics:
            batch = (loss, ops.shape(x)[0]) if metric.name == "loss" else (y, y_pred)
            metric.update_state(*batch)
        return {metric.name: metric.result() for metric in self.metrics}


def test_a_step_of_ones_own_may_update_the_metrics_as_in_the_guides_of_keras():
    logs, expected = fit(wrapper(OwnStep)), fit(wrapper())
    assert {*logs} == {*expected}
    for key in ("loss", "data_loss", "penalty"):
        np.testing.assert_allclose(logs[key], expected[key], rtol=1e-5)
