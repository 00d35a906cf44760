"""The one numeric kernel: the sum of squares of a weight, or of many together.

>>> w = keras.ops.convert_to_tensor([3.0, 4.0])
>>> float(sum_of_squares(w)), float(sum_of_squares(w, w))
(25.0, 50.0)

Here alone is asked which backend is the fastest at what.
"""

import functools

import keras
from keras import ops


def sum_of_squares(*weights):
    """`sum_k sum(w_k**2)`, each weight read once; half types add up in float32.

    Args:
        weights: Variables or tensors of any shape, all of one float dtype.

    Returns:
        A scalar tensor: float64 for float64 weights, else float32.

    >>> float(sum_of_squares(keras.ops.convert_to_tensor([3.0, 4.0])))
    25.0
    """
    weights = [_wide_enough(w) for w in weights]
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        # The native op reads the weight once and stores no square of it.
        return 2.0 * tf.add_n([tf.nn.l2_loss(w) for w in weights])
    if backend == "torch":
        return _torch_sum_of_squares()(*weights)
    return functools.reduce(ops.add, [ops.sum(ops.square(w)) for w in weights])


def _wide_enough(w):
    w = ops.convert_to_tensor(w)
    if keras.backend.standardize_dtype(w.dtype) in ("float16", "bfloat16"):
        return ops.cast(w, "float32")
    return w


@functools.cache
def _torch_sum_of_squares():
    import torch

    class SumOfSquares(torch.autograd.Function):
        """One pass forward, one backward, where autograd takes three."""

        @staticmethod
        def forward(context, *weights):
            context.save_for_backward(*weights)
            flat = [w.reshape(-1) for w in weights]
            return functools.reduce(torch.add, [torch.dot(f, f) for f in flat])

        @staticmethod
        def backward(context, upstream):
            # One call for all weights: for small ones, calls are what costs.
            return tuple(torch._foreach_mul(context.saved_tensors, 2.0 * upstream))

    return SumOfSquares.apply
