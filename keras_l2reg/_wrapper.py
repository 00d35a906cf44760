"""ModelWrapper: a Keras model that is used like the inner model that it wraps.

Methods and attributes give the same results and shapes. The Keras trainer trains the
wrapper, so a model that overrides parts of the trainer is not accepted.

>>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> inner.note = "mine"
>>> wrapper = ModelWrapper(inner)
>>> wrapper.note, wrapper.output_shape, len(wrapper.layers)
('mine', (None, 3), 1)
"""

import contextlib
import functools
import os
import types
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import h5py
import keras

from keras_l2reg import _keras
from keras_l2reg._validation import check_is_model

# The inner model may override these, since they are called on the model itself.
MAY_BE_OVERRIDDEN = {
    *("call", "build", "built", "build_from_config", "get_build_config"),
    *("get_config", "from_config", "add_loss", "add_weight", "add_variable"),
    *("save_own_variables", "load_own_variables", "save_assets", "load_assets"),
    *("compute_output_spec", "compute_output_shape", "compute_mask", "symbolic_call"),
    *("layers", "get_layer", "summary", "export", "save_weights", "load_weights"),
    *("weights", "variables", "trainable", "quantize", "quantized_build"),
    *("quantized_call", "get_quantization_layer_structure", "supports_masking"),
    *("dtype", "dtype_policy", "compute_dtype", "variable_dtype", "input_dtype"),
    *("input", "output", "input_spec", "path", "quantization_mode"),
    *("rematerialized_call", "count_params"),
}
# Keras sets these on a model in training, so they are not passed to the inner model.
_TRAINING_STATE = {
    *("optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting"),
}
# On torch, it finds submodules and parameters. Not by `super()`, whose attributes
# `torch.compile` can't look up.
_GETATTR_OF_BACKEND = getattr(keras.Model, "__getattr__", None)


class ModelWrapper(keras.Model):
    """A Keras model around an inner model.

    Args:
        model: The inner `keras.Model`, built or not; shared, not copied. It must pass
            `check_inner_model`.
        name: String. Defaults to `None`.
    """

    def __init__(self, model: keras.Model, name: str | None = None):
        # The model casts its inputs; casting them here as well would lose precision.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        # In `vars`, where torch does not store layers: needed by `__getattr__`, and
        # found sooner in each step.
        self._inner = types.SimpleNamespace(model=model)
        self.wrapped_model = model
        self.supports_masking = model.supports_masking
        self.built = model.built
        _keras.copy_signature(model, self)

    def build(self, input_shape):
        model = self.wrapped_model
        # A model that does not override `build` is built by its first call.
        if not model.built and type(model).build is not keras.Model.build:
            model.build(input_shape)

    def call(self, *args, **kwargs):
        return self._inner.model(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if _GETATTR_OF_BACKEND is not None:
            with contextlib.suppress(AttributeError):
                return _GETATTR_OF_BACKEND(self, name)
        if not name.startswith("_") and "_inner" in vars(self):
            inner = self._inner.model
            if hasattr(inner, name):
                value = getattr(inner, name)
                # These two change the layers.
                if name in ("add", "pop") and callable(value):
                    return functools.partial(self._call_and_update, value)
                return value
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}; only public "
            "attributes of the inner model can be read here, private ones from "
            f"`wrapped_model`{self._suggestion(name)}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if not self._is_new(name):
            super().__setattr__(name, value)
        elif hasattr(self._inner.model, name):
            setattr(self._inner.model, name, value)
        elif suggestion := self._suggestion(name):
            raise AttributeError(
                f"Expected an attribute of {type(self).__name__!r}, or a new one whose "
                "name differs not only in upper and lower case. "
                f"Received: {name!r}{suggestion}"
            )
        else:
            super().__setattr__(name, value)

    def _suggestion(self, name: str) -> str:
        """A hint at the attribute that differs from `name` only in case, if any."""
        if not self._is_new(name):
            return ""
        known = {*dir(type(self)), *vars(self), *_TRAINING_STATE}
        similar = [n for n in known if n[0] != "_" and n.lower() == name.lower()]
        return f"; did you mean `{similar[0]}`?" if similar else ""

    def _is_new(self, name: str) -> bool:
        """Whether a name is public, and not an attribute of the wrapper itself."""
        return (
            "_inner" in vars(self)
            and name[0] != "_"
            and name not in {"wrapped_model", *_TRAINING_STATE}
            and name not in vars(self)
            and not hasattr(type(self), name)
        )

    def _call_and_update(self, method: Callable, *args, **kwargs) -> Any:
        """Call a method of the inner model that changes its layers."""
        result = method(*args, **kwargs)
        self.built = self.wrapped_model.built
        _keras.reset_compiled_steps(self)
        return result

    # --------------------------------------- methods that act on the inner model

    @property
    def layers(self) -> list[keras.layers.Layer]:  # pyright: ignore
        """The inner model's layers."""
        return self._inner.model.layers

    @property
    def weights(self) -> list[keras.Variable]:
        """The inner model's weights."""
        return self._inner.model.weights

    def get_layer(self, *args, **kwargs) -> keras.layers.Layer:
        """A layer of the inner model: `keras.Model.get_layer`."""
        return self.wrapped_model.get_layer(*args, **kwargs)

    def get_quantization_layer_structure(self, mode=None):
        """The inner model's structure for `quantize`."""
        return self.wrapped_model.get_quantization_layer_structure(mode)

    def compute_output_shape(self, *args, **kwargs):
        """The inner model's output shape."""
        return self.wrapped_model.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        """The output of a symbolic call, the same as of the inner model."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        """The inner model's output mask."""
        return self.wrapped_model.compute_mask(*args, **kwargs)

    def count_params(self) -> int:
        """The number of scalars in the inner model's weights."""
        return self.wrapped_model.count_params()

    def export(self, *args, **kwargs) -> Any:
        """Export the inner model: `keras.Model.export`."""
        return self.wrapped_model.export(*args, **kwargs)

    def summary(self, *args, **kwargs) -> Any:
        """Print the inner model's summary: `keras.Model.summary`."""
        return self.wrapped_model.summary(*args, **kwargs)

    def quantize(self, mode=None, config=None, **kwargs) -> None:  # pyright: ignore
        """Quantize the inner model: `keras.Model.quantize`."""
        self.wrapped_model.quantize(mode, config=config, **kwargs)
        self.train_function = self.test_function = self.predict_function = None

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile from a saved config, which Keras skips if `compile` is overridden."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    # --------------------------------------------------------------- weights files

    def save_weights(self, *args, **kwargs) -> None:
        """Save the inner model's weights, in a file that it can load by itself.

        As `keras.Model.save_weights`; the file also contains the state of the optimizer
        and of the wrapper, which the inner model ignores.
        """
        with self._state_in_inner_model():
            self.wrapped_model.save_weights(*args, **kwargs)

    def load_weights(self, filepath: str | os.PathLike, *args, **kwargs) -> None:
        """Load a weights file of the inner model or of a wrapper around it.

        As `keras.Model.load_weights`.
        """
        if _is_wrapper_file(filepath):
            super().load_weights(filepath, *args, **kwargs)
            return
        with self._state_in_inner_model():
            self.wrapped_model.load_weights(filepath, *args, **kwargs)

    @contextlib.contextmanager
    def _state_in_inner_model(self) -> Iterator[None]:
        """In this context, the inner model has the wrapper's state and optimizer."""
        inner, missing = self.wrapped_model, object()
        state = _State(self.save_own_variables, self.load_own_variables)
        added: dict[str, Any] = {"window_state": state}
        if getattr(self, "optimizer", None) is not None:
            added["optimizer"] = self.optimizer
        before = {name: vars(inner).get(name, missing) for name in added}
        try:
            for name, value in added.items():
                # Bypasses Keras, which tracks what is set on a layer.
                object.__setattr__(inner, name, value)
            yield
        finally:
            for name, value in before.items():
                if value is missing:
                    object.__delattr__(inner, name)
                else:
                    object.__setattr__(inner, name, value)


class _State(keras.layers.Layer):
    """The wrapper's variables, as a layer that a weights file can contain."""

    def __init__(self, save: Callable, load: Callable):
        super().__init__()
        self._save, self._load = save, load

    def save_own_variables(self, store):
        self._save(store)

    def load_own_variables(self, store):
        self._load(store)


def _is_wrapper_file(filepath: str | os.PathLike) -> bool:
    """Whether this file was saved from a wrapper, rather than its inner model."""
    name = str(filepath)
    with contextlib.ExitStack() as stack:
        if name.endswith(".keras") and zipfile.is_zipfile(name):
            archive = stack.enter_context(zipfile.ZipFile(name))
            file = stack.enter_context(archive.open("model.weights.h5"))
        elif name.endswith(".h5") and h5py.is_hdf5(name):
            file = name
        else:
            return False
        groups = stack.enter_context(h5py.File(file, "r"))
        return "wrapped_model" in groups and "window_state" not in groups


def check_inner_model(model: keras.Model) -> None:
    """Raise an error unless a wrapper can do everything that the model can.

    >>> class Own(keras.Sequential):
    ...     def predict_step(self, *args):
    ...         return super().predict_step(*args)
    >>> check_inner_model(Own())
    Traceback (most recent call last):
    ValueError: Expected a model that trains, evaluates and predicts with the methods...
    """
    check_is_model(model)
    for layer in _keras.all_layers(model):
        if isinstance(layer, ModelWrapper):
            raise ValueError(
                "Expected a model that is not wrapped and does not contain a wrapper. "
                f"Received: model={model.name!r}, with the wrapper {layer.name!r}; "
                "for another strength, set that wrapper's `l2` (`model.l2 = 0.01`); "
                "to wrap again, unwrap it first (`model.unwrap(strip=True)`)"
            )
    ignored = sorted(_keras.overridden(model) - MAY_BE_OVERRIDDEN)
    if ignored:
        raise ValueError(
            "Expected a model that trains, evaluates and predicts with the methods of "
            "`keras.Model`, which a wrapper runs in its place. Received: "
            f"model={model.name!r}, which overrides {ignored}; use "
            "`keras_l2reg.attach(model, ...)`, which works in place"
        )
