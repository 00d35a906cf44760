"""attach and detach: effect, persistence and trace stay in step."""

import contextlib
import warnings

import keras
import numpy as np
import pytest
from keras import layers
from models import MODELS, VECTORS, around

from keras_l2reg import L2AllWeights, attach, detach

TARGETS = np.zeros((4, 2), "float32")


def network(**kwargs):
    return around(
        layers.Dense(4, name="hidden", **kwargs),
        layers.Dense(2, name="output"),
        shape=(6,),
    )


def numpy_penalty(variable, l2):
    return l2 * np.sum(keras.ops.convert_to_numpy(variable).astype("float64") ** 2)


def losses(model):
    return [float(keras.ops.convert_to_numpy(term)) for term in model.losses]


def kernels(model):
    return [model.get_layer(name).kernel for name in ("hidden", "output")]


def test_losses_are_l2_times_the_sum_of_squares():
    model = attach(network(), 0.1)
    assert losses(model) == pytest.approx(
        [numpy_penalty(k, 0.1) for k in kernels(model)]
    )


def test_a_saved_and_loaded_model_has_the_penalty(tmp_path):
    model = attach(network(), 0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert losses(loaded) == pytest.approx(losses(model))
    assert [layer.kernel_regularizer.l2 for layer in loaded.layers[1:]] == [0.1, 0.1]


def test_a_model_compiled_before_trains_with_the_penalty():
    # The reference has built-in regularizers from the start.
    x, y = VECTORS, TARGETS
    reference = around(
        layers.Dense(4, name="hidden", kernel_regularizer=keras.regularizers.L2(0.1)),
        layers.Dense(2, name="output", kernel_regularizer=keras.regularizers.L2(0.1)),
        shape=(6,),
    )
    model = network()
    for m in (model, reference):
        m.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(x, y, verbose=0)
    reference.set_weights(model.get_weights())
    attach(model, 0.1)
    for m in (model, reference):
        m.fit(x, y, epochs=2, verbose=0)
    for ours, theirs in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    ours, theirs = (m.evaluate(x, y, verbose=0) for m in (model, reference))
    assert ours == pytest.approx(theirs, rel=1e-5)


def test_detach_acts_on_the_next_step():
    model = attach(network(), 0.25)
    model.compile(keras.optimizers.SGD(1.0), lambda y, p: 0.0 * keras.ops.mean(p, -1))
    model.fit(VECTORS, TARGETS, verbose=0)
    before = model.get_weights()
    detach(model)
    model.fit(VECTORS, TARGETS, verbose=0)
    for start, end in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(start, end)


@pytest.mark.parametrize(
    "existing, l1, l2",
    [("keep", 0.5, 0.0), ("replace", 0.0, 0.1), ("add", 0.5, 0.1)],
)
def test_existing_regularizers_are_kept_replaced_or_added_to(existing, l1, l2):
    model = network(kernel_regularizer=keras.regularizers.L1(0.5))
    attach(model, 0.1, existing=existing)
    kernel = keras.ops.convert_to_numpy(kernels(model)[0]).astype("float64")
    expected = l1 * np.abs(kernel).sum() + l2 * (kernel**2).sum()
    assert losses(model)[0] == pytest.approx(expected, rel=1e-5)
    assert type(detach(model).layers[1].kernel_regularizer) is keras.regularizers.L1
    assert len(model.losses) == 1


def test_attaching_again_replaces_what_was_attached_before():
    model = attach(network(), 0.1)
    attach(model, 0.3, layers="output/*")
    assert losses(model) == pytest.approx([numpy_penalty(kernels(model)[1], 0.3)])
    assert not detach(model).losses


def test_a_second_wrapper_replaces_the_penalty_of_the_first():
    model = network()
    first = L2AllWeights(model, 0.1)
    second = L2AllWeights(model, 0.2)
    expected = [numpy_penalty(k, 0.2) for k in kernels(model)]
    assert losses(second) == pytest.approx(expected)
    with pytest.raises(ValueError, match="`l2` has no effect"):
        first.l2 = 0.5


def test_weights_whose_penalty_is_lost_on_save_are_named_in_one_warning():
    model = MODELS["custom_bare_weight"].build()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        attach(model, 0.1)
    texts = [str(w.message) for w in caught if "save/load" in str(w.message)]
    assert len(texts) == 1
    assert "bare/w" in texts[0]
    assert "head/kernel" not in texts[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"regularizer": -1.0},
        {"layers": "nothing*"},
        {"multipliers": {"nothing*": 1.0}},
        {"existing": "maybe"},
        {"regularizer": lambda w: keras.ops.sum(w, -1)},
        {"regularizer": keras.regularizers.OrthogonalRegularizer(), "biases": True},
    ],
)
def test_a_refused_call_leaves_the_model_as_it_was(arguments):
    model = attach(network(), 0.1)
    before = [w.regularizer for w in model.weights], model.get_config(), losses(model)
    with pytest.raises((ValueError, TypeError)):
        attach(model, **arguments)
    after = [w.regularizer for w in model.weights], model.get_config(), losses(model)
    assert before == after
    assert not detach(model).losses


def test_a_plain_function_is_accepted_or_refused_before_anything_changes():
    # Keras accepts plain functions as of 3.15.
    model = attach(network(), 0.1)
    expected = losses(model)
    with contextlib.suppress(ValueError):
        attach(model, lambda w: keras.ops.sum(keras.ops.abs(w)))
        values = [keras.ops.convert_to_numpy(kernel) for kernel in kernels(model)]
        expected = [np.sum(np.abs(value)) for value in values]
    assert losses(model) == pytest.approx(expected)
    assert not detach(model).losses


def test_layers_built_after_attaching_are_covered_and_detached():
    model = keras.Sequential([layers.Dense(3), layers.Dense(2)])
    attach(model, 0.1)
    model(VECTORS)
    assert len(model.losses) == 2
    assert not detach(model).losses
    assert all(layer.kernel_regularizer is None for layer in model.layers)


def test_lora_enabled_after_attaching_is_penalized_and_detached():
    model = attach(network(), 0.1)
    model.get_layer("hidden").enable_lora(2)
    assert len(model.losses) == 3
    assert not detach(model).losses


def test_inner_and_outer_model_attach_and_detach_separately():
    inner = MODELS["sequential_with_input"].build()
    outer = around(inner, layers.Dense(2), shape=(6,))
    attach(inner, 0.1)
    assert len(outer.losses) == 2
    attach(outer, 0.2, existing="add")
    assert len(outer.losses) == 3
    detach(outer)
    assert len(outer.losses) == 2
    assert not detach(inner).losses


class Quartic(keras.Regularizer):
    """A user's regularizer without a config and (as dataclasses are) unhashable."""

    __hash__ = None

    def __eq__(self, other):
        return isinstance(other, Quartic)

    def __call__(self, w):
        return keras.ops.sum(w**4)


# each regularizer, and the same penalty as a function of the float64 weight
REGULARIZERS = {
    "L1": (keras.regularizers.L1(0.5), lambda w: 0.5 * np.abs(w).sum()),
    "L2": (keras.regularizers.L2(0.5), lambda w: 0.5 * (w**2).sum()),
    "L1L2": (
        keras.regularizers.L1L2(0.5, 0.25),
        lambda w: 0.5 * np.abs(w).sum() + 0.25 * (w**2).sum(),
    ),
    "user": (Quartic(), lambda w: (w**4).sum()),
}
HALVES = ["float16", "bfloat16"]


def half_network(dtype):
    """Kernels whose penalties overflow float16, and lose precision in bfloat16."""
    random = np.random.default_rng(0)
    model = around(
        layers.Dense(300, name="hidden", dtype=dtype),
        layers.Dense(2, name="output", dtype="float32"),
        shape=(600,),
    )
    for kernel in kernels(model):
        kernel.assign(random.normal(size=kernel.shape))
    return model


def float64_kernels(model):
    return [
        keras.ops.convert_to_numpy(keras.ops.cast(k, "float32")).astype("float64")
        for k in kernels(model)
    ]


@pytest.mark.filterwarnings("ignore:The configuration of")  # on Keras 3.12
@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_half_weights_are_safe_under_any_regularizer(name, dtype):
    regularizer, reference = REGULARIZERS[name]
    model = half_network(dtype)
    expected = [reference(k) for k in float64_kernels(model)]
    attach(model, regularizer)
    assert losses(model) == pytest.approx(expected, rel=1e-5)
    # Where the dtype is wide enough, the layer has the regularizer that was given.
    assert model.get_layer("output").kernel_regularizer is regularizer
    assert model.get_layer("hidden").kernel_regularizer.regularizer is regularizer
    attach(model, regularizer, multipliers={"hidden/*": 0.5})
    assert losses(model) == pytest.approx([0.5 * expected[0], expected[1]], rel=1e-5)
    assert not detach(model).losses
    assert model.get_layer("hidden").kernel_regularizer is None


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", REGULARIZERS)
def test_half_weights_are_safe_in_a_wrapper(name, dtype):
    regularizer, reference = REGULARIZERS[name]
    wrapped = L2AllWeights(half_network(dtype), regularizer=regularizer)
    expected = [reference(k) for k in float64_kernels(wrapped.wrapped_model)]
    assert losses(wrapped) == pytest.approx(expected, rel=1e-5)
    wrapped.compile(keras.optimizers.SGD(0.0), "mse")
    logs = wrapped.fit(np.zeros((4, 600)), TARGETS, verbose=0).history
    assert logs["penalty"] == pytest.approx([sum(expected)], rel=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_weights_with_another_regularizer_are_safe(dtype):
    model = half_network(dtype)
    own = keras.regularizers.L1(0.5)
    model.get_layer("hidden").kernel.regularizer = own
    kernel = float64_kernels(model)[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        attach(model, "l2", existing="add", layers="hidden/*")
    expected = 0.5 * np.abs(kernel).sum() + 0.01 * (kernel**2).sum()
    assert losses(model) == pytest.approx([expected], rel=1e-5)


@pytest.mark.parametrize("dtype", HALVES)
def test_half_weights_stay_safe_when_saved_cloned_or_built_later(dtype, tmp_path):
    model = attach(half_network(dtype), "l1")
    expected = [0.01 * np.abs(k).sum() for k in float64_kernels(model)]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert losses(loaded) == pytest.approx(expected, rel=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    assert losses(clone) == pytest.approx(expected, rel=1e-5)
    unbuilt = attach(keras.Sequential([layers.Dense(300, dtype=dtype)]), "l1")
    unbuilt.build((None, 600))
    unbuilt.set_weights(model.get_layer("hidden").get_weights())
    assert losses(unbuilt) == pytest.approx(expected[:1], rel=1e-5)


@pytest.mark.filterwarnings("ignore:The regularizers of Keras sum")
def test_unwrapped_half_weights_have_the_regularizer_that_was_given():
    l1 = keras.regularizers.L1(0.5)
    wrapped = L2AllWeights(half_network("float16"), regularizer=l1)
    assert all(k.regularizer is l1 for k in kernels(wrapped.unwrap()))
