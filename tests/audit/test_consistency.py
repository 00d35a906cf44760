"""Penalties that are not the same on the layer, on the weight and in training."""

import keras
import pytest
from audit_helpers import (
    BACKEND,
    LayerWithoutRegularizer,
    codes,
    compiled,
    data,
    l2,
    mlp,
    needs_compiled_steps,
    regularized,
    square_layers,
    where,
    wrap_and_replace,
)
from keras import layers, ops

from keras_l2reg import L2AllWeights, attach, audit

# never-applied


def test_regularizer_set_on_a_built_layer():
    model = mlp()
    model.get_layer("hidden").kernel_regularizer = l2(0.01)
    model.get_layer("out").kernel_regularizer = l2(0.01)
    assert model.losses == []
    assert where(model, "never-applied") == ["hidden/kernel", "out/kernel"]
    assert where(regularized(), "never-applied") == []


def test_regularizer_set_on_a_built_layer_that_is_wrapped():
    model = mlp()
    model.get_layer("hidden").bias_regularizer = l2(0.01)
    assert where(L2AllWeights(model), "never-applied") == ["hidden/bias"]


# constraint-never-applied


def test_constraint_set_on_a_built_layer():
    model = regularized()
    model.get_layer("hidden").kernel_constraint = keras.constraints.NonNeg()
    assert where(model, "constraint-never-applied") == ["hidden/kernel"]
    wrapped = wrap_and_replace(regularized())
    wrapped.get_layer("out").bias_constraint = keras.constraints.MaxNorm(1.0)
    assert where(wrapped, "constraint-never-applied") == ["out/bias"]
    sound = mlp(l2(0.01), kernel_constraint="non_neg", bias_constraint="max_norm")
    assert where(sound, "constraint-never-applied") == []
    # The weight has another constraint.
    sound.get_layer("hidden").kernel_constraint = keras.constraints.MaxNorm(1.0)
    assert where(sound, "constraint-never-applied") == ["hidden/kernel"]


def test_keras_trains_without_a_constraint_set_on_a_built_layer():
    x, y = data()
    model = regularized()
    layer = model.get_layer("out")
    layer.kernel_constraint = keras.constraints.NonNeg()
    compiled(model).fit(x, y, verbose=0)
    assert ops.convert_to_numpy(layer.kernel).min() < 0
    layer.kernel.constraint = layer.kernel_constraint
    assert where(model, "constraint-never-applied") == []
    compiled(model).fit(x, y, verbose=0)
    assert ops.convert_to_numpy(layer.kernel).min() == 0


# lost-on-save


def test_penalty_set_on_the_weight_is_lost_on_save():
    model = mlp()
    for layer in model.layers:
        layer.kernel.regularizer = l2(0.01)
    assert where(model, "lost-on-save") == ["hidden/kernel", "out/kernel"]
    assert keras.models.clone_model(model).losses == []
    assert where(regularized(), "lost-on-save") == []


def test_penalty_of_a_wrapper_is_not_lost_on_save():
    def build():
        layer = layers.Dense(2, name="dense")
        return keras.Sequential(
            [keras.Input((4,)), LayerWithoutRegularizer(name="custom"), layer]
        )

    assert where(L2AllWeights(build()), "lost-on-save") == []
    model = build()
    model.layers[0].w.regularizer = l2(0.01)
    wrapped = L2AllWeights(model, existing="keep")
    assert where(wrapped, "lost-on-save") == ["custom/w"]


# lost-on-save: unusual layers and regularizers


class ReadOnly(layers.Layer):
    """A layer whose regularizer can be read but not set."""

    kernel_regularizer = property(lambda self: self.__dict__.get("_given"))

    def __init__(self, units, given=None, **kwargs):
        self.__dict__["_given"] = keras.regularizers.get(given)
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.kernel = self.add_weight(
            shape=(shape[-1], self.units),
            name="kernel",
            regularizer=self.kernel_regularizer,
        )
        self.built = True

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def get_config(self):
        regularizer = keras.regularizers.serialize(self.kernel_regularizer)
        config = {"units": self.units, "kernel_regularizer": regularizer}
        return {**super().get_config(), **config}


def test_layer_whose_regularizer_cannot_be_set():
    model = keras.Sequential(
        [keras.Input((4,)), ReadOnly(3, "l2", name="a"), layers.Dense(2, name="b")]
    )
    model.get_layer("b").kernel.regularizer = l2(0.1)
    assert where(model, "lost-on-save") == ["b/kernel"]
    assert {f.severity for f in audit(model)} == {"warning"}
    assert model.get_layer("b").kernel_regularizer is None


def test_layer_whose_regularizer_cannot_be_read():
    class Hidden(ReadOnly):
        kernel_regularizer = property()

        def build(self, shape):
            self.kernel = self.add_weight(
                shape=(shape[-1], self.units), name="kernel", regularizer=l2(0.1)
            )
            self.built = True

        def get_config(self):
            return layers.Layer.get_config(self)

    model = keras.Sequential([keras.Input((4,)), Hidden(3, name="a")])
    assert where(model, "lost-on-save") == ["a/kernel"]


def test_layer_whose_regularizer_raises_when_read():
    class Later(ReadOnly):
        @property
        def kernel_regularizer(self):
            raise RuntimeError("not yet")

        def build(self, shape):
            self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")
            self.built = True

    model = keras.Sequential([keras.Input((4,)), Later(3, name="a")])
    assert codes(model) == ["no-penalty"]


class Fails(keras.Regularizer):
    """A regularizer that raises for every weight."""

    def __call__(self, w):
        raise ValueError("Expected a matrix.")

    def get_config(self):
        return {}


def test_regularizer_that_raises_is_not_reported():
    model = mlp(Fails(), Fails(), dtype="float16")
    assert {"duplicated", "half-precision"}.isdisjoint(codes(model))


class WithoutConfig(keras.Regularizer):
    """A regularizer without `get_config`: that of Keras' base class raises."""

    def __call__(self, w):
        return ops.sum(ops.square(w))


def test_regularizer_without_a_config_is_lost_on_save():
    model = mlp(WithoutConfig(), WithoutConfig())
    model.get_layer("hidden").kernel_regularizer = WithoutConfig()
    assert where(model, "lost-on-save") == ["hidden/kernel", "out/kernel"]


class HasLengthZero(WithoutConfig):
    """A regularizer that is false in a condition, as an empty list is."""

    def __len__(self):
        return 0


def test_regularizer_whose_truth_value_is_false_is_a_penalty():
    model = mlp(HasLengthZero(), HasLengthZero())
    assert len(model.losses) == 2
    assert {"no-penalty", "last-layer-only", "uncovered"}.isdisjoint(codes(model))


# stale-trace


@needs_compiled_steps
@pytest.mark.parametrize(
    ("wrap", "new"),
    [
        pytest.param(lambda model: model, None, id="bare-removed"),
        pytest.param(wrap_and_replace, l2(0.1), id="wrapped-changed"),
        pytest.param(
            lambda model: model, l2(0.1), marks=pytest.mark.slow, id="bare-changed"
        ),
        pytest.param(
            wrap_and_replace, None, marks=pytest.mark.slow, id="wrapped-removed"
        ),
    ],
)
def test_penalty_changed_after_fit_is_a_stale_trace(wrap, new):
    x, y = data(10)
    model = compiled(wrap(regularized()), "adam")
    model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y))
    assert where(model, "stale-trace", x, y) == []
    kernel = model.get_layer("hidden").kernel
    old, kernel.regularizer = kernel.regularizer, new
    assert where(model, "stale-trace", x, y) == ["fit", "evaluate"]
    kernel.regularizer = old
    assert where(model, "stale-trace", x, y) == []
    kernel.regularizer = new
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=4, verbose=0)
    assert where(model, "stale-trace", x, y) == []


@needs_compiled_steps
def test_keras_uses_the_old_penalty_until_compiled_again():
    x, y = data()
    model = compiled(regularized())
    before = model.evaluate(x, y, verbose=0)
    for layer in model.layers:
        layer.kernel.regularizer = None
    assert where(model, "stale-trace", x, y) == ["evaluate"]
    assert model.evaluate(x, y, verbose=0) == before
    compiled(model)
    assert model.evaluate(x, y, verbose=0) < before


def norm_and_dropout():
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            layers.RandomFlip(),
            layers.Conv2D(2, 3, kernel_regularizer="l2", activity_regularizer="l2"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Flatten(),
            layers.Dense(2),
        ]
    ), (6, 6, 1)


def recurrent():
    return keras.Sequential(
        [
            keras.Input((3, 2)),
            layers.LSTM(2, dropout=0.2, kernel_regularizer="l1"),
            layers.Dense(2),
        ]
    ), (3, 2)


def unbuilt():
    return keras.Sequential(
        [layers.Dense(3, kernel_regularizer="l2"), layers.Dense(2)]
    ), (4,)


@pytest.mark.parametrize("build", [norm_and_dropout, recurrent, unbuilt])
@pytest.mark.parametrize(
    "optimizer", ["adamw", pytest.param("rmsprop", marks=pytest.mark.slow)]
)
def test_unchanged_penalties_are_not_a_stale_trace(build, optimizer):
    model, shape = build()
    x, y = data(7, shape)
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y))
    assert where(model, "stale-trace", x, y) == []


class ChangesAtEachTrace(keras.Sequential):
    """A model that computes something else each time it is traced."""

    calls = 0

    def call(self, inputs, training=None):
        type(self).calls += 1
        return super().call(inputs) * float(self.calls)


def test_model_that_changes_at_each_trace_is_not_reported():
    x, y = data()
    model = compiled(ChangesAtEachTrace(regularized().layers))
    model.fit(x, y, verbose=0)
    assert where(model, "stale-trace", x, y) == []


@needs_compiled_steps
def test_eager_models_are_never_stale():
    x, y = data()
    model = regularized()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(x, y, verbose=0)
    model.get_layer("out").kernel.regularizer = None
    assert where(model, "stale-trace", x, y) == []


@needs_compiled_steps
@pytest.mark.parametrize("inner", ["sgd", "adamw"])
def test_stale_trace_with_loss_scaling(inner):
    x, y = data()
    # The first trace only creates the variables of loss scaling.
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.get(inner))
    model = compiled(regularized(), scaled)
    model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y))
    assert where(model, "stale-trace", x, y) == []
    model.get_layer("out").kernel.regularizer = None
    assert where(model, "stale-trace", x, y) == ["fit", "evaluate"]


@needs_compiled_steps
@pytest.mark.parametrize("pair", [(l2(0.1), None), (l2(0.1), l2(0.2))])
def test_penalty_moved_to_another_weight_is_a_stale_trace(pair):
    x, y = data()
    model = compiled(square_layers(*pair))
    before = model.evaluate(x, y, verbose=0)
    assert where(model, "stale-trace", x, y) == []
    first, second, _ = model.layers
    first.kernel.regularizer, second.kernel.regularizer = pair[::-1]
    assert model.evaluate(x, y, verbose=0) == before
    assert where(model, "stale-trace", x, y) == ["evaluate"]
    assert compiled(model).evaluate(x, y, verbose=0) != before


@needs_compiled_steps
def test_attaching_to_an_inner_model_leaves_a_stale_trace_in_the_outer_model():
    x, y = data()
    inner = mlp()
    outer = compiled(keras.Sequential([keras.Input((4,)), inner]))
    outer.evaluate(x, y, verbose=0)
    attach(inner, 0.1)
    assert where(outer, "stale-trace", x, y) == ["evaluate"]


class CompiledPenalty(keras.Regularizer):
    """A penalty that is computed in a `tf.function`."""

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, w):
        import tensorflow as tf

        return tf.function(lambda w: self.strength * tf.reduce_sum(w**2))(
            tf.convert_to_tensor(w)
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_penalty_changed_in_a_function_that_the_step_calls_is_a_stale_trace():
    x, y = data()
    model = compiled(mlp(CompiledPenalty(0.1)))
    model.evaluate(x, y, verbose=0)
    assert where(model, "stale-trace") == []
    model.get_layer("hidden").kernel.regularizer = CompiledPenalty(0.2)
    assert where(model, "stale-trace") == ["evaluate"]
