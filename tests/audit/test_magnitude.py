"""Penalties that are too large: for float16, or relative to the data loss."""

import keras
import numpy as np
from audit_helpers import compiled, data, l2, regularized, where
from keras import layers, ops

from keras_l2reg import L2, L2AllWeights

# half-precision


def float16_model(regularizer):
    layer = layers.Dense(
        50, kernel_initializer="ones", kernel_regularizer=regularizer, dtype="float16"
    )
    model = keras.Sequential([keras.Input((2000,)), layer])
    assert layer.kernel.dtype == "float16"
    return model


def test_penalty_that_overflows_float16():
    (penalty,) = float16_model(l2(1e-6)).losses
    assert not np.isfinite(float(ops.convert_to_numpy(penalty)))
    for regularizer in (l2(1e-6), keras.regularizers.L1L2(l2=1e-6)):
        assert len(where(float16_model(regularizer), "half-precision")) == 1
    assert where(float16_model(L2(1e-6)), "half-precision") == []
    small = float16_model(l2(1e-6))
    small.layers[0].kernel.assign(small.layers[0].kernel * 0.1)
    assert where(small, "half-precision") == []


# dominates


def test_penalty_larger_than_max_share_of_the_data_loss():
    x, y = data()
    model = compiled(regularized())
    data_loss = np.mean((model.predict(x, verbose=0) - y) ** 2)
    kernels = [ops.convert_to_numpy(layer.kernel) for layer in model.layers]
    squares = sum(np.sum(k.astype("float64") ** 2) for k in kernels)
    for layer in model.layers:
        layer.kernel.regularizer = l2(float(data_loss / squares) * 0.5)
    assert where(model, "dominates", x, y, max_share=0.49) != []
    assert where(model, "dominates", x, y, max_share=0.51) == []
    assert where(model, "dominates") == []


def test_dominating_penalty_of_a_wrapper_with_two_outputs():
    inputs = keras.Input((4,))
    heads = {name: layers.Dense(2, name=name)(inputs) for name in ("a", "b")}
    x, y = data()
    model = keras.Model(inputs, heads)
    squares = sum(
        np.sum(ops.convert_to_numpy(model.get_layer(n).kernel) ** 2) for n in "ab"
    )
    model.compile("sgd", {"a": "mse", "b": "mse"}, loss_weights={"a": 1.0, "b": 0.0})
    loss = np.mean((model.predict(x, verbose=0)["a"] - y) ** 2)
    for factor, expected in ((0.9, 0), (1.1, 2)):
        wrapped = L2AllWeights(model, l2=float(factor * loss / squares))
        assert len(where(wrapped, "dominates", x, {"a": y, "b": y})) == expected
        wrapped.unwrap(strip=True)
