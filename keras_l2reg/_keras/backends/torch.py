"""torch: steps run eagerly, so calls cost more than passes over a weight."""

import functools

import keras
import torch
from torch.nn.modules.module import _has_any_global_hook as has_any_global_hook

from keras_l2reg._keras.backends import base
from keras_l2reg._keras.backends.torch_epochs import TorchEpochs

# Short enough that adding up a row term by term keeps the precision of float32.
_ROW = 256
# Up to this size, the calls cost more than the passes over the weight.
_SMALL = 2**14


class Backend(base.Backend):
    """See `base.Backend`."""

    def epochs(self, model):
        return TorchEpochs(model)

    def may_call_directly(self, layer, args, kwargs):
        # In each step, Keras' own call takes as long as a layer.
        are_tensors = all(type(arg) is torch.Tensor for arg in args)
        is_usual = are_tensors and not kwargs.keys() - {"training"}
        return is_usual and not _has_call_of_its_own(layer)

    def in_transform(self):
        # `torch.compile`, or `torch.func`, such as `vmap`
        compiling = torch.compiler.is_compiling()
        return compiling or torch._C._are_functorch_transforms_active()

    def sum_of_squares(self, weights):
        if self.in_transform():
            return functools.reduce(torch.add, [_plain_squares(w) for w in weights])
        if len(weights) == 1 and weights[0].numel() <= _SMALL:
            # Autograd's own functions take less time than one in Python.
            return weights[0].square().sum()
        return _SumOfSquares.apply(*weights)

    @torch.no_grad()
    def decay(self, variables, share, multiplier=1.0):
        values = [v.value for v in variables]
        dtypes = {w.dtype for w in values}
        share = share.to(functools.reduce(torch.promote_types, dtypes, share.dtype))
        # One call for all weights, as Keras' optimizers do.
        torch._foreach_mul_(  # pyright: ignore[reportPrivateImportUsage]
            values, torch.rsub(share, 1.0, alpha=multiplier)
        )

    def sum_of_absolutes(self, weights):
        return functools.reduce(torch.add, [_exact_sum(w.abs()) for w in weights])

    def assign_row(self, row, values):
        if not all(isinstance(value, torch.Tensor) for value in values):
            super().assign_row(row, values)
            return
        # Keras' operations take about twice as long, in each step.
        with torch.no_grad():
            dtype = row.value.dtype
            row.assign(torch.stack([value.to(dtype) for value in values]))

    def add_row(self, sums, loss, parts, weight):
        if not isinstance(loss, torch.Tensor) or not isinstance(weight, (int, float)):
            super().add_row(sums, loss, parts, weight)
            return
        with torch.no_grad():
            loss = loss.to(parts.value.dtype).reshape(1)
            row = torch.cat([loss, parts.value, torch.ones_like(loss)])
            sums.assign(torch.add(sums.value, row, alpha=weight))

    @torch.no_grad()
    def means(self, sums):
        count = sums[-1].clamp(min=keras.config.epsilon())
        return (sums / count).unbind()[:-1]

    def gradients(self, loss, variables):
        values = [v.value for v in variables]
        return torch.autograd.grad(loss(), values, materialize_grads=True)


def _has_call_of_its_own(layer):
    """Whether a call does more than `call`: hooks, losses, or less memory."""
    return (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or has_any_global_hook()
        or layer._losses
        or layer._remat_mode
        or layer.activity_regularizer is not None
    )


class _SumOfSquares(torch.autograd.Function):
    """`sum_k sum(w_k**2)`, whose gradient needs no memory of its own.

    Autograd would make a tensor `2 * w` for each weight and add it to the gradient of
    the data. In a plain `backward()`, nobody sees the two apart, so there this adds
    `2 * w` to each `w.grad` in place, at the end of the pass. Elsewhere it returns
    gradients, as any function does: see `_accumulating`.
    """

    @staticmethod
    def forward(context, *weights):  # pyright: ignore[reportIncompatibleMethodOverride]
        context.save_for_backward(*weights)
        context.save_for_forward(*weights)
        return _sum_of_squares(weights)

    @staticmethod
    def backward(context, upstream):  # pyright: ignore[reportIncompatibleMethodOverride]
        twice = 2.0 * upstream
        weights = context.saved_tensors
        leaves = _accumulating(context.next_functions)
        if leaves is None:
            return tuple(twice * w for w in weights)
        versions = [w._version for w in weights]

        def add():
            if [w._version for w in weights] != versions:
                raise RuntimeError(
                    "Expected weights that do not change during `backward()`. "
                    "Received: weights that a hook on their `AccumulateGrad` changed, "
                    "which torch does not show; use "
                    "`weight.register_post_accumulate_grad_hook` instead"
                )
            _add_to_gradients(leaves, weights, twice)

        torch.autograd.Variable._execution_engine.queue_callback(add)
        return (None,) * len(weights)

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


def _accumulating(edges):
    """The weights, if all that happens to their gradients is to go to their `.grad`.

    Otherwise, `None`: in `torch.autograd.grad` and `backward(inputs=...)`, for a
    gradient of the gradient, for weights that were computed from others, that have
    hooks or already a gradient, and among several processes, which exchange gradients
    as they arrive.
    """
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or (torch.distributed.is_available() and torch.distributed.is_initialized())
    ):
        return None
    leaves = []
    for node, _ in edges:
        leaf = getattr(node, "variable", None)
        if (
            leaf is None
            or leaf.grad is not None
            or leaf._backward_hooks
            or leaf._post_accumulate_grad_hooks
        ):
            return None
        leaves.append(leaf)
    try:
        executed = [torch._C._will_engine_execute_node(node) for node, _ in edges]
    except RuntimeError:
        # In `torch.autograd.grad`.
        return None
    return leaves if all(executed) else None


@torch.no_grad()
def _add_to_gradients(leaves, weights, factor):
    """`leaf.grad += factor * weight` for each pair."""
    gradients, terms = [], []
    for leaf, weight in zip(leaves, weights, strict=True):
        if _is_owned(leaf.grad):
            gradients.append(leaf.grad)
            terms.append(weight)
        else:
            extra = factor * weight
            leaf.grad = extra if leaf.grad is None else extra + leaf.grad
    if gradients:
        # With a tensor as factor, a GPU need not be waited for.
        torch._foreach_addcmul_(  # pyright: ignore[reportPrivateImportUsage]
            gradients, terms, [factor] * len(terms)
        )


def _is_owned(gradient):
    """Whether no other tensor has the memory of `gradient`, as views of a sum may."""
    if gradient is None or gradient.is_sparse:
        return False
    # One is the tensor's, one that of the Python object made here.
    return torch._C._storage_Use_Count(gradient.untyped_storage()._cdata) == 2


def _sum_of_squares(weights):
    if weights[0].dtype == torch.float64:
        flat = [w.reshape(-1) for w in weights]
        return functools.reduce(torch.add, [torch.dot(w, w) for w in flat])
    parts = [part for w in weights for part in _parts(w)]
    flat = parts[0] if len(parts) == 1 else torch.cat(parts)
    # `dot` is one call, but adds up term by term; `sum` adds up as a tree.
    is_short = flat.numel() <= 2 * _ROW
    return torch.dot(flat, flat) if is_short else flat.square().sum()


def _parts(w):
    """Vectors whose squares add up to those of `w`: itself, or norms of its rows."""
    size = w.numel()
    if size <= _SMALL:
        return [w.reshape(-1)]
    length = _row_length(size)
    if size % length == 0:
        return [torch.linalg.vector_norm(w.reshape(-1, length), dim=1)]
    flat = w.reshape(-1)
    end = size - size % length
    rows = flat[:end].view(-1, length)
    return [torch.linalg.vector_norm(rows, dim=1), flat[end:]]


@functools.cache
def _row_length(size):
    """The greatest length that divides `size`, since a remainder costs more calls."""
    lengths = range(_ROW, _ROW // 4, -1)
    return next((n for n in lengths if size % n == 0), _ROW)
