"""`audit`: for every finding a model that has the fault, and a twin that has not."""

import json
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_l2reg import (
    L2,
    Finding,
    Findings,
    L2AllWeights,
    attach,
    audit,
    set_weight_decay,
)

BACKEND = keras.backend.backend()
never_stale_on_torch = pytest.mark.skipif(BACKEND == "torch", reason="torch is eager")
l2 = keras.regularizers.L2


def mlp(hidden=None, out=None, **kwargs):
    """Two `Dense` layers, "hidden" and "out", with the given kernel regularizers."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, "relu", kernel_regularizer=hidden, name="hidden", **kwargs),
            layers.Dense(2, kernel_regularizer=out, name="out"),
        ]
    )


def data(n=8, shape=(4,)):
    generator = np.random.default_rng(0)
    return (
        generator.normal(size=(n, *shape)).astype("float32"),
        generator.normal(size=(n, 2)).astype("float32"),
    )


def compiled(model, optimizer="sgd"):
    model.compile(optimizer, "mse")
    return model


def codes(model, *args, **kwargs):
    return [finding.code for finding in audit(model, *args, **kwargs)]


def where(model, code, *args, **kwargs):
    """The names that the findings of this code are about."""
    found = audit(model, *args, **kwargs)
    return [name for f in found if f.code == code for name in f.where]


def wrapped_anew(model):
    """A wrapper that covers what has a penalty already."""
    return L2AllWeights(model, existing="replace")


def clean():
    return mlp(l2(0.01), l2(0.01))


def test_clean_model_has_no_findings():
    x, y = data()
    model = compiled(clean())
    model.fit(x, y, batch_size=4, verbose=0)
    assert audit(model, x, y) == ()
    assert str(audit(model)) == "No findings."


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_wrapped_model_has_no_errors_or_warnings(optimizer):
    x, y = data()
    model = compiled(L2AllWeights(mlp(), l2=0.001), optimizer)
    model.fit(x, y, batch_size=4, verbose=0)
    model.l2 = 0.0001  # live: no retrace is wanted
    assert {f.severity for f in audit(model, x, y)} <= {"info"}


def test_attached_model_has_no_findings():
    assert audit(attach(mlp(), 0.01)) == ()


def test_unbuilt_model():
    model = keras.Sequential(
        [layers.Dense(3, name="a"), layers.Dense(2, kernel_regularizer="l2", name="b")]
    )
    assert codes(model) == ["last-layer-only"]
    assert codes(keras.Sequential([layers.Dense(3, kernel_regularizer="l2")])) == []


# never-applied


def test_never_applied():
    model = mlp()
    model.get_layer("hidden").kernel_regularizer = l2(0.01)
    model.get_layer("out").kernel_regularizer = l2(0.01)
    assert model.losses == []
    assert where(model, "never-applied") == ["hidden/kernel", "out/kernel"]
    assert where(clean(), "never-applied") == []


def test_never_applied_within_a_wrapper():
    model = mlp()
    model.get_layer("hidden").bias_regularizer = l2(0.01)
    assert where(L2AllWeights(model), "never-applied") == ["hidden/bias"]


# constraint-never-applied


def test_constraint_never_applied():
    model = clean()
    model.get_layer("hidden").kernel_constraint = keras.constraints.NonNeg()
    assert where(model, "constraint-never-applied") == ["hidden/kernel"]
    wrapped = wrapped_anew(clean())
    wrapped.get_layer("out").bias_constraint = keras.constraints.MaxNorm(1.0)
    assert where(wrapped, "constraint-never-applied") == ["out/bias"]
    sound = mlp(l2(0.01), kernel_constraint="non_neg", bias_constraint="max_norm")
    assert where(sound, "constraint-never-applied") == []
    # Another than the one that the weight was made with.
    sound.get_layer("hidden").kernel_constraint = keras.constraints.MaxNorm(1.0)
    assert where(sound, "constraint-never-applied") == ["hidden/kernel"]


def test_constraint_never_applied_is_true():
    x, y = data()
    model = clean()
    layer = model.get_layer("out")
    layer.kernel_constraint = keras.constraints.NonNeg()
    compiled(model).fit(x, y, verbose=0)
    assert ops.convert_to_numpy(layer.kernel).min() < 0
    layer.kernel.constraint = layer.kernel_constraint
    assert where(model, "constraint-never-applied") == []
    compiled(model).fit(x, y, verbose=0)
    assert ops.convert_to_numpy(layer.kernel).min() == 0


# no-penalty


def test_no_penalty():
    assert codes(mlp()) == ["no-penalty"]
    assert where(mlp(), "no-penalty") == ["hidden/kernel", "out/kernel"]
    assert where(compiled(mlp(), "adam"), "no-penalty") != []
    assert codes(keras.Sequential([layers.Dense(3), layers.Dense(2)])) == ["no-penalty"]
    for sound in (clean(), attach(mlp(), 0.1), L2AllWeights(mlp(), l2=0.0)):
        assert where(sound, "no-penalty") == []


def test_a_model_without_weights_as_yet_is_told_apart():
    model = keras.Sequential([Custom()], name="later")
    assert where(model, "no-penalty") == ["later"]
    model(data()[0])
    assert where(model, "no-penalty") == ["custom/w"]
    assert codes(keras.Sequential([keras.Input((4,)), layers.ReLU()])) == []


@pytest.mark.parametrize("activity", [None, "l2"])
def test_other_ways_to_regularize_are_no_missing_penalty(activity):
    """An activity's penalty, `add_loss`, decay, and what is frozen altogether."""
    assert ("no-penalty" in codes(mlp(activity_regularizer=activity))) == (not activity)
    x, y = data()
    model = compiled(Adds(_own))
    model(x)
    assert where(model, "no-penalty") == where(model, "no-penalty", x, y) == []
    assert where(compiled(mlp(), "adamw"), "no-penalty") == []
    frozen = mlp()
    frozen.trainable = False
    assert codes(frozen) == []


def test_no_penalty_where_only_a_frozen_weight_has_one():
    model = mlp(l2(0.01))
    model.get_layer("hidden").trainable = False
    assert codes(model) == ["frozen", "no-penalty"]


# decays-bias-or-norm, and exclusions that are lost on save


def normalized():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="d"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2, name="out"),
        ]
    )


BIASES_AND_NORMS = ["d/bias", "bn/gamma", "bn/beta", "out/bias"]
DECAYING = {
    "adamw": keras.optimizers.AdamW,
    "sgd": lambda: keras.optimizers.SGD(weight_decay=0.1),
    "lion": lambda: keras.optimizers.Lion(weight_decay=0.1),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW()),
    # Muon hands them to an Adam, which has a decay of its own.
    "muon": lambda: keras.optimizers.Muon(weight_decay=None, adam_weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", DECAYING)
def test_decays_bias_or_norm(optimizer):
    model = compiled(normalized(), DECAYING[optimizer]())
    assert where(model, "decays-bias-or-norm") == BIASES_AND_NORMS
    before = {v.path: ops.convert_to_numpy(v) + 0 for v in model.trainable_variables}
    set_weight_decay(model.optimizer, model, 0.1)
    assert where(model, "decays-bias-or-norm") == []
    assert where(model, "lost-on-save") == BIASES_AND_NORMS
    gamma = model.get_layer("bn").gamma
    model.optimizer.build(model.trainable_variables)
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    inner._apply_weight_decay(model.trainable_variables)
    np.testing.assert_array_equal(gamma, before[gamma.path])


def test_no_decay_no_finding():
    for optimizer in ("sgd", "adam", keras.optimizers.SGD(weight_decay=0.0)):
        model = compiled(normalized(), optimizer)
        assert where(model, "decays-bias-or-norm") == where(model, "lost-on-save") == []
    muon = keras.optimizers.Muon(adam_weight_decay=None)
    assert where(compiled(normalized(), muon), "decays-bias-or-norm") == []
    frozen = normalized()
    frozen.trainable = False
    assert where(compiled(frozen, "adamw"), "decays-bias-or-norm") == []


def test_lost_exclusions_are_lost(tmp_path):
    x, y = data()
    model = compiled(normalized(), keras.optimizers.AdamW())
    model.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.fit(x, y, verbose=0)
    assert where(model, "lost-on-save") == BIASES_AND_NORMS
    assert where(model, "decays-bias-or-norm") == []
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert where(loaded, "lost-on-save") == []
    assert where(loaded, "decays-bias-or-norm") == BIASES_AND_NORMS


@keras.saving.register_keras_serializable("test_audit")
class KernelsOnly(keras.optimizers.AdamW):
    """An optimizer that leaves biases out by itself, in every copy."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])


def test_exclusions_that_a_copy_has_too_are_not_lost():
    model = compiled(normalized(), KernelsOnly())
    assert where(model, "decays-bias-or-norm") == where(model, "lost-on-save") == []


# partly-covered


@pytest.mark.filterwarnings("ignore:These weights have a penalty already")
def test_partly_covered_by_a_wrapper():
    assert where(L2AllWeights(mlp(None, l2(1e-4))), "partly-covered") == ["out/kernel"]
    assert where(L2AllWeights(mlp()), "partly-covered") == []
    for existing in ("replace", "add"):
        wrapped = L2AllWeights(mlp(None, l2(1e-4)), existing=existing)
        assert where(wrapped, "partly-covered") == []
    halved = L2AllWeights(mlp(), multipliers={"out/*": 0.5})
    assert where(halved, "partly-covered") == []
    fixed = L2AllWeights(mlp(None, l2(1e-4)), regularizer="l1")
    assert where(fixed, "partly-covered") == []
    # A kernel without any is `uncovered`.
    body = L2AllWeights(mlp(), layers="hidden/*")
    assert where(body, "partly-covered") == []


@pytest.mark.filterwarnings("ignore:These weights have a penalty already")
@pytest.mark.filterwarnings("ignore:This strength is a variable")
def test_partly_covered_by_a_live_strength_without_a_wrapper():
    def live():
        return L2(keras.Variable(0.1))

    model = attach(mlp(None, l2(1e-4)), live())
    assert where(model, "partly-covered") == ["out/kernel"]
    assert where(attach(mlp(), live()), "partly-covered") == []
    assert where(attach(mlp(None, l2(1e-4)), 0.1), "partly-covered") == []
    # Two live strengths, each for a part, are two strengths on purpose.
    two = attach(attach(mlp(), live(), layers="hidden/*"), live())
    assert where(two, "partly-covered") == []


@pytest.mark.filterwarnings("ignore:These weights have a penalty already")
def test_partly_covered_beside_the_live_strength_of_another_wrapper():
    shared = layers.Dense(3, name="shared")
    first = L2AllWeights(keras.Sequential([keras.Input((4,)), shared]))
    inputs = keras.Input((4,))
    second = L2AllWeights(keras.Model(inputs, layers.Dense(2)(shared(inputs))))
    assert where(second, "partly-covered") == ["shared/kernel"]
    assert where(first, "partly-covered") == []


# layers and regularizers that do not let themselves be tried


class ReadOnly(layers.Layer):
    """A layer whose regularizer can be read, and not be set."""

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


def test_a_regularizer_that_cannot_be_set():
    model = keras.Sequential(
        [keras.Input((4,)), ReadOnly(3, "l2", name="a"), layers.Dense(2, name="b")]
    )
    model.get_layer("b").kernel.regularizer = l2(0.1)
    assert where(model, "lost-on-save") == ["b/kernel"]
    assert {f.severity for f in audit(model)} == {"warning"}
    assert model.get_layer("b").kernel_regularizer is None


def test_a_regularizer_that_cannot_be_read():
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


def test_a_regularizer_that_raises_when_it_is_read():
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
    """A regularizer that fails on the weight that it is put on."""

    def __call__(self, w):
        raise ValueError("Expected a matrix.")

    def get_config(self):
        return {}


def test_a_regularizer_that_fails_is_left_to_the_training_to_report():
    model = mlp(Fails(), Fails(), dtype="float16")
    assert {"duplicated", "half-precision"}.isdisjoint(codes(model))


class NoConfig(keras.Regularizer):
    """Keras' own base class raises when it is asked for a config."""

    def __call__(self, w):
        return ops.sum(ops.square(w))


def test_a_regularizer_without_a_config_is_lost():
    model = mlp(NoConfig(), NoConfig())
    model.get_layer("hidden").kernel_regularizer = NoConfig()
    assert where(model, "lost-on-save") == ["hidden/kernel", "out/kernel"]


class Empty(NoConfig):
    """As long as an empty list, and a penalty all the same."""

    def __len__(self):
        return 0


def test_a_regularizer_that_is_false_is_a_penalty():
    model = mlp(Empty(), Empty())
    assert len(model.losses) == 2
    assert {"no-penalty", "last-layer-only", "uncovered"}.isdisjoint(codes(model))


# lost-on-save


def test_lost_on_save():
    model = mlp()
    for layer in model.layers:
        layer.kernel.regularizer = l2(0.01)
    assert where(model, "lost-on-save") == ["hidden/kernel", "out/kernel"]
    assert keras.models.clone_model(model).losses == []
    assert where(clean(), "lost-on-save") == []


class Custom(keras.layers.Layer):
    """A layer whose config carries no regularizer."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 2), name="w")

    def call(self, x):
        return x @ self.w


def test_what_a_wrapper_puts_on_is_not_lost():
    def build():
        layer = layers.Dense(2, name="dense")
        return keras.Sequential([keras.Input((4,)), Custom(name="custom"), layer])

    assert where(L2AllWeights(build()), "lost-on-save") == []
    model = build()
    model.layers[0].w.regularizer = l2(0.01)
    wrapped = L2AllWeights(model, existing="keep")
    assert where(wrapped, "lost-on-save") == ["custom/w"]


# stale-trace


@never_stale_on_torch
@pytest.mark.parametrize(
    ("wrap", "new"),
    [
        (lambda m: m, None),
        (wrapped_anew, l2(0.1)),
        pytest.param(lambda m: m, l2(0.1), marks=pytest.mark.slow),
        pytest.param(wrapped_anew, None, marks=pytest.mark.slow),
    ],
    ids=["bare-removed", "wrapped-changed", "bare-changed", "wrapped-removed"],
)
def test_stale_trace(wrap, new):
    x, y = data(10)
    model = compiled(wrap(clean()), "adam")
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


@never_stale_on_torch
def test_stale_trace_is_true():
    """Keras itself goes on with the old penalty, and stops when compiled again."""
    x, y = data()
    model = compiled(clean())
    before = model.evaluate(x, y, verbose=0)
    for layer in model.layers:
        layer.kernel.regularizer = None
    assert where(model, "stale-trace", x, y) == ["evaluate"]
    assert model.evaluate(x, y, verbose=0) == before
    compiled(model)
    assert model.evaluate(x, y, verbose=0) < before


def _norm_and_dropout():
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


def _recurrent():
    return keras.Sequential(
        [
            keras.Input((3, 2)),
            layers.LSTM(2, dropout=0.2, kernel_regularizer="l1"),
            layers.Dense(2),
        ]
    ), (3, 2)


def _unbuilt():
    return keras.Sequential(
        [layers.Dense(3, kernel_regularizer="l2"), layers.Dense(2)]
    ), (4,)


@pytest.mark.parametrize("build", [_norm_and_dropout, _recurrent, _unbuilt])
@pytest.mark.parametrize(
    "optimizer", ["adamw", pytest.param("rmsprop", marks=pytest.mark.slow)]
)
def test_no_false_alarm_of_a_stale_trace(build, optimizer):
    model, shape = build()
    x, y = data(7, shape)
    model.compile(optimizer, "mse", metrics=["mae"])
    model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y))
    assert where(model, "stale-trace", x, y) == []


class Moody(keras.Sequential):
    """A model that computes something else each time that it is traced."""

    calls = 0

    def call(self, inputs, training=None):
        type(self).calls += 1
        return super().call(inputs) * float(self.calls)


def test_no_false_alarm_where_each_trace_differs():
    x, y = data()
    model = compiled(Moody(clean().layers))
    model.fit(x, y, verbose=0)
    assert where(model, "stale-trace", x, y) == []


@never_stale_on_torch
def test_eager_models_are_never_stale():
    x, y = data()
    model = clean()
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(x, y, verbose=0)
    model.get_layer("out").kernel.regularizer = None
    assert where(model, "stale-trace", x, y) == []


@never_stale_on_torch
@pytest.mark.parametrize("inner", ["sgd", "adamw"])
def test_no_false_alarm_of_a_stale_trace_under_loss_scaling(inner):
    """Its first trace makes variables, and is not the one that runs."""
    x, y = data()
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.get(inner))
    model = compiled(clean(), scaled)
    model.fit(x, y, batch_size=4, verbose=0, validation_data=(x, y))
    assert where(model, "stale-trace", x, y) == []
    model.get_layer("out").kernel.regularizer = None
    assert where(model, "stale-trace", x, y) == ["fit", "evaluate"]


def square_layers(*regularizers):
    """Layers of one shape, so that a trace tells their weights by identity only."""
    return keras.Sequential(
        [
            keras.Input((4,)),
            *[
                layers.Dense(4, use_bias=False, kernel_regularizer=r)
                for r in regularizers
            ],
            layers.Dense(2),
        ]
    )


@never_stale_on_torch
@pytest.mark.parametrize("pair", [(l2(0.1), None), (l2(0.1), l2(0.2))])
def test_stale_trace_where_the_penalty_moves_to_another_weight(pair):
    x, y = data()
    model = compiled(square_layers(*pair))
    before = model.evaluate(x, y, verbose=0)
    assert where(model, "stale-trace", x, y) == []
    first, second, _ = model.layers
    first.kernel.regularizer, second.kernel.regularizer = pair[::-1]
    assert model.evaluate(x, y, verbose=0) == before
    assert where(model, "stale-trace", x, y) == ["evaluate"]
    assert compiled(model).evaluate(x, y, verbose=0) != before


@never_stale_on_torch
def test_stale_trace_of_an_outer_model_whose_inner_model_was_attached_to():
    x, y = data()
    inner = mlp()
    outer = compiled(keras.Sequential([keras.Input((4,)), inner]))
    outer.evaluate(x, y, verbose=0)
    attach(inner, 0.1)
    assert where(outer, "stale-trace", x, y) == ["evaluate"]


class InGraph(keras.Regularizer):
    """A penalty that is a compiled function of its own."""

    def __init__(self, strength):
        self.strength = strength

    def __call__(self, w):
        import tensorflow as tf

        return tf.function(lambda w: self.strength * tf.reduce_sum(w**2))(
            tf.convert_to_tensor(w)
        )


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_stale_trace_within_a_function_that_the_step_calls():
    x, y = data()
    model = compiled(mlp(InGraph(0.1)))
    model.evaluate(x, y, verbose=0)
    assert where(model, "stale-trace") == []
    model.get_layer("hidden").kernel.regularizer = InGraph(0.2)
    assert where(model, "stale-trace") == ["evaluate"]


# frozen


def test_frozen():
    model = clean()
    model.get_layer("hidden").trainable = False
    assert where(model, "frozen") == ["hidden/kernel"]
    assert len(model.losses) == 1
    assert where(clean(), "frozen") == []


# double-decay


def test_double_decay():
    decaying = keras.optimizers.SGD(weight_decay=0.01)
    assert where(compiled(clean(), decaying), "double-decay") == [
        "hidden/kernel",
        "out/kernel",
    ]
    assert where(compiled(clean(), "sgd"), "double-decay") == []
    assert where(compiled(mlp(), "adamw"), "double-decay") == []
    assert where(compiled(mlp("l1", "l1"), "adamw"), "double-decay") == []


def test_double_decay_honours_exclusion():
    model = clean()
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_list=[model.get_layer("out").kernel])
    assert where(compiled(model, optimizer), "double-decay") == ["hidden/kernel"]
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    assert where(compiled(model, optimizer), "double-decay") == []


def test_double_decay_sees_through_loss_scaling():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW())
    assert "double-decay" in codes(compiled(clean(), scaled))


def test_no_double_decay_at_strength_zero():
    wrapped = compiled(L2AllWeights(mlp(), l2=0.0), "adamw")
    assert where(wrapped, "double-decay") == []
    wrapped.l2 = 0.1
    assert where(wrapped, "double-decay") == ["hidden/kernel", "out/kernel"]


# coupled-adaptive


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "rmsprop", "adagrad", "lion"])
def test_coupled_adaptive(optimizer):
    model = compiled(L2AllWeights(mlp()), optimizer)
    assert where(model, "coupled-adaptive") == ["hidden/kernel", "out/kernel"]


def test_not_coupled_adaptive():
    momentum = keras.optimizers.SGD(momentum=0.9, nesterov=True)
    assert where(compiled(clean(), momentum), "coupled-adaptive") == []
    assert where(compiled(mlp("l1", "l1"), "adam"), "coupled-adaptive") == []
    assert where(clean(), "coupled-adaptive") == []


# scale-invariant


def conv_model(*following, use_bias=False, activation=None):
    conv = layers.Conv2D(
        3,
        3,
        activation=activation,
        use_bias=use_bias,
        kernel_regularizer="l2",
        name="conv",
    )
    inputs = keras.Input((6, 6, 2))
    x = conv(inputs)
    for layer in following:
        x = layer(x)
    return keras.Model(inputs, x)


def _output_at_scale(model, scale):
    """The training-mode output, computed by Keras, for `scale` times the kernel."""
    conv = model.get_layer("conv")
    kernel = ops.convert_to_numpy(conv.kernel)
    x = np.random.default_rng(1).normal(size=(5, 6, 6, 2)).astype("float32")
    keras.utils.set_random_seed(0)
    conv.kernel.assign(kernel * scale)
    with keras.StatelessScope():
        output = model(ops.convert_to_tensor(x), training=True)
    conv.kernel.assign(kernel)
    return ops.convert_to_numpy(output)


def _frozen_norm():
    norm = layers.BatchNormalization()
    norm.trainable = False
    return norm


INVARIANT = {
    "conv-BN": lambda: conv_model(layers.BatchNormalization(epsilon=0.0)),
    "biased-conv-BN": lambda: conv_model(
        layers.BatchNormalization(epsilon=0.0), use_bias=True
    ),
    "conv-LN": lambda: conv_model(layers.LayerNormalization(epsilon=1e-12)),
    "conv-linear-pool-flatten-BN": lambda: conv_model(
        layers.Activation("linear"),
        layers.AveragePooling2D(2),
        layers.Flatten(),
        layers.BatchNormalization(epsilon=0.0),
    ),
    "conv-pad-GN": lambda: conv_model(
        layers.ZeroPadding2D(), layers.GroupNormalization(1, epsilon=1e-12)
    ),
}
NOT_INVARIANT = {
    "conv": lambda: conv_model(),
    "conv-relu": lambda: conv_model(layers.ReLU()),
    "biased-conv-LN": lambda: conv_model(layers.LayerNormalization(), use_bias=True),
    "conv-tanh-BN": lambda: conv_model(layers.BatchNormalization(), activation="tanh"),
    "biased-conv-pad-BN": lambda: conv_model(
        layers.ZeroPadding2D(), layers.BatchNormalization(), use_bias=True
    ),
    "biased-conv-BN-of-rows": lambda: conv_model(
        layers.BatchNormalization(axis=1), use_bias=True
    ),
    "conv-frozen-BN": lambda: conv_model(_frozen_norm()),
}


def _randomize_biases(model):
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(np.arange(1.0, layer.bias.shape[0] + 1))


@pytest.mark.parametrize("name", INVARIANT)
def test_scale_invariant(name):
    model = INVARIANT[name]()
    _randomize_biases(model)
    np.testing.assert_allclose(
        _output_at_scale(model, 1.0), _output_at_scale(model, 5.0), atol=1e-3
    )
    assert where(model, "scale-invariant") == ["conv/kernel"]
    wrapped = wrapped_anew(model)
    assert where(wrapped, "scale-invariant") == ["conv/kernel"]


@pytest.mark.parametrize("name", NOT_INVARIANT)
def test_not_scale_invariant(name):
    model = NOT_INVARIANT[name]()
    _randomize_biases(model)
    distance = np.abs(_output_at_scale(model, 1.0) - _output_at_scale(model, 5.0))
    assert distance.max() > 0.01
    assert where(model, "scale-invariant") == []


def test_scale_invariant_only_if_every_path_is_normalized():
    inputs = keras.Input((4,))
    hidden = layers.Dense(4, use_bias=False, kernel_regularizer="l2", name="dense")(
        inputs
    )
    norm = layers.BatchNormalization()(hidden)
    assert where(keras.Model(inputs, norm), "scale-invariant") == ["dense/kernel"]
    assert where(keras.Model(inputs, norm + hidden), "scale-invariant") == []
    assert where(keras.Model(inputs, [norm, hidden]), "scale-invariant") == []


class OwnKernel(keras.Model):
    """A penalized kernel that belongs to no layer but the model."""

    def __init__(self):
        super().__init__()
        self.w = self.add_weight(shape=(4, 4), name="w", regularizer=l2(0.01))
        self.head = layers.Dense(2, kernel_regularizer=l2(0.01), name="head")

    def call(self, inputs):
        return self.head(ops.matmul(inputs, self.w))


@pytest.mark.parametrize("wrap", [lambda m: m, wrapped_anew], ids=["bare", "wrapped"])
def test_a_kernel_of_the_model_itself(wrap):
    x, y = data()
    model = OwnKernel()
    model(x)
    model = compiled(wrap(model))
    model.fit(x, y, verbose=0)
    assert {f.severity for f in audit(model, x, y) if f.code != "lost-on-save"} == set()
    model = OwnKernel()
    model.head.kernel_regularizer = None
    model(x)
    assert where(model, "uncovered") == ["head/kernel"]


def test_scale_invariant_behind_more_layers_than_python_can_recurse():
    many = [layers.Dropout(0.1) for _ in range(400)]
    model = conv_model(*many, layers.LayerNormalization())
    assert where(model, "scale-invariant") == ["conv/kernel"]
    assert where(conv_model(*many, layers.ReLU()), "scale-invariant") == []


def test_scale_invariant_through_a_layer_that_is_used_twice():
    drop = layers.Dropout(0.1)
    model = conv_model(drop, drop, layers.LayerNormalization())
    assert where(model, "scale-invariant") == ["conv/kernel"]
    assert where(conv_model(drop, drop), "scale-invariant") == []


def test_scale_invariant_in_a_nested_model():
    inner = conv_model(layers.BatchNormalization())
    inputs = keras.Input((6, 6, 2))
    outer = keras.Model(inputs, layers.Flatten()(inner(inputs)))
    assert len(where(outer, "scale-invariant")) == 1
    inner = conv_model()
    outer = keras.Model(inputs, layers.BatchNormalization()(inner(inputs)))
    # It is, but what stands outside of a model is not looked at.
    assert where(outer, "scale-invariant") == []


# norm-or-bias


def test_norm_or_bias():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, bias_regularizer="l2", name="d"),
            layers.BatchNormalization(
                gamma_regularizer="l2", beta_regularizer="l2", name="bn"
            ),
        ]
    )
    assert where(model, "norm-or-bias") == ["d/bias", "bn/gamma", "bn/beta"]
    assert where(clean(), "norm-or-bias") == []


# uncovered, last-layer-only


def test_last_layer_only():
    assert where(mlp(None, l2(0.01)), "last-layer-only") == ["out/kernel"]
    assert "last-layer-only" not in codes(mlp(l2(0.01), None))
    assert codes(clean()) == []
    alone = keras.Sequential(
        [keras.Input((4,)), layers.Dense(2, kernel_regularizer="l2")]
    )
    assert codes(alone) == []


def test_uncovered():
    assert where(mlp(l2(0.01), None), "uncovered") == ["out/kernel"]
    assert where(clean(), "uncovered") == where(mlp(), "uncovered") == []


def test_a_frozen_kernel_is_not_uncovered():
    model = mlp(None, l2(0.01))
    model.get_layer("hidden").trainable = False
    assert codes(model) == []


# half-precision


def _half(regularizer):
    layer = layers.Dense(
        50, kernel_initializer="ones", kernel_regularizer=regularizer, dtype="float16"
    )
    model = keras.Sequential([keras.Input((2000,)), layer])
    assert layer.kernel.dtype == "float16"
    return model


def test_half_precision_overflow():
    assert not np.isfinite(float(ops.convert_to_numpy(_half(l2(1e-6)).losses[0])))
    assert len(where(_half(l2(1e-6)), "half-precision")) == 1
    assert len(where(_half(keras.regularizers.L1L2(l2=1e-6)), "half-precision")) == 1
    assert where(_half(L2(1e-6)), "half-precision") == []
    small = _half(l2(1e-6))
    small.layers[0].kernel.assign(small.layers[0].kernel * 0.1)
    assert where(small, "half-precision") == []


# dominates


def test_dominates():
    x, y = data()
    model = compiled(clean())
    data_loss = np.mean((model.predict(x, verbose=0) - y) ** 2)
    kernels = [ops.convert_to_numpy(layer.kernel) for layer in model.layers]
    squares = sum(np.sum(k.astype("float64") ** 2) for k in kernels)
    for layer in model.layers:
        layer.kernel.regularizer = l2(float(data_loss / squares) * 0.5)
    assert where(model, "dominates", x, y, max_share=0.49) != []
    assert where(model, "dominates", x, y, max_share=0.51) == []
    assert where(model, "dominates") == []


def test_dominates_in_a_wrapper_with_two_outputs():
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


# duplicated


class Function(keras.Regularizer):
    """A regularizer from a function, which Keras takes plain as of 3.15."""

    def __init__(self, function):
        self.function = function

    def __call__(self, w):
        return self.function(w)


def test_duplicated_by_late_binding():
    model = mlp()
    for layer in model.layers:
        layer.kernel.regularizer = Function(lambda w: ops.sum(layer.kernel**2))  # noqa: B023
    terms = [float(ops.convert_to_numpy(term)) for term in model.losses]
    assert terms[0] == terms[1]
    assert where(model, "duplicated") == ["hidden/kernel", "out/kernel"]
    for layer in model.layers:
        layer.kernel.regularizer = Function(lambda w: ops.sum(w**2))
    assert where(model, "duplicated") == []


def test_equal_kernels_are_not_duplicated():
    model = mlp(l2(0.01), l2(0.01))
    for layer in model.layers:
        layer.kernel.regularizer = Function(lambda w: ops.mean(w**2))
        layer.kernel.assign(ops.ones(layer.kernel.shape))
    assert where(model, "duplicated") == []


def _floored(w):
    return ops.maximum(ops.sum(ops.square(w)), 1e3)


def _distance_of(a, b):
    """Pulls two kernels together: the same number on both, and rightly so."""
    return Function(lambda w: ops.sum(ops.square(a.kernel - b.kernel)))


def test_equal_numbers_are_no_proof_of_one_penalty():
    model = mlp(Function(_floored), Function(_floored))
    a, b = (float(ops.convert_to_numpy(term)) for term in model.losses)
    assert a == b == 1e3
    assert where(model, "duplicated") == []
    model = square_layers(None, None)
    first, second, _ = model.layers
    first.kernel.regularizer = second.kernel.regularizer = _distance_of(first, second)
    assert where(model, "duplicated") == []


def test_duplicated_by_a_function_of_a_kernel_without_a_penalty():
    model = mlp()
    for layer in model.layers:
        layer.kernel.regularizer = Function(
            lambda w: ops.sum(model.layers[-1].bias ** 2)
        )
    model.layers[-1].bias.assign([1.0, 2.0])
    assert where(model, "duplicated") == ["hidden/kernel", "out/kernel"]


class Adds(keras.Model):
    """Adds what `terms(model, x)` says to the losses, by `add_loss`."""

    def __init__(self, terms, regularizer=None):
        super().__init__()
        self.terms = terms
        self.a = layers.Dense(3, kernel_regularizer=regularizer, name="a")
        self.b = layers.Dense(2, name="b")

    def call(self, x):
        outputs = self.b(self.a(x))
        for term in self.terms(self, x):
            self.add_loss(term)
        return outputs


def _clamped(model, x):
    return [ops.maximum(ops.sum(ops.square(d.kernel)), 1e3) for d in (model.a, model.b)]


def _of_the_data(model, x):
    return [0.1 * ops.mean(ops.square(model.a(x)))] * 2


def _constants(model, x):
    return [ops.convert_to_tensor(0.5), ops.convert_to_tensor(0.5)]


def _own(model, x):
    return [ops.sum(ops.square(d.kernel)) for d in (model.a, model.b)]


def _last(model, x):
    return [ops.sum(ops.square(model.b.kernel)) for _ in (model.a, model.b)]


@pytest.mark.parametrize("with_batch", [False, True])
@pytest.mark.parametrize(
    "terms, expected",
    [
        (_clamped, []),
        (_of_the_data, []),
        (_constants, []),
        (_own, []),
        (_last, ["add_loss"]),
    ],
)
def test_duplicated_terms_are_those_that_move_together(terms, expected, with_batch):
    x, y = data()
    model = compiled(Adds(terms))
    model(x)
    model.b.kernel.assign(ops.ones((3, 2)))
    assert where(model, "duplicated", *[x, y] * with_batch) == expected


def test_a_term_that_happens_to_equal_a_penalty_is_not_duplicated():
    model = Adds(_constants, l2(0.5))
    model(data()[0])
    model.a.kernel.assign(np.eye(4, 3) / np.sqrt(3.0))
    now = [float(ops.convert_to_numpy(term)) for term in model.losses]
    np.testing.assert_allclose(now, 0.5, rtol=1e-6)
    assert where(model, "duplicated") == []


def test_a_constant_and_a_penalty_at_its_floor_are_not_duplicated():
    def constant(model, x):
        return [ops.convert_to_tensor(1e3)]

    model = Adds(constant, Function(_floored))
    model(data()[0])
    assert [float(ops.convert_to_numpy(term)) for term in model.losses] == [1e3, 1e3]
    assert where(model, "duplicated") == []


def test_a_shared_layer_with_an_activity_regularizer_is_not_duplicated():
    x, y = data()
    twice = layers.Dense(3, activity_regularizer=l2(0.1), name="twice")
    a, b = keras.Input((4,)), keras.Input((4,))
    model = keras.Model([a, b], layers.Dense(2)(twice(a) + twice(b)))
    compiled(model)([x, x])
    terms = [float(ops.convert_to_numpy(term)) for term in model.losses]
    assert len(terms) == 2 and terms[0] == terms[1]
    assert where(model, "duplicated") == []
    assert where(model, "duplicated", [x, x], y) == []


class AddsLosses(keras.Model):
    """Adds a penalty per layer by `add_loss`, late-bound or not, as Keras 2 did."""

    def __init__(self, late, regularizer=None):
        super().__init__()
        self.a = layers.Dense(3, kernel_regularizer=regularizer, name="a")
        self.b = layers.Dense(2, name="b")
        self.late = late

    def call(self, x):
        outputs = self.b(self.a(x))
        if self.late:
            terms = [lambda: ops.sum(d.kernel**2) for d in (self.a, self.b)]  # noqa: B023
        else:
            terms = [lambda k=d.kernel: ops.sum(k**2) for d in (self.a, self.b)]
        for term in terms:
            self.add_loss(0.01 * term())
        return outputs


def test_duplicated_by_late_binding_in_add_loss():
    x, y = data()
    for late, expected in ((True, ["add_loss"]), (False, [])):
        model = compiled(AddsLosses(late))
        model(x)
        assert where(model, "duplicated") == expected
        model.fit(x, y, verbose=0)
        assert where(model, "duplicated", x, y) == expected


def test_duplicated_by_add_loss_and_regularizer():
    x, _ = data()
    for strength, expected in ((0.01, ["a/kernel"]), (0.02, [])):
        model = AddsLosses(False, l2(strength))
        model(x)
        assert where(model, "duplicated") == expected


# the audit as a whole


def _state(model):
    """All that an audit might change, as values and as objects."""
    variables = [*model.variables, *model.optimizer.variables]
    return {
        "values": [ops.convert_to_numpy(v).tolist() for v in variables],
        "objects": [id(v) for v in variables],
        "regularizers": [id(v.regularizer) for v in model.variables],
        "config": json.dumps(model.get_config(), default=str),
        "compile": json.dumps(model.get_compile_config(), default=str),
        "losses": [float(ops.convert_to_numpy(term)) for term in model.losses],
        "steps": [id(model.train_function), id(model.test_function)],
        "metrics": [m.name for m in model.metrics],
        "attributes": sorted(vars(model)),
    }


@pytest.mark.parametrize("wrap", [lambda m: m, wrapped_anew], ids=["bare", "wrapped"])
def test_audit_changes_nothing(wrap):
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activity_regularizer="l2", name="a"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, kernel_regularizer="l2", name="b"),
        ]
    )
    x, y = data()
    model = compiled(wrap(inner), "adamw")
    model.fit(x, y, batch_size=4, verbose=0)
    model.evaluate(x, y, verbose=0)
    model(x)
    inner.get_layer("a").bias_regularizer = l2(0.1)
    inner.get_layer("b").kernel.regularizer = l2(0.5)
    before = _state(model)
    assert "never-applied" in codes(model, x, y)
    assert _state(model) == before


@never_stale_on_torch
def test_audit_makes_no_trace_of_its_own():
    """A shape that was not traced before is traced, after the audit, as it is then."""
    x, y = data(6)
    model = compiled(clean())
    model.evaluate(x, y, batch_size=2, verbose=0)
    audit(model, x, y)
    for layer in model.layers:
        layer.kernel.regularizer = l2(10.0)
    if BACKEND == "jax":
        expected = float(ops.convert_to_numpy(sum(model.losses))) + np.mean(
            (model.predict(x, verbose=0) - y) ** 2
        )
        got = model.evaluate(x, y, batch_size=6, verbose=0)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


class AuditsAlways(keras.callbacks.Callback):
    """Audits before and after each step, the inner model of a wrapper as well."""

    def __init__(self, batch):
        super().__init__()
        self.batch, self.seen = batch, []

    def look(self, *args, **kwargs):
        self.seen.append(codes(self.model, *self.batch))
        audit(getattr(self.model, "wrapped_model", self.model))

    on_train_batch_begin = on_train_batch_end = on_test_batch_end = look
    on_epoch_end = on_train_end = look


@pytest.mark.parametrize(
    "wrap",
    [
        pytest.param(lambda m: m, marks=pytest.mark.slow, id="bare"),
        pytest.param(wrapped_anew, id="wrapped"),
    ],
)
def test_audit_in_a_callback_leaves_fit_as_it_is(wrap):
    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = mlp(l2(0.01), l2(0.01), activity_regularizer="l2")
        model = compiled(wrap(model), "adam")
        kwargs = {"batch_size": 4, "epochs": 2, "validation_data": (x, y)}
        logs = model.fit(x, y, verbose=0, callbacks=callbacks, **kwargs).history
        return logs, [w.tolist() for w in model.get_weights()]

    x, y = data()
    audits = AuditsAlways((x, y))
    assert train(audits) == train()
    assert len(audits.seen) == 15
    assert {code for found in audits.seen for code in found} == {"coupled-adaptive"}


class Waits(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.is_running, self.may_end = threading.Event(), threading.Event()

    def on_train_batch_end(self, batch, logs=None):
        self.is_running.set()
        self.may_end.wait(60)


def test_audit_refuses_while_another_thread_trains():
    x, y = data()
    inner = clean()
    outer = compiled(keras.Sequential([keras.Input((4,)), inner]))
    other = clean()
    waits, errors = Waits(), []

    def fit():
        try:
            outer.fit(x, y, batch_size=4, verbose=0, callbacks=[waits])
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    try:
        assert waits.is_running.wait(60)
        for model in (outer, inner):
            with pytest.raises(RuntimeError, match="`fit` in another thread"):
                audit(model)
        assert codes(other) == []
    finally:
        waits.may_end.set()
        thread.join()
    assert errors == []
    assert codes(outer, x, y) == []


def test_findings_print_as_a_table():
    model = compiled(mlp(None, l2(0.01)), "adamw")
    found = audit(model)
    text = str(found)
    assert isinstance(found, Findings) and all(isinstance(f, Finding) for f in found)
    for finding in found:
        assert finding.code in text and finding.severity in text
    assert [f.severity for f in found] == ["warning", "warning", "warning", "info"]
    with pytest.raises(AttributeError):
        found[0].code = "other"


def test_table_shortens_long_lists_and_takes_names_as_they_are():
    names = ("[bold]/kernel", "b/kernel", "c/kernel", "d/kernel", "e/kernel")
    text = str(Findings([Finding("frozen", "info", names, "m", "n")]))
    assert "[bold]/kernel" in text and "and 2 more" in text and "e/kernel" not in text


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: audit("model"), TypeError, "keras.Model"),
        (lambda: audit(mlp(), max_share=0), ValueError, "max_share"),
        (lambda: audit(mlp(), max_share=float("nan")), ValueError, "max_share"),
        (lambda: audit(mlp(), max_share=True), ValueError, "max_share"),
        (lambda: audit(compiled(mlp()), data()[0]), ValueError, "both"),
        (lambda: audit(mlp(), *data()), ValueError, "compiled"),
    ],
)
def test_bad_arguments(call, error, match):
    with pytest.raises(error, match=match):
        call()
