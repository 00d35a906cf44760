"""audit: what about a model's penalties is not as it seems.

| code                     | severity | what                                           |
|--------------------------|----------|------------------------------------------------|
| never-applied            | error    | set on a built layer: shown, not trained with  |
| constraint-never-applied | error    | the same, of a constraint                      |
| stale-trace              | error    | penalties changed since the step was compiled  |
| half-precision           | error    | the penalty overflows float16                  |
| duplicated               | error    | several terms are one and the same penalty     |
| lost-on-save             | warning  | the config drops the penalty, or exclusions    |
| last-layer-only          | warning  | only the final layer's kernel has a penalty    |
| uncovered                | warning  | some kernels have a penalty, others none       |
| partly-covered           | warning  | kernels that a live strength does not reach    |
| double-decay             | warning  | L2 and the optimizer's decay on one weight     |
| norm-or-bias             | warning  | a bias, scale or shift has a penalty           |
| decays-bias-or-norm      | warning  | the optimizer decays biases, scales or shifts  |
| dominates                | warning  | the penalty outweighs the data (wants a batch) |
| frozen                   | info     | the weight is frozen, its penalty is left out  |
| coupled-adaptive         | info     | L2 with an Adam-like optimizer is no decay     |
| scale-invariant          | info     | a normalization undoes the kernel's scale      |
| no-penalty               | info     | no weight has a penalty                        |

`keras_l2reg.guide` has a page on each: what happens in plain Keras, why, and the way.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3),
...      keras.layers.Dense(2, kernel_regularizer="l2")])
>>> [finding.code for finding in audit(model)]
['last-layer-only']
"""

import threading

import keras

from keras_l2reg import _keras
from keras_l2reg._audit.rules import CHECKS
from keras_l2reg._audit.subject import Finding, Subject
from keras_l2reg._tables import Table
from keras_l2reg._validation import as_number, check_model

_SEVERITIES = ("error", "warning", "info")


class Findings(tuple):
    """The findings of an audit: a tuple of `Finding`, printed as a table.

    >>> print(Findings())
    No findings.
    """

    __slots__ = ()

    def __str__(self):
        return str(self._table())

    __repr__ = __str__

    def _repr_html_(self):
        return self._table()._repr_html_()

    def _table(self):
        return Table(
            columns=["finding", "where", "problem and fix"],
            rows=[
                [
                    f"{finding.code}\n({finding.severity})",
                    _shortened(finding.where),
                    f"{finding.message}\n{finding.fix}",
                ]
                for finding in self
            ],
            empty="No findings.",
            ruled=True,
        )


def _shortened(names, shown=3):
    more = len(names) - shown
    return "\n".join([*names[:shown], *[f"and {more} more"] * (more > 0)])


def audit(model, x=None, y=None, *, max_share=1.0):
    """Find what about a model's penalties is not as it seems; change nothing.

    `dominates` is found where `sum_k regularizer_k(w_k) > max_share * data_loss(x, y)`

    What it can't see: whether the compiled step is stale, on JAX without a batch
    (JAX does not tell which shapes it traced; every batch size up to that of `x` is
    tried) and for a training step that is traced otherwise each time; `add_loss`
    terms of a model that was not called eagerly, without a batch; what follows a
    kernel, in subclassed models.

    Args:
        model: A `keras.Model`, bare or wrapped, built or not, compiled or not.
        x, y: A batch of inputs and targets, as for `fit`: arrays or nests of arrays.
            Defaults to `None`, no batch.
        max_share: Finite float > 0, the share of the data's loss that the penalty
            may reach. Defaults to `1.0`.

    Returns:
        `Findings`, a tuple of `Finding`, the severest first; its `print` is a table.

    Raises:
        TypeError: `model` is no `keras.Model`.
        ValueError: a bad share, or a batch for a model that is not built and
            compiled with a loss.
        RuntimeError: another thread trains or runs the model.

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
    >>> model.layers[0].kernel_regularizer = keras.regularizers.L2(0.01)  # too late
    >>> audit(model)[0].code, audit(model)[0].where
    ('never-applied', ('a/kernel',))

    References: Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
    https://arxiv.org/abs/1711.05101), ICLR 2019; van Laarhoven, [L2 Regularization
    versus Batch and Weight Normalization](https://arxiv.org/abs/1706.05350), 2017.
    """
    _check_arguments(model, x, y, max_share)
    _check_idle(model)
    subject = Subject(model, None if x is None else (x, y), as_number(max_share))
    found = [finding for check in CHECKS if (finding := check(subject))]
    return Findings(sorted(found, key=lambda f: _SEVERITIES.index(f.severity)))


def _check_idle(model):
    """Raise where another thread runs the model; sync it where this thread does."""
    for method, runner, thread in _keras.runs_with(model):
        if thread != threading.get_ident():
            raise RuntimeError(
                "Expected a model that no other thread trains or runs, which the audit "
                f"would disturb. Received: model={model.name!r}, in `{method}` in "
                "another thread. Wait until that has ended, or call `audit` in a "
                "callback, which runs in the same thread"
            )
        _keras.backend.sync_state(runner)


def _check_arguments(model, x, y, max_share):
    check_model(model)
    share = as_number(max_share)
    if share is None or not 0 < share < float("inf"):
        raise ValueError(
            "Invalid value for argument `max_share`. Expected a finite float > 0, "
            "such as 1.0, the penalty's share of the data's loss. "
            f"Received: max_share={max_share!r}"
        )
    if (x is None) != (y is None):
        raise ValueError(
            "Expected both `x` and `y`, a batch of arrays, or neither. Received: "
            f"x of type {type(x).__name__}, y of type {type(y).__name__}; "
            f"{_batch_meant(x)}"
        )
    if x is not None and not (model.built and getattr(model, "loss", None)):
        raise ValueError(
            "Expected a model that is built and compiled with a loss, if there is a "
            f"batch. Received: {model.name!r} with built={model.built}, "
            f"loss={getattr(model, 'loss', None)!r}; call `model.compile(loss=...)` "
            "and the model first, or give no batch"
        )


def _batch_meant(x):
    """How to get at `x` and `y`, where both came as one or only one came."""
    if isinstance(x, keras.utils.PyDataset):
        return "take a batch: x, y = dataset[0]"
    if isinstance(x, (tuple, list)) and len(x) == 2:
        return "give them one by one: audit(model, *batch)"
    if hasattr(x, "__iter__") and not hasattr(x, "shape") and not isinstance(x, dict):
        return "take a batch: x, y = next(iter(dataset))"
    return "give both, as to `fit`"


__all__ = ["Finding", "Findings", "audit"]
