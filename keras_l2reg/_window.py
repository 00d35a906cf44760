"""Window: a Keras model around a model, through which a user sees the inner one.

What a user does with the inner model he does with the window, with the same results
and shapes. It trains by Keras' own trainer, so that a model which redefines any part
of that trainer is refused.

>>> inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> inner.note = "mine"
>>> window = Window(inner)
>>> window.note, window.output_shape, len(window.layers)
('mine', (None, 3), 1)
"""

import contextlib
import functools
import types
import zipfile

import h5py
import keras

from keras_l2reg import _keras
from keras_l2reg._validation import check_model

# A user's class may redefine these: they are called on the inner model itself.
ACTS_WITHIN = {
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
# Keras writes these on a model in training: each model has its own.
_TRAINING_STATE = {
    *("optimizer", "history", "stop_training", "stop_evaluating", "stop_predicting"),
}


class Window(keras.Model):
    """A Keras model around a model.

    Args:
        model: The inner `keras.Model`, built or not; shared, not copied.
        name: String. Defaults to `None`.

    Raises:
        TypeError: `model` is no `keras.Model`.
        ValueError: it redefines what would be passed over in silence.
    """

    def __init__(self, model, name=None):
        # The model casts its own inputs; casting them here too would lose digits.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        # For `__getattr__`, which must not ask for an attribute itself.
        self._window_on = types.SimpleNamespace(model=model)
        self.wrapped_model = model
        self.supports_masking = model.supports_masking
        self.built = model.built
        _keras.take_signature(self, model)

    def build(self, input_shape):
        model = self.wrapped_model
        # Without a `build` of its own, a model is built by its first call.
        if not model.built and type(model).build is not keras.Model.build:
            model.build(input_shape)

    def call(self, *args, **kwargs):
        return self.wrapped_model(*args, **kwargs)

    def __getattr__(self, name):
        # On torch, a layer's parts are found by a `__getattr__` of its own.
        of_backend = getattr(super(), "__getattr__", None)
        if of_backend is not None:
            with contextlib.suppress(AttributeError):
                return of_backend(name)
        if not name.startswith("_") and "_window_on" in vars(self):
            inner = self._window_on.model
            if hasattr(inner, name):
                value = getattr(inner, name)
                # These two change which weights there are.
                is_change = name in ("add", "pop") and callable(value)
                return functools.partial(self._change, value) if is_change else value
        raise AttributeError(
            f"{type(self).__name__!r} object has no attribute {name!r}, and passes on "
            f"the public attributes of its `wrapped_model` only{self._meant(name)}"
        )

    def __setattr__(self, name, value):
        if self._is_of_inner_model(name):
            setattr(self._window_on.model, name, value)
            return
        if meant := self._meant(name):
            raise AttributeError(
                f"Expected an attribute of {type(self).__name__!r}, or a new one whose "
                "name differs by more than upper and lower case. "
                f"Received: {name!r}{meant}"
            )
        super().__setattr__(name, value)

    def _meant(self, name):
        """A hint at the attribute that differs from `name` in case only, if any."""
        own, cls = vars(self), type(self)
        if name[0] == "_" or name in own or hasattr(cls, name):
            return ""
        if "_window_on" not in own:
            return ""
        known = {*dir(cls), *own, *_TRAINING_STATE}
        if name in known:
            return ""
        meant = [n for n in known if n[0] != "_" and n.lower() == name.lower()]
        return f"; did you mean `{meant[0]}`?" if meant else ""

    def _is_of_inner_model(self, name):
        own = vars(self)
        return (
            name[0] != "_"
            and name not in own
            and name not in {"wrapped_model", *_TRAINING_STATE}
            and not hasattr(type(self), name)
            and "_window_on" in own
            and hasattr(self._window_on.model, name)
        )

    def _change(self, change, *args, **kwargs):
        """Call a method of the inner model that changes its layers."""
        result = change(*args, **kwargs)
        self.built = self.wrapped_model.built
        _keras.reset_compiled_steps(self)
        return result

    # ------------------------------------------------- what Keras asks of a model

    @property
    def layers(self):
        """The inner model's layers."""
        return self.wrapped_model.layers

    @property
    def weights(self):
        """The inner model's weights."""
        return self.wrapped_model.weights

    def get_layer(self, *args, **kwargs):
        """A layer of the inner model: `keras.Model.get_layer`."""
        return self.wrapped_model.get_layer(*args, **kwargs)

    def get_quantization_layer_structure(self, mode=None):
        """What the inner model tells Keras for `quantize`."""
        return self.wrapped_model.get_quantization_layer_structure(mode)

    def compute_output_shape(self, *args, **kwargs):
        """The inner model's output shape."""
        return self.wrapped_model.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        """What a symbolic call returns: that of a call of the inner model."""
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, *args, **kwargs):
        """The inner model's output mask."""
        return self.wrapped_model.compute_mask(*args, **kwargs)

    def count_params(self):
        """The number of the inner model's weights, scalar by scalar."""
        return self.wrapped_model.count_params()

    def export(self, *args, **kwargs):
        """Export the inner model, which predicts the same: `keras.Model.export`."""
        return self.wrapped_model.export(*args, **kwargs)

    def summary(self, *args, **kwargs):
        """Print the inner model's summary: `keras.Model.summary`."""
        return self.wrapped_model.summary(*args, **kwargs)

    def quantize(self, mode=None, config=None, **kwargs):
        """Quantize the inner model: `keras.Model.quantize`."""
        self.wrapped_model.quantize(mode, config=config, **kwargs)
        self.train_function = self.test_function = self.predict_function = None

    def compile_from_config(self, config):
        """Compile as a file says; Keras skips models with a `compile` of their own."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built and self.optimizer is not None:
            self.optimizer.build(self.trainable_variables)

    # --------------------------------------------------------------- weights files

    def save_weights(self, *args, **kwargs):
        """Save the inner model's weights, in a file that it can load by itself.

        As `keras.Model.save_weights`; the file also holds the state of the optimizer
        and of the window, which the inner model passes over.
        """
        with self._lent_state():
            self.wrapped_model.save_weights(*args, **kwargs)

    def load_weights(self, filepath, *args, **kwargs):
        """Load a weights file, of the inner model or of a window around it.

        As `keras.Model.load_weights`.
        """
        if _is_laid_out_as_window(filepath):
            super().load_weights(filepath, *args, **kwargs)
            return
        with self._lent_state():
            self.wrapped_model.load_weights(filepath, *args, **kwargs)

    @contextlib.contextmanager
    def _lent_state(self):
        """Within, the inner model holds what is saved with it as if it were its own."""
        inner, missing = self.wrapped_model, object()
        state = _State(self.save_own_variables, self.load_own_variables)
        lent = {"window_state": state}
        if getattr(self, "optimizer", None) is not None:
            lent["optimizer"] = self.optimizer
        before = {name: vars(inner).get(name, missing) for name in lent}
        try:
            for name, value in lent.items():
                # Past Keras, which tracks what is set on a layer.
                object.__setattr__(inner, name, value)
            yield
        finally:
            for name, value in before.items():
                if value is missing:
                    object.__delattr__(inner, name)
                else:
                    object.__setattr__(inner, name, value)


class _State(keras.layers.Layer):
    """What a window saves of its own, as a layer that a weights file can hold."""

    def __init__(self, save, load):
        super().__init__()
        self._save, self._load = save, load

    def save_own_variables(self, store):
        self._save(store)

    def load_own_variables(self, store):
        self._load(store)


def _is_laid_out_as_window(filepath):
    """Whether Keras saved a window in this file, not the model in it."""
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


def check_inner_model(model):
    """Raise unless a window can do all that the model does by itself.

    >>> class Own(keras.Sequential):
    ...     def predict_step(self, *args):
    ...         return super().predict_step(*args)
    >>> check_inner_model(Own())
    Traceback (most recent call last):
    ValueError: Expected a model that trains, evaluates and predicts by Keras' own...
    """
    check_model(model)
    for layer in _keras.all_layers(model):
        if isinstance(layer, Window):
            raise ValueError(
                "Expected a model that is not wrapped and holds no wrapper. "
                f"Received: model={model.name!r}, with the wrapper {layer.name!r}; "
                "for another strength, set that wrapper's `l2` (`model.l2 = 0.01`); "
                "to wrap again, take it off first (`model.unwrap(strip=True)`)"
            )
    passed_over = sorted(_keras.overridden(model) - ACTS_WITHIN)
    if passed_over:
        raise ValueError(
            "Expected a model that trains, evaluates and predicts by Keras' own "
            "methods, which a wrapper runs in its place. Received: "
            f"model={model.name!r}, which overrides {passed_over}; use "
            "`keras_l2reg.attach(model, ...)`, which works in place"
        )
