"""torch: steps run eagerly, so calls cost more than passes over a weight."""

import functools

import torch

from keras_l2reg._keras.backends import base
from keras_l2reg._keras.torch_epochs import TorchEpochs

# Short enough that adding up a row term by term keeps the precision of float32.
_ROW = 256
# Up to this size, the calls cost more than the passes over the weight.
_SMALL = 2**14


class Backend(base.Backend):
    """See `base.Backend`."""

    def epochs(self, model):
        return TorchEpochs(model)

    def in_transform(self):
        # `torch.compile`, or `torch.func`, such as `vmap`
        compiling = torch.compiler.is_compiling()
        return compiling or torch._C._are_functorch_transforms_active()

    def sum_of_squares(self, weights):
        if self.in_transform():
            return functools.reduce(torch.add, [_plain_squares(w) for w in weights])
        return _SumOfSquares.apply(*weights)

    @torch.no_grad()
    def decay(self, variables, share):
        values = [v.value for v in variables]
        wide = functools.reduce(torch.promote_types, [w.dtype for w in values])
        share = share.to(torch.promote_types(wide, share.dtype))
        # One call for all weights, as Keras' optimizers do.
        torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
            values, 1.0 - share
        )

    def sum_of_absolutes(self, weights):
        return functools.reduce(torch.add, [_exact_sum(w.abs()) for w in weights])

    def gradients(self, loss, variables):
        values = [v.value for v in variables]
        return torch.autograd.grad(loss(), values, materialize_grads=True)


class _SumOfSquares(torch.autograd.Function):
    """One pass over the weights forward, one backward; autograd takes three."""

    @staticmethod
    def forward(context, *weights):  # pyright: ignore[reportIncompatibleMethodOverride]
        context.save_for_backward(*weights)
        context.save_for_forward(*weights)
        return functools.reduce(torch.add, [_squares(w) for w in weights])

    @staticmethod
    def backward(context, upstream):  # pyright: ignore[reportIncompatibleMethodOverride]
        twice = 2.0 * upstream
        return tuple(twice * w for w in context.saved_tensors)

    @staticmethod
    def jvp(context, *tangents):  # pyright: ignore[reportIncompatibleMethodOverride]
        pairs = zip(context.saved_tensors, tangents, strict=True)
        return functools.reduce(torch.add, [2.0 * (w * t).sum() for w, t in pairs])


def _plain_squares(w):
    return _exact_sum(torch.square(w))


def _exact_sum(w):
    # When compiled for the CPU, a float32 sum is added up term by term.
    is_serial = torch.compiler.is_compiling() and w.device.type == "cpu"
    wide = torch.float64 if is_serial else w.dtype
    return w.sum(dtype=wide).to(w.dtype)


def _squares(w):
    flat = w.contiguous().view(-1)
    size = flat.numel()
    if flat.dtype == torch.float64:
        return torch.dot(flat, flat)
    if size <= _SMALL:
        return _small_squares(flat)
    length = _row_length(size)
    rows = flat.as_strided((size // length, length), (length, 1))
    total = _small_squares(torch.linalg.vector_norm(rows, dim=1))
    if size % length:
        rest = flat[-(size % length) :]
        total = total + torch.dot(rest, rest)
    return total


def _small_squares(flat):
    # `dot` is one call, but adds up term by term; `sum` adds up as a tree.
    is_short = flat.numel() <= 2 * _ROW
    return torch.dot(flat, flat) if is_short else flat.square().sum()


@functools.cache
def _row_length(size):
    """The greatest length that divides `size`, since a remainder costs more calls."""
    lengths = range(_ROW, _ROW // 4, -1)
    return next((n for n in lengths if size % n == 0), _ROW)
