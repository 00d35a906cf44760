"""All kinds of derivatives, and of batches of weights, wherever Keras' L2 has them."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_l2reg import L2, L2Loss, Scaled, Sum

BACKEND = keras.backend.backend()
# All of one penalty, `0.3 * sum(w**2)`; the first shows that Keras can do it.
PENALTIES = {
    "Keras": keras.regularizers.L2(0.3),
    "L2": L2(0.3),
    "L2Loss": L2Loss(0.6),
    "Scaled": Scaled(L2(0.6), 0.5),
    "Sum": Sum([L2(0.1), Scaled(keras.regularizers.L2(0.4), 0.5)]),
}
# On torch, the first is summed at once, the second in rows and a remainder.
SMALL, LARGE = (3, 4), (150, 151)


def numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float64")


def weights(shape, count):
    return np.random.default_rng(0).normal(size=(count, *shape)).astype("float32")


def torch_transforms():
    import torch
    from torch.autograd import forward_ad

    def double_backward(f, w, t):
        w.requires_grad_(True)
        (slope,) = torch.autograd.grad(f(w), w, create_graph=True)
        return torch.autograd.grad(torch.sum(slope * t), w)[0]

    def batched_upstream(f, w, t):
        w.requires_grad_(True)
        upstream = torch.tensor([1.0, 2.0])
        return torch.autograd.grad(f(w), w, upstream, is_grads_batched=True)[0][1] / 2

    def dual_numbers(f, w, t):
        with forward_ad.dual_level():
            return forward_ad.unpack_dual(f(forward_ad.make_dual(w, t))).tangent

    def whole_graph(f, w, t):
        torch.compiler.reset()  # It gives up on a function with many closures.
        w.requires_grad_(True)
        compiled = torch.compile(lambda w: f(w), backend="eager", fullgraph=True)
        return torch.autograd.grad(compiled(w), w)[0]

    func = torch.func
    return {
        "gradient": {
            "grad": lambda f, w, t: func.grad(f)(w),
            "jacrev": lambda f, w, t: func.jacrev(f)(w),
            "vjp": lambda f, w, t: func.vjp(f, w)[1](torch.tensor(1.0))[0],
            "is_grads_batched": batched_upstream,
            "compile": whole_graph,
        },
        "along": {
            "jvp": lambda f, w, t: func.jvp(f, (w,), (t,))[1],
            "dual": dual_numbers,
        },
        "second": {
            "double backward": double_backward,
            "grad of grad": lambda f, w, t: func.grad(
                lambda w: torch.sum(func.grad(f)(w) * t)
            )(w),
            "jvp of grad": lambda f, w, t: func.jvp(func.grad(f), (w,), (t,))[1],
        },
        "hessian": {
            "func.hessian": lambda f, w, t: func.hessian(f)(w),
            "jacfwd of jacfwd": lambda f, w, t: func.jacfwd(func.jacfwd(f))(w),
            "autograd": lambda f, w, t: torch.autograd.functional.hessian(
                f, w, vectorize=True
            ),
        },
        "batch": {
            "vmap": lambda f, batch: func.vmap(f)(batch),
            "vmap of the last axis": lambda f, batch: func.vmap(f, in_dims=-1)(
                torch.movedim(batch, 0, -1)
            ),
        },
        "batch of gradients": {
            "vmap of grad": lambda f, batch: func.vmap(func.grad(f))(batch),
            "grad of vmap": lambda f, batch: func.grad(
                lambda batch: torch.sum(func.vmap(f)(batch))
            )(batch),
        },
    }


def jax_transforms():
    import jax

    def plain(f):
        return lambda w: f(w)

    return {
        "gradient": {
            "grad": lambda f, w, t: jax.grad(f)(w),
            "jit": lambda f, w, t: jax.jit(jax.grad(plain(f)))(w),
        },
        "along": {"jvp": lambda f, w, t: jax.jvp(plain(f), (w,), (t,))[1]},
        "second": {
            "grad of grad": lambda f, w, t: jax.grad(
                lambda w: jax.numpy.sum(jax.grad(f)(w) * t)
            )(w),
            "jvp of grad": lambda f, w, t: jax.jvp(jax.grad(f), (w,), (t,))[1],
        },
        "hessian": {
            "jax.hessian": lambda f, w, t: jax.hessian(f)(w),
            "jacfwd of jacfwd": lambda f, w, t: jax.jacfwd(jax.jacfwd(f))(w),
        },
        "batch": {"vmap": lambda f, batch: jax.vmap(plain(f))(batch)},
        "batch of gradients": {
            "vmap of grad": lambda f, batch: jax.vmap(jax.grad(f))(batch)
        },
    }


def tensorflow_transforms():
    import tensorflow as tf

    def gradient(f, w, t=None):
        with tf.GradientTape() as tape:
            tape.watch(w)
            value = f(w)
        return tape.gradient(value, w)

    def along(f, w, t):
        with tf.autodiff.ForwardAccumulator(w, t) as accumulator:
            value = f(w)
        return accumulator.jvp(value)

    def second(f, w, t):
        return gradient(lambda w: tf.reduce_sum(gradient(f, w) * t), w)

    def hessian(f, w, t):
        with tf.GradientTape() as tape:
            tape.watch(w)
            slope = gradient(f, w)
        return tape.jacobian(slope, w)

    def mapped(f, batch):
        # Outside XLA, ours runs in a loop: TensorFlow can't vectorize l2_loss.
        return tf.vectorized_map(f, batch)

    def in_xla(transform):
        def run(f, *args):
            return tf.function(lambda *args: transform(f, *args), jit_compile=True)(
                *args
            )

        return run

    eager = {
        "gradient": gradient,
        "along": along,
        "second": second,
        "hessian": hessian,
        "batch": mapped,
        "batch of gradients": lambda f, batch: mapped(lambda w: gradient(f, w), batch),
    }
    return {
        kind: {"eager": transform, "XLA": in_xla(transform)}
        for kind, transform in eager.items()
    }


TRANSFORMS = {
    "torch": torch_transforms,
    "jax": jax_transforms,
    "tensorflow": tensorflow_transforms,
}[BACKEND]()


def named(*kinds):
    return [(kind, name) for kind in kinds for name in TRANSFORMS[kind]]


def expect(received, expected):
    assert keras.backend.standardize_dtype(received.dtype) == "float32"
    np.testing.assert_allclose(numpy(received), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("kind", "name"), named("gradient", "along", "second"))
def test_derivatives_of_one_weight(kind, name, shape, penalty):
    w, t = weights(shape, 2)
    expected = {
        "gradient": 0.6 * w,
        "along": 0.6 * np.sum(w.astype("float64") * t),
        "second": 0.6 * t,
    }
    received = TRANSFORMS[kind][name](
        penalty, ops.convert_to_tensor(w), ops.convert_to_tensor(t)
    )
    expect(received, expected[kind])


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize(("kind", "name"), named("hessian"))
def test_hessian_of_one_weight(kind, name, penalty):
    w, t = ops.convert_to_tensor(weights(SMALL, 2))
    received = TRANSFORMS[kind][name](penalty, w, t)
    expect(received, 0.6 * np.eye(12).reshape(3, 4, 3, 4))


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
@pytest.mark.parametrize("shape", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(("kind", "name"), named("batch", "batch of gradients"))
def test_values_and_gradients_of_a_batch_of_weights(kind, name, shape, penalty):
    batch = weights(shape, 5)
    expected = {
        "batch": 0.3 * np.sum(batch.astype("float64") ** 2, axis=(1, 2)),
        "batch of gradients": 0.6 * batch,
    }
    received = TRANSFORMS[kind][name](penalty, ops.convert_to_tensor(batch))
    expect(received, expected[kind])


@pytest.mark.skipif(BACKEND != "torch", reason="only torch has such a check")
@pytest.mark.parametrize("count", [1, 2])
def test_gradcheck_of_torch_passes(count):
    import torch

    arrays = weights(SMALL, count).astype("float64")
    args = tuple(torch.tensor(array, requires_grad=True) for array in arrays)
    torch.autograd.gradcheck(
        L2(0.3),
        args,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )
    torch.autograd.gradgradcheck(
        L2(0.3), args, check_fwd_over_rev=True, check_batched_grad=True
    )
