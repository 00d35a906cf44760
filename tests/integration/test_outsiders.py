"""Training results equal those of scikit-learn, torch.optim and Keras."""

import keras
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge

from keras_l2reg import L2AllWeights, attach


def linear_model(outputs, activation=None):
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(outputs, activation=activation)]
    )
    return model, model.layers[0]


def train_to_convergence(model, x, y, loss, steps, step_size=0.2):
    model.compile(keras.optimizers.SGD(step_size, momentum=0.9), loss)
    # Many full batches to an epoch: fewer callbacks, the same steps.
    repeats = 50
    model.fit(
        np.tile(x, (repeats, 1)),
        np.tile(y, (repeats, 1)),
        batch_size=len(x),
        epochs=steps // repeats,
        shuffle=False,
        verbose=0,
    )


def test_linear_model_converges_to_ridge():
    """Ridge minimizes `|y - xw - b|**2 + alpha * |w|**2` over n samples.

    Keras' mse is the mean over n samples and k outputs; times `n * k` it is Ridge's
    first term, so `l2 * n * k = alpha`.
    """
    rng = np.random.default_rng(0)
    n, k, l2 = 32, 2, 0.05
    x = rng.normal(size=(n, 4)).astype("float32")
    y = (x @ rng.normal(size=(4, k)) + rng.normal(size=(n, k)) + 1).astype("float32")
    ridge = Ridge(alpha=l2 * n * k, solver="cholesky").fit(x, y)
    model, layer = linear_model(k)
    train_to_convergence(L2AllWeights(model, l2), x, y, "mse", steps=300)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(kernel, ridge.coef_.T, atol=1e-4)
    np.testing.assert_allclose(bias, ridge.intercept_, atol=1e-4)
    unregularized = Ridge(alpha=0).fit(x, y)
    assert abs(unregularized.coef_ - ridge.coef_).max() > 1e-2, "alpha matters"


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_model_converges_to_logistic_regression(classes):
    """LogisticRegression minimizes `C * sum_i crossentropy_i + |w|**2 / 2`.

    Divided by `C * n` that is Keras' mean crossentropy plus `|w|**2 / (2 * C * n)`,
    so `l2 = 1 / (2 * C * n)`.
    """
    rng = np.random.default_rng(0)
    n, inverse_strength = 48, 0.3
    x = rng.normal(size=(n, 4)).astype("float32")
    scores = 2 * x @ rng.normal(size=(4, classes)) + rng.normal(size=(n, classes))
    y = np.argmax(scores, axis=1)
    theirs = LogisticRegression(C=inverse_strength, tol=1e-10, max_iter=1000).fit(x, y)
    if classes == 2:
        model, layer = linear_model(1, "sigmoid")
        loss = "binary_crossentropy"
    else:
        model, layer = linear_model(classes, "softmax")
        loss = "sparse_categorical_crossentropy"
    attach(model, 1 / (2 * inverse_strength * n))
    train_to_convergence(model, x, y[:, None], loss, steps=500, step_size=0.4)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(kernel, theirs.coef_.T, atol=1e-4)
    # Softmax does not see a constant added to all biases.
    free = bias.mean() - theirs.intercept_.mean() if classes > 2 else 0.0
    np.testing.assert_allclose(bias - free, theirs.intercept_, atol=1e-4)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_sgd_with_l2_is_torchs_weight_decay_step_by_step(momentum, torch):
    """torch adds `weight_decay * w` to the gradient, L2 adds `2 * l2 * w`."""
    rng = np.random.default_rng(0)
    l2, step_size = 0.03, 0.1
    x = rng.normal(size=(20, 4)).astype("float32")
    y = rng.normal(size=(20, 2)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="tanh"),
            keras.layers.Dense(2),
        ]
    )
    theirs = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
    )
    linears = [theirs[0], theirs[2]]
    for dense, linear in zip(model.layers, linears, strict=True):
        kernel, bias = dense.get_weights()
        linear.weight.data = torch.tensor(kernel.T.copy())
        linear.bias.data = torch.tensor(bias)
    optimizer = torch.optim.SGD(
        [
            {"params": [a.weight for a in linears], "weight_decay": 2 * l2},
            {"params": [a.bias for a in linears], "weight_decay": 0.0},
        ],
        lr=step_size,
        momentum=momentum,
    )
    wrapped = L2AllWeights(model, l2)
    wrapped.compile(keras.optimizers.SGD(step_size, momentum=momentum), "mse")
    for _ in range(20):
        wrapped.train_on_batch(x, y)
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(
            theirs(torch.tensor(x)), torch.tensor(y)
        ).backward()
        optimizer.step()
        for dense, linear in zip(model.layers, linears, strict=True):
            kernel, bias = dense.get_weights()
            weight = linear.weight.detach().cpu().numpy().T
            np.testing.assert_allclose(kernel, weight, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(
                bias, linear.bias.detach().cpu().numpy(), rtol=1e-5, atol=1e-6
            )


def image_model(l2=None):
    keras.utils.set_random_seed(0)
    regularizer = None if l2 is None else keras.regularizers.L2(l2)
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            # The gradient of a bias here would be rounding errors, which Adam enlarges.
            keras.layers.Conv2D(3, 3, use_bias=False, kernel_regularizer=regularizer),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.DepthwiseConv2D(2, depthwise_regularizer=regularizer),
            keras.layers.Flatten(),
            keras.layers.Dense(2, kernel_regularizer=regularizer),
        ]
    )


@pytest.mark.parametrize(
    "regularize", [pytest.param(attach, marks=pytest.mark.slow), L2AllWeights]
)
def test_trajectory_is_that_of_regularizers_given_at_construction(regularize):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(20, 6, 6, 1)).astype("float32")
    y = rng.normal(size=(20, 2)).astype("float32")
    expected, ours = image_model(0.01), regularize(image_model(), 0.01)
    losses = []
    for model in (expected, ours):
        model.compile(keras.optimizers.Adam(0.01), "mse")
        fit = model.fit(
            x,
            y,
            batch_size=8,
            epochs=3,
            shuffle=False,
            verbose=0,
            validation_data=(x, y),
        )
        losses.append([fit.history["loss"], fit.history["val_loss"]])
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-6)
    ours = getattr(ours, "wrapped_model", ours)
    for a, b in zip(ours.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
