"""Training steps equal those of a TensorFlow 1 program that adds `tf.nn.l2_loss`.

The reference is a TensorFlow 1 graph: placeholders, `tf.nn.l2_loss` on both kernels
and a `GradientDescentOptimizer`. TensorFlow runs beside any Keras backend.
"""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_l2reg import L2AllWeights, L2Loss, attach

PIXELS, HIDDEN, LETTERS, BATCH, STEPS = 784, 1024, 10, 128, 50
BETA, STEP_SIZE = 3e-3, 0.1


def made_up_letters():
    rng = np.random.default_rng(0)
    prototypes = rng.uniform(-0.5, 0.5, (LETTERS, PIXELS))
    labels = rng.integers(0, LETTERS, 10 * BATCH)
    images = prototypes[labels] + rng.normal(0, 0.5, (len(labels), PIXELS))
    return images.astype("float32"), np.eye(LETTERS, dtype="float32")[labels]


def start():
    rng = np.random.default_rng(1)
    return [
        rng.normal(0, PIXELS**-0.5, (PIXELS, HIDDEN)).astype("float32"),
        np.zeros(HIDDEN, "float32"),
        rng.normal(0, HIDDEN**-0.5, (HIDDEN, LETTERS)).astype("float32"),
        np.zeros(LETTERS, "float32"),
    ]


def batches():
    images, labels = made_up_letters()
    for step in range(STEPS):
        offset = step * BATCH % (len(labels) - BATCH)
        yield images[offset : offset + BATCH], labels[offset : offset + BATCH]


def run_graph_program():
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, (BATCH, PIXELS))
        labels = v1.placeholder(tf.float32, (BATCH, LETTERS))
        w1, b1, w2, b2 = weights = [v1.Variable(value) for value in start()]
        hidden = tf.nn.relu(tf.matmul(images, w1) + b1)
        logits = tf.matmul(hidden, w2) + b2
        loss = tf.reduce_mean(
            tf.nn.softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        ) + BETA * (tf.nn.l2_loss(w1) + tf.nn.l2_loss(w2))
        step = v1.train.GradientDescentOptimizer(STEP_SIZE).minimize(loss)
        session.run(v1.global_variables_initializer())
        losses = [
            session.run([loss, step], {images: x, labels: y})[0] for x, y in batches()
        ]
        return losses, session.run(weights)


@pytest.fixture(scope="module")
def reference():
    return run_graph_program()


def wrapped(model):
    return L2AllWeights(model, regularizer=L2Loss(BETA))


def attached(model):
    return attach(model, L2Loss(BETA))


@pytest.mark.parametrize("regularize", [wrapped, attached])
def test_fifty_steps_are_those_of_the_graph_program(regularize, reference):
    model = keras.Sequential(
        [
            keras.Input((PIXELS,)),
            keras.layers.Dense(HIDDEN, activation="relu"),
            keras.layers.Dense(LETTERS),
        ]
    )
    model.set_weights(start())
    trained = regularize(model)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    trained.compile(keras.optimizers.SGD(STEP_SIZE), loss)
    losses = []
    for x, y in batches():
        trained.reset_metrics()
        losses.append(trained.train_on_batch(x, y, return_dict=True)["loss"])

    expected_losses, expected_weights = reference
    assert expected_losses[-1] < 0.8 * expected_losses[0], "it learns"
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for ours, theirs in zip(model.get_weights(), expected_weights, strict=True):
        assert np.linalg.norm(ours - theirs) < 1e-4 * np.linalg.norm(theirs)
