"""JAX: compiled steps get the state as arguments; anything else becomes a constant."""

import contextlib
import functools
import re

import jax
import jax.core
import jax.numpy as jnp
import keras
from keras.src.backend.common.stateless_scope import get_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope

from keras_l2reg._keras.backends import base
from keras_l2reg._keras.backends.jax_costs import free_bytes
from keras_l2reg._keras.backends.jax_stacked import StackedModel
from keras_l2reg._keras.steps import fresh_step, function_within


class Backend(base.Backend):
    """See `base.Backend`; XLA computes the default `sum_of_squares` as a tree."""

    traces_constants = True
    stacks_runs = True

    def compiles_steps(self, model):
        return bool(model.jit_compile) and not model.run_eagerly

    def sync_state(self, model):
        # During `fit`, the trainer holds the state, and the variables are empty;
        # callbacks that read or assign a variable must request a sync.
        if isinstance(model, keras.Model):
            model.jax_state_sync()

    def compiled_in_fit(self, model, function):
        variables = [*model.trainable_variables, *model.non_trainable_variables]
        if model.optimizer:
            variables += model.optimizer.variables

        def of_values(values, *args):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return function(*args)

        compiled = jax.jit(of_values) if self.compiles_steps(model) else of_values
        return lambda *args: compiled(_values_in_fit(model, variables), *args)

    def is_baked_in(self, variable, tensor):
        scope = get_stateless_scope()
        if scope is None or in_symbolic_scope():
            return False
        # Tracers of a gradient or a `vmap` wrap the tracer of the compiled step, if
        # there is one.
        while isinstance(tensor, jax.core.Tracer):
            within = getattr(tensor, "primal", getattr(tensor, "val", None))
            if not isinstance(within, (jax.Array, jax.core.Tracer)):
                return scope.get_current_value(variable) is None
            tensor = within
        return False

    def sum_of_absolutes(self, weights):
        # The derivative of `jnp.abs` at 0 is 1 instead of 0.
        signs = [jax.lax.stop_gradient(jnp.sign(w)) for w in weights]
        pairs = zip(signs, weights, strict=True)
        return functools.reduce(jnp.add, [jnp.sum(s * w) for s, w in pairs])

    def gradients(self, loss, variables):
        def loss_of(values):
            pairs = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=pairs):
                return loss()

        return jax.grad(loss_of)([v.value for v in variables])

    def stacked(self, model):
        return StackedModel(model)

    def free_bytes(self):
        return free_bytes()

    def programs(self, model, step, batch):
        # JAX does not expose the shapes that it traced, so every batch size is tried.
        traced = function_within(getattr(model, f"{step}_function"), _is_step)
        if traced is None or batch is None:
            return
        self.sync_state(model)
        parts = [model.trainable_variables, model.non_trainable_variables]
        parts += [model.optimizer.variables] if step == "train" else []
        parts += [model.metrics_variables]
        state = tuple([v.value for v in variables] for variables in parts)
        for size in range(1, len(jax.tree.leaves(batch)[0]) + 1):
            data = jax.tree.map(lambda leaf, size=size: _as_in_fit(leaf, size), batch)
            try:
                with _tracing_forbidden(model):
                    old = _program(traced.trace(state, data))
            except _NotTraced:
                continue

            def fresh(data=data):
                again = function_within(fresh_step(model, step, jax.jit), _is_step)
                return _program(again.trace(state, data))

            yield old, fresh


def _values_in_fit(model, variables):
    """The values of the variables, which during `fit` only the trainer has."""
    state = getattr(model, "_jax_state", None)
    if not state or model._jax_state_synced:
        return [v.value for v in variables]
    keys = ("trainable_variables", "non_trainable_variables", "optimizer_variables")
    return [value for key in keys for value in state[key]]


def _is_step(function):
    return hasattr(function, "trace") and hasattr(function, "lower")


def _program(traced):
    text = re.sub(r"0x[0-9a-f]+", "", str(traced.jaxpr))
    values = [repr(jax.device_get(c).tolist()) for c in traced.jaxpr.consts]
    return text, values


def _as_in_fit(leaf, size):
    leaf = jax.numpy.asarray(leaf)
    is_float = jax.numpy.issubdtype(leaf.dtype, jax.numpy.floating)
    dtype = keras.config.floatx() if is_float else leaf.dtype
    return jax.ShapeDtypeStruct((size, *leaf.shape[1:]), dtype)


class _NotTraced(Exception):
    """The compiled step was never traced for this shape."""


@contextlib.contextmanager
def _tracing_forbidden(model):
    """In this context, a step that needs to be traced again raises `_NotTraced`."""

    def refuse(*args, **kwargs):
        raise _NotTraced

    methods = ("compute_loss_and_updates", "stateless_call")
    vars(model).update(dict.fromkeys(methods, refuse))
    try:
        yield
    finally:
        for method in methods:
            del vars(model)[method]
