"""The regularizers against NumPy float64: value, gradient, dtype, shape, config."""

import contextlib
import json

import keras
import numpy as np
import pytest
from keras import ops

from keras_l2reg import L1L2, L2, InFloat32, L2Loss, Scaled, Sum
from keras_l2reg._builtin import convert_to_builtin
from keras_l2reg._sums import sum_of_absolutes, sum_of_squares
from keras_l2reg._total_penalty import total_penalty

SHAPES = [(), (1,), (7,), (0,), (3, 0), (4, 5), (2, 3, 4), (2, 1, 3, 2, 2)]
DTYPES = {"float64": 1e-12, "float32": 1e-6, "float16": 1e-3, "bfloat16": 1e-3}

# each regularizer, and the same penalty as a function of the float64 weight
PENALTIES = {
    "L2": (L2(0.3), lambda w: 0.3 * np.sum(w**2)),
    "L2Loss": (L2Loss(0.3), lambda w: 0.3 * np.sum(w**2) / 2),
    "Scaled": (Scaled(L2(0.3), 0.5), lambda w: 0.15 * np.sum(w**2)),
    "L1L2": (
        L1L2(l1=0.2, l2=0.3),
        lambda w: 0.2 * np.sum(np.abs(w)) + 0.3 * np.sum(w**2),
    ),
    "L1": (L1L2(l1=0.2), lambda w: 0.2 * np.sum(np.abs(w))),
    "Sum": (Sum([L2(0.3), L2Loss(0.2)]), lambda w: 0.4 * np.sum(w**2)),
    "zero": (L2(0), lambda w: 0.0),
    "mixed": (
        Sum([Scaled(keras.regularizers.L1L2(l1=0.2), 0.5), L2(0.3)]),
        lambda w: 0.1 * np.sum(np.abs(w)) + 0.3 * np.sum(w**2),
    ),
    "InFloat32": (
        InFloat32(keras.regularizers.L1L2(l1=0.2, l2=0.3)),
        lambda w: 0.2 * np.sum(np.abs(w)) + 0.3 * np.sum(w**2),
    ),
}


def standard_normal(shape, dtype):
    """A tensor of `dtype`, and the float64 array of the values that it holds."""
    values = np.random.default_rng(0).normal(size=shape)
    tensor = ops.cast(ops.convert_to_tensor(values), dtype)
    return tensor, as_float64(tensor)


def as_float64(tensor):
    return ops.convert_to_numpy(ops.cast(tensor, "float64"))


@pytest.fixture(autouse=True)
def x64():
    """JAX has no float64 unless asked."""
    if keras.backend.backend() != "jax":
        yield
        return
    import jax

    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


def gradient(function, tensor):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensor)
            value = function(tensor)
        return tape.gradient(value, tensor)
    if backend == "jax":
        import jax

        return jax.grad(function)(tensor)
    tensor = tensor.detach().requires_grad_(True)
    function(tensor).backward()
    return tensor.grad


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", PENALTIES)
def test_value_is_that_of_numpy(name, shape, dtype):
    regularizer, reference = PENALTIES[name]
    tensor, values = standard_normal(shape, dtype)
    penalty = regularizer(tensor)
    assert tuple(penalty.shape) == ()
    # The regularizers of Keras round their strength to float32.
    rtol = max(DTYPES[dtype], 1e-6) if name in ("mixed", "InFloat32") else DTYPES[dtype]
    np.testing.assert_allclose(as_float64(penalty), reference(values), rtol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("regularizer", "twice_l2"),
    [(L2(0.3), 0.6), (L2Loss(0.3), 0.3), (Sum([L2(0.1), Scaled(L2(0.4), 0.5)]), 0.6)],
    ids=["L2", "L2Loss", "Sum"],
)
def test_gradient_is_2_l2_w(regularizer, twice_l2, shape, dtype):
    tensor, values = standard_normal(shape, dtype)
    slope = gradient(regularizer, tensor)
    assert keras.backend.standardize_dtype(slope.dtype) == dtype
    # A float16 result has 11 bits, a bfloat16 result has 8.
    rtol = {"float16": 2e-3, "bfloat16": 1e-2}.get(dtype, DTYPES[dtype])
    np.testing.assert_allclose(as_float64(slope), twice_l2 * values, rtol=rtol)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradient_of_l1_l2_is_l1_sign_plus_2_l2_w(shape, dtype):
    tensor, values = standard_normal(shape, dtype)
    rtol = {"float16": 2e-3, "bfloat16": 1e-2}.get(dtype, DTYPES[dtype])
    for factor, regularizer in {
        1.0: L1L2(0.2, 0.3),
        0.5: Scaled(L1L2(0.2, 0.3), 0.5),
        2.0: Sum([L1L2(0.2), L1L2(l1=0.2, l2=0.6)]),
    }.items():
        slope = gradient(regularizer, tensor)
        assert keras.backend.standardize_dtype(slope.dtype) == dtype
        expected = factor * (0.2 * np.sign(values) + 0.6 * values)
        np.testing.assert_allclose(as_float64(slope), expected, rtol=rtol, atol=1e-3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gradient_of_l1_is_0_at_0(dtype):
    tensor = ops.convert_to_tensor(np.array([0.0, -0.0, 2.0, -3.0]), dtype=dtype)
    for run in (L1L2(l1=0.5, l2=0.25), compiled(L1L2(l1=0.5, l2=0.25))):
        slope = gradient(run, tensor)
        np.testing.assert_allclose(as_float64(slope), [0, 0, 1.5, -2.0], rtol=1e-6)
    both = gradient(lambda w: sum_of_absolutes(w, w), tensor)
    np.testing.assert_allclose(as_float64(both), [0, 0, 2, -2])


def compiled(function):
    """`function` as a compiled training step runs it, or as it is on torch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        return tf.function(function, jit_compile=True)
    if backend == "jax":
        import jax

        # A plain function, for a regularizer has no name to show.
        return jax.jit(lambda w: function(w))
    return function


def squared_norm(values):
    """`sum(w**2)` in float64, a part at a time: 1e8 numbers take a gigabyte."""
    parts = np.array_split(values.reshape(-1), 1 + values.size // 2**24)
    return sum(np.sum(part.astype("float64") ** 2) for part in parts)


def absolute_norm(values):
    """`sum(|w|)` in float64, a part at a time."""
    parts = np.array_split(values.reshape(-1), 1 + values.size // 2**24)
    return sum(np.sum(np.abs(part.astype("float64"))) for part in parts)


# Each sum, and the same in NumPy.
SUMS = {
    "squares": (sum_of_squares, squared_norm),
    "absolutes": (sum_of_absolutes, absolute_norm),
}


def check_sums_of(values):
    tensor = ops.convert_to_tensor(values)
    for of, reference in SUMS.values():
        for run in (of, compiled(of)):
            received = float(as_float64(run(tensor)))
            assert received == pytest.approx(reference(values), rel=1e-6)


LARGE = [(4096, 4096), (2**24 + 43,), (1, 2**22), (2**22, 1), (3, 3, 512, 511)]
LARGEST = [(32000, 4096), (131_072_000,), (131_072_000, 1), (16, 8_192_000)]


@pytest.mark.parametrize("shape", LARGE, ids=str)
def test_large_weights_keep_their_digits(shape):
    random = np.random.default_rng(0)
    check_sums_of(np.float32(0.02) * random.standard_normal(shape, "float32"))


@pytest.mark.slow
@pytest.mark.parametrize("shape", LARGEST, ids=str)
def test_the_largest_weights_keep_their_digits(shape):
    random = np.random.default_rng(0)
    check_sums_of(np.float32(0.02) * random.standard_normal(shape, "float32"))


@pytest.mark.parametrize("value", [0.1, 0.37, 0.7123])
@pytest.mark.parametrize(
    "shape", [(100, 100), (1024, 1024), (2**20 + 43,), (10_000_000,)], ids=str
)
@pytest.mark.parametrize("name", SUMS)
def test_equal_values_keep_their_digits(name, shape, value):
    of, reference = SUMS[name]
    # The worst case: whatever each addition rounds off points the same way.
    values = np.full(shape, value, "float32")
    # Outside of XLA, TensorFlow's own sums are off by up to 2.4e-6.
    received = float(as_float64(compiled(of)(ops.convert_to_tensor(values))))
    assert received == pytest.approx(reference(values), rel=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_large_weights_of_other_types_keep_their_digits(dtype):
    tensor, values = standard_normal((2048, 2049), dtype)
    for of, reference in SUMS.values():
        received = float(as_float64(compiled(of)(tensor)))
        assert received == pytest.approx(reference(values), rel=1e-6)


def test_weights_that_are_not_contiguous():
    tensor, values = standard_normal((600, 500), "float32")
    for part in (np.s_[:, ::2], np.s_[1:, 3:], np.s_[::3]):
        received = float(as_float64(L2(0.3)(tensor[part])))
        assert received == pytest.approx(0.3 * np.sum(values[part] ** 2), rel=1e-6)
        expected = np.zeros_like(values)
        expected[part] = 0.6 * values[part]
        slope = gradient(lambda w, part=part: L2(0.3)(w[part]), tensor)
        np.testing.assert_allclose(as_float64(slope), expected, rtol=1e-6)
    received = float(as_float64(L2(0.3)(ops.transpose(tensor))))
    assert received == pytest.approx(0.3 * np.sum(values**2), rel=1e-6)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow only")
def test_a_batch_size_that_xla_learns_at_run_time():
    # Such as the outputs that an activity regularizer is called with.
    import tensorflow as tf

    spec = tf.TensorSpec((None, 3), "float32")
    penalty = tf.function(L2(0.3), input_signature=[spec], jit_compile=True)
    for rows in (0, 1, 16, 21):
        tensor, values = standard_normal((rows, 3), "float32")
        expected = 0.3 * np.sum(values**2)
        np.testing.assert_allclose(penalty(tensor), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_many_weights_at_once(dtype):
    weights = [standard_normal(shape, dtype) for shape in SHAPES]
    total = sum_of_squares(*[tensor for tensor, _ in weights])
    expected = sum(np.sum(values**2) for _, values in weights)
    np.testing.assert_allclose(as_float64(total), expected, rtol=DTYPES[dtype])
    # The gradient of each does not depend on the others.
    (first, values), *others = weights[4:]
    rest = [tensor for tensor, _ in others]
    slope = gradient(lambda w: sum_of_squares(w, *rest), first)
    assert keras.backend.standardize_dtype(slope.dtype) == dtype
    np.testing.assert_allclose(as_float64(slope), 2 * values)
    slope = gradient(lambda w: sum_of_squares(*rest, w), first)
    np.testing.assert_allclose(as_float64(slope), 2 * values)


class Quartic(keras.Regularizer):
    """A custom regularizer."""

    def __call__(self, w):
        return ops.sum(w**4)


def test_total_penalty_is_the_sum_over_variables():
    strength = keras.Variable(0.5)
    shared, scaled = L2(strength), Scaled(L2(strength), 0.1)
    both = L1L2(keras.Variable(0.25), strength)
    scaled_both = Scaled(both, 0.3)
    built_in = keras.regularizers.L1(0.2)
    cases = [
        *[(shared, dtype) for dtype in DTYPES],
        *[
            (penalty, "float32")
            for penalty in (shared, scaled, scaled, built_in, built_in)
        ],
        (Scaled(built_in, 3.0), "float32"),
        (Sum([shared, built_in]), "float32"),
        (L2Loss(0.7), "float32"),
        *[(both, dtype) for dtype in DTYPES],
        *[(penalty, "float32") for penalty in (both, scaled_both, scaled_both)],
        (Quartic(), "float32"),
    ]
    variables, expected = [], 0.0
    for regularizer, dtype in cases:
        tensor, _ = standard_normal((4, 5), dtype)
        variable = keras.Variable(tensor, dtype=dtype)
        variable.regularizer = regularizer
        variables.append(variable)
        expected += as_float64(regularizer(variable))
    total = as_float64(total_penalty(variables))
    np.testing.assert_allclose(total, expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    "regularizer",
    [L2(0.01), L2Loss(0.02), L1L2(l2=0.01)],
    ids=["L2", "L2Loss", "L1L2"],
)
def test_half_precision_does_not_overflow(regularizer, dtype):
    tensor, values = standard_normal((784, 1024), dtype)
    built_in = as_float64(keras.regularizers.L2(0.01)(tensor))
    if dtype == "float16":
        assert np.isinf(built_in), "what this package fixes"
    penalty = as_float64(regularizer(tensor))
    np.testing.assert_allclose(penalty, 0.01 * np.sum(values**2), rtol=1e-3)
    slope = as_float64(gradient(regularizer, tensor))
    assert np.isfinite(slope).all()
    # Below 6e-5, float16 is subnormal and has an absolute step of 6e-8.
    np.testing.assert_allclose(slope, 0.02 * values, rtol=1e-2, atol=1e-7)


def orthogonal(w, factor, axis):
    """Keras' definition: the mean product of different rows (columns), as unit vectors.

    `keras.regularizers.OrthogonalRegularizer`, in NumPy.
    """
    w = w / np.linalg.norm(w, axis=axis, keepdims=True)
    product = np.abs(w @ w.T if axis == 1 else w.T @ w)
    size = len(product)
    pairs = size * (size - 1) / 2
    return factor * 0.5 * (product.sum() - np.trace(product)) / pairs


# Keras' regularizers and the same in NumPy: all but the last two overflow float16.
BUILT_IN = {
    "L1": (keras.regularizers.L1(0.01), lambda w: 0.01 * np.abs(w).sum()),
    "L2": (keras.regularizers.L2(0.01), lambda w: 0.01 * (w**2).sum()),
    "L1L2": (
        keras.regularizers.L1L2(0.01, 0.02),
        lambda w: 0.01 * np.abs(w).sum() + 0.02 * (w**2).sum(),
    ),
    "rows": (
        keras.regularizers.OrthogonalRegularizer(0.5),
        lambda w: orthogonal(w, 0.5, axis=1),
    ),
    "columns": (
        keras.regularizers.OrthogonalRegularizer(0.5, mode="columns"),
        lambda w: orthogonal(w, 0.5, axis=0),
    ),
}


def variable_with(regularizer, tensor, dtype):
    variable = keras.Variable(tensor, dtype=dtype)
    variable.regularizer = regularizer
    return variable


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("name", BUILT_IN)
def test_a_wrapped_built_in_regularizer_is_computed_in_float32(name, dtype):
    built_in, reference = BUILT_IN[name]
    tensor, values = standard_normal((400, 300), dtype)
    expected = reference(values)
    for factor, regularizer in {
        1.0: InFloat32(built_in),
        0.5: Scaled(built_in, 0.5),
        2.0: Sum([built_in, built_in]),
        0.25: Scaled(Scaled(InFloat32(built_in), 0.5), 0.5),
    }.items():
        penalty = as_float64(regularizer(tensor))
        np.testing.assert_allclose(penalty, factor * expected, rtol=1e-5)
        variable = variable_with(regularizer, tensor, dtype)
        total = as_float64(total_penalty([variable, variable]))
        np.testing.assert_allclose(total, 2 * factor * expected, rtol=1e-5)
        slope = gradient(regularizer, tensor)
        assert keras.backend.standardize_dtype(slope.dtype) == dtype
        assert np.isfinite(as_float64(slope)).all()


def test_built_in_regularizers_overflow_or_fail_in_float16():
    # If this fails, Keras sums in float32, and `InFloat32` is not needed any more.
    tensor, _ = standard_normal((400, 300), "float16")
    penalty = np.nan
    # Keras 3.12 holds the strength as a float32 tensor, which TensorFlow refuses to
    # multiply with a float16 one.
    with contextlib.suppress(Exception):
        penalty = as_float64(keras.regularizers.L1(0.01)(tensor))
    assert not np.isfinite(penalty)


def test_float32_weights_are_passed_on_as_they_are():
    seen = []

    class Looking(keras.Regularizer):
        def __call__(self, w):
            seen.append(w)
            return ops.sum(w)

    variable = keras.Variable(np.ones((2, 3), "float32"))
    for regularizer in (InFloat32(Looking()), Scaled(Looking(), 2.0), Sum([Looking()])):
        regularizer(variable)
    assert all(w is variable for w in seen)


@pytest.mark.parametrize("kind", [L2, L2Loss])
def test_a_variable_strength_is_read_at_each_call(kind):
    strength = keras.Variable(0.5, dtype="float32")
    regularizer = kind(strength)
    half = 0.5 if kind is L2Loss else 1.0
    tensor, values = standard_normal((4, 5), "float32")
    for value in (0.5, 0.25, 0.0):
        strength.assign(value)
        expected = value * half * np.sum(values**2)
        np.testing.assert_allclose(as_float64(regularizer(tensor)), expected, rtol=1e-6)
        slope = as_float64(gradient(regularizer, tensor))
        np.testing.assert_allclose(slope, 2 * half * value * values, rtol=1e-6)
        (number,) = regularizer.get_config().values()
        assert number == value and type(number) is float


def test_a_variable_weight_and_a_float16_strength():
    weight = keras.Variable(np.arange(6.0).reshape(2, 3), dtype="float32")
    assert float(as_float64(L2(0.1)(weight))) == pytest.approx(5.5)
    assert float(as_float64(L2(np.float16(0.5))(weight))) == 27.5
    assert float(as_float64(L2(2)(weight))) == 110.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_l1_of_half_precision_does_not_overflow(dtype):
    tensor, values = standard_normal((784, 1024), dtype)
    penalty = as_float64(L1L2(l1=0.5)(tensor))
    assert penalty > 65504
    np.testing.assert_allclose(penalty, 0.5 * np.sum(np.abs(values)), rtol=1e-6)
    slope = as_float64(gradient(L1L2(l1=0.5), tensor))
    np.testing.assert_array_equal(slope, 0.5 * np.sign(values))


def test_both_variable_strengths_are_read_at_each_call():
    l1, l2 = keras.Variable(0.5), keras.Variable(0.25)
    regularizer = L1L2(l1, l2)
    tensor, values = standard_normal((4, 5), "float32")
    for a, b in ((0.5, 0.25), (0.0, 1.0), (2.0, 0.0)):
        l1.assign(a)
        l2.assign(b)
        expected = a * np.sum(np.abs(values)) + b * np.sum(values**2)
        np.testing.assert_allclose(as_float64(regularizer(tensor)), expected, rtol=1e-6)
        assert regularizer.get_config() == {"l1": a, "l2": b}


@pytest.mark.parametrize("name", PENALTIES)
def test_config_round_trip_needs_no_custom_objects(name):
    regularizer, _ = PENALTIES[name]
    tensor, _ = standard_normal((4, 5), "float32")
    config = json.loads(json.dumps(keras.regularizers.serialize(regularizer)))
    for again in (
        keras.regularizers.deserialize(config),
        keras.regularizers.get(config),
        keras.saving.deserialize_keras_object(config),
        type(regularizer).from_config(regularizer.get_config()),
    ):
        assert type(again) is type(regularizer)
        assert as_float64(again(tensor)) == as_float64(regularizer(tensor))


@pytest.mark.parametrize("name", PENALTIES)
def test_a_layer_saves_it_in_its_config(name):
    regularizer, _ = PENALTIES[name]
    layer = keras.layers.Dense(3, kernel_regularizer=regularizer)
    again = keras.layers.Dense.from_config(json.loads(json.dumps(layer.get_config())))
    for each in (layer, again):
        each.build((None, 4))
        (loss,) = each.losses
        kernel = ops.convert_to_tensor(each.kernel)
        np.testing.assert_allclose(as_float64(loss), as_float64(regularizer(kernel)))


@pytest.mark.parametrize("name", PENALTIES)
def test_convert_to_builtin_gives_the_same_penalty(name):
    regularizer, reference = PENALTIES[name]
    built_in = convert_to_builtin(regularizer)
    assert type(built_in).__module__.startswith("keras.")
    tensor, values = standard_normal((4, 5), "float32")
    np.testing.assert_allclose(
        as_float64(built_in(tensor)), reference(values), rtol=1e-6
    )


def test_convert_to_builtin_takes_the_current_strength():
    strength = keras.Variable(0.5)
    nested = Scaled(Sum([L2(strength), keras.regularizers.L1(0.1)]), 0.5)
    strength.assign(0.25)
    built_in = convert_to_builtin(nested)
    assert built_in.get_config() == {
        "l1": pytest.approx(0.05),
        "l2": pytest.approx(0.125),
    }


def test_convert_to_builtin_scales_orthogonal_and_returns_others_as_they_are():
    orthogonal = keras.regularizers.OrthogonalRegularizer(0.2, mode="columns")
    built_in = convert_to_builtin(Scaled(orthogonal, 0.5))
    assert built_in.mode == "columns" and float(built_in.factor) == pytest.approx(0.1)
    assert convert_to_builtin(orthogonal) is orthogonal
    assert convert_to_builtin(InFloat32(orthogonal)) is orthogonal


def test_a_variable_strength_survives_a_config_as_a_number():
    strength = keras.Variable(0.01, dtype="float32")
    config = keras.regularizers.serialize(Scaled(L2(strength), 2.0))
    text = json.dumps(config)
    assert "0.01" in text and "0.0099" not in text
