"""Bad arguments of `l2_path` are refused before anything is changed."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers
from paths import (
    VALIDATION,
    X_VAL,
    Y_VAL,
    X,
    Y,
    assert_same_weights,
    compiled,
    network,
    path_of,
)

from keras_l2reg import L2AllWeights, L2Grid, attach, l2_path
from keras_l2reg._path.arguments import PATH_ARGUMENTS


def attached():
    return compiled(attach(network(), 0.1))


def no_strength():
    return compiled(L2AllWeights(network(), regularizer="l1"))


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (lambda: "model", {}, TypeError, "'model'"),
        (network, {}, ValueError, "compile"),
        (attached, {}, ValueError, "detach"),
        (no_strength, {}, ValueError, "L2 strength"),
        (None, {"l2": 0.1}, TypeError, "0.1"),
        (None, {"l2": np.array(0.1)}, TypeError, "iterable of floats"),
        (None, {"l2": None}, TypeError, "l2=None"),
        (None, {"l2": True}, TypeError, "l2=True"),
        (None, {"l2": 12}, TypeError, r"L2Grid\(count=12\).*write l2=\[12\]"),
        (None, {"l2": []}, ValueError, "at least one"),
        (None, {"l2": [0.1, -1.0]}, ValueError, "-1.0"),
        (None, {"l2": ["a"]}, TypeError, "'a'"),
        (None, {"validation_data": None}, ValueError, "validation_data=None"),
        (None, {"validation_data": (b for b in ())}, TypeError, "generator"),
        (None, {"validation_data": ((b for b in ()), Y)}, TypeError, "generator"),
        (None, {"validation_data": iter([VALIDATION])}, TypeError, "list_iterator"),
        (None, {"validation_data": (X, Y, None, None)}, ValueError, "of 4 parts"),
        (None, {"validation_data": 3}, TypeError, "3 of type int"),
        (None, {"x": None}, TypeError, "x=None"),
        (None, {"x": zip(X, Y, strict=True), "y": None}, TypeError, "zip"),
        (None, {"y": Y[:7]}, ValueError, r"\(24, 5\), \(7, 2\)"),
        (None, {"sample_weight": np.ones(3)}, ValueError, r"\(3,\)"),
        (None, {"validation_data": (X_VAL, Y_VAL[:7])}, ValueError, r"\(7, 2\)"),
        (None, {"epochs": 0}, ValueError, "epochs=0"),
        (None, {"repeats": True}, TypeError, "repeats=True"),
        (None, {"seed": -1}, ValueError, "seed=-1"),
        (None, {"monitor": "val_mae"}, ValueError, "mode=None"),
        (None, {"mode": "least"}, ValueError, "'least'"),
        (None, {"monitor": "val_los_loss"}, ValueError, "val_data_loss"),
        (None, {"monitor": 3}, TypeError, "monitor=3"),
        (None, {"validation_split": 0.1}, TypeError, r"validation_data=\(x\[n:\]"),
        (None, {"initial_epoch": 2}, TypeError, "with `epochs`"),
        (None, {"epoch": 3}, TypeError, "did you mean `epochs`"),
        (None, {"repeat": 3}, TypeError, "did you mean `repeats`"),
        (None, {"rich": 3}, TypeError, "rich=3$"),
        (None, {"executor": 4}, TypeError, "get_executor"),
        (
            None,
            {"sample_weight": np.ones(24), "class_weight": {0: 2.0}},
            ValueError,
            "Received: both",
        ),
    ],
)
def test_a_bad_argument_is_refused_and_the_model_is_unchanged(
    make, arguments, error, message
):
    model = make() if make else compiled(network(0.7))
    before = model.get_config() if make is None else None
    weights = model.get_weights() if make is None else None
    with pytest.raises(error, match=message):
        path_of(model, **arguments)
    if make is None:
        assert model.get_config() == before
        assert_same_weights(model, weights)


def test_validation_split_is_refused_before_missing_validation_data():
    with pytest.raises(TypeError, match=r"validation_split=0\.2"):
        path_of(compiled(network()), validation_data=None, validation_split=0.2)


# ------------------------------------------------------------------- empty data


class NoBatch(keras.utils.PyDataset):
    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError(index)


def of_tensorflow(keep):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((X, Y))
    if keep == "filtered":
        # Its length is unknown until it is read.
        return data.filter(lambda x, y: False).batch(8)
    return data.take(7).batch(8, drop_remainder=True)


def of_torch(sized):
    torch = pytest.importorskip("torch")

    class Nothing(torch.utils.data.IterableDataset):
        def __iter__(self):
            return iter(())

    empty = torch.utils.data.TensorDataset(torch.zeros((0, 5)), torch.zeros((0, 2)))
    return torch.utils.data.DataLoader(empty if sized else Nothing())


EMPTY = {
    "arrays": lambda: (X[:0], Y[:0]),
    "no targets": lambda: (X, Y[:0]),
    "list": lambda: ([], Y),
    "dict": lambda: ({}, Y),
    "several inputs": lambda: ([X[:0], X[:0]], Y[:0]),
    "PyDataset": NoBatch,
    "last batch dropped": lambda: of_tensorflow("first"),
    "all filtered": lambda: of_tensorflow("filtered"),
    "DataLoader": lambda: of_torch(sized=True),
    "IterableDataset": lambda: of_torch(sized=False),
}


@pytest.mark.parametrize("kind", EMPTY)
@pytest.mark.parametrize("part", ["x", "validation_data"])
@pytest.mark.parametrize("wrap", [False, True])
def test_empty_data_are_refused_before_anything_is_changed(kind, part, wrap):
    data = EMPTY[kind]()
    if part == "x":
        arguments = dict(
            zip("xy", data if isinstance(data, tuple) else (data, None), strict=True)
        )
    else:
        arguments = {"validation_data": data}
    model = network(0.7)
    model = compiled(L2AllWeights(model, existing="replace") if wrap else model)
    before, config = model.get_weights(), model.get_config()
    with pytest.raises(ValueError, match=f"(?s)at least one .*`{part}`.*check how"):
        path_of(model, **arguments)
    assert not model.optimizer.built
    assert model.get_config() == config
    assert_same_weights(model, before)


def test_validation_data_may_not_be_an_empty_tuple():
    with pytest.raises(ValueError, match="a tuple of 0 parts"):
        path_of(compiled(network()), validation_data=())


# ------------------------------------------------------------- after an error


@keras.saving.register_keras_serializable(__name__)
class Noise(layers.Layer):
    """Draws random numbers also in an evaluation, like the sampling layer of a VAE."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(3)

    def call(self, x):
        return x + keras.random.normal(keras.ops.shape(x), seed=self.seeds)


@pytest.mark.parametrize("arguments", [{"monitor": "val_no_loss"}, {"l2": L2Grid()}])
def test_an_error_leaves_the_seeds_as_they_were(arguments):
    zeros = layers.Dense(2, kernel_initializer="zeros")
    model = compiled(keras.Sequential([keras.Input((5,)), Noise(), zeros]))
    before = keras.ops.convert_to_numpy(model.layers[0].seeds.state)
    with pytest.raises(ValueError, match="Expected"):
        path_of(model, **arguments)
    after = keras.ops.convert_to_numpy(model.layers[0].seeds.state)
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"count": 0}, ValueError, "count=0"),
        ({"count": 1.5}, TypeError, "count=1.5"),
        ({"span": 1.0}, ValueError, "span=1.0"),
        ({"span": "1e4"}, TypeError, "without quotes"),
        ({"span": float("inf")}, ValueError, "span=inf"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        L2Grid(**arguments)


def test_misspelled_arguments_of_l2_path_are_known_by_its_signature():
    parameters = [*inspect.signature(l2_path).parameters]
    asked_of_fit_too = {"model", "x", "y", "validation_data", "epochs", "verbose"}
    assert {*parameters} - asked_of_fit_too - {"fit_arguments"} == PATH_ARGUMENTS
