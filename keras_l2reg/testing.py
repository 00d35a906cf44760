"""Check that penalties work with a model: `check_model`, `parametrize_with_checks`.

Each check builds a new model, does one thing that can go wrong silently (a penalty has
no effect, is lost on save, or is ignored by the next training step) and compares the
result with NumPy in float64, or with the model as it was before.

>>> def build_model():
...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> check_model(build_model)
>>> [check.__name__ for check in CHECKS][:3]
['check_terms', 'check_step', 'check_wrapper_terms']

In a test suite, `parametrize_with_checks` makes a test of each pair of model and check.

References:
    - scikit-learn's [`check_estimator` and `parametrize_with_checks`](
      https://scikit-learn.org/stable/modules/generated/sklearn.utils.estimator_checks.parametrize_with_checks.html)
"""

import collections
import dataclasses
import difflib
import functools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras

from keras_l2reg._testing.case import Case, name_of, run_check
from keras_l2reg._testing.checks import CHECKS
from keras_l2reg._validation import check_rule

if TYPE_CHECKING:
    import pytest

__all__ = ["CHECKS", "Case", "check_model", "parametrize_with_checks"]

Check = Callable[[Case], None]


def check_model(
    build_model: Callable[[], keras.Model],
    inputs: Any = None,
    *,
    checks: Sequence[Check] | None = None,
    safe_mode: bool = True,
    **rule: Any,
) -> None:
    """Run every check of `CHECKS` on a model, and report all that fail.

    Custom classes and functions that are not registered with Keras can be provided by
    calling this within a `keras.saving.custom_object_scope`.

    Args:
        build_model: Function without arguments that returns a new `keras.Model` at
            each call, built or not, compiled or not.
        inputs: Array of shape `(batch, ...)`, or the nested structure of arrays that
            the model takes, with two or more samples. Defaults to `None`: random
            arrays like the model's `inputs`, which a subclassed or unbuilt model
            does not have.
        checks: List of functions from `CHECKS`, for example without those for the
            wrapper if the model has a custom `train_step`. Defaults to `None`, all.
        safe_mode: Boolean, as in `keras.saving.load_model`: `False` restores Python
            lambdas, such as those of `keras.layers.Lambda`. Defaults to `True`.
        **rule: `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, as in
            `keras_l2reg.attach`.

    Raises:
        AssertionError: one or more checks fail. The message names each of them, the
            weight, what was expected and what was received; its `__cause__` is an
            `ExceptionGroup` of the errors with their tracebacks.
        TypeError: `build_model` is not a function or does not return a model, an
            unknown argument in `rule`, or an argument of the wrong type.
        ValueError: `build_model` returns the same model twice, `checks` is empty, or
            `inputs` is missing and can't be generated, or has only one sample.

    Example:

    >>> def build_model():
    ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> check_model(build_model, biases=True)
    """
    checks = _checked_checks(checks)
    case = Case(build_model, inputs, rule, safe_mode)
    models = _two_models(build_model)
    flags = {name: rule.get(name, False) for name in ("biases", "embeddings")}
    names = [rule.get(name) for name in ("layers", "exclude", "multipliers")]
    check_rule(models[0], flags, *names)
    case.data(models[0])

    def build() -> keras.Model:
        # Building may be slow, and these two models are still unchanged.
        return models.pop(0) if models else build_model()

    case = dataclasses.replace(case, build_model=build)
    failures = [failure for check in checks if (failure := _failure(check, case))]
    if failures:
        message = f"{len(failures)} of {len(checks)} checks failed."
        listed = "".join(f"\n\n{failure}" for failure in failures)
        raise AssertionError(message + listed) from ExceptionGroup(message, failures)


def _failure(check: Check, case: Case) -> AssertionError | None:
    try:
        run_check(check, case)
    except AssertionError as error:
        return error
    return None


def _checked_checks(checks: Any) -> Sequence[Check]:
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


def _two_models(build_model: Callable[[], Any]) -> list[keras.Model]:
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


def parametrize_with_checks(
    models: Sequence[Callable[[], keras.Model] | Case],
    *,
    checks: Sequence[Check] | None = None,
    expected_failures: Mapping[str, str | Mapping[str, str]] | None = None,
) -> "pytest.MarkDecorator":
    """Parametrize a test with every pair of a model and a check; needs pytest.

    The test function takes `model` and `check`, and calls `check(model)`. The test id
    names both: `build_dense-check_terms`.

    Args:
        models: List of functions without arguments that each return a new
            `keras.Model`, or of `Case`, to pass inputs and arguments of the rule as
            well.
        checks: List of functions from `CHECKS`. Defaults to `None`, all.
        expected_failures: Dict from the name of a check to the reason why it fails,
            for all models; or from the name of a model to such a dict. These tests are
            marked `xfail(strict=True)`, so that they fail once the check passes.
            Defaults to `None`, none.

    Returns:
        A `pytest.mark.parametrize`.

    Raises:
        ImportError: pytest is not installed.
        TypeError, ValueError: an invalid argument, or a name in `expected_failures`
            that is not a check or a model.

    Example:

    >>> def build_dense():
    ...     return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> def build_lstm():
    ...     return keras.Sequential([keras.layers.LSTM(3)])
    >>> @parametrize_with_checks(
    ...     [build_dense, Case(build_lstm, keras.ops.ones((2, 5, 4)))],
    ...     expected_failures={"build_lstm": {"check_clone": "not cloned yet"}})
    ... def test_l2_penalty(model, check):
    ...     check(model)
    """
    pytest = _import_pytest()
    named_checks = {name_of(check): check for check in _checked_checks(checks)}
    cases = _cases_by_name(models)
    reasons = _reasons(expected_failures or {}, cases, named_checks)
    pairs = []
    for model, case in cases.items():
        for name, check in named_checks.items():
            marks = ()
            if reason := reasons.get((model, name)):
                marks = pytest.mark.xfail(
                    reason=reason, strict=True, raises=AssertionError
                )
            run = functools.partial(run_check, check)
            pairs.append(pytest.param(case, run, marks=marks, id=f"{model}-{name}"))
    return pytest.mark.parametrize(("model", "check"), pairs)


def _import_pytest() -> Any:
    try:
        import pytest
    except ImportError as error:
        raise ImportError(
            "`parametrize_with_checks` needs pytest, which is not installed: "
            "`pip install pytest`. `check_model` works without it"
        ) from error
    return pytest


def _cases_by_name(models: Any) -> dict[str, Case]:
    """Each model as a `Case`, by the name of its function; duplicates are numbered."""
    if not isinstance(models, (list, tuple)) or not models:
        raise TypeError(
            "Invalid type for argument `models`. Expected a list of functions that "
            f"each return a new model, or of `Case`. Received: models={models!r}"
        )
    cases: dict[str, Case] = {}
    repeats: collections.Counter[str] = collections.Counter()
    for model in models:
        case = model if isinstance(model, Case) else Case(model)
        name = getattr(case.build_model, "__name__", "model").strip("<>")
        number = repeats[name]
        repeats[name] += 1
        cases[f"{name}_{number}" if number else name] = case
    return cases


def _reasons(
    expected_failures: Mapping[str, str | Mapping[str, str]],
    models: Collection[str],
    checks: Collection[str],
) -> dict[tuple[str, str], str]:
    """The reason of each expected failure, by the names of its model and check."""
    reasons = {}
    for name, value in expected_failures.items():
        if isinstance(value, str):
            names, of_checks = models, {name: value}
        else:
            _check_is_known(name, models, "model")
            names, of_checks = [name], value
        for check, reason in of_checks.items():
            _check_is_known(check, checks, "check")
            reasons |= {(model, check): reason for model in names}
    return reasons


def _check_is_known(name: str, known: Collection[str], what: str) -> None:
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Invalid value for argument `expected_failures`. Expected the name of a "
            f"{what}, one of {list(known)}. Received: {name!r}{hint}"
        )
