"""A file says what is in effect: saved, loaded, cloned and pickled wrappers."""

import pathlib
import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import X, Y, compiled, mlp, penalty, reloaded, still, texts_of_warnings

from keras_l2reg import L2AllWeights, attach, detach, find_weights
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


def terms(model):
    """How many weights have a penalty, and of which kind: without their values."""
    return sorted(
        weight.name
        for weight in find_weights(model)
        if weight.regularizer is not None and not weight.is_frozen_lora_base
    )


def quantized(model):
    # Keras says which layers have no quantized form.
    with texts_of_warnings():
        model.quantize("int8")


def quantized_to_4_bits(model):
    with texts_of_warnings():
        model.quantize("int4")


def a_quantized(model):
    model.get_layer("a").quantize("int8")


def a_with_lora(model):
    model.get_layer("a").enable_lora(2)


def another_head(model):
    inner = inner_model(model)
    inner.pop()
    inner.add(layers.Dense(2, name="c", kernel_initializer="ones"))


def a_layer_more(model):
    inner_model(model).add(layers.Dense(2, name="c", kernel_initializer="ones"))


def taken_off(model):
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
    another_head,
    a_layer_more,
    taken_off,
    unwrapped,
    stripped,
    attached_over,
    attached_beside,
    b_frozen,
]
# Keras takes seconds to quantize; a plain run does it to one layer of two.
SLOW = (quantized, quantized_to_4_bits)
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
    # Files take their time, so not for each rule.
    names = RULES if way is through_config else ["plain", "multipliers_b"]
    for name in names:
        rule = RULES[name]
        regularizer = keras.regularizers.L2(0.3) if "existing" in rule else None
        wrapper = L2AllWeights(mlp(kernel_regularizer=regularizer), 0.1, **rule)
        change(wrapper)
        again = way(wrapper, tmp_path)
        assert isinstance(again, L2AllWeights)
        if way is not through_config:  # which makes the layers' names anew as well
            assert terms(again) == terms(wrapper), (name, rule)
        assert len(again.losses) == len(wrapper.losses), (name, rule)
        if change is not a_with_lora:  # whose factors Keras draws anew
            assert penalty(again) == pytest.approx(penalty(wrapper), rel=1e-6)
        twice = through_config(again, tmp_path)
        assert len(twice.losses) == len(wrapper.losses), (name, rule)


def test_worked_out_by_hand(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5, multipliers={"b/*": 0.5})
    another_head(wrapper)
    assert penalty(reloaded(wrapper, tmp_path)) == pytest.approx(6.0)

    wrapper = L2AllWeights(mlp(), 0.5)
    a_layer_more(wrapper)
    assert len(reloaded(wrapper, tmp_path).losses) == 2

    regularizer = keras.regularizers.L2(0.3)
    wrapper = L2AllWeights(mlp(kernel_regularizer=regularizer), 0.1, existing="add")
    assert penalty(wrapper) == pytest.approx(7.2)
    wrapper.unwrap()
    assert penalty(reloaded(wrapper, tmp_path)) == pytest.approx(7.2)


def test_a_loaded_wrapper_still_gives_the_model_back_as_it_came(tmp_path):
    wrapper = L2AllWeights(mlp(kernel_regularizer="l1"), 0.5, existing="replace")
    loaded = reloaded(wrapper, tmp_path)
    assert penalty(loaded) == pytest.approx(9.0)
    assert penalty(loaded.unwrap(strip=True)) == pytest.approx(0.18)


def test_a_wrapper_whose_penalty_is_off_says_so_once_loaded(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5)
    taken_off(wrapper)
    loaded = reloaded(wrapper, tmp_path)
    for each in (wrapper, loaded):
        with pytest.raises(ValueError, match="no longer reaches"):
            each.l2 = 0.1


@keras.saving.register_keras_serializable(__name__)
class WithoutLora(keras.Model):
    """Its config says nothing of its layers."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stack = [layers.Dense(4) for _ in range(4)]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def test_lora_that_a_config_does_not_carry_is_warned_of(tmp_path):
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


def test_a_subclassed_model_gets_its_outcome_though_its_layers_are_named_anew(tmp_path):
    model = WithoutLora()
    model(X)
    names = [layer.name for layer in model.stack]
    wrapper = L2AllWeights(model, 0.5, multipliers={f"{names[0]}/*": 0.5})
    for way in WAYS:
        again = way(wrapper, tmp_path)
        again(X)
        values = [w.variable.regularizer for w in find_weights(again)][::2]
        assert [getattr(value, "factor", 1.0) for value in values] == [0.5, 1, 1, 1]


def test_a_wrapper_around_an_unbuilt_model_asks_its_rule_once_it_is_built(tmp_path):
    wrapper = L2AllWeights(WithoutLora(), 0.5)
    again = L2AllWeights.from_config(wrapper.get_config())
    assert again.losses == []
    again(X)
    assert len(again.losses) == 4


# ------------------------------------------------------------ files of earlier forms


@pytest.mark.skipif(
    keras.__version__.startswith("3.12."), reason="Keras 3.15 wrote these files"
)
def test_files_of_format_1_load(tmp_path):
    # A regularizer of L1(0.01) stood on both kernels, and 0.25 (b: half) was added.
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


def test_a_config_may_lack_what_came_later():
    config = L2AllWeights(mlp(), 0.5).get_config()
    for key in ("outcome", "format", "lifted"):
        config.pop(key)
    for key in ("existing", "embeddings", "weight_names"):
        config["rule"].pop(key)
    assert penalty(L2AllWeights.from_config(config)) == pytest.approx(9.0)


# ------------------------------------------------------------------- weights files


@keras.saving.register_keras_serializable(__name__)
class OfManyNames(keras.Model):
    """Attributes before and after `layers` in the alphabet, and a weight of its own."""

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
def test_weights_files_go_both_ways(build, sharded, tmp_path):
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


def test_a_keras_file_gives_its_weights_too(tmp_path):
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


def test_checkpoints_of_weights_load_into_the_plain_model(tmp_path):
    wrapper = compiled(L2AllWeights(mlp(), 0.5))
    checkpoint = keras.callbacks.ModelCheckpoint(
        tmp_path / "c.weights.h5", save_weights_only=True
    )
    wrapper.fit(X, Y, verbose=0, callbacks=[checkpoint])
    plain = mlp()
    plain.set_weights([w + 1 for w in plain.get_weights()])
    plain.load_weights(tmp_path / "c.weights.h5")
    np.testing.assert_array_equal(plain.get_weights()[0], np.ones((4, 3)))


def test_the_weights_are_the_inner_models():
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
        # Of the optimizer, Keras reads the count of steps from such files.
        assert int(ops.convert_to_numpy(loaded.optimizer.iterations)) == 1
        for one, other in zip(loaded.get_weights(), wrapper.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


# ------------------------------------------------------------------------ unwrapped


@pytest.mark.skipif(BACKEND == "torch", reason="half types on a CPU")
def test_unwrapping_float16_warns_of_keras_own_sum():
    x = keras.Input((4,))
    layer = layers.Dense(3, dtype="float16", name="half")
    wrapper = L2AllWeights(keras.Model(x, layer(x)), 0.5)
    with pytest.warns(UserWarning, match="half/kernel"):
        wrapper.unwrap()


@pytest.mark.parametrize("strip", [False, True])
def test_unwrap_hands_back_the_compile_that_is_in_effect(strip):
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


def test_loss_scaling_that_was_declined_stays_declined():
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
def test_a_strength_is_checked_in_the_dtype_that_keeps_it(l2):
    with pytest.raises(ValueError, match="float32"):
        L2AllWeights(mlp(), l2)
    wrapper = L2AllWeights(mlp(), 0.5)
    with pytest.raises(ValueError, match="float32"):
        wrapper.l2 = l2
    assert wrapper.l2 == 0.5
    with pytest.raises(ValueError, match="float32"):
        L2AllWeights(mlp(), regularizer=keras.regularizers.L2(l2))
