"""The arguments of `l2_path`, checked before anything is changed.

>>> checked_strengths([0.1, 0.0, 1.0])
[1.0, 0.1, 0.0]
"""

import concurrent.futures
import difflib
import inspect
import math

import keras

from keras_l2reg._validation import as_number, check_integer, check_number, number_meant
from keras_l2reg._validation import check_model as check_is_model
from keras_l2reg.attachment import is_attached
from keras_l2reg.models import L2AllWeights

# What `fit` takes and a path can't, with what to give instead.
_REFUSED = {
    "validation_split": (
        "all strengths are compared on the same `validation_data`; split the data "
        "yourself, shuffled before if they are sorted: with n = int(len(x) * 0.8), "
        "l2_path(model, x[:n], y[:n], validation_data=(x[n:], y[n:]))"
    ),
    "initial_epoch": "each run begins at epoch 0; set its length by `epochs`",
}


def check_model(model):
    check_is_model(model)
    if not model.compiled or model.optimizer is None:
        raise ValueError(
            "Expected a compiled model: call `model.compile(...)` first. "
            f"Received: model={model.name!r}"
        )
    if isinstance(model, L2AllWeights):
        model.l2  # noqa: B018 - raises where the wrapper has no live strength
    elif is_attached(model):
        raise ValueError(
            "Expected an `L2AllWeights`, or a model with nothing attached. Received: "
            f"model={model.name!r}, which `attach` or a wrapper put a penalty on; "
            "give the wrapper, or call `detach` first"
        )


# ------------------------------------------------------------------------ data


def check_data(x, y, sample_weight, validation_data):
    if x is None:
        raise TypeError(
            "Expected training data. Received: x=None; give arrays `x` and `y`, a "
            "`keras.utils.PyDataset` or a `tf.data.Dataset`"
        )
    if validation_data is None:
        raise ValueError(
            "Expected `validation_data`: by the training data alone, the weakest "
            "strength is always the best. Received: validation_data=None; give "
            "(x_val, y_val) or a data set"
        )
    is_tuple = isinstance(validation_data, (tuple, list))
    parts = validation_data if is_tuple else (validation_data,)
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            "Invalid value for argument `validation_data`. Expected (x_val, y_val), "
            "(x_val, y_val, sample_weight) or a data set. "
            f"Received: a {type(validation_data).__name__} of {len(parts)} parts"
        )
    _check_samples("the training data `x`, `y`, `sample_weight`", x, y, sample_weight)
    _check_samples("`validation_data`", *parts)


def _check_samples(name, *parts):
    """Raise an error if there is nothing to train or to validate on."""
    x = parts[0]
    if not keras.tree.is_nested(x) and not hasattr(x, "shape"):
        _check_batches(name, x)
        return
    leaves = [leaf for leaf in keras.tree.flatten(parts) if hasattr(leaf, "shape")]
    shapes = [tuple(leaf.shape) for leaf in leaves]
    sizes = {shape[0] for shape in shapes if shape}
    if 0 in sizes or not keras.tree.flatten(x):
        raise ValueError(
            f"Expected at least one sample in {name}. Received arrays of the shapes "
            f"{shapes}; look at how the data were loaded, filtered or split"
        )
    if len(sizes) > 1:
        raise ValueError(
            f"Expected the same number of samples in each array of {name}. Received "
            f"arrays of the shapes {shapes}; look at how they were filtered or split"
        )


def _check_batches(name, data):
    if hasattr(data, "__next__"):
        raise TypeError(
            "Expected data that can be read again for each strength. Received, in "
            f"{name}, a {type(data).__name__}, which runs only once; use arrays, a "
            "`keras.utils.PyDataset` or a `tf.data.Dataset`"
        )
    if isinstance(data, keras.utils.PyDataset):
        is_empty = data.num_batches == 0
    elif not hasattr(data, "__iter__"):
        raise TypeError(
            "Expected arrays, a `keras.utils.PyDataset` or a `tf.data.Dataset` as "
            f"{name}. Received: {data!r} of type {type(data).__name__}; `np.asarray` "
            "makes an array of lists and tables"
        )
    else:
        try:
            is_empty = len(data) == 0
        except TypeError:
            # Neither known beforehand nor infinite, such as a filtered data set.
            is_empty = next(iter(data), None) is None
    if is_empty:
        raise ValueError(
            f"Expected at least one batch in {name}. Received: an empty "
            f"{type(data).__name__}; look at how the data were loaded, filtered or "
            "batched (`drop_remainder=True` drops a batch that is not full)"
        )


# ----------------------------------------------------------------- what is tried


def checked_strengths(l2, count=12, span=1e4):
    """The strengths from strong to weak, each once; `None` for a grid from the data."""
    _check_grid(count, span)
    if l2 is None:
        return None
    if (count, span) != (12, 1e4):
        raise ValueError(
            "Expected either the strengths `l2`, or `count` and `span` of a grid from "
            f"the data. Received: l2={l2!r}, count={count}, span={span}"
        )
    if isinstance(l2, (str, dict, keras.Variable)) or not hasattr(l2, "__iter__"):
        raise TypeError(
            "Invalid type for argument `l2`. Expected an iterable of floats, such as "
            f"[0.1, 0.01, 0.0]. Received: l2={l2!r}"
        )
    strengths = {check_number(value, "l2") for value in l2}
    if not strengths:
        raise ValueError(
            "Invalid value for argument `l2`. Expected at least one strength, or None "
            f"for a grid from the data. Received: l2={l2!r}"
        )
    return sorted(strengths, reverse=True)


def _check_grid(count, span):
    check_integers(count=count)
    number = as_number(span)
    if number is None:
        raise TypeError(
            "Invalid type for argument `span`. Expected a float, the strongest over "
            "the weakest strength, such as 1e4. "
            f"Received: span={span!r}{number_meant(span, 'span')}"
        )
    if not (math.isfinite(number) and number > 1):
        raise ValueError(
            "Invalid value for argument `span`. Expected a finite float > 1, the "
            f"strongest over the weakest strength, such as 1e4. Received: span={span}"
        )


def check_integers(**integers):
    for name, value in integers.items():
        check_integer(value, name, least=0 if name == "seed" else 1)


def check_fit_arguments(given):
    for name, instead in _REFUSED.items():
        if name in given:
            raise TypeError(
                f"Expected arguments of `fit` without `{name}`: {instead}. "
                f"Received: {name}={given[name]!r}"
            )
    known = {*inspect.signature(keras.Model.fit).parameters} - {"self", *_REFUSED}
    known |= {"warm", "repeats", "new_starts", "monitor", "restore_best_weights"}
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
            "Expected `sample_weight` or `class_weight`, as in `fit`. Received both; "
            "multiply the sample weights by those of the classes"
        )


def check_executor(executor):
    if not isinstance(executor, (concurrent.futures.Executor, type(None))):
        raise TypeError(
            "Invalid type for argument `executor`. Expected a "
            "`concurrent.futures.Executor`; for Dask, `client.get_executor()`. "
            f"Received: executor={executor!r} of type {type(executor).__name__}"
        )


# -------------------------------------------------------------- what is compared


def checked_mode(monitor, mode):
    if not isinstance(monitor, str):
        raise TypeError(
            "Invalid type for argument `monitor`. Expected a string, the name of a "
            f"metric such as 'val_data_loss'. Received: monitor={monitor!r}"
        )
    if mode is None and monitor.endswith("loss"):
        return "min"
    if mode not in ("min", "max"):
        raise ValueError(
            "Invalid value for argument `mode`. Expected 'min' or 'max', which a "
            "metric that is not a loss needs: mode='max' for an accuracy. "
            f"Received: mode={mode!r}, monitor={monitor!r}"
        )
    return mode


def check_monitor(monitor, names):
    if monitor not in names:
        raise ValueError(
            "Invalid value for argument `monitor`. Expected one of "
            f"{sorted(names)}. Received: {monitor!r}; other metrics are given to "
            "`compile`, or added to the logs by a callback"
        )
