"""Saved, loaded, cloned and pickled wrappers have the penalties that are in effect."""

import pathlib
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import X, Y, compiled, mlp, penalty, reloaded, still, texts_of_warnings

from keras_l2reg import L2AllWeights, Scaled, Sum, attach, detach, find_weights
from keras_l2reg.weights import inner_model

FILES = pathlib.Path(__file__).parent / "files"
BACKEND = keras.backend.backend()


def through_file(model, tmp_path):
    return reloaded(model, tmp_path)


def through_pickle(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def through_config(model, tmp_path):
    again = type(model).from_config(model.get_config())
    again.build((None, 4))
    return again


def through_clone(model, tmp_path):
    return keras.models.clone_model(model)


WAYS = [through_file, through_pickle, through_config, through_clone]


def penalized_names(model):
    """Names of the weights with a penalty."""
    return sorted(
        weight.name
        for weight in find_weights(model)
        if weight.regularizer is not None and not weight.is_frozen_lora_base
    )


def quantized(model):
    # Keras warns of layers that have no quantized form.
    with texts_of_warnings():
        model.quantize("int8")


def quantized_to_4_bits(model):
    with texts_of_warnings():
        model.quantize("int4")


def a_quantized(model):
    model.get_layer("a").quantize("int8")


def a_with_lora(model):
    model.get_layer("a").enable_lora(2)


def head_replaced(model):
    inner = inner_model(model)
    inner.pop()
    inner.add(layers.Dense(2, name="c", kernel_initializer="ones"))


def layer_added(model):
    inner_model(model).add(layers.Dense(2, name="c", kernel_initializer="ones"))


def detached(model):
    detach(inner_model(model))


def unwrapped(model):
    model.unwrap()


def stripped(model):
    model.unwrap(strip=True)


def attached_over(model):
    attach(inner_model(model), 0.3, existing="replace")


def attached_beside(model):
    attach(inner_model(model), 0.3, existing="add")


def b_frozen(model):
    model.get_layer("b").trainable = False


CHANGES = [
    quantized,
    quantized_to_4_bits,
    a_quantized,
    a_with_lora,
    head_replaced,
    layer_added,
    detached,
    unwrapped,
    stripped,
    attached_over,
    attached_beside,
    b_frozen,
]
# Keras takes seconds to quantize.
SLOW = (quantized, quantized_to_4_bits, a_quantized)
RULES = {
    "plain": {},
    "layers": {"layers": "a/*"},
    "class": {"layers": layers.Dense},
    "multipliers": {"multipliers": {"a/kernel": 0.5}},
    "multipliers_b": {"multipliers": {"b/*": 0.5}},
    "biases": {"biases": True},
    "add": {"existing": "add"},
    "replace": {"existing": "replace"},
}


def changes_copied():
    """Every change with every way; a plain run takes one of two."""
    for number, change in enumerate(CHANGES):
        for way in WAYS:
            is_plain = change not in SLOW and (number + WAYS.index(way)) % 2 == 0
            marks = () if is_plain else pytest.mark.slow
            name = f"{change.__name__}-{way.__name__}"
            yield pytest.param(change, way, marks=marks, id=name)


@pytest.mark.parametrize(("change", "way"), [*changes_copied()])
def test_a_copy_has_what_is_in_effect_whatever_became_of_the_model(
    change, way, tmp_path
):
    # Files are slow, so not for each rule.
    names = RULES if way is through_config else ["plain", "multipliers_b"]
    for name in names:
        rule = RULES[name]
        regularizer = keras.regularizers.L2(0.3) if "existing" in rule else None
        wrapper = L2AllWeights(mlp(kernel_regularizer=regularizer), 0.1, **rule)
        change(wrapper)
        again = way(wrapper, tmp_path)
        assert isinstance(again, L2AllWeights)
        if way is not through_config:  # which gives the layers new names as well
            assert penalized_names(again) == penalized_names(wrapper), (name, rule)
        assert len(again.losses) == len(wrapper.losses), (name, rule)
        if change is not a_with_lora:  # whose factors Keras initializes again
            assert penalty(again) == pytest.approx(penalty(wrapper), rel=1e-6)
        twice = through_config(again, tmp_path)
        assert len(twice.losses) == len(wrapper.losses), (name, rule)


def test_loaded_penalties_are_those_worked_out_by_hand(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5, multipliers={"b/*": 0.5})
    head_replaced(wrapper)
    assert penalty(reloaded(wrapper, tmp_path)) == pytest.approx(6.0)

    wrapper = L2AllWeights(mlp(), 0.5)
    layer_added(wrapper)
    assert len(reloaded(wrapper, tmp_path).losses) == 2

    regularizer = keras.regularizers.L2(0.3)
    wrapper = L2AllWeights(mlp(kernel_regularizer=regularizer), 0.1, existing="add")
    assert penalty(wrapper) == pytest.approx(7.2)
    wrapper.unwrap()
    assert penalty(reloaded(wrapper, tmp_path)) == pytest.approx(7.2)


def test_unwrapping_a_loaded_wrapper_restores_the_original_regularizers(tmp_path):
    wrapper = L2AllWeights(mlp(kernel_regularizer="l1"), 0.5, existing="replace")
    loaded = reloaded(wrapper, tmp_path)
    assert penalty(loaded) == pytest.approx(9.0)
    assert penalty(loaded.unwrap(strip=True)) == pytest.approx(0.18)


def test_a_wrapper_whose_penalty_was_removed_still_has_none_once_loaded(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5)
    detached(wrapper)
    loaded = reloaded(wrapper, tmp_path)
    for each in (wrapper, loaded):
        with pytest.raises(ValueError, match="`l2` has no effect"):
            each.l2 = 0.1


@keras.saving.register_keras_serializable(__name__)
class WithoutLora(keras.Model):
    """A model whose config does not describe its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stack = [layers.Dense(4) for _ in range(4)]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def test_saving_warns_of_lora_that_the_config_does_not_include(tmp_path):
    model = WithoutLora()
    model(X)
    wrapper = L2AllWeights(model, 0.5)
    for layer in model.stack:
        layer.enable_lora(2)
    assert len(wrapper.losses) == 8
    with pytest.warns(UserWarning, match="LoRA"):
        wrapper.save(tmp_path / "model.keras")
    with pytest.warns(UserWarning, match="had a penalty"):
        loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.losses == []
    np.testing.assert_allclose(
        loaded.predict(X, verbose=0), wrapper.predict(X, verbose=0), rtol=1e-5
    )


def test_a_copy_of_a_subclassed_model_has_its_multipliers_on_renamed_layers(tmp_path):
    model = WithoutLora()
    model(X)
    names = [layer.name for layer in model.stack]
    wrapper = L2AllWeights(model, 0.5, multipliers={f"{names[0]}/*": 0.5})
    for way in WAYS:
        again = way(wrapper, tmp_path)
        again(X)
        values = [w.variable.regularizer for w in find_weights(again)][::2]
        assert [getattr(value, "factor", 1.0) for value in values] == [0.5, 1, 1, 1]


def test_a_wrapper_around_an_unbuilt_model_applies_its_rule_once_built(tmp_path):
    wrapper = L2AllWeights(WithoutLora(), 0.5)
    again = L2AllWeights.from_config(wrapper.get_config())
    assert again.losses == []
    again(X)
    assert len(again.losses) == 4


# ------------------------------------------------------- files of earlier versions


written_by_3_15 = pytest.mark.skipif(
    keras.__version__.startswith("3.12."), reason="Keras 3.15 wrote these files"
)


@written_by_3_15
def test_files_of_format_1_load(tmp_path):
    # Both kernels had L1(0.01), to which an L2 of 0.25 (b: half of it) was added.
    loaded = keras.saving.load_model(FILES / "format1_l2.keras")
    values = [float(ops.convert_to_numpy(term)) for term in loaded.losses]
    assert values == pytest.approx([0.12 + 3.0, 0.06 + 0.75])
    assert loaded.l2 == 0.25
    assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 1
    assert penalty(loaded.unwrap(strip=True)) == pytest.approx(0.18)
    # L1(0.5) on kernels of ones and biases of zeros.
    loaded = keras.saving.load_model(FILES / "format1_l1.keras")
    assert [float(ops.convert_to_numpy(t)) for t in loaded.losses] == [6, 0, 3, 0]
    # One compiled by a user, and its weights file.
    wrapper = L2AllWeights(mlp(), 0.5)
    wrapper.set_weights([w + 1 for w in wrapper.get_weights()])
    wrapper.load_weights(FILES / "format1.weights.h5")
    assert wrapper.l2 == 0.25
    np.testing.assert_array_equal(wrapper.get_weights()[0], np.ones((4, 3)))


def l1_and_l2_by_numpy(model):
    """`sum(|w|)` and `sum(w**2)` in float64, for the kernels `hidden` and `head`."""
    kernels = [
        ops.convert_to_numpy(model.get_layer(name).kernel).astype("float64")
        for name in ("hidden", "head")
    ]
    return [(np.abs(w).sum(), np.square(w).sum()) for w in kernels]


def losses(model):
    return [float(ops.convert_to_numpy(term)) for term in model.losses]


@written_by_3_15
def test_a_wrapper_saved_before_the_modules_moved_loads_with_its_penalties(tmp_path):
    # Wrapped with l2=0.25, multipliers={"head/*": 0.5} and existing="add".
    loaded = keras.saving.load_model(FILES / "format2_l2.keras")
    assert isinstance(loaded, L2AllWeights)
    assert losses(loaded) == pytest.approx([0.6325183510780334, 0.18000619113445282])
    (_, hidden), (l1, head) = l1_and_l2_by_numpy(loaded)

    def expected(l2):
        return [l2 * hidden, 0.01 * l1 + 0.5 * l2 * head]

    assert loaded.l2 == 0.25
    assert losses(loaded) == pytest.approx(expected(0.25), rel=1e-6)
    loaded.l2 = 0.75
    assert losses(loaded) == pytest.approx(expected(0.75), rel=1e-6)
    # It was trained for one epoch, and goes on in the layout of today.
    assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 1
    assert losses(reloaded(loaded, tmp_path)) == pytest.approx(losses(loaded))
    loaded.compile(still(), "mse")
    logs = loaded.fit(X, Y, verbose=0).history
    assert logs["penalty"] == [pytest.approx(sum(expected(0.75)), rel=1e-6)]
    assert losses(loaded.unwrap(strip=True)) == pytest.approx([0.01 * l1], rel=1e-6)
    # The multipliers are those of the rule as well, for layers that are built later.
    assert loaded.get_config()["rule"]["multipliers"] == {"head/*": 0.5}


@written_by_3_15
def test_a_model_attached_to_before_the_modules_moved_loads_with_its_penalties():
    # L2Loss(0.5), with multipliers={"head/*": 0.1} and existing="add".
    loaded = keras.saving.load_model(FILES / "attached_sum.keras")
    assert losses(loaded) == pytest.approx([0.6380133032798767, 0.05719108134508133])
    (_, hidden), (l1, head) = l1_and_l2_by_numpy(loaded)
    expected = [0.5 * hidden / 2, 0.01 * l1 + 0.1 * 0.5 * head / 2]
    assert losses(loaded) == pytest.approx(expected, rel=1e-6)
    total = loaded.get_layer("head").kernel_regularizer
    assert isinstance(total, Sum)
    assert [type(part) for part in total.regularizers] == [
        keras.regularizers.L1,
        Scaled,
    ]
    assert total.regularizers[1].factor == 0.1
    # A strength that is live again, by wrapping what was loaded.
    wrapper = L2AllWeights(loaded, 0.25, existing="replace")
    wrapper.l2 = 1.0
    assert losses(wrapper) == pytest.approx([hidden, head], rel=1e-6)


def test_a_config_may_lack_keys_that_were_added_later():
    config = L2AllWeights(mlp(), 0.5).get_config()
    for key in ("outcome", "format", "lifted"):
        config.pop(key)
    for key in ("existing", "embeddings", "weight_names"):
        config["rule"].pop(key)
    assert penalty(L2AllWeights.from_config(config)) == pytest.approx(9.0)


# ------------------------------------------------------------------- weights files


@keras.saving.register_keras_serializable(__name__)
class OfManyNames(keras.Model):
    """Attributes before and after `layers` in the alphabet, and a direct weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self._hidden_layer = layers.Dense(3)
        self.first = layers.Dense(3)
        self.zth = layers.Dense(2)

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")
        self.built = True

    def call(self, x):
        return self.factor * self.zth(self.first(self._hidden_layer(x)))


def of_many_names():
    model = OfManyNames()
    model(X)
    return model


def functional():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(2)(layers.Dense(3)(x)))


def trained(model, l2=None):
    model = model if l2 is None else L2AllWeights(model, l2)
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    return model


@pytest.mark.parametrize(
    ("build", "sharded"),
    [
        (mlp, False),
        (of_many_names, True),
        *(
            pytest.param(*p, marks=pytest.mark.slow)
            for p in (
                (mlp, True),
                (functional, False),
                (functional, True),
                (of_many_names, False),
            )
        ),
    ],
)
def test_wrapper_and_bare_model_load_each_others_weights_files(
    build, sharded, tmp_path
):
    name, size = (
        ("m.weights.json", {"max_shard_size": 1.0}) if sharded else ("m.weights.h5", {})
    )
    plain = trained(build())
    plain.save_weights(tmp_path / name, **size)
    wrapper = trained(build(), 0.5)
    wrapper.load_weights(tmp_path / name)
    assert_same(wrapper, plain)
    assert wrapper.l2 == 0.5

    wrapper = trained(build(), 0.5)
    wrapper.l2 = 0.25
    wrapper.save_weights(tmp_path / name, **size)
    plain = trained(build())
    plain.load_weights(tmp_path / name)
    assert_same(wrapper, plain)
    again = trained(build(), 0.5)
    again.load_weights(tmp_path / name)
    assert_same(wrapper, again)
    assert again.l2 == 0.25
    assert "window_state" not in vars(wrapper.wrapped_model)
    assert "optimizer" not in vars(wrapper.wrapped_model)


def assert_same(a, b):
    for one, other in zip(a.get_weights(), b.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    variables = zip(a.optimizer.variables, b.optimizer.variables, strict=True)
    for one, other in variables:
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))


def test_load_weights_reads_keras_files_too(tmp_path):
    wrapper = trained(mlp(), 0.5)
    wrapper.save(tmp_path / "wrapped.keras")
    again = trained(mlp(), 0.1)
    again.load_weights(tmp_path / "wrapped.keras")
    assert again.l2 == 0.5
    assert_same(again, wrapper)
    plain = trained(mlp())
    plain.save(tmp_path / "plain.keras")
    again.load_weights(tmp_path / "plain.keras")
    assert_same(again, plain)


def test_a_checkpoint_of_weights_loads_into_the_bare_model(tmp_path):
    wrapper = compiled(L2AllWeights(mlp(), 0.5))
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "c.weights.h5", save_weights_only=True
    )
    wrapper.fit(X, Y, verbose=0, callbacks=[checkpoint])
    plain = mlp()
    plain.set_weights([w + 1 for w in plain.get_weights()])
    plain.load_weights(tmp_path / "c.weights.h5")
    np.testing.assert_array_equal(plain.get_weights()[0], np.ones((4, 3)))


def test_the_weights_are_those_of_the_inner_model():
    model = mlp()
    wrapper = L2AllWeights(model, 0.5)
    assert [v.path for v in wrapper.weights] == [v.path for v in model.weights]
    mlp().set_weights(wrapper.get_weights())


@pytest.mark.parametrize("build", [mlp, functional])
@pytest.mark.parametrize("rule", ["plain", "multipliers_b", "add"])
def test_a_legacy_file_loads(build, rule, tmp_path):
    model = build()
    if rule == "add":
        attach(model, keras.regularizers.L2(0.3))
    arguments = RULES[rule] if build is mlp else {}
    wrapper = L2AllWeights(model, 0.5, **{"existing": "add", **arguments})
    wrapper.compile("adam", keras.losses.MeanSquaredError())
    wrapper.fit(X, Y, verbose=0)
    wrapper.l2 = 0.25
    for save in (wrapper.save, lambda path: keras.saving.save_model(wrapper, path)):
        save(tmp_path / "w.h5")
        loaded = keras.saving.load_model(tmp_path / "w.h5")
        assert loaded.l2 == 0.25
        assert penalty(loaded) == pytest.approx(penalty(wrapper), rel=1e-6)
        # Of the optimizer, Keras loads only the number of steps from such files.
        assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 1
        for one, other in zip(loaded.get_weights(), wrapper.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------ unwrapped


@pytest.mark.skipif(BACKEND == "torch", reason="half types on a CPU")
def test_unwrapping_float16_warns_that_keras_sums_may_overflow():
    x = keras.Input((4,))
    layer = layers.Dense(3, dtype="float16", name="half")
    wrapper = L2AllWeights(keras.Model(x, layer(x)), 0.5)
    with pytest.warns(UserWarning, match="half/kernel"):
        wrapper.unwrap()


@pytest.mark.parametrize("strip", [False, True])
def test_unwrap_returns_the_model_compiled_as_the_wrapper_is(strip):
    model = mlp()
    model.compile("sgd", "mae")
    wrapper = L2AllWeights(model, 0.5)
    optimizer = still()
    wrapper.compile(optimizer, "mse", metrics=["mae"])
    inner = wrapper.unwrap(strip=strip)
    assert inner.optimizer is optimizer
    # Kernels of ones: each output is 12, its error to 1 is 11.
    loss, mae = inner.evaluate(X, Y, verbose=0)
    assert (loss, mae) == pytest.approx((121 + (0 if strip else 9), 11))


def test_loss_scaling_that_was_turned_off_stays_off():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = mlp()
        model.compile("sgd", "mse", auto_scale_loss=False)
        wrapper = L2AllWeights(model, 0.5)
        assert wrapper.optimizer is model.optimizer
        assert isinstance(wrapper.unwrap().optimizer, keras.optimizers.SGD)
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize("l2", [1e39, 1e-46])
def test_a_strength_that_float32_can_not_hold_is_refused(l2):
    with pytest.raises(ValueError, match="float32"):
        L2AllWeights(mlp(), l2)
    wrapper = L2AllWeights(mlp(), 0.5)
    with pytest.raises(ValueError, match="float32"):
        wrapper.l2 = l2
    assert wrapper.l2 == 0.5
    with pytest.raises(ValueError, match="float32"):
        L2AllWeights(mlp(), regularizer=keras.regularizers.L2(l2))
