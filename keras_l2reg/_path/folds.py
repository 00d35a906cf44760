"""Cross-validation: the folds of a path, and the data of each.

>>> x = np.zeros((6, 1))
>>> [valid.tolist() for train, valid in folds_from(3, x, None, seed=0)]
[[3, 4], [0, 2], [1, 5]]
>>> folds_from([([0, 1, 2], [3, 4, 5])], x, None)
[(array([0, 1, 2]), array([3, 4, 5]))]
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, Protocol

import keras
import numpy as np

from keras_l2reg._validation import check_integer, is_iterable

# The indices of the samples to train on, and of those to validate on.
Fold = tuple[np.ndarray, np.ndarray]

_FOLDS = (
    "an integer >= 2, a scikit-learn splitter such as `KFold(5)`, or an "
    "iterable of pairs of indices, `(train, valid)`"
)


class Splitter(Protocol):
    """What has the method `split` of scikit-learn's splitters."""

    def split(self, x: Any, y: Any, /) -> Iterable[tuple[Any, Any]]: ...


@dataclasses.dataclass(frozen=True)
class Data:
    """The data of a path, or of one of its folds.

    Args:
        x, y, sample_weight: as in `keras.Model.fit`.
        validation_data: as in `keras.Model.fit`; `None` for the data of all folds.
        folds: List of pairs of indices; `None` without cross-validation.
    """

    x: Any
    y: Any
    sample_weight: Any
    validation_data: Any
    folds: list[Fold] | None = None

    @property
    def fold_numbers(self) -> list[int | None]:
        """The arguments of `of_fold` for all folds; `[None]` for data without."""
        return [None] if self.folds is None else [*range(len(self.folds))]

    def of_fold(self, number: int | None) -> "Data":
        """The data of one fold; for `None`, all data."""
        if self.folds is None or number is None:
            return self
        parts = self.x, self.y, self.sample_weight
        train, valid = (
            tuple(pick(part, chosen) for part in parts) for chosen in self.folds[number]
        )
        return Data(*train, validation_data=valid)


def pick(part: Any, chosen: np.ndarray) -> Any:
    """The chosen samples of each array of a nest; `None` stays `None`."""
    if part is None:
        return None
    return keras.tree.map_structure(lambda leaf: np.asarray(leaf)[chosen], part)


def folds_from(cv: Any, x: Any, y: Any, seed: int = 0) -> list[Fold]:
    """The folds that the argument `cv` of `l2_path` stands for, checked.

    Args:
        cv: as in `l2_path`, not `None`.
        x, y: Arrays, or nests of arrays with the same number of samples.
        seed: Integer, shuffles the samples if `cv` is an integer. Defaults to `0`.

    Raises:
        TypeError, ValueError: `cv` is none of these, a fold is empty, an index is out
            of range, or a sample is in both parts of a fold.
    """
    _check_are_arrays(x, y)
    count = len(keras.tree.flatten(x)[0])
    labels = class_labels(y)
    if hasattr(cv, "split") and not isinstance(cv, str):
        # A splitter needs the number of samples, and some of them the classes.
        samples = np.arange(count) if keras.tree.is_nested(x) else np.asarray(x)
        target = None if keras.tree.is_nested(y) else y
        pairs = cv.split(samples, target if labels is None else labels)
    elif is_iterable(cv):
        pairs = cv
    else:
        return _shuffled_folds(_checked_number(cv, count), count, labels, seed)
    folds = [_checked_fold(number, pair, count) for number, pair in enumerate(pairs)]
    if not folds:
        raise ValueError(
            f"Invalid value for argument `cv`. Expected {_FOLDS}. Received: cv={cv!r}, "
            "which has no folds; an iterator can be read only once"
        )
    return folds


def class_labels(y: Any) -> np.ndarray | None:
    """The class of each sample; `None` if the targets are not classes.

    One column of integers, of booleans, or of 0.0 and 1.0; or one-hot rows.

    >>> class_labels(np.array([[0.0], [1.0]])), class_labels(np.eye(3))
    (array([0., 1.]), array([0, 1, 2]))
    >>> class_labels(np.array([0.5, 1.0])), class_labels(np.ones((3, 2)))
    (None, None)
    """
    if y is None or keras.tree.is_nested(y):
        return None
    y = np.asarray(y)
    is_column = y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1)
    if is_column and y.dtype.kind in "biu":
        return y.ravel()
    if y.ndim > 2 or not np.isin(y, (0, 1)).all():
        return None
    if is_column:
        return y.ravel()
    return np.argmax(y, axis=1) if (np.sum(y, axis=1) == 1).all() else None


def _shuffled_folds(
    number: int, count: int, labels: np.ndarray | None, seed: int
) -> list[Fold]:
    """Folds whose sizes, and numbers of samples of each class, differ by at most 1."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    if labels is not None:
        # Like cards that are sorted by class, and dealt out one by one.
        classes, codes = np.unique(labels, return_inverse=True)
        rank = rng.permutation(len(classes))[codes]
        order = order[np.argsort(rank[order], kind="stable")]
    fold_of = np.empty(count, int)
    fold_of[order] = np.arange(count) % number
    parts = [fold_of == fold for fold in range(number)]
    return [(np.flatnonzero(~part), np.flatnonzero(part)) for part in parts]


# ---------------------------------------------------------------------- checks


def _check_are_arrays(x: Any, y: Any) -> None:
    for leaf in keras.tree.flatten((x, y)):
        if leaf is not None and not hasattr(leaf, "shape"):
            raise TypeError(
                "Expected arrays, or dicts or lists of arrays, as `x` and `y`, as "
                "`cv` splits them into samples. Received: an object of type "
                f"{type(leaf).__name__}; convert it with `np.asarray`, or pass "
                "`validation_data` instead of `cv`"
            )


def _checked_number(cv: Any, count: int) -> int:
    try:
        number = check_integer(cv, "cv", least=2)
    except TypeError as error:
        raise TypeError(
            f"Invalid type for argument `cv`. Expected {_FOLDS}. "
            f"Received: cv={cv!r} of type {type(cv).__name__}"
        ) from error
    if number > count:
        raise ValueError(
            "Invalid value for argument `cv`. Expected at most as many folds as there "
            f"are samples. Received: cv={number}, for {count} samples"
        )
    return number


def _checked_fold(number: int, pair: Any, count: int) -> Fold:
    is_pair = hasattr(pair, "__len__") and len(pair) == 2
    if not is_pair or not all(map(is_iterable, pair)):
        raise TypeError(
            f"Invalid type for argument `cv`. Expected {_FOLDS}. Received: {pair!r} as "
            f"fold {number}; for one fold, write cv=[(train, valid)]; for the fold of "
            "each sample, cv=sklearn.model_selection.PredefinedSplit(fold_of_sample)"
        )
    train, valid = (_checked_indices(number, part, count) for part in pair)
    if both := np.intersect1d(train, valid).tolist():
        raise ValueError(
            "Invalid value for argument `cv`. Expected folds that validate on other "
            f"samples than they train on. Received: fold {number}, with {len(both)} "
            f"samples in both parts, such as {both[0]}"
        )
    return train, valid


def _checked_indices(number: int, part: Any, count: int) -> np.ndarray:
    indices = np.asarray(part)
    if indices.dtype == bool and indices.shape == (count,):
        indices = np.flatnonzero(indices)
    if indices.size == 0:
        raise ValueError(
            "Invalid value for argument `cv`. Expected folds with at least one sample "
            f"in each part. Received: fold {number}, with an empty part"
        )
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise TypeError(
            "Invalid type for argument `cv`. Expected indices of samples as vectors "
            f"of integers, or masks of the shape ({count},). Received: fold {number}, "
            f"with an array of the shape {indices.shape} and dtype {indices.dtype}"
        )
    if indices.min() < 0 or indices.max() >= count:
        raise ValueError(
            f"Invalid value for argument `cv`. Expected indices from 0 to {count - 1}. "
            f"Received: fold {number}, with indices from {indices.min()} to "
            f"{indices.max()}; they are positions, not labels of a table"
        )
    return indices
