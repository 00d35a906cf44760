"""The one numeric kernel: the sum of squares of a weight, or of many together.

>>> w = keras.ops.convert_to_tensor([3.0, 4.0])
>>> float(sum_of_squares(w)), float(sum_of_squares(w, w))
(25.0, 50.0)

A float32 sum that is added up term by term loses its third digit at 1e8 terms. Every
backend therefore adds in blocks, by its fastest means:

=================  ==================================================
backend            how
=================  ==================================================
JAX                `sum(w**2)`, which XLA adds up as a tree
TensorFlow         `tf.nn.l2_loss`, which adds up as a tree
TensorFlow in XLA  sums of 16 squares each, then their sum in float64
torch              norms of 256 values each, then their sum of squares
=================  ==================================================
"""

import functools

import keras
from keras import ops

from keras_l2reg import _keras

HALF_TYPES = ("float16", "bfloat16")
# In rows of this length, even equal values lose no digit that counts.
_TF_XLA_ROW = 16
_TORCH_ROW = 256
# Up to this size, calls are what costs on torch, not passes over the weight.
_TORCH_SMALL = 2**14


def sum_of_squares(*weights):
    """`sum_k sum(w_k**2)`, each weight read once; half types add up in float32.

    Args:
        weights: Variables or tensors of any shape, all of one float dtype.

    Returns:
        A scalar tensor: float64 for float64 weights, else float32.

    >>> float(sum_of_squares(keras.ops.convert_to_tensor([3.0, 4.0])))
    25.0
    """
    weights = [in_float32(_tensor(w)) for w in weights]
    backend = keras.backend.backend()
    if backend == "torch" and not _keras.in_torch_transform():
        return _torch_sum_of_squares()(*weights)
    of_one = {"tensorflow": _tensorflow_squares, "torch": _torch_plain_squares}
    of_one = of_one.get(backend, _squares)
    return functools.reduce(ops.add, [of_one(w) for w in weights])


def in_float32(w):
    """A weight as it is, or cast to float32 if it is float16 or bfloat16.

    >>> w = in_float32(keras.ops.ones((2,), "bfloat16"))
    >>> keras.backend.standardize_dtype(w.dtype)
    'float32'
    """
    if keras.backend.standardize_dtype(w.dtype) in HALF_TYPES:
        return ops.cast(w, "float32")
    return w


def _tensor(w):
    return w.value if isinstance(w, keras.Variable) else ops.convert_to_tensor(w)


def _squares(w):
    return ops.sum(ops.square(w))


def _tensorflow_squares(w):
    import tensorflow as tf

    if not _keras.in_tf_xla():
        # The native op reads the weight once and stores no square of it.
        return 2.0 * tf.nn.l2_loss(w)
    # XLA on CPU adds up term by term. It would merge two sums of one type into one.
    flat = tf.reshape(w, [-1])
    flat = tf.pad(flat, [[0, -tf.size(flat) % _TF_XLA_ROW]])
    rows = tf.reduce_sum(tf.square(tf.reshape(flat, [-1, _TF_XLA_ROW])), axis=1)
    return tf.cast(tf.reduce_sum(tf.cast(rows, "float64")), w.dtype)


def _torch_plain_squares(w):
    import torch

    # Compiled for the CPU, a float32 sum adds up term by term.
    is_serial = torch.compiler.is_compiling() and w.device.type == "cpu"
    wide = torch.float64 if is_serial else w.dtype
    return torch.square(w).sum(dtype=wide).to(w.dtype)


@functools.cache
def _torch_sum_of_squares():
    import torch

    class SumOfSquares(torch.autograd.Function):
        """One pass forward, one backward, where autograd takes three."""

        @staticmethod
        def forward(context, *weights):
            context.save_for_backward(*weights)
            context.save_for_forward(*weights)
            return functools.reduce(torch.add, [_torch_squares(w) for w in weights])

        @staticmethod
        def backward(context, upstream):
            twice = 2.0 * upstream
            return tuple(twice * w for w in context.saved_tensors)

        @staticmethod
        def jvp(context, *tangents):
            pairs = zip(context.saved_tensors, tangents, strict=True)
            return functools.reduce(torch.add, [2.0 * (w * t).sum() for w, t in pairs])

    return SumOfSquares.apply


def _torch_squares(w):
    import torch

    flat = w.contiguous().view(-1)
    size = flat.numel()
    if flat.dtype == torch.float64:
        return torch.dot(flat, flat)
    if size <= _TORCH_SMALL:
        return _torch_small_squares(flat)
    length = _torch_row_length(size)
    rows = flat.as_strided((size // length, length), (length, 1))
    total = _torch_small_squares(torch.linalg.vector_norm(rows, dim=1))
    if size % length:
        rest = flat[-(size % length) :]
        total = total + torch.dot(rest, rest)
    return total


def _torch_small_squares(flat):
    import torch

    # `dot` is one call, but adds up term by term; `sum` adds up as a tree.
    is_short = flat.numel() <= 2 * _TORCH_ROW
    return torch.dot(flat, flat) if is_short else flat.square().sum()


@functools.cache
def _torch_row_length(size):
    """The greatest length that leaves no rest, if one does: a rest costs calls."""
    lengths = range(_TORCH_ROW, _TORCH_ROW // 4, -1)
    return next((n for n in lengths if size % n == 0), _TORCH_ROW)
