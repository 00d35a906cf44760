"""`Case`: a model to check; `run_check` runs a check on it."""

import dataclasses
import difflib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_l2reg._load_errors import reason_of
from keras_l2reg._plan import RegularizerLike
from keras_l2reg._rule import Rule
from keras_l2reg._selection import select_weights
from keras_l2reg.attachment import attach
from keras_l2reg.models import L2AllWeights
from keras_l2reg.weights import Weight

# With SGD(1.0) and no data loss, a step halves each covered weight.
STRENGTH = 0.25


@dataclasses.dataclass(frozen=True)
class Case:
    """A model to check: how to build it, what to feed it, which weights to cover.

    Args:
        build_model: Function without arguments that returns a new `keras.Model` at
            each call, built or not, compiled or not.
        inputs: Array of shape `(batch, ...)`, or the nested structure of arrays that
            the model takes, with two or more samples. Defaults to `None`: random
            arrays like the model's `inputs`, which a subclassed or unbuilt model
            does not have.
        rule: Mapping of `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, as
            in `keras_l2reg.attach`. Defaults to none of them.
        safe_mode: Boolean, as in `keras.saving.load_model`: `False` restores Python
            lambdas, such as those of `keras.layers.Lambda`. Defaults to `True`.

    Raises:
        TypeError: `build_model` is not a function, `safe_mode` is not a boolean, or
            `rule` has an unknown argument.
        ValueError: `inputs` has only one sample.

    Example:

    >>> Case(lambda: keras.Sequential([keras.layers.Dense(2)]), np.ones((2, 4))).rule
    {}
    """

    build_model: Callable[[], keras.Model]
    inputs: Any = None
    rule: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    safe_mode: bool = True

    def __post_init__(self):
        _check_build_model(self.build_model)
        _check_safe_mode(self.safe_mode)
        _check_names(self.rule)
        if self.inputs is not None and batch_size(self.inputs) < 2:
            raise ValueError(
                "Invalid value for argument `inputs`. Expected at least two samples. "
                f"Received: {batch_size(self.inputs)} sample(s); repeat them: "
                "np.repeat(inputs, 2, axis=0)"
            )

    def data(self, model: keras.Model) -> Any:
        """The inputs for a call of `model`."""
        if self.inputs is not None:
            return self.inputs
        try:
            return _random_inputs(model)
        except (AttributeError, ValueError):
            raise ValueError(
                "Expected `inputs`, since the shapes of the model's inputs are unknown "
                f"before it is called. Received: inputs=None, model={model.name!r}; "
                "pass arrays of shape (batch, ...), with at least two samples"
            ) from None

    def built(self) -> tuple[keras.Model, Any]:
        """A new model that was called once, and its inputs."""
        model = self.build_model()
        x = self.data(model)
        model(x)
        return model, x

    def attached(self) -> tuple[keras.Model, Any]:
        """A new model with the penalty attached, and its inputs."""
        model, x = self.built()
        return self.attach(model), x

    def attach(
        self, model: keras.Model, regularizer: RegularizerLike = STRENGTH
    ) -> keras.Model:
        """Attach the penalty, without warnings."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attach(model, regularizer, **self.rule)

    def wrapped(self) -> tuple[L2AllWeights, Any]:
        """A wrapper around a new model that was called once, and its inputs."""
        model, x = self.built()
        return L2AllWeights(model, STRENGTH, **self.rule), x

    def covered(self, model: keras.Model) -> list[tuple[Weight, float]]:
        """`(Weight, multiplier)` of each trainable weight that `attach` would cover."""
        return [
            (w, multiplier)
            for w, multiplier in select_weights(model, **self.rule)
            if w.regularizer is None and trains(model, w)
        ]


def run_check(check: Callable[[Case], None], case: Case) -> None:
    """Run one check; any error becomes an AssertionError that names the check.

    >>> def check_nothing(case):
    ...     raise ValueError("no")
    >>> run_check(check_nothing, Case(keras.Sequential))
    Traceback (most recent call last):
    AssertionError: check_nothing: ValueError: no
    """
    name = name_of(check)
    try:
        check(case)
    except AssertionError as error:
        raise AssertionError(f"{name}: {error}") from error
    except Exception as error:
        reason = reason_of(error)
        if "`safe_mode=False`" in reason:
            reason += " Here, pass `safe_mode=False` to `check_model` or `Case`."
        message = f"{name}: {type(error).__name__}: {reason}"
        raise AssertionError(message) from error


def name_of(check: Callable[[Case], None]) -> str:
    """The name of a check in messages and test ids."""
    return getattr(check, "__name__", repr(check))


def trains(model: keras.Model, weight: Weight) -> bool:
    """Whether the weight is among the model's trainable variables."""
    return any(v is weight.variable for v in model.trainable_variables)


def batch_size(x: Any) -> int:
    """The number of samples in a nested structure of arrays."""
    return len(keras.tree.flatten(x)[0])


def _check_build_model(build_model: Any) -> None:
    is_model = isinstance(build_model, keras.Model)
    if not callable(build_model) or is_model:
        hint = "; write a function that builds it: `lambda: ...`" if is_model else ""
        raise TypeError(
            "Invalid type for argument `build_model`. Expected a function without "
            f"arguments that returns a new model. Received: {build_model!r}{hint}"
        )


def _check_safe_mode(safe_mode: Any) -> None:
    if not isinstance(safe_mode, bool):
        raise TypeError(
            "Invalid type for argument `safe_mode`. Expected `True`, or `False` to "
            f"restore Python lambdas. Received: safe_mode={safe_mode!r}"
        )


def _check_names(rule: Mapping[str, Any]) -> None:
    known = [*Rule.__annotations__]
    for name, value in rule.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean `{close[0]}`?" if close else ""
            raise TypeError(
                f"Expected arguments of the rule: {known}. "
                f"Received: {name}={value!r}{hint}"
            )


def _random_inputs(model: keras.Model) -> Any:
    is_sequential = isinstance(model, keras.Sequential)
    specs = model.inputs[0] if is_sequential else model.input
    return keras.tree.map_structure(_random_input, specs)


def _random_input(spec: keras.KerasTensor) -> np.ndarray:
    batch, *sizes = spec.shape
    # Unknown sizes are large enough for a few strides and windows.
    shape = [batch or 4] + [16 if n is None else n for n in sizes]
    random = np.random.default_rng(0)
    if "int" in spec.dtype or spec.dtype == "bool":
        return random.integers(0, 2, shape).astype(spec.dtype)
    return random.uniform(0, 1, shape).astype(spec.dtype)
