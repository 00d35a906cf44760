"""`audit`: detect common mistakes in a model's weight regularization.

`keras_l2reg._audit.rules` lists what it looks for.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3),
...      keras.layers.Dense(2, kernel_regularizer="l2")])
>>> [finding.code for finding in audit(model)]
['last-layer-only']
"""

import threading
from typing import Any, get_args

import keras

from keras_l2reg import _keras
from keras_l2reg._audit.facts import ModelFacts
from keras_l2reg._audit.findings import Finding, Findings, Severity
from keras_l2reg._audit.rules import RULES
from keras_l2reg._validation import as_number, check_is_model

_SEVERITIES = get_args(Severity)


def audit(
    model: keras.Model, x: Any = None, y: Any = None, *, max_share: float = 1.0
) -> Findings:
    """Detect common mistakes in a model's weight regularization.

    The model is not changed. Some mistakes are found only with a batch:
    `penalty > max_share * data_loss(x, y)` (code `dominates`), identical `add_loss`
    terms of a model that was not called eagerly and, on JAX, a compiled step that no
    longer matches the model.

    Some mistakes are not found: on JAX, a stale step that was compiled for batches
    larger than `x`; a stale step whose traces differ from each other; in subclassed
    models, a normalization that follows a kernel.

    Args:
        model: A `keras.Model`, wrapped or bare, built or not, compiled or not.
        x: A batch of inputs, as for `fit`: an array or a nested structure of arrays.
            Defaults to `None`, no batch.
        y: The targets of the batch, likewise. Defaults to `None`, no batch.
        max_share: Finite float > 0, the largest ratio of the penalty to the data
            loss that is not reported. Defaults to `1.0`.

    Returns:
        `Findings`, a tuple of `Finding`, most severe first. It prints as a table.

    Raises:
        TypeError: `model` is not a `keras.Model`.
        ValueError: `max_share` is not a finite float > 0; or there is a batch, but
            the model is not built or not compiled with a loss.
        RuntimeError: Another thread is training or running the model.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> model.layers[0].kernel_regularizer = keras.regularizers.L2(0.01)  # too late
    >>> audit(model)[0].code, audit(model)[0].where
    ('never-applied', ('a/kernel',))

    References:
        - Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
          https://arxiv.org/abs/1711.05101), ICLR 2019.
        - van Laarhoven, [L2 Regularization versus Batch and Weight Normalization](
          https://arxiv.org/abs/1706.05350), 2017.
    """
    check_is_model(model)
    share = _check_share(max_share)
    _check_batch(model, x, y)
    _check_idle(model)
    facts = ModelFacts(model, None if x is None else (x, y), share)
    found = [finding for rule in RULES if (finding := rule.check(facts))]
    return Findings(sorted(found, key=lambda f: _SEVERITIES.index(f.severity)))


def _check_share(max_share: float) -> float:
    share = as_number(max_share)
    if share is None or not 0 < share < float("inf"):
        raise ValueError(
            "Invalid value for argument `max_share`. Expected a finite float > 0, "
            "such as 1.0: the largest ratio of the penalty to the data loss that is "
            f"not reported. Received: max_share={max_share!r}"
        )
    return share


def _check_batch(model: keras.Model, x: Any, y: Any) -> None:
    if (x is None) != (y is None):
        raise ValueError(
            "Expected both `x` and `y`, a batch of arrays, or neither. Received: "
            f"x of type {type(x).__name__}, y of type {type(y).__name__}; "
            f"{_how_to_pass_a_batch(x)}"
        )
    if x is not None and not (model.built and getattr(model, "loss", None)):
        raise ValueError(
            "Expected a model that is built and compiled with a loss, since a batch "
            f"is given. Received: {model.name!r} with built={model.built}, "
            f"loss={getattr(model, 'loss', None)!r}; call `model.compile(loss=...)` "
            "and the model first, or call `audit` without a batch"
        )


def _how_to_pass_a_batch(x: Any) -> str:
    """How to get `x` and `y`, if both were passed as one or one is missing."""
    if isinstance(x, keras.utils.PyDataset):
        return "take a batch: x, y = dataset[0]"
    if isinstance(x, (tuple, list)) and len(x) == 2:
        return "give them separately: audit(model, *batch)"
    if hasattr(x, "__iter__") and not hasattr(x, "shape") and not isinstance(x, dict):
        return "take a batch: x, y = next(iter(dataset))"
    return "give both, as to `fit`"


def _check_idle(model: keras.Model) -> None:
    """Raise if another thread runs the model; sync its state if this thread runs it."""
    for method, runner, thread in _keras.runs_with(model):
        if thread != threading.get_ident():
            raise RuntimeError(
                "Expected a model that no other thread is training or running, as the "
                f"audit would interfere. Received: model={model.name!r}, in `{method}` "
                "in another thread. Wait until that has finished, or call `audit` in a "
                "callback, which runs in the same thread"
            )
        _keras.backend.sync_state(runner)


__all__ = ["Finding", "Findings", "audit"]
