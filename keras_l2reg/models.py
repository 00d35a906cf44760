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

import inspect
import math
import weakref

import keras
import numpy as np
from keras import ops

from keras_l2reg import _keras, _ledger
from keras_l2reg._builtin import builtin_converter, convert_to_builtin
from keras_l2reg._loss_split import SplitLossModel, check_logged_names
from keras_l2reg._persistence import configured, warn_of_builtin, warn_of_lost_lora
from keras_l2reg._serialization import (
    FORMAT,
    Saved,
    configs_without,
    outcome_of,
    rule_from_config,
    rule_to_config,
)
from keras_l2reg._strengths import (
    check_strength,
    strength_value,
    strength_variables,
)
from keras_l2reg._validation import check_number
from keras_l2reg._window import check_inner_model
from keras_l2reg.attachment import (
    as_regularizer,
    check_existing,
    plan_attachment,
    regularizer_for,
    warn_if_left_out,
)
from keras_l2reg.regularizers import L2, L2Loss
from keras_l2reg.weights import find_weights

_RULE = {
    "biases": False,
    "embeddings": False,
    "layers": None,
    "exclude": None,
    "multipliers": None,
    "existing": "keep",
}


@keras.saving.register_keras_serializable(package="keras_l2reg")
class L2AllWeights(SplitLossModel):
    """A model with an L2 penalty on every kernel, the rest as it was.

    `loss = data_loss + penalty`, `penalty = l2 * sum_k multiplier_k * sum(w_k**2)`

    The given model is shared, not copied: train the wrapper, and the model is
    trained. What a user does with the model he does with the wrapper: its public
    attributes and methods are the model's, its weights files are the model's. The
    logs of `fit`, and results as a dict, get `data_loss` and `penalty`.

    Args:
        model: A `keras.Model`, built or not, compiled or not.
        l2: Finite float >= 0, on Keras' scale; live, and saved with the weights.
            `beta * tf.nn.l2_loss` is `l2=beta / 2`. Defaults to `0.01`.
        regularizer: Instead of `l2`, any Keras regularizer, its name or config. An
            `L2`, `L2Loss` or `keras.regularizers.L2` has a live `l2` as well. A
            strength that is a `keras.Variable` stays that variable, which is not
            trained.
        biases, embeddings, layers, exclude, multipliers, existing: Which weights, as
            in `keras_l2reg.attach`.
        name: String, the wrapper's name. Defaults to `None`.

    Raises:
        TypeError, ValueError: a bad argument, a wrapped wrapper, or a model that
            redefines a part of Keras' trainer, such as `train_step`, `compute_loss`
            or `fit` (use `attach` for these).

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> wrapped = L2AllWeights(model, l2=0.5)
    >>> len(wrapped.losses), wrapped.l2
    (1, 0.5)

    Reference: Krogh & Hertz, [A Simple Weight Decay Can Improve Generalization](
    https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html),
    NIPS 1991.
    """

    _is_keras_l2reg_wrapper = True

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
        existing=None,
        name=None,
        _saved=None,
    ):
        check_inner_model(model)
        check_existing(existing)
        if model.compiled:
            check_logged_names(model, **_keras.compile_arguments(model))
        strength, regularizer = _strength_or_regularizer(l2, regularizer)
        rule = {
            "biases": biases,
            "embeddings": embeddings,
            "layers": layers,
            "exclude": exclude,
            "multipliers": multipliers,
            "existing": existing,
        }
        weights, planned = find_weights(model), None
        is_asked = _saved is None or _saved.asks_rule
        if is_asked and (weights or model.built):
            chosen = L2(strength) if regularizer is None else regularizer
            planned = plan_attachment(model, chosen, **rule)
        super().__init__(model, name=name)
        self._strengths = _Strengths()
        if strength is not None:
            regularizer = L2(self._strengths.add_strength(strength))
        else:
            self._strengths.adopt(strength_variables(regularizer))
        self._hidden = _UntrackedState(model, regularizer, rule, _saved)
        self._put(weights, planned)
        if model.compiled:
            self.compile(**_keras.compile_arguments(model))

    @property
    def _strength(self):
        """The variable of a live strength, or `None`."""
        regularizer = self._hidden.regularizer
        strength = regularizer.l2 if type(regularizer) is L2 else None
        return strength if isinstance(strength, keras.Variable) else None

    def _put(self, weights, planned):
        """Put the penalty on the planned weights, in place of what this put before."""
        hidden, model = self._hidden, self.wrapped_model
        if hidden.attachment.is_lifted:
            return
        choices, left_out = planned or ([], [])
        if planned is None and hidden.saved is not None:
            choices = hidden.saved.choices(weights, hidden.is_complete)
        warn_if_left_out(left_out, hidden.rule["existing"])
        earlier = hidden.attachment
        hidden.attachment = _ledger.Attachment(model, by_wrapper=True)
        regularizer_of = regularizer_for(hidden.regularizer)
        for holder in (model, self, *hidden.hosts):
            _ledger.record_model(holder, weights)
        try:
            _ledger.push(hidden.attachment, choices, weights, regularizer_of, [earlier])
        except BaseException:
            hidden.attachment = earlier
            raise
        if hidden.is_complete:
            hidden.saved = None

    def _put_again(self):
        """Put the penalty on the weights that there are by now."""
        hidden, model = self._hidden, self.wrapped_model
        planned = None
        is_asked = hidden.saved is None or hidden.saved.asks_rule
        if is_asked and not hidden.attachment.is_lifted:
            planned = plan_attachment(model, hidden.regularizer, **hidden.rule)
        hidden.is_complete = _keras.is_built_throughout(model)
        self._put(find_weights(model), planned)

    def call(self, *args, **kwargs):
        outputs = super().call(*args, **kwargs)
        hidden = self._hidden
        if not hidden.is_complete:
            # The first call made the last weights; they want their penalty too.
            self._put_again()
            hidden.is_complete = True
        host = _keras.outermost_layer()
        if host not in (None, self) and host not in hidden.hosts:
            hidden.hosts.add(host)
            _ledger.record_model(host, find_weights(self))
        return outputs

    def _change(self, change, *args, **kwargs):
        result = super()._change(change, *args, **kwargs)
        self._put_again()
        return result

    # ------------------------------------------------------------ the live strength

    @property
    def l2(self):
        """The strength of the penalty, on Keras' scale; assign to change it live."""
        self._check_live()
        self._sync_state()
        return strength_value(self._strength)

    @l2.setter
    def l2(self, value):
        self._check_live()
        if isinstance(value, keras.Variable):
            value = strength_value(check_strength(value, "l2"))
        value = _as_kept(check_strength(value, "l2"), self._strength.dtype)
        self._sync_state()
        self._strength.assign(value)
        if _keras.backend.traces_constants:
            self._refresh_constants()

    def _check_live(self):
        if self._strength is None:
            raise ValueError(
                "Expected a wrapper with an L2 strength. Received: a wrapper with "
                f"regularizer={self._hidden.regularizer!r}; change the variable that "
                "it reads its strength from, if it has one, or wrap with `l2=0.01`"
            )
        if not self._hidden.attachment.reaches_a_weight():
            raise ValueError(
                "Expected a wrapper in use. Received: one whose penalty was since "
                "taken off or over, by `unwrap`, `detach`, `attach` or another "
                "wrapper, so that this wrapper's `l2` no longer reaches it. Use the "
                "wrapper that took it over, or wrap the model again: "
                "`L2AllWeights(model, l2)`"
            )

    def _sync_state(self):
        for model in (self, *self._hidden.hosts):
            _keras.backend.sync_state(model)

    def _refresh_constants(self):
        """Let models that do not track the strength compile its new value."""
        for model in self._hidden.attachment.models - {self, *self._hidden.hosts}:
            _keras.reset_compiled_steps(model)

    # --------------------------------------------------------------------- the end

    def unwrap(self, strip=False):
        """The inner model, free of `keras_l2reg`, compiled as the wrapper is.

        Args:
            strip: Boolean. `False` gives the model stock Keras regularizers of the
                present strength; `True` takes the penalty off. Defaults to `False`.

        Returns:
            The inner model; this wrapper's `l2` no longer reaches it. What `attach`,
            other models or other wrappers put on its weights stays.

        Raises:
            ValueError: Keras has no such regularizer; nothing is changed.

        Example:

        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> inner = L2AllWeights(model, l2=0.5).unwrap()
        >>> inner.layers[0].kernel_regularizer.get_config()
        {'l2': 0.5}

        Source: https://keras.io/api/layers/regularizers/
        """
        self._sync_state()
        model, weights = self.wrapped_model, find_weights(self)
        if strip:
            _ledger.lift([self._hidden.attachment])
        else:
            _ledger.keep_for_good(self._hidden.attachment, weights, builtin_converter())
            warn_of_builtin(model, weights)
        if self.compiled:
            model.compile(**_keras.compile_arguments(self))
        return model

    # -------------------------------------------------------------- saved and loaded

    def get_config(self):
        hidden, weights = self._hidden, find_weights(self)
        with configured(configs_without(hidden.attachment, weights)):
            model = keras.saving.serialize_keras_object(self.wrapped_model)
        # The wrapper is what is compiled; the inner model need not load its loss.
        model.pop("compile_config", None)
        outcome = outcome_of(hidden.attachment, weights) if hidden.is_complete else None
        warn_of_lost_lora(self.wrapped_model, outcome or [], weights)
        return {
            "name": self.name,
            "model": model,
            **self._strength_config(),
            "format": FORMAT,
            "rule": rule_to_config(self.wrapped_model, hidden.rule),
            "outcome": outcome,
            "lifted": hidden.attachment.is_lifted,
        }

    def _strength_config(self):
        if self._strength is not None:
            return {"l2": strength_value(self._strength)}
        serialized = keras.regularizers.serialize(self._hidden.regularizer)
        return {"regularizer": serialized}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        saved = Saved(config.pop("outcome", None), config.pop("lifted", False))
        # Format 1 had the rule's arguments beside the others.
        beside = {n: config.pop(n) for n in (*_RULE, "weight_names") if n in config}
        rule = {**_RULE, **beside, **config.pop("rule", {})}
        config.pop("format", None)
        rule = rule_from_config(model, rule, custom_objects)
        return cls(model, **config, **rule, _saved=saved)

    def save_own_variables(self, store):
        if self._strength is not None:
            store["0"] = ops.convert_to_numpy(self._strength)

    def load_own_variables(self, store):
        # A plain model's file has no strength; the present one stays.
        if self._strength is not None and "0" in store.keys():  # noqa: SIM118
            self._strength.assign(store["0"])


# Legacy HDF5 files name classes without their package.
keras.saving.get_custom_objects()["L2AllWeights"] = L2AllWeights


class _Strengths(keras.layers.Layer):
    """Variables that steps read and no optimizer trains, apart from the weights.

    In a layer of their own, since Keras takes a model's own variables for its weights;
    the wrapper saves what is to be saved.
    """

    def __init__(self):
        super().__init__(name="strengths")
        self.built = True

    def add_strength(self, value):
        """The variable of a live strength that starts from `value`."""
        return self.add_weight(
            name="l2",
            shape=(),
            dtype="float32",
            initializer=keras.initializers.Constant(value),
            trainable=False,
            autocast=False,
        )

    def adopt(self, variables):
        """Track what a user's regularizer reads its strength from: it stays live."""
        for variable in variables:
            variable.trainable = False
        self.of_the_user = variables

    def save_own_variables(self, store):
        pass

    def load_own_variables(self, store):
        pass


class _UntrackedState:
    """What a wrapper remembers out of Keras' sight, which tracks lists and dicts."""

    def __init__(self, model, regularizer, rule, saved):
        self.regularizer = regularizer
        self.rule = rule
        self.saved = saved
        self.attachment = _ledger.Attachment(model, by_wrapper=True)
        self.attachment.is_lifted = saved is not None and saved.is_lifted
        self.hosts = weakref.WeakSet()
        self.is_complete = _keras.is_built_throughout(model)


def _strength_or_regularizer(l2, regularizer):
    """Either the number that a live strength starts from, or a user's regularizer."""
    if l2 is not None and regularizer is not None:
        raise ValueError(
            "Expected either `l2` or `regularizer`, not both: a regularizer has its "
            f"own strength. Received: l2={l2!r}, regularizer={regularizer!r}; leave "
            "one of them out"
        )
    if meant := _regularizer_meant(l2):
        raise TypeError(
            "Invalid type for argument `l2`. Expected a float: the wrapper makes a "
            f"live variable of its own. Received: l2={l2!r}; pass it as {meant}"
        )
    if regularizer is None:
        l2 = check_number(0.01 if l2 is None else l2, "l2")
        return _as_kept(l2, "float32"), None
    regularizer = as_regularizer(regularizer)
    is_plain = type(regularizer) in (L2, L2Loss, keras.regularizers.L2)
    if is_plain and not strength_variables(regularizer):
        l2 = float(convert_to_builtin(regularizer).l2)
        return _as_kept(check_number(l2, "l2"), "float32"), None
    return None, regularizer


def _regularizer_meant(l2):
    """How to pass what was given as `l2`, if it should be passed as `regularizer`."""
    if isinstance(l2, keras.Variable):
        return "`regularizer=keras_l2reg.L2(variable)`"
    if isinstance(l2, dict):
        return "`regularizer=config`"
    if inspect.isclass(l2):
        return f"`regularizer={l2.__name__}(...)`"
    if callable(l2):
        return "`regularizer=`"
    try:
        # A name, such as "l1", and no number in quotes.
        known = isinstance(l2, str) and keras.regularizers.get(l2) is not None
    except ValueError:
        known = False
    return f"`regularizer={l2!r}`" if known else ""


def _as_kept(l2, dtype):
    """Return `l2` if a variable of this dtype can keep it."""
    kind = {"float16": np.float16, "float64": np.float64}.get(dtype, np.float32)
    with np.errstate(over="ignore", under="ignore"):
        kept = float(kind(l2))
    if not math.isfinite(kept) or (l2 > 0 and kept == 0):
        raise ValueError(
            f"Invalid value for argument `l2`. Expected 0, or a float that {dtype} can "
            f"hold, in which it is kept. Received: l2={l2}; give 0 for no penalty, or "
            "a strength nearer to 1, such as 0.01"
        )
    return l2
