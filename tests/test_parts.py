"""A regularizer for each part, against layers constructed with these regularizers."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import penalty, reloaded, texts_of_warnings
from trained import (
    OPTIMIZERS,
    X,
    assert_train_alike,
    float64,
    network,
    with_weights_of,
)

from keras_l2reg import (
    L1L2,
    L2,
    L2AllWeights,
    attach,
    audit,
    detach,
    find_weights,
    select_weights,
)

regularizers = keras.regularizers


def attached(model, parts, **rule):
    return attach(model, parts, **rule)


def wrapped(model, parts, **rule):
    return L2AllWeights(model, regularizer=parts, **rule)


WAYS = [attached, wrapped]


@keras.saving.register_keras_serializable(__name__)
def cubes(w):
    return 0.1 * ops.sum(ops.abs(w) ** 3)


# What users may pass as the value of a part, and the same as an argument of a layer.
VALUES = {
    "number": (0.02, regularizers.L2(0.02)),
    "integer": (1, regularizers.L2(1.0)),
    "name": ("l1", regularizers.L1(0.01)),
    "config": (
        regularizers.serialize(regularizers.L1L2(0.02, 0.03)),
        regularizers.L1L2(0.02, 0.03),
    ),
    "keras": (regularizers.L1(0.02), regularizers.L1(0.02)),
    "ours": (L1L2(0.02, 0.03), regularizers.L1L2(0.02, 0.03)),
    "orthogonal": (
        regularizers.OrthogonalRegularizer(0.1),
        regularizers.OrthogonalRegularizer(0.1),
    ),
    "function": (cubes, cubes),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("way", WAYS)
def test_parts_train_as_layers_with_these_regularizers(way, optimizer):
    reference = network(regularizers.L1(0.01), regularizers.L2(0.02))
    model = with_weights_of(network(), reference)
    parts = {"*": 0.5, "a/*": regularizers.L1(0.01), "b/*": 0.02, "c/*": None}
    assert_train_alike(way(model, parts), reference, optimizer)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", VALUES)
def test_each_kind_of_value_is_the_regularizer_it_stands_for(kind, way):
    value, regularizer = VALUES[kind]
    reference = network(b=regularizer)
    model = way(with_weights_of(network(), reference), {"b/*": value})
    assert penalty(model) == pytest.approx(penalty(reference), rel=1e-6)
    assert len(model.losses) == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_variable_is_a_live_strength_of_its_part(way):
    strength = keras.Variable(0.5)
    model = network()
    squares = np.sum(float64(model.get_layer("a").kernel) ** 2)
    with texts_of_warnings():  # `attach`: JAX compiles the value
        trained = way(model, {"a/*": strength})
    for value in (0.5, 0.25):
        strength.assign(value)
        assert penalty(trained) == pytest.approx(value * squares, rel=1e-6)


def test_variables_of_parts_act_at_once_and_are_not_trained():
    strength = keras.Variable(0.5)
    model = L2AllWeights(network(), regularizer={"*": 0.1, "a/*": strength})
    model.compile(keras.optimizers.SGD(0.0), "mse")
    a, b, c = (np.sum(float64(model.get_layer(n).kernel) ** 2) for n in "abc")
    for value in (0.5, 0.25):
        strength.assign(value)
        logs = model.fit(X, X[:, :2], verbose=0).history
        assert logs["penalty"][0] == pytest.approx(value * a + 0.1 * (b + c), rel=1e-5)
    assert audit(model) == (), "the other parts have a number on purpose"


# (parts, further arguments, the strength that each kernel should have)
RULES = {
    "last match wins": (
        {"*": 1, "a/*": 2, "*/kernel": 3},
        {},
        {"a": 3, "b": 3, "c": 3},
    ),
    "nothing else": ({"b/*": 2}, {}, {"b": 2}),
    "none": ({"*": 1, "a/*": None}, {}, {"b": 1, "c": 1}),
    "none, then again": ({"a/*": None, "*": 1, "b/*": None}, {}, {"a": 1, "c": 1}),
    "layers": ({"*": 1, "c/*": 2}, {"layers": ["b/*", "c/*"]}, {"b": 1, "c": 2}),
    "class": ({"*": 1}, {"layers": layers.Dense}, {"a": 1, "b": 1, "c": 1}),
    "exclude": ({"*": 1, "c/*": 2}, {"exclude": "a/*"}, {"b": 1, "c": 2}),
    "multipliers": (
        {"*": 1, "c/*": 2},
        {"multipliers": {"b/*": 0.5, "c/*": 0.25, "a/*": 0}},
        {"b": 0.5, "c": 0.5},
    ),
    "question mark": ({"?/k*": 1, "[ab]/*": 2}, {}, {"a": 2, "b": 2, "c": 1}),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", RULES)
def test_the_rule_gives_each_weight_its_strength(name, way):
    parts, rule, expected = RULES[name]
    model = way(network(), parts, **rule)
    squares = {n: np.sum(float64(model.get_layer(n).kernel) ** 2) for n in "abc"}
    covered = [w for w in find_weights(model) if w.regularizer is not None]
    assert [w.name for w in covered] == [f"{n}/kernel" for n in expected]
    for weight in covered:
        n = weight.name[0]
        value = float(ops.convert_to_numpy(weight.regularizer(weight.variable)))
        assert value == pytest.approx(expected[n] * squares[n], rel=1e-6)
    chosen = select_weights(network(), regularizer=parts, **rule)
    assert [w.name for w, _ in chosen] == [w.name for w in covered]


@pytest.mark.parametrize("way", WAYS)
def test_biases_and_embeddings_have_parts_of_their_own(way):
    def build():
        return keras.Sequential(
            [
                keras.Input((3,), dtype="int32"),
                layers.Embedding(4, 2, name="table"),
                layers.Flatten(),
                layers.Dense(2, name="out", bias_initializer="ones"),
            ]
        )

    model = build()
    with pytest.raises(ValueError, match="matches only"):
        way(model, {"table/*": 0.1})
    assert model.losses == []
    parts = {"*": 0.5, "*/bias": "l1", "table/*": 0.25}
    model = way(model, parts, biases=True, embeddings=True)
    kernel, table = model.get_layer("out").kernel, model.get_layer("table").embeddings
    expected = 0.25 * np.sum(float64(table) ** 2) + 0.5 * np.sum(float64(kernel) ** 2)
    assert penalty(model) == pytest.approx(expected + 0.02, rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("existing", "expected"),
    [("keep", [0.01, 0]), ("replace", [0, 0.5]), ("add", [0.01, 0.5])],
)
def test_a_part_keeps_replaces_or_adds_to_what_a_layer_has(way, existing, expected):
    model = network(a="l1")
    kernel = float64(model.get_layer("a").kernel)
    model = way(model, {"a/*": 0.5, "b/*": None, "c/*": 0.0}, existing=existing)
    (l1, l2) = expected
    total = l1 * np.sum(np.abs(kernel)) + l2 * np.sum(kernel**2)
    assert penalty(model) == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
def test_detach_restores_what_was_there(way):
    model = network(a="l1")
    config, before = model.get_config(), penalty(model)
    way(model, {"*": 0.5, "b/*": "l1"}, existing="replace")
    assert penalty(model) != pytest.approx(before)
    detach(model)
    assert model.get_config() == config
    assert penalty(model) == before


def test_unwrap_gives_the_built_in_regularizers_of_each_part():
    parts = {"a/*": L1L2(0.1, 0.2), "b/*": 0.5, "c/*": "l1"}
    wrapper = L2AllWeights(network(), regularizer=parts, multipliers={"b/*": 0.5})
    expected = penalty(wrapper)
    model = wrapper.unwrap()
    found = [model.get_layer(n).kernel_regularizer for n in "abc"]
    kinds = [regularizers.L1L2, regularizers.L2, regularizers.L1]
    assert [type(r) for r in found] == kinds
    assert found[1].get_config() == {"l2": 0.25}
    assert penalty(model) == pytest.approx(expected, rel=1e-6)


@keras.saving.register_keras_serializable(__name__)
class Renamed(keras.Model):
    """Whose layers get new automatic names when it is made again."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.stack = [layers.Dense(4) for _ in range(3)]

    def call(self, x):
        for layer in self.stack:
            x = layer(x)
        return x


def through_file(model, tmp_path):
    return reloaded(model, tmp_path)


def through_pickle(model, tmp_path):
    return pickle.loads(pickle.dumps(model))


def through_clone(model, tmp_path):
    clone = keras.models.clone_model(model)
    clone(X)
    return with_weights_of(clone, model)


@pytest.mark.parametrize("copy", [through_file, through_pickle, through_clone])
def test_copies_have_the_parts(copy, tmp_path):
    parts = {"*": 0.5, "b/*": cubes, "c/*": None}
    model = L2AllWeights(network(), regularizer=parts, multipliers={"b/*": 0.5})
    for again in (copy(model, tmp_path), copy(copy(model, tmp_path), tmp_path)):
        assert penalty(again) == pytest.approx(penalty(model), rel=1e-6)
        assert again.get_layer("c").kernel.regularizer is None
    assert penalty(reloaded(attach(network(), parts), tmp_path)) > 0


@pytest.mark.parametrize("copy", [through_file, through_pickle, through_clone])
def test_copies_of_a_subclassed_model_have_the_parts_on_renamed_layers(copy, tmp_path):
    model = Renamed()
    model(X)
    first, second, _ = (layer.name for layer in model.stack)
    parts = {"*": 0.5, f"{first}/*": "l1", f"{second}/*": None}
    wrapper = L2AllWeights(model, regularizer=parts)
    again = copy(wrapper, tmp_path)
    again(X)
    names = [layer.name for layer in again.layers]
    assert names[0] != first
    assert penalty(again) == pytest.approx(penalty(wrapper), rel=1e-6)
    kinds = [type(w.regularizer) for w in find_weights(again)][::2]
    assert kinds == [regularizers.L1, type(None), L2]
    # The rule is the same for what is built later, and in a copy of the copy.
    twice = copy(again, tmp_path)
    twice(X)
    assert penalty(twice) == pytest.approx(penalty(wrapper), rel=1e-6)


@pytest.mark.parametrize("regularizer", ["l1", cubes, L2(keras.Variable(0.5))])
def test_a_wrapper_with_one_regularizer_can_still_be_loaded(regularizer, tmp_path):
    model = L2AllWeights(network(), regularizer=regularizer)
    again = reloaded(model, tmp_path)
    assert penalty(again) == pytest.approx(penalty(model), rel=1e-6)


def test_a_wrapper_around_an_unbuilt_model_has_parts_once_built():
    model = keras.Sequential([layers.Dense(3, name="a"), layers.Dense(2, name="b")])
    wrapper = L2AllWeights(model, regularizer={"a/*": 0.5, "b/*": "l1"})
    wrapper(X)
    a, b = (float64(model.get_layer(n).kernel) for n in "ab")
    expected = 0.5 * np.sum(a**2) + 0.01 * np.sum(np.abs(b))
    assert penalty(wrapper) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "mixed_float16"])
def test_parts_are_summed_in_float32_for_half_precision(way, dtype):
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(20_000, name="a", dtype=dtype, kernel_initializer="ones"),
            layers.Dense(2, name="b", dtype=dtype, kernel_initializer="ones"),
        ]
    )
    model = way(model, {"a/*": "l1", "b/*": regularizers.L2(2.0)})
    # In float16, the sums of 80,000 and 40,000 ones, times 2, overflow at 65,504.
    assert penalty(model) == pytest.approx(800 + 80_000, rel=1e-6)


def test_a_glob_without_a_match_lists_the_names_and_a_hint():
    model = network()
    for call in (
        lambda: attach(model, {"a": 0.5}),
        lambda: L2AllWeights(model, regularizer={"a/*": 1, "a": 0.5}),
    ):
        with pytest.raises(ValueError, match="regularizer") as error:
            call()
        for text in ("a/kernel (kernel)", "'a', which matches nothing", "'a/*'"):
            assert text in str(error.value)
        assert model.losses == []


def test_shared_layers_have_one_penalty_of_their_part():
    x = keras.Input((4,))
    layer = layers.Dense(4, name="twice")
    model = keras.Model(x, layer(layer(x)))
    squares = np.sum(float64(layer.kernel) ** 2)
    assert penalty(attach(model, {"twice/*": 0.5})) == pytest.approx(0.5 * squares)
