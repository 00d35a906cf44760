"""L2AllWeights: a Keras model around a model, with an L2 penalty on every kernel.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> wrapped.compile("sgd", "mse")
>>> logs = wrapped.fit(ops.ones((8, 4)), ops.ones((8, 2)), verbose=0).history
>>> sorted(logs)
['data_loss', 'loss', 'penalty']
>>> wrapped.l2 = 0.003  # acts on the next step, without a new trace
"""

import contextlib
import inspect
import warnings

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg.attachment import (
    as_regularizer,
    attachment_of,
    detach,
    drop_trace,
    forget,
    is_attached,
    plan_attachment,
    write,
)
from keras_l2reg.loss_split import LossSplit
from keras_l2reg.persistence import lost_on_save, settle, slots_set
from keras_l2reg.regularizers import (
    L2,
    L2Loss,
    check_strength,
    strength_value,
    total_penalty,
)
from keras_l2reg.rule_config import rule_from_config, rule_to_config
from keras_l2reg.stock import to_stock
from keras_l2reg.weights import find_weights

_RULE = ("biases", "embeddings", "layers", "exclude", "multipliers", "existing")
_STEPS = ("train_step", "test_step", "compute_loss")


@keras.saving.register_keras_serializable(package="keras_l2reg")
class L2AllWeights(keras.Model):
    """A model with an L2 penalty on every kernel, the rest as it was.

    `loss = data_loss + penalty`, `penalty = l2 * sum_k multiplier_k * sum(w_k**2)`

    The given model is shared, not copied: train the wrapper, and the model is
    trained. The logs of `fit` and `evaluate` get `data_loss` and `penalty`.

    Args:
        model: A `keras.Model`, built or not, compiled or not.
        l2: Finite float >= 0, on Keras' scale; live, and saved with the weights.
            `beta * tf.nn.l2_loss` is `l2=beta / 2`. Defaults to `0.01`.
        regularizer: Instead of `l2`, any Keras regularizer, its name or config. An
            `L2`, `L2Loss` or `keras.regularizers.L2` has a live `l2` as well.
        biases, embeddings, layers, exclude, multipliers, existing: Which weights, as
            in `keras_l2reg.attach`.
        name: String, the wrapper's name. Defaults to `None`.

    Raises:
        TypeError, ValueError: a bad argument, a wrapped wrapper, or a model with its
            own `train_step`, `test_step` or `compute_loss` (use `attach` for these).

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> wrapped = L2AllWeights(model, l2=0.5)
    >>> len(wrapped.losses), wrapped.l2
    (1, 0.5)

    Reference: Krogh & Hertz, [A Simple Weight Decay Can Improve Generalization](
    https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html),
    NIPS 1991.
    """

    def __init__(
        self,
        model,
        l2=None,
        *,
        regularizer=None,
        biases=False,
        embeddings=False,
        layers=None,
        exclude=None,
        multipliers=None,
        existing="keep",
        name=None,
    ):
        _check_model(model)
        strength, regularizer = _strength_or_regularizer(l2, regularizer)
        rule = {
            "biases": biases,
            "embeddings": embeddings,
            "layers": layers,
            "exclude": exclude,
            "multipliers": multipliers,
            "existing": existing,
        }
        if find_weights(model) or model.built:
            plan_attachment(model, regularizer or L2(strength), **rule)
        # The model casts its own inputs; casting them here too would lose digits.
        super().__init__(name=name, dtype=model.dtype_policy, autocast=False)
        self.wrapped_model = model
        self.loss_split = LossSplit()
        self._strength = None
        if strength is not None:
            self._strength = self.add_weight(
                name="l2",
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(strength),
                trainable=False,
                autocast=False,
            )
            regularizer = L2(self._strength)
        self._hidden = _Hidden(regularizer, rule)
        if find_weights(model) or model.built:
            self._attach()
        self._hidden.is_complete = _keras.is_built_throughout(model)
        self.built = model.built
        self._forward_training = "training" in inspect.signature(model.call).parameters
        if model.compiled:
            self.compile(**_keras.compile_arguments(model))

    def _attach(self):
        hidden, model = self._hidden, self.wrapped_model
        plan = plan_attachment(model, hidden.regularizer, **hidden.rule)
        hidden.attachment = write(model, plan)

    def build(self, input_shape):
        model = self.wrapped_model
        # Without a `build` of its own, a model is built by its first call.
        if not model.built and type(model).build is not keras.Model.build:
            model.build(input_shape)

    def call(self, inputs, training=None):
        kwargs = {"training": training} if self._forward_training else {}
        outputs = self.wrapped_model(inputs, **kwargs)
        if not self._hidden.is_complete:
            # The first call made the last weights; they want their penalty too.
            self._attach()
            self._hidden.is_complete = True
        return outputs

    @property
    def l2(self):
        """The strength of the penalty, on Keras' scale; assign to change it live."""
        self._check_live()
        _keras.sync_state(self)
        return strength_value(self._strength)

    @l2.setter
    def l2(self, value):
        self._check_live()
        if isinstance(value, keras.Variable):
            value = strength_value(check_strength(value, "l2"))
        _keras.sync_state(self)
        self._strength.assign(check_strength(value, "l2"))

    def _check_live(self):
        if self._strength is None:
            raise ValueError(
                "Expected a wrapper with an L2 strength. Received: a wrapper with "
                f"regularizer={self._hidden.regularizer!r}"
            )
        attachment = self._hidden.attachment
        if attachment and attachment is not attachment_of(self.wrapped_model):
            raise ValueError(
                "Expected a wrapper in use. The penalty of its model was since taken "
                "off or over, by `unwrap`, `detach`, `attach` or another wrapper, so "
                "this wrapper's `l2` no longer reaches it."
            )

    @property
    def losses(self):
        """One term per penalized trainable weight, after all other losses."""
        shown = self._hidden.shown_losses if hasattr(self, "_hidden") else None
        return super().losses if shown is None else list(shown)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        others = _keras.losses_of_calls(self)
        penalized = [v for v in self.trainable_weights if v.regularizer is not None]
        penalty = total_penalty(penalized) if penalized else ops.zeros(())
        if self.loss is None and not others:
            data_loss = ops.zeros(())
        else:
            with self._hidden.showing(others):
                data_loss = super().compute_loss(
                    x, y, y_pred, sample_weight, training=training
                )
        replicas, count = _keras.replicas(), _batch_size(x)
        if replicas == 1:
            self.loss_split.update_state(data_loss, penalty, sample_weight=count)
            # Unlike `+`, it adds the float64 of a layer to the float32 of a loss.
            return ops.add(data_loss, penalty)
        # Keras sums the loss over replicas, so each carries its part of the penalty.
        self.loss_split.update_state(data_loss * replicas, penalty, sample_weight=count)
        return ops.add(data_loss, penalty / replicas)

    def unwrap(self, strip=False):
        """The inner model, free of `keras_l2reg`.

        Args:
            strip: Boolean. `False` gives the model stock Keras regularizers of the
                present strength; `True` gives it as it came. Defaults to `False`.

        Returns:
            The inner model; this wrapper's `l2` no longer reaches it.

        Raises:
            ValueError: Keras has no such regularizer; nothing is changed.

        Example:

        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> inner = L2AllWeights(model, l2=0.5).unwrap()
        >>> inner.layers[0].kernel_regularizer.get_config()
        {'l2': 0.5}

        Source: https://keras.io/api/layers/regularizers/
        """
        _keras.sync_state(self)
        model = self.wrapped_model
        if strip:
            if is_attached(model):
                detach(model)
        else:
            settle(model)
            forget(model)
            lost = lost_on_save(model)
            if lost:
                warnings.warn(
                    f"The configuration of {model.name!r} can't carry the penalty of "
                    f"these weights; loading it drops them: {', '.join(lost)}",
                    stacklevel=2,
                )
        drop_trace(model)
        drop_trace(self)
        return model

    def get_config(self):
        slots = attachment_of(self.wrapped_model).slots.values()
        with slots_set(slots):
            model = keras.saving.serialize_keras_object(self.wrapped_model)
        # The wrapper is what is compiled; the inner model need not load its loss.
        model.pop("compile_config", None)
        config = rule_to_config(self.wrapped_model, self._hidden.rule)
        if self._strength is None:
            regularizer = keras.regularizers.serialize(self._hidden.regularizer)
            return {
                **config,
                "name": self.name,
                "model": model,
                "regularizer": regularizer,
            }
        l2 = strength_value(self._strength)
        return {**config, "name": self.name, "model": model, "l2": l2}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = {"exclude": None, **config}  # Version 0.1.0 saved none.
        config["model"] = keras.saving.deserialize_keras_object(
            config["model"], custom_objects=custom_objects
        )
        rule = {key: config.pop(key) for key in (*_RULE, "weight_names")}
        rule = rule_from_config(config["model"], rule, custom_objects)
        return cls(**config, **rule)

    def export(self, *args, **kwargs):
        """Export the inner model, which predicts the same: `keras.Model.export`."""
        return self.wrapped_model.export(*args, **kwargs)

    def summary(self, *args, **kwargs):
        """Print the inner model's summary: `keras.Model.summary`."""
        return self.wrapped_model.summary(*args, **kwargs)

    @property
    def layers(self):
        """The inner model's layers."""
        return self.wrapped_model.layers


def _check_model(model):
    if not isinstance(model, keras.Model):
        raise TypeError(
            "Invalid type for argument `model`. Expected a `keras.Model` instance. "
            f"Received: model={model!r} of type {type(model).__name__}"
        )
    for layer in _keras.all_layers(model):
        if isinstance(layer, L2AllWeights):
            raise ValueError(
                "Expected a model that is not wrapped and holds no wrapper. "
                f"Received: model={model.name!r}, with the wrapper {layer.name!r}"
            )
    overridden = [m for m in _STEPS if _overrides(model, m)]
    if overridden:
        raise ValueError(
            "Expected a model with Keras' own training step, which the wrapper runs "
            f"in its place. Received: model={model.name!r}, which overrides "
            f"{overridden}; use `keras_l2reg.attach(model, ...)`, which works in place"
        )


def _overrides(model, method):
    return getattr(type(model), method) is not getattr(keras.Model, method)


def _strength_or_regularizer(l2, regularizer):
    """Either the number that a live strength starts from, or a fixed regularizer."""
    if l2 is not None and regularizer is not None:
        raise ValueError(
            "Expected either `l2` or `regularizer`, not both. "
            f"Received: l2={l2!r}, regularizer={regularizer!r}"
        )
    if isinstance(l2, keras.Variable):
        raise TypeError(
            "Invalid type for argument `l2`. Expected a float: the wrapper makes a "
            f"live variable of its own. Received: l2={l2!r}"
        )
    if regularizer is None:
        return check_strength(0.01 if l2 is None else l2, "l2"), None
    stock = as_regularizer(regularizer)
    if isinstance(stock, (L2, L2Loss)):
        stock = to_stock(stock)
    if type(stock) is keras.regularizers.L2:
        return check_strength(float(stock.l2), "l2"), None
    return None, stock


def _batch_size(x):
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    return ops.shape(leaves[0])[0] if leaves else 1


def _forwarded(name):
    def get(self):
        return getattr(self.wrapped_model, name)

    return property(get, doc=f"The inner model's `{name}`.")


def _own_or_forwarded(name):
    def get(self):
        # As a layer of another model, the wrapper has tensors of its own there.
        with contextlib.suppress(AttributeError):
            return getattr(super(L2AllWeights, self), name)
        return getattr(self.wrapped_model, name)

    return property(get, doc=f"The inner model's `{name}`.")


for _name in ("input", "output"):
    setattr(L2AllWeights, _name, _own_or_forwarded(_name))

for _name in (
    "inputs",
    "outputs",
    "input_names",
    "output_names",
    "input_shape",
    "output_shape",
):
    setattr(L2AllWeights, _name, _forwarded(_name))


class _Hidden:
    """What a wrapper must remember out of Keras' sight, which tracks lists, dicts."""

    def __init__(self, regularizer, rule):
        self.regularizer = regularizer
        self.rule = rule
        self.attachment = None
        self.is_complete = False
        self.shown_losses = None

    @contextlib.contextmanager
    def showing(self, losses):
        """Within, `wrapper.losses` is `losses`."""
        self.shown_losses = losses
        try:
            yield
        finally:
            self.shown_losses = None
