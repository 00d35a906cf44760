"""The strengths that a path tries by default, compared with NumPy's gradients."""

import keras
import numpy as np
import pytest
from keras import layers
from paths import X, Y, compiled, path_of
from sklearn.utils.class_weight import compute_sample_weight

from keras_l2reg import L2AllWeights, L2Grid, l2_path
from keras_l2reg._path.grid import grid_from_data

CLASSES = np.arange(24) % 3


def linear(units=2):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(units)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    return model


def top_by_numpy(model, y=Y, weights=1.0):
    """Where the grid begins, for a linear model and a weighted mean square."""
    kernel, bias = (np.array(w, "float64") for w in model.get_weights())
    errors = np.reshape(weights, (-1, 1)) * (X @ kernel + bias - y)
    data = X.T @ errors * 2 / y.size
    return 10 * np.linalg.norm(data) / np.linalg.norm(2 * kernel)


def strengths_of(path):
    return [record["l2"] for record in path.records]


def test_the_default_grid_begins_where_the_penalty_pulls_ten_times_as_hard():
    model = linear()
    expected = top_by_numpy(model) * 10 ** (-4 * np.arange(12) / 11)
    path = l2_path(model, X, Y, validation_data=(X, Y), epochs=1, verbose=0)
    strengths = strengths_of(path)
    np.testing.assert_allclose(strengths[:-1], expected, rtol=6e-3)
    assert strengths[-1] == 0


def test_a_grid_has_as_many_strengths_above_0_as_it_counts_over_its_span():
    model = linear()
    expected = top_by_numpy(model) / [1, 10, 100]
    grid = L2Grid(count=np.int64(3), span=100)
    strengths = strengths_of(path_of(model, l2=grid, epochs=1))
    np.testing.assert_allclose(strengths, [*expected, 0], rtol=6e-3)


@pytest.mark.parametrize("count", [1, 2, 12, 200])
def test_the_strengths_of_a_fine_grid_are_distinct(count):
    strengths = L2Grid(count, 1.01).below(1.234567)
    assert len({*strengths}) == count + 1
    np.testing.assert_allclose(strengths[0], 1.234567, rtol=5e-3)


@pytest.mark.parametrize("largest", [50, 1e9])
def test_sample_weights_move_the_grid(largest):
    weights = np.random.default_rng(1).uniform(0, largest, 24)
    model = linear()
    expected = top_by_numpy(model, weights=weights)
    top = grid_from_data(L2AllWeights(model), X, Y, weights)[0]
    assert top == pytest.approx(expected, rel=6e-3)


@pytest.mark.slow
def test_the_sample_weights_of_a_path_move_its_grid():
    weights = np.random.default_rng(1).uniform(0, 50, 24)
    model = linear()
    expected = top_by_numpy(model, weights=weights)
    path = path_of(model, l2=L2Grid(), epochs=1, sample_weight=weights)
    assert path.records[0]["l2"] == pytest.approx(expected, rel=6e-3)


@pytest.mark.parametrize(
    "kind", ["column", pytest.param("one_hot", marks=pytest.mark.slow)]
)
def test_class_weights_move_the_grid(kind):
    y = CLASSES[:, None] if kind == "column" else np.eye(3)[CLASSES]
    # A class that is not named has weight 1.
    class_weight = {0: 100.0, 1: 3.0}
    weights = compute_sample_weight({**class_weight, 2: 1.0}, CLASSES)
    model = linear(y.shape[1])
    expected = top_by_numpy(model, y, weights)
    validation = X, y
    path = l2_path(
        model,
        X,
        y,
        L2Grid(),
        validation,
        epochs=1,
        class_weight=class_weight,
        verbose=0,
    )
    assert path.records[0]["l2"] == pytest.approx(expected, rel=6e-3)


class Batches(keras.utils.PyDataset):
    """All samples as one batch, weighted or not."""

    def __init__(self, *batch):
        super().__init__()
        self.batch = batch

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self.batch


def test_the_weights_in_a_data_set_move_the_grid():
    model = linear()
    wrapped = L2AllWeights(model)
    weights = np.linspace(0, 50, 24).astype("float32")
    top = grid_from_data(wrapped, Batches(X, Y, weights), None)[0]
    assert top == pytest.approx(top_by_numpy(model, weights=weights), rel=6e-3)


def test_class_weights_move_the_grid_of_a_data_set():
    model = linear(1)
    wrapped = L2AllWeights(model)
    y, class_weight = CLASSES[:, None], {0: 100.0, 1: 3.0, 2: 1.0}
    weights = compute_sample_weight(class_weight, CLASSES)
    expected = top_by_numpy(model, y, weights)
    tf = pytest.importorskip("tensorflow")
    for data in (Batches(X, y), tf.data.Dataset.from_tensor_slices((X, y)).batch(24)):
        top = grid_from_data(wrapped, data, None, class_weight=class_weight)[0]
        assert top == pytest.approx(expected, rel=6e-3)


def test_the_sample_weights_of_each_output_move_the_grid():
    inputs = keras.Input((5,))
    outputs = {name: layers.Dense(2, name=name)(inputs) for name in "ab"}
    model = keras.Model(inputs, outputs)
    model.compile("sgd", {"a": "mse", "b": "mse"})
    wrapped, y = L2AllWeights(model), {"a": Y, "b": Y}
    weights = {"a": np.full(24, 7.0, "float32"), "b": np.full(24, 7.0, "float32")}
    plain, weighted = (grid_from_data(wrapped, X, y, w)[0] for w in (None, weights))
    assert weighted == pytest.approx(7 * plain, rel=1e-2)
    weights["b"] *= 0
    one_of_two = grid_from_data(wrapped, X, y, weights)[0]
    assert 0 < one_of_two < weighted


def test_a_grid_is_refused_if_all_weights_start_at_0():
    layer = layers.Dense(2, kernel_initializer="zeros")
    model = compiled(keras.Sequential([keras.Input((5,)), layer]))
    with pytest.raises(ValueError, match="choose the strengths"):
        path_of(model, l2=L2Grid())


@pytest.mark.slow
def test_the_table_says_if_no_penalty_is_best():
    # The validation data are fitted exactly without a penalty.
    model = keras.Sequential([keras.Input((5,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.3), "mse")
    exact = X, X[:, :1]
    path = l2_path(model, *exact, L2Grid(1), exact, epochs=40, verbose=0)
    assert path.best["l2"] == 0
    assert path.best["val_data_loss"] == pytest.approx(0, abs=1e-4)
    assert "the best is no penalty at all" in str(path)
