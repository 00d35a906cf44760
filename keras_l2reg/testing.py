"""check_model: the battery that every model passes, also yours.

Each check builds the model anew, does one thing that goes wrong silently elsewhere
(a penalty without effect, lost on save, deaf to the next step, ...) and compares
with NumPy in float64, or with the model as it was before.

>>> def build_model():
...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> check_model(build_model)
>>> [check.__name__ for check in CHECKS][:3]
['check_terms', 'check_step', 'check_wrapper_terms']

After the manner of scikit-learn's `check_estimator`,
https://scikit-learn.org/stable/modules/generated/sklearn.utils.estimator_checks.check_estimator.html
"""

import dataclasses
import difflib
import inspect
import json
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._cli.load_errors import reason_of
from keras_l2reg._persistence import lost_on_save, same_regularizer
from keras_l2reg._selection import select_weights
from keras_l2reg._validation import check_rule
from keras_l2reg.attachment import attach, detach
from keras_l2reg.models import L2AllWeights
from keras_l2reg.weights import find_weights

# With SGD(1.0) and no data loss, a step halves each covered weight.
_L2 = 0.25
_RTOL = 1e-5


def check_model(build_model, inputs=None, *, checks=None, safe_mode=True, **rule):
    """Run every check of `CHECKS` on a model, and report all that fail.

    Classes and functions of your own that are not registered with Keras can be given
    by `keras.saving.custom_object_scope` around the call.

    Args:
        build_model: Function without arguments that returns a new `keras.Model` at
            each call, built or not, compiled or not.
        inputs: Array, or the structure of arrays of shape (batch, ...) that the model
            takes, with a batch of two or more. Defaults to `None`: random ones of the
            model's `inputs`, which a subclassed or unbuilt model does not tell.
        checks: List of functions from `CHECKS`, for instance without those for the
            wrapper where the model has a `train_step` of its own. Defaults to
            `None`, all.
        safe_mode: Boolean, as in `keras.saving.load_model`: `False` restores Python
            lambdas, such as those of `keras.layers.Lambda`. Defaults to `True`.
        **rule: `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, as in
            `keras_l2reg.attach`.

    Raises:
        AssertionError: one or more checks fail. Of each, it names the check, the
            weight, what was expected and what was received; its `__cause__` is an
            `ExceptionGroup` that holds each error with its traceback.
        TypeError: `build_model` is no function or returns no model, an unknown
            argument in `rule`, or an argument of the wrong type.
        ValueError: `build_model` returns the same model again, no `checks`, or no
            `inputs` where they can't be made or with a batch of one.

    Example:

    >>> def build_model():
    ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> check_model(build_model, biases=True)

    Source: `sklearn.utils.estimator_checks.check_estimator`.
    """
    checks = _checked_checks(checks)
    _check_flags(safe_mode, rule)
    models = _two_models(build_model)
    check_rule(models[0], *_flags_and_patterns(rule))
    inputs = _checked_inputs(inputs, models[0])

    def build():
        # Building may take long; the models that were looked at are as good as any.
        return models.pop(0) if models else build_model()

    subject = Subject(build, inputs, rule, safe_mode)
    failures = [failure for check in checks if (failure := _failure(check, subject))]
    if failures:
        message = f"{len(failures)} of {len(checks)} checks failed."
        listed = "".join(f"\n\n{failure}" for failure in failures)
        raise AssertionError(message + listed) from ExceptionGroup(message, failures)


def _failure(check, subject):
    try:
        run_check(check, subject)
    except AssertionError as error:
        return error
    return None


def _checked_checks(checks):
    if checks is None:
        return CHECKS
    if not isinstance(checks, (list, tuple)) or not all(map(callable, checks)):
        hint = "; put it into a list: checks=[...]" if callable(checks) else ""
        raise TypeError(
            "Invalid type for argument `checks`. Expected a list of functions from "
            f"`keras_l2reg.testing.CHECKS`. Received: checks={checks!r}{hint}"
        )
    if not checks:
        raise ValueError(
            "Invalid value for argument `checks`. Expected at least one function from "
            f"`keras_l2reg.testing.CHECKS`. Received: checks={checks!r}; leave it out "
            "for all of them"
        )
    return checks


def _check_flags(safe_mode, rule):
    if not isinstance(safe_mode, bool):
        raise TypeError(
            "Invalid type for argument `safe_mode`. Expected `True`, or `False` to "
            f"restore Python lambdas. Received: safe_mode={safe_mode!r}"
        )
    known = [*inspect.signature(select_weights).parameters][1:]
    for name, value in rule.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise TypeError(
                f"Expected arguments of the rule, of {known}. "
                f"Received: {name}={value!r}{hint}"
            )


def _flags_and_patterns(rule):
    flags = {name: rule.get(name, False) for name in ("biases", "embeddings")}
    return flags, *(rule.get(name) for name in ("layers", "exclude", "multipliers"))


def _two_models(build_model):
    is_model = isinstance(build_model, keras.Model)
    if not callable(build_model) or is_model:
        hint = "; write a function that builds it: `lambda: ...`" if is_model else ""
        raise TypeError(
            "Invalid type for argument `build_model`. Expected a function without "
            f"arguments that returns a new model. Received: {build_model!r}{hint}"
        )
    models = [build_model(), build_model()]
    if not isinstance(models[0], keras.Model):
        raise TypeError(
            "Invalid type for argument `build_model`. Expected a function that returns "
            f"a `keras.Model`. Received: a function that returns {models[0]!r}; end it "
            "with `return model`"
        )
    if models[0] is models[1]:
        raise ValueError(
            "Invalid value for argument `build_model`. Expected a function that "
            "returns a new model at each call. Received: a function that returned "
            f"{models[0].name!r} twice; build the model and its layers within the "
            "function"
        )
    return models


def _checked_inputs(inputs, model):
    if inputs is None:
        try:
            _random_inputs(model)
        except (AttributeError, ValueError):
            raise ValueError(
                "Expected `inputs`, as the model does not tell what it takes before it "
                f"is called. Received: inputs=None, model={model.name!r}; give arrays "
                "of shape (batch, ...), with a batch of two or more"
            ) from None
    elif _batch_size(inputs) < 2:
        raise ValueError(
            "Invalid value for argument `inputs`. Expected a batch of two or more. "
            f"Received: a batch of {_batch_size(inputs)}; repeat it: "
            "np.repeat(inputs, 2, axis=0)"
        )
    return inputs


@dataclasses.dataclass(frozen=True)
class Subject:
    """What a check is run on.

    Args:
        build_model, inputs, rule, safe_mode: as in `check_model`.

    Example:

    >>> run_check(check_terms, Subject(
    ...     lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])))

    Source: `check_model`.
    """

    build_model: Callable
    inputs: object = None
    rule: dict = dataclasses.field(default_factory=dict)
    safe_mode: bool = True

    def data(self, model):
        """The inputs to call `model` with."""
        return _random_inputs(model) if self.inputs is None else self.inputs

    def built(self):
        """A new model, and inputs that it was called with."""
        model = self.build_model()
        x = self.data(model)
        model(x)
        return model, x

    def attached(self):
        """A new model with the penalty attached, and its inputs."""
        model, x = self.built()
        return self.attach(model), x

    def attach(self, model, l2=_L2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attach(model, l2, **self.rule)

    def wrapped(self, wrapper=L2AllWeights):
        """A wrapper around a new model that was called before, and its inputs."""
        model, x = self.built()
        return wrapper(model, _L2, **self.rule), x

    def covered(self, model):
        """`(Weight, multiplier)` of each trainable weight that `attach` would cover."""
        return [
            (w, multiplier)
            for w, multiplier in select_weights(model, **self.rule)
            if w.regularizer is None and _trains(model, w)
        ]


def run_check(check, subject):
    """Run one check; whatever goes wrong becomes an AssertionError that names it.

    >>> def check_nothing(subject):
    ...     raise ValueError("no")
    >>> run_check(check_nothing, Subject(keras.Sequential))
    Traceback (most recent call last):
    AssertionError: check_nothing: ValueError: no
    """
    try:
        check(subject)
    except AssertionError as error:
        raise AssertionError(f"{_name_of(check)}: {error}") from error
    except Exception as error:
        reason = reason_of(error)
        if "`safe_mode=False`" in reason:
            reason += " Here, pass `safe_mode=False` to `check_model`."
        message = f"{_name_of(check)}: {type(error).__name__}: {reason}"
        raise AssertionError(message) from error


def _name_of(check):
    return getattr(check, "__name__", repr(check))


def check_terms(subject):
    """`attach` adds exactly one term per covered trainable weight, of its value."""
    model, _ = subject.built()
    covered = subject.covered(model)
    others = len(model.losses)
    subject.attach(model)
    _expect_equal("len(model.losses)", others + len(covered), len(model.losses))
    _expect_terms(model, covered)


def check_step(subject):
    """Attaching to a compiled, fitted model takes `2 * l2 * w` off at the next step."""
    model, x = subject.built()
    covered = subject.covered(model)
    subject.attach(model, 0.0)
    _compile_without_data_loss(model, x)
    still = _still_without_penalty(model, x, covered)
    subject.attach(model)
    _expect_step(model, x, still)


def check_wrapper_terms(subject):
    """A wrapper around a model as it comes, built or not, has every term."""
    twin, x = subject.built()
    names = {w.name for w, _ in subject.covered(twin)}
    wrapped = L2AllWeights(subject.build_model(), _L2, **subject.rule)
    wrapped(x)
    covered = [
        (weight, multiplier)
        for weight, multiplier in select_weights(wrapped, **subject.rule)
        if _twin_name(weight, wrapped, twin) in names
    ]
    _expect_equal("number of covered weights", len(names), len(covered))
    _expect_terms(wrapped, covered)


def check_live_strength(subject):
    """A wrapper's new `l2` acts on the next step of `fit`, without a new trace."""
    traces = []

    class Counting(L2AllWeights):
        def compute_loss(self, *args, **kwargs):
            traces.append(None)
            return super().compute_loss(*args, **kwargs)

    model, x = subject.built()
    covered = subject.covered(model)
    wrapped = Counting(model, 0.0, **subject.rule)
    _compile_without_data_loss(wrapped, x)
    still = _still_without_penalty(wrapped, x, covered)
    first = len(traces)
    _fit_one_step(wrapped, x)
    second = len(traces)
    wrapped.l2 = _L2
    _expect_step(wrapped, x, still)
    _expect_equal("traces with a new l2", second - first, len(traces) - second)


def check_logs(subject):
    """`data_loss + penalty == loss` in the logs, also with a smaller last batch.

    A model of a fixed batch size, such as a stateful one, has full batches only.
    """
    model, x = subject.built()
    y = _targets(model, x)
    wrapped = L2AllWeights(model, 1e-3, **subject.rule)
    loss = keras.tree.map_structure(lambda _: "mse", y)
    wrapped.compile("sgd", loss, run_eagerly=True)
    batch_size = _batch_size(x) - (not _has_fixed_batch_size(model))
    logs = wrapped.evaluate(x, y, batch_size=batch_size, verbose=0, return_dict=True)
    total = logs["data_loss"] + logs["penalty"]
    _expect_close("data_loss + penalty", logs["loss"], total)
    penalty = sum(_terms(wrapped).values())
    _expect_close("penalty", penalty, logs["penalty"])


def check_wrapper_save(subject):
    """A wrapper's `.keras` file keeps predictions, penalties and `l2`."""
    wrapped, x = subject.wrapped()
    _expect_same(wrapped, _saved_and_loaded(wrapped, subject.safe_mode), x)


def check_wrapper_pickle(subject):
    """A pickled wrapper keeps predictions, penalties and `l2`."""
    wrapped, x = subject.wrapped()
    _expect_same(wrapped, pickle.loads(pickle.dumps(wrapped)), x)


def check_save(subject):
    """An attached model's `.keras` file keeps all that `attach` did not warn of."""
    model, x = subject.attached()
    loaded = _saved_and_loaded(model, subject.safe_mode)
    _expect_carried(model, loaded)
    _expect_same_outputs(model, loaded, x)


def check_from_config(subject):
    """`from_config(get_config())` keeps all that `attach` did not warn of."""
    model, x = subject.attached()
    with _keras.deserializing(subject.safe_mode):
        clone = type(model).from_config(model.get_config())
    clone(x)
    _expect_carried(model, clone)


def check_clone(subject):
    """`keras.models.clone_model` keeps all that `attach` did not warn of."""
    model, x = subject.attached()
    with _keras.deserializing(subject.safe_mode):
        clone = keras.models.clone_model(model)
    clone(x)
    # It copies layer by layer, so it may keep what the model's own config drops.
    _expect_carried(model, clone, exactly=False)


def check_detach(subject):
    """`detach(attach(model))` leaves configs, penalties and weights as they were."""
    model, _ = subject.built()
    before = _state(model)
    after = _state(detach(subject.attach(model)))
    for what, expected in before.items():
        _expect_equal(what, expected, after[what])


def check_freeze(subject):
    """Freezing a layer drops its term at once, unfreezing brings it back."""
    model, _ = subject.attached()
    covered = {w.name: w for w, _ in select_weights(model, **subject.rule)}
    owners = {id(w.layers[-1]): w.layers[-1] for w in covered.values() if w.layers}
    every_other = [
        layer
        for layer in list(owners.values())[::2]
        # Keras' own `trainable` would wake weights that were put to sleep singly.
        if layer.trainable and not layer.non_trainable_weights
    ]
    before = len(model.losses)
    dropped = sum(_trains(model, w) for w in covered.values())
    for layer in every_other:
        layer.trainable = False
    dropped -= sum(_trains(model, w) for w in covered.values())
    _expect_equal("len(model.losses) while frozen", before - dropped, len(model.losses))
    for layer in every_other:
        layer.trainable = True
    _expect_equal("len(model.losses) once unfrozen", before, len(model.losses))


def check_unwrap(subject):
    """`unwrap()` gives the same penalties, said with Keras' own regularizers."""
    wrapped, _ = subject.wrapped()
    expected = _terms(wrapped)
    model = wrapped.unwrap()
    received = _terms(model)
    _expect_equal("penalized weights", sorted(expected), sorted(received))
    for name, value in expected.items():
        _expect_close(f"penalty of {name}", value, received[name])
    for weight in find_weights(model):
        for regularizer in (weight.regularizer, weight.configured_regularizer):
            module = type(regularizer).__module__
            if module.startswith("keras_l2reg"):
                _expect_equal(f"regularizer of {weight.name}", "Keras' own", module)


CHECKS = [
    check_terms,
    check_step,
    check_wrapper_terms,
    check_live_strength,
    check_logs,
    check_wrapper_save,
    check_wrapper_pickle,
    check_save,
    check_from_config,
    check_clone,
    check_detach,
    check_freeze,
    check_unwrap,
]


def _random_inputs(model):
    is_sequential = isinstance(model, keras.Sequential)
    specs = model.inputs[0] if is_sequential else model.input
    return keras.tree.map_structure(_random_input, specs)


def _random_input(spec):
    batch, *sizes = spec.shape
    # Enough for a few strides and windows where a size is left open.
    shape = [batch or 4] + [16 if n is None else n for n in sizes]
    random = np.random.default_rng(0)
    if "int" in spec.dtype or spec.dtype == "bool":
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.uniform(0, 1, shape).astype(spec.dtype)


def _batch_size(x):
    return len(keras.tree.flatten(x)[0])


def _targets(model, x):
    return keras.tree.map_structure(lambda p: np.zeros(p.shape, "float32"), model(x))


def _compile_without_data_loss(model, x):
    # Zero, not left out: a model that was compiled before keeps its old loss then.
    def zero(y_true, y_pred):
        return 0.0 * keras.ops.mean(y_pred, axis=-1)

    loss = keras.tree.map_structure(lambda _: zero, _targets(model, x))
    model.compile(keras.optimizers.SGD(1.0), loss)


def _fit_one_step(model, x):
    with warnings.catch_warnings():
        # Weights that nothing depends on have no gradient.
        warnings.filterwarnings("ignore", "Gradients do not exist")
        model.fit(x, _targets(model, x), batch_size=_batch_size(x), verbose=0)


def _has_fixed_batch_size(model):
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    return bool(_stateful_layers(model)) or any(spec.shape[0] for spec in inputs)


def _stateful_layers(model):
    return [
        layer for layer in _keras.all_layers(model) if getattr(layer, "stateful", False)
    ]


def _outputs_from_the_start(model, x):
    """The outputs of a call before which stateful layers forget earlier calls."""
    for layer in _stateful_layers(model):
        if isinstance(layer, keras.layers.RNN):
            # Its own `reset_state` fails on the nested states of several cells.
            for state in keras.tree.flatten(layer.states or []):
                state.assign(keras.ops.zeros(state.shape, state.dtype))
        elif hasattr(layer, "reset_state") and not _keras.sublayers(layer):
            layer.reset_state()
    return keras.tree.flatten(model(x))


def _saved_and_loaded(model, safe_mode):
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        return keras.models.load_model(path, safe_mode=safe_mode)


def _trains(model, weight):
    return any(v is weight.variable for v in model.trainable_variables)


def _float64(variable):
    return keras.ops.convert_to_numpy(variable).astype("float64")


def _terms(model):
    """Each penalty of `model.losses`, by the name of its weight."""
    names = {id(w.variable): w.name for w in find_weights(model)}
    penalized = [v for v in model.trainable_variables if v.regularizer is not None]
    # Keras puts the weights' penalties behind all other losses, in their order.
    values = model.losses[len(model.losses) - len(penalized) :]
    return {
        names[id(v)]: float(_float64(value))
        for v, value in zip(penalized, values, strict=True)
    }


def _twin_name(weight, model, twin):
    """The name in `twin` of a weight of `model`: layers may be numbered anew."""
    position = [w.name for w in find_weights(model)].index(weight.name)
    return find_weights(twin)[position].name


def _state(model):
    try:
        config = json.dumps(keras.saving.serialize_keras_object(model), default=str)
    except NotImplementedError:
        config = None  # a subclassed model that can't be saved at all
    weights = find_weights(model)
    return {
        "config": config,
        "losses": _terms(model),
        "regularizers in effect": [w.regularizer for w in weights],
        "regularizers of the layers": [w.configured_regularizer for w in weights],
        "weights": [_float64(v).tolist() for v in model.weights],
    }


def _expect_equal(what, expected, received):
    if expected != received:
        raise AssertionError(f"{what}: expected {expected!r}, received {received!r}")


def _expect_close(what, expected, received):
    if not np.allclose(expected, received, rtol=_RTOL, atol=1e-6, equal_nan=True):
        raise AssertionError(f"{what}: expected {expected}, received {received}")


def _expect_terms(model, covered):
    terms = _terms(model)
    for weight, multiplier in covered:
        expected = _L2 * multiplier * np.sum(_float64(weight.variable) ** 2)
        if weight.name not in terms:
            raise AssertionError(
                f"penalty of {weight.name}: expected {expected}, received no term"
            )
        _expect_close(f"penalty of {weight.name}", expected, terms[weight.name])


def _still_without_penalty(model, x, covered):
    """Those weights that a step without penalty and data loss leaves alone.

    Constraints, activity regularizers and spectral normalization move the others.
    """
    before = [_float64(weight.variable) for weight, _ in covered]
    _fit_one_step(model, x)
    return [
        (weight, multiplier)
        for (weight, multiplier), start in zip(covered, before, strict=True)
        if np.array_equal(start, _float64(weight.variable))
    ]


def _expect_step(model, x, covered):
    """One step of SGD(1.0) without a data loss takes `2 * l2 * w` off each weight."""
    expected = [_float64(w.variable) * (1 - 2 * _L2 * m) for w, m in covered]
    _fit_one_step(model, x)
    for (weight, _), value in zip(covered, expected, strict=True):
        _expect_close(f"{weight.name} after a step", value, _float64(weight.variable))


def _expect_same_outputs(model, other, x):
    outputs = _outputs_from_the_start(model, x), _outputs_from_the_start(other, x)
    for expected, received in zip(*outputs, strict=True):
        _expect_close("predictions", _float64(expected), _float64(received))


def _expect_same(wrapped, other, x):
    _expect_equal("l2", wrapped.l2, other.l2)
    _expect_same_outputs(wrapped, other, x)
    expected, received = _terms(wrapped), _terms(other)
    _expect_equal("number of penalties", len(expected), len(received))
    for (name, value), again in zip(expected.items(), received.values(), strict=True):
        # On saving, Keras merges LoRA kernels into their base and starts them anew.
        if "lora_" not in name:
            _expect_close(f"penalty of {name}", value, again)


def _expect_carried(model, other, exactly=True):
    """All that the config carries, and nothing else, is penalized in the other."""
    lost = lost_on_save(model)
    pairs = zip(find_weights(model), find_weights(other), strict=True)
    for weight, again in pairs:
        expected = None if weight.name in lost else weight.regularizer
        if again.is_frozen_lora_base or (expected is None and not exactly):
            continue
        if not same_regularizer(expected, again.regularizer):
            raise AssertionError(
                f"regularizer of {weight.name}: expected {expected}, "
                f"received {again.regularizer}"
            )
