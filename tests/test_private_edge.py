"""Fails loudly if Keras changes what `keras_l2reg/_keras.py` leans on."""

import keras
import numpy as np
import pytest
from keras import layers
from models import VECTORS, around

from keras_l2reg import _keras


def network():
    inner = keras.Sequential([layers.Dense(4, name="a")], name="inner")
    return around(inner, layers.Dense(2, name="b"), shape=(6,))


def test_sublayers_are_direct_and_in_order():
    model = network()
    names = [layer.name for layer in _keras.sublayers(model)]
    assert [n for n in names if "input" not in n] == ["inner", "b"]


def test_all_layers_come_with_the_model_at_any_depth_once():
    model = network()
    found = list(_keras.all_layers(model))
    assert model in found
    assert {"inner", "a", "b"} <= {layer.name for layer in found}
    assert len({id(layer) for layer in found}) == len(found)


def test_is_built_throughout():
    assert _keras.is_built_throughout(network())
    assert not _keras.is_built_throughout(keras.Sequential([layers.Dense(2)]))


def test_own_variables_keep_frozen_weights_and_leave_statistics_out():
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    layer.trainable = False
    assert [v.name for v in _keras.own_variables(layer)] == ["gamma", "beta"]


def test_compile_arguments_are_the_live_ones():
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    loss = keras.losses.MeanSquaredError()
    model.compile(optimizer, loss, metrics=["mae"], steps_per_execution=2)
    arguments = _keras.compile_arguments(model)
    assert arguments["optimizer"] is optimizer
    assert arguments["loss"] is loss
    twin = network()
    twin.compile(**arguments)
    assert twin.optimizer is optimizer
    assert twin.steps_per_execution == 2


def test_traced_functions():
    model = network()
    assert _keras.traced_functions(model) == []
    model.compile("sgd", "mse")
    assert _keras.traced_functions(model) == []
    model.fit(VECTORS, np.zeros((4, 2)), verbose=0)
    assert _keras.traced_functions(model) == ["train"]
    model.evaluate(VECTORS, np.zeros((4, 2)), verbose=0)
    assert _keras.traced_functions(model) == ["train", "test"]
    before = model.train_function
    model.make_train_function(force=True)
    assert model.train_function is not before


def test_sync_state_within_an_epoch():
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            _keras.sync_state(self.model)
            kernel = self.model.get_layer("b").kernel
            seen.append(keras.ops.convert_to_numpy(kernel).copy())

    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(VECTORS, np.ones((4, 2)), batch_size=2, verbose=0, callbacks=[Reader()])
    assert len(seen) == 2
    assert not np.array_equal(*seen)


def test_traces_constants_and_replicas():
    assert _keras.traces_constants() == (keras.backend.backend() == "jax")
    assert _keras.replicas() == 1


def test_weight_penalties_stand_behind_all_other_losses():
    # compute_loss of the wrapper splits `losses` there.
    model = around(
        layers.Dense(2, kernel_initializer="ones", kernel_regularizer="l1"),
        layers.ActivityRegularization(l2=1.0),
        shape=(6,),
    )
    model(VECTORS)
    assert len(model.losses) == 2
    assert float(keras.ops.convert_to_numpy(model.losses[-1])) == pytest.approx(0.12)


def test_regularizers_of_variables_may_be_changed():
    model = network()
    model.get_layer("b").kernel.regularizer = keras.regularizers.L2(1.0)
    assert len(model.losses) == 1
    model.get_layer("b").kernel.regularizer = None
    assert not model.losses
