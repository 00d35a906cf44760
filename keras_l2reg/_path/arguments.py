"""Check the arguments of `l2_path`, before anything is changed.

>>> checked_strengths([0.1, 0.0, 1.0])
[1.0, 0.1, 0.0]
"""

import concurrent.futures
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import keras

from keras_l2reg._path.grid import L2Grid
from keras_l2reg._validation import (
    as_number,
    check_integer,
    check_is_model,
    check_number,
    is_iterable,
)
from keras_l2reg.attachment import is_attached
from keras_l2reg.models import L2AllWeights

# Arguments of `fit` that `l2_path` does not support, and what to pass instead.
_UNSUPPORTED = {
    "validation_split": (
        "all strengths are compared on the same `validation_data`, or by `cv=5`; split "
        "the data yourself, and shuffle them first if sorted: with "
        "n = int(len(x) * 0.8), "
        "l2_path(model, x[:n], y[:n], validation_data=(x[n:], y[n:]))"
    ),
    "initial_epoch": "each run starts at epoch 0; set its length with `epochs`",
}

# Arguments of `l2_path` that `fit` does not have, to suggest for misspelled ones; the
# signature itself is in a module that imports this one.
PATH_ARGUMENTS = {
    "l2",
    "cv",
    "l1_ratio",
    "strength",
    "warm",
    "repeats",
    "new_starts",
    "seed",
    "monitor",
    "mode",
    "restore_best_weights",
    "together",
    "executor",
}


def check_model(model: Any, strength: str, varies_l1: bool) -> None:
    """Raise an error unless `model` is a compiled model whose strengths can be set."""
    check_is_model(model)
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            "Expected a compiled model: call `model.compile(...)` first. "
            f"Received: model={model.name!r}"
        )
    if isinstance(model, L2AllWeights):
        model._require_strength(strength)
        if varies_l1:
            model._require_strength("l1")
    elif is_attached(model):
        raise ValueError(
            "Expected an `L2AllWeights`, or a model with nothing attached. Received: "
            f"model={model.name!r}, which has a penalty of `attach` or of a wrapper; "
            "pass the wrapper, or call `detach` first"
        )


# ------------------------------------------------------------------------ data


def check_data(
    x: Any, y: Any, sample_weight: Any, validation_data: Any, cv: Any
) -> None:
    """Raise an error if data are missing or empty, or can be read only once."""
    if x is None:
        raise TypeError(
            "Expected training data. Received: x=None; pass arrays `x` and `y`, a "
            "`keras.utils.PyDataset` or a `tf.data.Dataset`"
        )
    if validation_data is None and cv is None:
        raise ValueError(
            "Expected `validation_data` or `cv`: on the training data, the weakest "
            "strength always looks best. Received: validation_data=None, cv=None; pass "
            "(x_val, y_val) or a dataset, or cv=5 to hold out each fifth of the data"
        )
    if validation_data is not None and cv is not None:
        raise ValueError(
            "Expected either `validation_data` or `cv`. Received: both; leave out "
            "`cv`, or add the validation data to `x` and `y`"
        )
    _check_samples("the training data `x`, `y`, `sample_weight`", x, y, sample_weight)
    if validation_data is not None:
        _check_validation_data(validation_data)


def _check_validation_data(data: Any) -> None:
    parts = data if isinstance(data, (tuple, list)) else (data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            "Invalid value for argument `validation_data`. Expected (x_val, y_val), "
            "(x_val, y_val, sample_weight) or a dataset. "
            f"Received: a {type(data).__name__} of {len(parts)} parts"
        )
    _check_samples("`validation_data`", *parts)


def _check_samples(name: str, *parts: Any) -> None:
    """Raise an error if there is no data to train or validate on."""
    x = parts[0]
    if not keras.tree.is_nested(x) and not hasattr(x, "shape"):
        _check_batches(name, x)
        return
    leaves = [leaf for leaf in keras.tree.flatten(parts) if hasattr(leaf, "shape")]
    shapes = [tuple(leaf.shape) for leaf in leaves]
    sizes = {shape[0] for shape in shapes if shape}
    if 0 in sizes or not keras.tree.flatten(x):
        raise ValueError(
            f"Expected at least one sample in {name}. Received: arrays of the shapes "
            f"{shapes}; check how the data were loaded, filtered or split"
        )
    if len(sizes) > 1:
        raise ValueError(
            f"Expected the same number of samples in each array of {name}. Received: "
            f"arrays of the shapes {shapes}; check how they were filtered or split"
        )


def _check_batches(name: str, data: Any) -> None:
    if hasattr(data, "__next__"):
        raise TypeError(
            f"Expected data in {name} that can be read once for each strength. "
            f"Received: a {type(data).__name__}, which can be read only once; use "
            "arrays, a `keras.utils.PyDataset` or a `tf.data.Dataset`"
        )
    if isinstance(data, keras.utils.PyDataset):
        is_empty = data.num_batches == 0
    elif not hasattr(data, "__iter__"):
        raise TypeError(
            "Expected arrays, a `keras.utils.PyDataset` or a `tf.data.Dataset` as "
            f"{name}. Received: {data!r} of type {type(data).__name__}; convert "
            "lists and tables with `np.asarray`"
        )
    else:
        try:
            is_empty = len(data) == 0
        except TypeError:
            # The length is unknown, such as that of a filtered dataset.
            is_empty = next(iter(data), None) is None
    if is_empty:
        raise ValueError(
            f"Expected at least one batch in {name}. Received: an empty "
            f"{type(data).__name__}; check how the data were loaded, filtered or "
            "batched (`drop_remainder=True` drops a partial batch)"
        )


# -------------------------------------------------------------------- strengths


def checked_strengths(l2: Any) -> L2Grid | list[float]:
    """The distinct strengths from strong to weak; or the `L2Grid` that was given."""
    if isinstance(l2, L2Grid):
        return l2
    if not is_iterable(l2):
        raise TypeError(
            "Invalid type for argument `l2`. Expected an iterable of floats, such as "
            "[0.1, 0.01, 0.0], or a grid from the data, such as `L2Grid(count=12)`. "
            f"Received: l2={l2!r}{_strengths_hint(l2)}"
        )
    strengths = {check_number(value, "l2") for value in l2}
    if not strengths:
        raise ValueError(
            "Invalid value for argument `l2`. Expected at least one strength. "
            f"Received: l2={l2!r}; leave out `l2` for a grid from the data"
        )
    return sorted(strengths, reverse=True)


def _strengths_hint(l2: Any) -> str:
    number = as_number(l2)
    if l2 is None:
        return "; leave out `l2` for a grid from the data"
    return "" if number is None else f"; for one strength, write l2=[{number:g}]"


def check_strength_name(strength: Any, varies_l1: bool) -> None:
    """Raise a ValueError unless `strength` names one that a path can vary."""
    if strength not in ("l2", "weight_decay"):
        raise ValueError(
            "Invalid value for argument `strength`. Expected 'l2' or 'weight_decay'. "
            f"Received: strength={strength!r}"
        )
    if strength != "l2" and varies_l1:
        raise ValueError(
            "Expected either strength='weight_decay' or `l1_ratio`: weight decay has "
            "no L1. Received: both; leave one of them out"
        )


def checked_ratios(l1_ratio: Any) -> list[float] | list[None]:
    """The distinct ratios in rising order; `[None]` if all are 0.

    >>> checked_ratios([0.5, 0, 0.5]), checked_ratios(0.0)
    ([0.0, 0.5], [None])
    """
    given = [*l1_ratio] if is_iterable(l1_ratio) else [l1_ratio]
    expected = "a float in [0, 1], or a list of these"
    ratios = sorted({check_number(ratio, "l1_ratio", expected) for ratio in given})
    if not ratios or ratios[-1] > 1:
        raise ValueError(
            f"Invalid value for argument `l1_ratio`. Expected {expected}, the shares "
            f"of L1 in a strength. Received: l1_ratio={l1_ratio!r}"
        )
    return ratios if ratios[-1] > 0 else [None]


# -------------------------------------------------------------- the other arguments


def check_integers(**integers: Any) -> None:
    """Raise an error unless all are integers, >= 0 for `seed` and >= 1 for others."""
    for name, value in integers.items():
        check_integer(value, name, least=0 if name == "seed" else 1)


def check_fit_arguments(given: Mapping[str, Any]) -> None:
    """Raise an error if an argument for `fit` is unknown or not supported."""
    for name, instead in _UNSUPPORTED.items():
        if name in given:
            raise TypeError(
                f"Expected arguments of `fit` without `{name}`: {instead}. "
                f"Received: {name}={given[name]!r}"
            )
    of_fit = {*inspect.signature(keras.Model.fit).parameters} - {"self", *_UNSUPPORTED}
    known = of_fit | PATH_ARGUMENTS
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise TypeError(
                "Expected arguments of `l2_path` or of `keras.Model.fit`. "
                f"Received: {name}={given[name]!r}"
                + (f"; did you mean `{close[0]}`?" if close else "")
            )
    weights = given.get("sample_weight"), given.get("class_weight")
    if all(weight is not None for weight in weights):
        raise ValueError(
            "Expected either `sample_weight` or `class_weight`, as in `fit`. Received: "
            "both; multiply the sample weights by the class weights"
        )


def check_executor(executor: Any) -> None:
    """Raise a TypeError unless `executor` is an executor or `None`."""
    if not isinstance(executor, (concurrent.futures.Executor, type(None))):
        raise TypeError(
            "Invalid type for argument `executor`. Expected a "
            "`concurrent.futures.Executor`; for Dask, `client.get_executor()`. "
            f"Received: executor={executor!r} of type {type(executor).__name__}"
        )


def checked_mode(monitor: Any, mode: Any) -> Literal["min", "max"]:
    """`mode`, with `None` resolved: `"min"` for a loss."""
    if not isinstance(monitor, str):
        raise TypeError(
            "Invalid type for argument `monitor`. Expected a string, the name of a "
            f"metric such as 'val_data_loss'. Received: monitor={monitor!r}"
        )
    if mode is None and monitor.endswith("loss"):
        return "min"
    if mode not in ("min", "max"):
        raise ValueError(
            "Invalid value for argument `mode`. Expected 'min' or 'max' for a metric "
            "that is not a loss, such as mode='max' for an accuracy. "
            f"Received: mode={mode!r}, monitor={monitor!r}"
        )
    return mode


def check_monitor(monitor: str, names: Iterable[str]) -> None:
    """Raise a ValueError unless `monitor` is the name of a logged metric."""
    if monitor not in names:
        raise ValueError(
            "Invalid value for argument `monitor`. Expected one of "
            f"{sorted(names)}. Received: {monitor!r}; pass other metrics to `compile`, "
            "or add them to the logs with a callback"
        )
