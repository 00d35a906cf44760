"""Penalties towards the starting weights, against Ridge in closed form and torch."""

import pickle

import keras
import numpy as np
import pytest
from keras import layers
from small import X as ONES
from small import mlp, penalty, reloaded, still, texts_of_warnings
from trained import X, Y, fitted, float64, network

from keras_l2reg import (
    L1L2,
    L2AllWeights,
    attach,
    audit,
    detach,
    find_weights,
    penalties,
    print_penalties,
)
from keras_l2reg._audit.facts import l2_of, l2_to_zero_of

BACKEND = keras.backend.backend()
SLOW_ON_TORCH = [pytest.mark.slow] if BACKEND == "torch" else []


def moved(model, by=0.5):
    """The model, after its weights were changed."""
    model.set_weights([w + by for w in model.get_weights()])
    return model


def squared_distances(model, starts):
    """`sum((w - w0)**2)` of each kernel, by its layer's name, by NumPy."""
    kernels = {layer.name: float64(layer.kernel) for layer in model.layers}
    return {n: np.sum((w - starts[n]) ** 2) for n, w in kernels.items()}


def kernels_of(model):
    return {layer.name: float64(layer.kernel) for layer in model.layers}


# --- Against references ----------------------------------------------------------


def test_it_converges_to_ridge_on_the_shifted_target():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(40, 6)).astype("float32")
    y = rng.normal(size=(40, 1)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), layers.Dense(1, use_bias=False)])
    w0 = rng.normal(size=(6, 1)).astype("float32")
    model.set_weights([w0])
    l2 = 0.3
    wrapper = L2AllWeights(model, l2, towards_start=True)
    wrapper.compile(keras.optimizers.SGD(0.1), "mse")
    steps = [np.tile(a, (400, 1)) for a in (x, y)]
    wrapper.fit(*steps, batch_size=40, shuffle=False, verbose=0)
    # The minimum of mean((x @ d - (y - x @ w0))**2) + l2 * sum(d**2), with d = w - w0.
    a, b, start = (array.astype("float64") for array in (x, y, w0))
    gram = a.T @ a + 40 * l2 * np.eye(6)
    expected = start + np.linalg.solve(gram, a.T @ (b - a @ start))
    assert np.abs(expected - start).max() > 0.1
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=0, atol=1e-4)


def torch_trajectory(torch, name, weights, x, y, terms, steps=9):
    """Weights after steps of torch's optimizer on the network `a`, `b`, `c`."""
    w = [torch.tensor(v, requires_grad=True) for v in weights]
    starts = [v.detach().clone() for v in w]
    optimizer = {
        "sgd": lambda: torch.optim.SGD(w, lr=0.1, momentum=0.9),
        "adam": lambda: torch.optim.Adam(w, lr=0.01, eps=1e-12, betas=BETAS),
    }[name]()
    x, y = torch.tensor(x), torch.tensor(y)
    for _ in range(steps):
        h = torch.tanh(x @ w[0] + w[1])
        h = torch.tanh(h @ w[2] + w[3])
        loss = torch.mean((h @ w[4] + w[5] - y) ** 2)
        for kernel, (l1, l2, is_to_start) in zip((0, 2, 4), terms, strict=True):
            d = w[kernel] - starts[kernel] if is_to_start else w[kernel]
            loss = loss + l2 * torch.sum(d**2) + l1 * torch.sum(torch.abs(d))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return [v.detach().numpy() for v in w]


# The arguments, and for each kernel l1, l2 and whether it is towards the start.
PENALTIES = {
    "all": ({"l2": 0.05, "towards_start": True}, [(0, 0.05, True)] * 3),
    "backbone": (
        {"l2": 0.05, "towards_start": ["a/*", "b/*"]},
        [(0, 0.05, True), (0, 0.05, True), (0, 0.05, False)],
    ),
    "multipliers": (
        {
            "l2": 0.05,
            "towards_start": ["a/*", "b/*"],
            "multipliers": {"b/*": 2.0, "c/*": 0.5},
        },
        [(0, 0.05, True), (0, 0.1, True), (0, 0.025, False)],
    ),
    "l1": (
        {"l2": 0.05, "l1": 0.02, "towards_start": "b/*"},
        [(0.02, 0.05, False), (0.02, 0.05, True), (0.02, 0.05, False)],
    ),
    "parts": (
        {
            "regularizer": {"a/*": 0.05, "b/*": L1L2(0.01, 0.1), "c/*": "l1"},
            "towards_start": "[ab]/*",
        },
        [(0, 0.05, True), (0.01, 0.1, True), (0.01, 0, False)],
    ),
    "class": (
        {"regularizer": "l2", "towards_start": layers.Dense, "exclude": "a/*"},
        [(0, 0, True), (0, 0.01, True), (0, 0.01, True)],
    ),
}


# Exact in float32: Keras itself is 1.3e-6 from torch with 0.9 and 0.999.
BETAS = (0.875, 0.984375)


@pytest.mark.parametrize(
    "optimizer", ["sgd", pytest.param("adam", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", PENALTIES)
def test_it_trains_as_the_same_written_by_hand_in_torch(name, optimizer, torch):
    arguments, terms = PENALTIES[name]
    model = moved(network(), 0.1)
    before = model.get_weights()
    wrapper = L2AllWeights(model, **arguments)
    rate = {
        "sgd": keras.optimizers.SGD(0.1, momentum=0.9),
        # Keras adds epsilon before it corrects the bias.
        "adam": keras.optimizers.Adam(0.01, *BETAS, epsilon=1e-12),
    }
    wrapper.compile(rate[optimizer], "mse")
    x, y = np.tile(X, (9, 1)), np.tile(Y, (9, 1))
    wrapper.fit(x, y, batch_size=21, shuffle=False, verbose=0)
    expected = torch_trajectory(torch, optimizer, before, X, Y, terms)
    for ours, theirs in zip(model.get_weights(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        {"run_eagerly": True},
        pytest.param({"jit_compile": True}, marks=SLOW_ON_TORCH),
        pytest.param(
            {"steps_per_execution": 2},
            marks=pytest.mark.skipif(
                BACKEND == "torch", reason="Keras does not support it on torch"
            ),
        ),
    ],
    ids=str,
)
def test_modes_of_execution_train_alike(arguments):
    reference = network()
    model = network()
    model.set_weights(reference.get_weights())
    model = L2AllWeights(model, 0.5, towards_start=["a/*", "b/*"])
    reference = L2AllWeights(reference, 0.5, towards_start=["a/*", "b/*"])
    fitted(model, **arguments)
    fitted(reference)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)


def test_at_the_start_there_is_no_penalty_and_far_away_it_is_that_of_numpy():
    model = network()
    starts = kernels_of(model)
    wrapper = L2AllWeights(model, 0.5, towards_start="a/*", multipliers={"a/*": 0.5})
    assert penalties(wrapper)["a/kernel"] == 0.0
    moved(model)
    expected = 0.25 * squared_distances(model, starts)["a"]
    expected += 0.5 * sum(np.sum(kernels_of(model)[n] ** 2) for n in "bc")
    assert penalty(wrapper) == pytest.approx(expected, rel=1e-6)
    assert sum(penalties(wrapper).values()) == pytest.approx(expected, rel=1e-6)
    wrapper.compile(still(), "mse")
    for l2 in (0.5, 0.125):
        wrapper.l2 = l2
        logs = wrapper.fit(X, Y, verbose=0).history
        assert logs["penalty"][0] == pytest.approx(expected * l2 / 0.5, rel=1e-5)
        total = logs["data_loss"][0] + logs["penalty"][0]
        assert total == pytest.approx(logs["loss"][0], rel=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_float16", "float16", "bfloat16"])
def test_half_precision_is_summed_in_float32(dtype, tmp_path):
    def build():
        return keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(20_000, name="a", dtype=dtype, kernel_initializer="ones"),
                layers.Dense(2, name="b", dtype=dtype),
            ]
        )

    model = build()
    wrapper = L2AllWeights(model, 1.0, towards_start=True)
    (start, _) = [
        w.variable.regularizer.start for w in find_weights(model) if w.regularizer
    ]
    assert start.dtype == model.get_layer("a").kernel.dtype
    model.get_layer("a").kernel.assign(np.full((4, 20_000), 3.0))
    # 320,000 overflows float16.
    assert penalties(wrapper)["a/kernel"] == pytest.approx(320_000, rel=1e-6)
    wrapper.compile(keras.optimizers.SGD(0.125), loss=None)
    model.trainable = True
    wrapper.fit(ONES, batch_size=8, verbose=0)
    # A step subtracts 0.125 * 2 * l2 * (3 - 1).
    np.testing.assert_allclose(float64(model.get_layer("a").kernel), 2.5, rtol=1e-2)
    again = reloaded(wrapper, tmp_path)
    assert penalty(again) == pytest.approx(penalty(wrapper), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_distance_has_more_digits_than_half_precision(dtype):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype=dtype)])
    (kernel, _) = model.layers[0].weights
    kernel.assign(np.full((4, 3), 0.1))
    start = float64(kernel)
    wrapper = L2AllWeights(model, 0.5, towards_start=True)
    kernel.assign(np.full((4, 3), 64.0))
    expected = 0.5 * np.sum((float64(kernel) - start) ** 2)
    assert penalty(wrapper) == pytest.approx(expected, rel=1e-6)


# --- Saved and loaded ------------------------------------------------------------


@keras.saving.register_keras_serializable(__name__)
class Renamed(keras.Model):
    """Whose layers get new automatic names when it is made again."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = layers.Dense(4), layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


def renamed():
    model = Renamed()
    model(X)
    return model


COPIES = {
    "file": reloaded,
    "pickle": lambda model, tmp_path: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.slow
@pytest.mark.parametrize("copy", COPIES)
@pytest.mark.parametrize("build", [network, renamed])
def test_copies_have_the_starting_values_and_train_on(build, copy, tmp_path):
    model = build()
    first = model.layers[0].name
    wrapper = L2AllWeights(model, 0.5, towards_start=f"{first}/*")
    fitted(wrapper)
    assert 0 < next(iter(penalties(wrapper).values())) < 1
    wrapper.compile(still(), "mse")
    again = COPIES[copy](wrapper, tmp_path)
    for each in (again, COPIES[copy](again, tmp_path)):
        np.testing.assert_allclose(
            [*penalties(each).values()], [*penalties(wrapper).values()], rtol=1e-6
        )
    np.testing.assert_allclose(fitted(again), fitted(wrapper), rtol=1e-5)
    np.testing.assert_allclose(penalty(again), penalty(wrapper), rtol=1e-4)


@pytest.mark.parametrize("suffix", ["w.weights.h5", "w.weights.json"])
def test_weights_files_go_both_ways(suffix, tmp_path):
    sharded = {"max_shard_size": 1e-7} if suffix.endswith("json") else {}
    path = tmp_path / suffix
    wrapper = L2AllWeights(network(), 0.5, towards_start=True)
    moved(wrapper)
    wrapper.save_weights(path, **sharded)
    # Another wrapper has the starting values of the first.
    other = L2AllWeights(network(), 0.25, towards_start=True)
    other.load_weights(path)
    assert penalty(wrapper) > 1
    assert penalty(other) == pytest.approx(penalty(wrapper), rel=1e-6)
    # The plain model ignores them.
    plain = network()
    plain.load_weights(path)
    for ours, theirs in zip(plain.get_weights(), wrapper.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # In the file of a plain model there are none: the current ones stay.
    plain.save_weights(path, **sharded)
    last = network()
    starts = kernels_of(last)
    last = L2AllWeights(last, 0.5, towards_start=True)
    last.load_weights(path)
    expected = 0.5 * sum(squared_distances(last, starts).values())
    assert penalty(last) == pytest.approx(expected, rel=1e-6)


def test_a_compiled_inner_model_trains_with_loaded_starting_values(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5, towards_start=True)
    moved(wrapper, 1.0)
    wrapper.save_weights(tmp_path / "w.weights.h5")
    inner = mlp()
    other = L2AllWeights(inner, 0.5, towards_start=True)
    inner.compile(still(), "mse")
    y = inner.predict(ONES, verbose=0)
    with texts_of_warnings():  # JAX compiles the strength
        assert inner.fit(ONES, y, verbose=0).history["loss"] == [0.0]
        other.load_weights(tmp_path / "w.weights.h5")
        y = inner.predict(ONES, verbose=0)
        loss = inner.fit(ONES, y, verbose=0).history["loss"]
    assert loss == [pytest.approx(9.0, rel=1e-6)]


@pytest.mark.parametrize("save", ["method", "function"])
def test_a_legacy_file_is_refused_before_anything_is_lost(save, tmp_path):
    path = tmp_path / "model.h5"
    path.write_text("an earlier file")
    wrapper = L2AllWeights(network(), 0.5, towards_start=True)
    with pytest.raises(ValueError, match=r"`\.keras` file"):
        if save == "method":
            wrapper.save(path)
        else:
            keras.saving.save_model(wrapper, path)
    if save == "method":
        assert path.read_text() == "an earlier file"
    # Once there are no starting values, there is nothing to lose.
    wrapper.unwrap(strip=True)
    wrapper.save(tmp_path / "none.h5")


def test_a_clone_starts_from_its_own_weights():
    wrapper = moved(L2AllWeights(network(), 0.5, towards_start=True))
    clone = keras.models.clone_model(wrapper)
    assert penalty(clone) == 0.0
    starts = kernels_of(clone)
    moved(clone)
    expected = 0.5 * sum(squared_distances(clone, starts).values())
    assert penalty(clone) == pytest.approx(expected, rel=1e-6)


def test_the_inner_model_alone_is_saved_without_it_and_the_audit_says_so(tmp_path):
    inner = network(a="l1")
    wrapper = L2AllWeights(inner, 0.5, towards_start=["a/*", "b/*"], existing="replace")
    assert audit(wrapper) == ()
    (finding,) = [f for f in audit(inner) if f.code == "lost-on-save"]
    assert finding.where == ("a/kernel", "b/kernel")
    loaded = reloaded(inner, tmp_path)
    found = [layer.kernel_regularizer for layer in loaded.layers]
    # The L1 was replaced, so it is not in effect either.
    assert found[:2] == [None, None] and found[2] is not None
    assert keras.models.clone_model(inner).get_layer("b").kernel.regularizer is None


def test_variables_have_paths_of_their_own():
    wrapper = L2AllWeights(network(), 0.5, towards_start=True)
    wrapper.compile("sgd", "mse")
    tree = wrapper.get_state_tree()
    assert wrapper.count_params() == network().count_params()
    assert len(wrapper.weights) == 6 and len(wrapper.variables) == 6 + 1 + 3
    assert all(v.trainable for v in wrapper.trainable_variables)
    assert len(wrapper.trainable_variables) == 6
    wrapper.set_state_tree(tree)


# --- What becomes of the model ---------------------------------------------------


def test_weights_that_did_not_exist_when_wrapped_decay_to_zero(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5, towards_start=True)
    wrapper.pop()
    wrapper.add(layers.Dense(2, name="c", kernel_initializer="ones"))
    assert penalties(wrapper) == {"a/kernel": 0.0, "c/kernel": pytest.approx(3.0)}
    moved(wrapper, 1.0)
    assert penalties(wrapper) == {"a/kernel": 6.0, "c/kernel": pytest.approx(12.0)}
    assert penalties(reloaded(wrapper, tmp_path)) == penalties(wrapper)


def test_lora_factors_decay_to_zero_that_is_the_kernel_to_its_start():
    model = mlp()
    model.get_layer("a").enable_lora(2)
    wrapper = L2AllWeights(model, 0.5, towards_start="b/*")
    names = ["a/lora_kernel_a", "a/lora_kernel_b", "b/kernel"]
    assert [*penalties(wrapper)] == names
    model.get_layer("a").lora_kernel_b.assign(np.ones((2, 3)))
    assert penalties(wrapper)["a/lora_kernel_b"] == pytest.approx(3.0)


def test_lora_after_wrapping(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5, towards_start=True)
    moved(wrapper, 1.0)
    wrapper.get_layer("a").enable_lora(2)
    assert penalties(wrapper)["b/kernel"] == pytest.approx(3.0)
    assert penalties(reloaded(wrapper, tmp_path))["b/kernel"] == pytest.approx(3.0)
    # The layer knows of no penalty that its factors could have.
    (finding,) = audit(wrapper)
    assert finding.code == "last-layer-only" and "a/lora_kernel_a" in finding.message


@pytest.mark.slow
def test_quantized_after_wrapping(tmp_path):
    wrapper = L2AllWeights(mlp(), 0.5, towards_start=True)
    with texts_of_warnings():
        wrapper.quantize("int8")
    assert penalties(wrapper) == {}
    assert reloaded(wrapper, tmp_path).losses == []


def test_frozen_weights_have_no_penalty_until_they_are_unfrozen():
    wrapper = L2AllWeights(mlp(), 0.5, towards_start="a/*")
    moved(wrapper, 1.0)
    before = penalties(wrapper)
    wrapper.get_layer("a").trainable = False
    assert [*penalties(wrapper)] == ["b/kernel"]
    wrapper.get_layer("a").trainable = True
    assert penalties(wrapper) == before


def test_a_shared_layer_has_one_start():
    x = keras.Input((4,))
    layer = layers.Dense(4, name="twice", kernel_initializer="ones")
    model = keras.Model(x, layer(layer(x)))
    wrapper = moved(L2AllWeights(model, 0.5, towards_start=True), 1.0)
    assert penalties(wrapper) == {"twice/kernel": pytest.approx(8.0)}


@pytest.mark.parametrize(("existing", "expected"), [("replace", 6.0), ("add", 6.24)])
def test_beside_or_in_place_of_the_regularizer_of_a_layer(existing, expected, tmp_path):
    model = mlp(kernel_regularizer="l1")
    wrapper = L2AllWeights(model, 0.5, existing=existing, towards_start="a/*")
    moved(wrapper, 1.0)
    assert penalties(wrapper)["a/kernel"] == pytest.approx(expected)
    again = reloaded(wrapper, tmp_path)
    assert penalties(again) == pytest.approx(penalties(wrapper))
    stripped = again.unwrap(strip=True)
    assert penalties(stripped)["a/kernel"] == pytest.approx(0.24)
    regularizer = model.get_layer("a").kernel.regularizer
    assert l2_of(regularizer) == 0.5 and l2_to_zero_of(regularizer) == 0.0


def test_two_wrappers_that_share_weights_have_starts_of_their_own():
    x = keras.Input((4,))
    shared = layers.Dense(3, name="shared", kernel_initializer="ones")
    models = [
        keras.Model(x, layers.Dense(n, name=f"head{n}")(shared(x))) for n in (1, 2)
    ]
    first = L2AllWeights(models[0], 0.5, towards_start="shared/*")
    shared.kernel.assign(np.full((4, 3), 2.0))
    second = L2AllWeights(
        models[1], 0.25, towards_start="shared/*", existing="add", exclude="head2/*"
    )
    shared.kernel.assign(np.full((4, 3), 4.0))
    # 12 scalars: 0.5 * 3**2 from the first, 0.25 * 2**2 from the second.
    assert penalties(second) == {"shared/kernel": pytest.approx(12 * (4.5 + 1.0))}
    assert penalties(first)["shared/kernel"] == pytest.approx(12 * 5.5)
    second.unwrap(strip=True)
    assert penalties(first)["shared/kernel"] == pytest.approx(12 * 4.5)


def test_within_another_model():
    wrapper = L2AllWeights(mlp(), 0.5, towards_start="a/*")
    outer = keras.Sequential([keras.Input((4,)), wrapper, layers.Activation("linear")])
    moved(wrapper, 1.0)
    assert penalty(outer) == pytest.approx(6.0 + 12.0)
    outer.compile(still(), "mse")
    y = outer.predict(ONES, verbose=0)
    assert outer.fit(ONES, y, verbose=0).history["loss"] == [pytest.approx(18.0)]
    wrapper.l2 = 0.25
    assert outer.fit(ONES, y, verbose=0).history["loss"] == [pytest.approx(9.0)]


def test_a_penalty_attached_on_top_is_saved_without_the_replaced_one(tmp_path):
    wrapper = L2AllWeights(
        mlp(kernel_regularizer="l1"), 0.5, existing="replace", towards_start=True
    )
    with pytest.warns(UserWarning, match="does not include the penalty"):
        attach(wrapper.wrapped_model, 0.25, existing="add")
    assert penalty(wrapper) == pytest.approx(0.25 * 18)
    again = moved(reloaded(wrapper, tmp_path), 1.0)
    assert penalty(again) == pytest.approx(0.25 * 4 * 18 + 0.5 * 18)
    assert penalty(again.unwrap(strip=True)) == pytest.approx(0.25 * 4 * 18)


# --- Removed ---------------------------------------------------------------------


def test_unwrap_names_strip_and_changes_nothing():
    model = moved(network(a="l1"))
    wrapper = L2AllWeights(model, 0.5, towards_start="b/*", existing="add")
    wrapper.compile("sgd", "mse")
    moved(wrapper)
    config, before = model.get_config(), penalties(wrapper)
    regularizers = [w.regularizer for w in find_weights(model)]
    with pytest.raises(ValueError, match=r"unwrap\(strip=True\)"):
        wrapper.unwrap()
    assert model.get_config() == config and penalties(wrapper) == before
    assert [w.regularizer for w in find_weights(model)] == regularizers
    wrapper.l2 = 0.25
    assert penalties(wrapper)["b/kernel"] == pytest.approx(before["b/kernel"] / 2)


@pytest.mark.parametrize("how", ["strip", "detach"])
def test_once_removed_it_leaves_no_trace(how):
    model = network(b="l1")
    config = model.get_config()
    wrapper = L2AllWeights(model, 0.5, towards_start=True, existing="replace")
    moved(wrapper)
    if how == "strip":
        assert wrapper.unwrap(strip=True) is model
    else:
        detach(model)
    assert model.get_config() == config
    assert [*penalties(model)] == ["b/kernel"]
    assert len(model.variables) == 6
    assert wrapper.unwrap() is model, "there is nothing left to convert"


def test_wrapping_again_starts_from_the_weights_of_then():
    wrapper = moved(L2AllWeights(mlp(), 0.5, towards_start=True), 1.0)
    assert penalty(wrapper) == pytest.approx(9.0)
    again = L2AllWeights(wrapper.unwrap(strip=True), 0.5, towards_start=True)
    assert penalty(again) == 0.0
    attach(again.wrapped_model, 0.5, existing="replace")
    assert penalty(again) == pytest.approx(36.0)
    detach(again.wrapped_model)
    assert penalty(again) == 0.0


# --- Errors, tables --------------------------------------------------------------


def test_errors_before_anything_is_changed():
    model = network(b="l1")
    model_config = model.get_config()
    unbuilt = keras.Sequential([layers.Dense(2)], name="unbuilt")
    calls = {
        "'head/\\*', which matches nothing": (model, {"towards_start": "head/*"}),
        "a/bias \\(bias\\)": (model, {"towards_start": ["a/*", "a/bias"]}),
        "which matches only": (model, {"towards_start": "a/*", "exclude": "a/*"}),
        "towards_start=3": (model, {"towards_start": 3}),
        "write 'a/\\*'": (model, {"towards_start": model.get_layer("a")}),
        "'unbuilt', which has layers that are not built": (
            unbuilt,
            {"towards_start": True},
        ),
    }
    for text, (of, arguments) in calls.items():
        with pytest.raises((TypeError, ValueError), match=text):
            L2AllWeights(of, 0.5, existing="replace", **arguments)
    assert model.get_config() == model_config
    assert [*penalties(model)] == ["b/kernel"]


def test_tables_say_what_is_to_the_start(capsys):
    wrapper = L2AllWeights(
        mlp(), 0.5, l1=0.25, towards_start="a/*", multipliers={"b/*": 0.5}
    )
    wrapper.get_layer("a").kernel.assign(np.full((4, 3), 3.0))
    print_penalties(wrapper)
    _, _, a, b = capsys.readouterr().out.splitlines()
    # Distances of 2 from ones: the root of 48; 0.25 * 24 + 0.5 * 48.
    assert [cell.strip() for cell in a.split("|")] == [
        *("a/kernel", "l1=0.25 l2=0.5 to start", "6.928", "30", "93%", "0%"),
    ]
    assert b.split("|")[1].strip() == "l1=0.125 l2=0.25"


@pytest.mark.skipif(BACKEND != "tensorflow", reason="a strategy of TensorFlow")
def test_mirrored_on_one_device():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = L2AllWeights(mlp(), 0.5, towards_start=True)
        model.compile(still(), "mse")
    moved(model, 1.0)
    y = model.predict(ONES, verbose=0)
    logs = model.fit(ONES, y, verbose=0).history
    assert logs["penalty"] == [pytest.approx(9.0)]


def test_without_it_nothing_is_stored():
    wrapper = L2AllWeights(mlp(), 0.5)
    assert len(wrapper.variables) == 5
    assert "towards_start" not in wrapper.get_config()["rule"]
