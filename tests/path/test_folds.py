"""Cross-validation with `cv=`: compared with scikit-learn and with loops."""

import concurrent.futures
import math
import re

import keras
import numpy as np
import pandas
import pytest
from keras import layers
from paths import (
    L2,
    Fail,
    Interrupt,
    X,
    Y,
    assert_has_metrics,
    assert_same_runs,
    assert_same_state,
    assert_same_weights,
    by_keras,
    compiled,
    full_batches,
    network,
    path_of,
    state,
)
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    KFold,
    PredefinedSplit,
    ShuffleSplit,
    StratifiedKFold,
)

from keras_l2reg import L2AllWeights, L2Grid, L2Path
from keras_l2reg._path.folds import folds_from

FOLDS = [*KFold(3).split(X)]
CLASSES = np.repeat([0, 1, 2], [4, 7, 13])


def cv_of(model, cv=FOLDS, **arguments):
    return path_of(model, validation_data=None, cv=cv, **arguments)


def linear(x, units=1):
    zeros = layers.Dense(units, use_bias=False, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((x.shape[1],)), zeros])
    model.compile(keras.optimizers.SGD(0.2, momentum=0.8), "mse")
    return model


# ------------------------------------------------- compared with scikit-learn


def regression(count=60, size=5):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(count, size)).astype("float32")
    y = x[:, :1] - x[:, 1:2] + 4 * rng.normal(size=(count, 1))
    return x, y.astype("float32")


@pytest.mark.slow
def test_the_scores_of_the_folds_are_those_of_a_grid_search_over_ridge():
    x, y = regression()
    strengths = [3.0, 1.0, 0.3, 0.1, 0.03]
    folds = KFold(5, shuffle=True, random_state=0)
    path = cv_of(
        linear(x),
        full_batches(folds, x, steps=60),
        l2=strengths,
        x=x,
        y=y,
        epochs=1,
        batch_size=48,
        shuffle=False,
        restore_best_weights=False,
    )
    # Each fold trains on 48 samples.
    alphas = [48 * l2 for l2 in strengths]
    scoring = "neg_mean_squared_error"
    ridge = Ridge(fit_intercept=False)
    search = GridSearchCV(ridge, {"alpha": alphas}, cv=folds, scoring=scoring).fit(x, y)
    expected = [-search.cv_results_[f"split{k}_test_score"] for k in range(5)]
    errors = np.reshape([run["val_data_loss"] for run in path.runs], (5, 5))
    np.testing.assert_allclose(errors, np.transpose(expected), rtol=1e-2)
    assert path.best["l2"] == search.best_params_["alpha"] / 48 == 0.3
    efficient = RidgeCV(alphas, fit_intercept=False, cv=folds, scoring=scoring)
    efficient.fit(x, y[:, 0])
    assert path.best["l2"] == efficient.alpha_ / 48
    assert path.best["val_data_loss"] == pytest.approx(-efficient.best_score_, rel=1e-2)


def test_an_integer_makes_shuffled_folds_of_the_sizes_of_kfold():
    folds = folds_from(5, X, Y, seed=0)
    sizes = sorted(len(valid) for _, valid in KFold(5).split(X))
    assert sorted(len(valid) for _, valid in folds) == sizes
    assert sorted(np.concatenate([valid for _, valid in folds])) == [*range(24)]
    for train, valid in folds:
        assert sorted([*train, *valid]) == [*range(24)]
    valids = [valid.tolist() for _, valid in folds]
    assert valids != [valid.tolist() for _, valid in folds_from(5, X, Y, seed=1)]
    assert valids == [valid.tolist() for _, valid in folds_from(5, X, Y, seed=0)]


@pytest.mark.parametrize(
    "y",
    [
        CLASSES,
        CLASSES[:, None].astype("uint8"),
        np.eye(3)[CLASSES],
        CLASSES == 1,
        (CLASSES[:, None] == 1).astype("float32"),
    ],
)
def test_folds_of_classes_are_as_even_as_those_of_scikit_learn(y):
    labels = np.argmax(y, axis=1) if y.shape[1:] == (3,) else y.ravel()
    stratified = StratifiedKFold(4).split(X, labels)
    of_sklearn = sorted(
        np.unique(labels[v], return_counts=True)[1].tolist() for _, v in stratified
    )
    ours = [
        np.unique(labels[valid], return_counts=True)[1]
        for _, valid in folds_from(4, X, y, seed=3)
    ]
    assert np.ptp(ours, axis=0).max() <= 1
    assert np.sum(ours, axis=0).tolist() == np.sum(of_sklearn, axis=0).tolist()
    assert np.ptp(np.sum(ours, axis=1)) <= 1


def test_targets_that_are_all_different_are_shuffled_not_sorted():
    valids = {
        tuple(folds_from(4, X, np.arange(24), seed=seed)[0][1]) for seed in range(9)
    }
    assert len(valids) == 9


def test_a_splitter_gets_the_classes_of_one_hot_targets():
    split = StratifiedKFold(4)
    expected = [*split.split(X, CLASSES)]
    for x in (X, {"a": X, "b": X}):
        folds = folds_from(split, x, np.eye(3)[CLASSES])
        for fold, other in zip(folds, expected, strict=True):
            np.testing.assert_array_equal(np.concatenate(fold), np.concatenate(other))


def test_splitters_iterators_and_masks_make_the_same_folds():
    masks = [(~np.isin(range(24), v), np.isin(range(24), v)) for _, v in FOLDS]
    fold_of = np.repeat([0, 1, 2], 8)
    for cv in (
        KFold(3),
        KFold(3).split(X),
        masks,
        PredefinedSplit(fold_of),
        GroupKFold(3).split(X, Y, fold_of),
        [(train.tolist(), valid.tolist()) for train, valid in FOLDS],
    ):
        folds = sorted(folds_from(cv, X, Y), key=lambda fold: fold[1][0])
        for fold, other in zip(folds, FOLDS, strict=True):
            np.testing.assert_array_equal(np.concatenate(fold), np.concatenate(other))


# ------------------------------------------------------ compared with a loop


def by_keras_on(fold, l2, start, weights):
    """The metrics of a run on a fold, by a new model with Keras' L2."""
    rebuilt = compiled(network(l2))
    rebuilt.set_weights(start)
    train, valid = (
        (X[part], Y[part], None if weights is None else weights[part]) for part in fold
    )
    x, y, sample_weight = train
    return by_keras(rebuilt, x, y, valid, sample_weight=sample_weight)


@pytest.mark.slow
@pytest.mark.parametrize("weighted", [True, False])
def test_each_run_equals_fit_on_the_samples_of_its_fold(weighted):
    model = network()
    start = model.get_weights()
    weights = np.linspace(0.5, 4, 24).astype("float32") if weighted else None
    path = cv_of(compiled(model), l2=[0.3, 0.03], seed=3, sample_weight=weights)
    keys = [(l2, fold, 0) for l2 in (0.3, 0.03) for fold in range(3)]
    assert [(run["l2"], run["fold"], run["repeat"]) for run in path.runs] == keys
    for run, (l2, fold, _) in zip(path.runs, keys, strict=True):
        assert_has_metrics(run, by_keras_on(FOLDS[fold], l2, start, weights))


def test_class_weights_weight_the_training_only():
    zeros = layers.Dense(3, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((5,)), zeros])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    path = cv_of(
        model,
        [(np.arange(12), np.arange(12, 24))],
        l2=[0.0],
        y=CLASSES,
        epochs=1,
        batch_size=12,
        class_weight={0: 3.0, 1: 5.0, 2: 7.0},
        restore_best_weights=False,
    )
    weights = np.array([3.0, 5.0, 7.0])[CLASSES[:12]]
    (run,) = path.runs
    assert run["data_loss"] == pytest.approx(math.log(3) * weights.mean(), rel=1e-5)
    assert run["val_data_loss"] < 3


@pytest.mark.slow
def test_dicts_and_lists_of_arrays_are_split():
    inputs = [keras.Input((5,)), keras.Input((5,))]
    outputs = layers.Dense(2, name="one")(layers.Concatenate()(inputs))
    model = keras.Model(inputs, {"one": outputs})
    model.compile(keras.optimizers.SGD(0.01), {"one": "mse"})
    x, y, weights = [X, X + 1], {"one": Y}, {"one": np.linspace(0, 2, 24)}
    arguments = {"sample_weight": weights, "restore_best_weights": False}
    path = cv_of(model, x=x, y=y, shuffle=False, **arguments)
    run = path.runs[-1]
    train, valid = FOLDS[2]
    model.fit(
        [part[train] for part in x],
        {"one": Y[train]},
        sample_weight={"one": weights["one"][train]},
        batch_size=8,
        epochs=2,
        shuffle=False,
        verbose=0,
    )
    loss = model.evaluate(
        [part[valid] for part in x],
        {"one": Y[valid]},
        sample_weight={"one": weights["one"][valid]},
        verbose=0,
    )
    assert run["val_loss"] == pytest.approx(np.ravel(loss)[0], rel=1e-4)


@pytest.mark.slow
def test_tables_of_pandas_are_split_by_position():
    columns = {"data": X, "index": np.arange(24)[::-1]}
    x, y = pandas.DataFrame(**columns), pandas.DataFrame(Y, index=columns["index"])
    model = compiled(L2AllWeights(network()))
    arguments = {"l2": [0.1], "restore_best_weights": False}
    assert_same_runs(
        cv_of(model, x=x, y=y, **arguments), cv_of(model, cv=FOLDS, **arguments)
    )


# ------------------------------------------------------- means and the 1-SE rule


def test_means_and_standard_errors_are_over_folds():
    path = cv_of(compiled(network(dropout=0.5)), repeats=2, epochs=1)
    assert [record["folds"] for record in path.records] == [3] * 3
    assert [record["repeats"] for record in path.records] == [2] * 3
    folds = pandas.DataFrame(path.runs).groupby(["l2", "fold"]).mean().groupby("l2")
    records = pandas.DataFrame(path.records).set_index("l2").sort_index()
    for key in ("data_loss", "val_data_loss", "val_mae"):
        np.testing.assert_allclose(records[key], folds[key].mean())
        np.testing.assert_allclose(records[f"{key}_se"], folds[key].sem())


def made_up(errors):
    """A path of the made-up errors `{l2: [error of each fold]}`."""
    return L2Path(
        [
            {"l2": l2, "fold": fold, "repeat": 0, "val_data_loss": error}
            for l2, folds in errors.items()
            for fold, error in enumerate(folds)
        ]
    )


def test_one_standard_error_is_the_rule_of_glmnet():
    # `cvm` and `cvsd` as in glmnet's `cvstats`, for folds of equal size.
    rng = np.random.default_rng(2)
    lambdas = np.geomspace(10, 0.01, 9)
    curve = 1 + 0.05 * np.log10(lambdas / 0.1) ** 2
    cvraw = curve[:, None] + 0.1 * rng.normal(size=(9, 5))
    cvm = cvraw.mean(axis=1)
    cvsd = np.sqrt(((cvraw - cvm[:, None]) ** 2).mean(axis=1) / (5 - 1))
    at = np.argmin(cvm)
    lambda_1se = lambdas[cvm <= cvm[at] + cvsd[at]].max()
    path = made_up(dict(zip(lambdas, cvraw, strict=True)))
    assert path.best["l2"] == lambdas[at] < lambda_1se
    assert path.one_standard_error["l2"] == lambda_1se
    assert path.best["val_data_loss_se"] == pytest.approx(cvsd[at])


def test_a_strength_that_lacks_a_fold_is_not_the_best():
    path = made_up({1.0: [2, 3, 4], 0.1: [1, 2, 3], 0.01: [0.5]})
    assert path.best["l2"] == 0.1
    assert path.one_standard_error["l2"] == 0.1


# ---------------------------------------------------------------- the last fit


@pytest.mark.slow
@pytest.mark.parametrize("warm", [True, False])
def test_the_model_is_fitted_to_all_data_at_the_best_strength(warm):
    model = network()
    start = model.get_weights()
    weights = np.linspace(0.5, 4, 24).astype("float32")
    arguments = {"seed": 3, "sample_weight": weights, "warm": warm}
    path = cv_of(compiled(model), **arguments)
    stronger = [l2 for l2 in L2 if l2 >= path.best["l2"]]
    for l2 in stronger if warm else stronger[-1:]:
        rebuilt = compiled(network(l2))
        rebuilt.set_weights(start)
        by_keras(rebuilt, sample_weight=weights)
        start = rebuilt.get_weights()
    for now, then in zip(model.get_weights(), start, strict=True):
        np.testing.assert_allclose(now, then, rtol=1e-4, atol=1e-6)
    regularizer = model.layers[0].kernel_regularizer
    assert regularizer.l2 == pytest.approx(path.best["l2"])


@pytest.mark.slow
def test_without_restore_best_weights_the_model_is_left_as_it_was():
    wrapped = compiled(L2AllWeights(network(dropout=0.2), 0.7))
    wrapped.fit(X, Y, 8, verbose=0)
    before = state(wrapped)
    cv_of(wrapped, cv=3, restore_best_weights=False, repeats=2, new_starts=True)
    assert_same_state(wrapped, before)
    assert wrapped.l2 == pytest.approx(0.7)


@pytest.mark.slow
def test_the_path_of_warm_starts_never_mixes_folds():
    arguments = {"warm": True, "restore_best_weights": False}
    model = compiled(L2AllWeights(network()))
    together = cv_of(model, **arguments)
    for fold, pair in enumerate(FOLDS):
        alone = cv_of(model, [pair], **arguments)
        runs = [run for run in together.runs if run["fold"] == fold]
        assert [run | {"fold": 0} for run in runs] == alone.runs


# ------------------------------------------------------------ traces, executors


@keras.saving.register_keras_serializable(__name__)
class FoldCounter(layers.Layer):
    """Counts how often Python runs it: once for each trace on TensorFlow and JAX."""

    calls = 0

    def call(self, x):
        FoldCounter.calls += 1
        return x


def traces(call):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(2), FoldCounter()])
    model = compiled(L2AllWeights(model))
    before = FoldCounter.calls
    call(model)
    return FoldCounter.calls - before


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "torch", reason="torch has no trace")
@pytest.mark.parametrize(
    ("folds", "batch_size"),
    [
        (3, 8),
        (5, 7),
    ],
)
def test_folds_make_no_more_traces_than_fit_with_the_same_shapes_of_batches(
    folds, batch_size
):
    def fits(model):
        shown = set()
        pairs = folds_from(folds, X, Y)
        for train, valid in pairs:
            sizes = len(train), len(valid)
            if sizes not in shown:
                shown.add(sizes)
                model.evaluate(X[valid], Y[valid], batch_size, verbose=0)
                model.fit(X[train], Y[train], batch_size, verbose=0)

    arguments = {"batch_size": batch_size, "restore_best_weights": False}
    by_folds = traces(lambda m: cv_of(m, folds, repeats=2, **arguments))
    assert by_folds <= traces(fits)
    if (folds, batch_size) == (3, 8):
        # All batches have 8 samples.
        arguments["validation_data"] = X[:8], Y[:8]
        assert by_folds == traces(lambda m: path_of(m, [0.1], **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("warm", [False, True])
def test_workers_give_the_same_folds_as_this_process(warm):
    here, there = (compiled(L2AllWeights(network(norm=True))) for _ in range(2))
    there.set_weights(here.get_weights())
    arguments = {"l2": L2[:2], "cv": 3, "repeats": 2, "warm": warm, "epochs": 1}
    path_here = cv_of(here, **arguments)
    executor = Counting(2)
    with executor:
        path_there = cv_of(there, executor=executor, **arguments)
    assert_same_runs(path_here, path_there)
    # A task for each strength and fold; or, if warm, for each fold and repeat.
    assert executor.submitted == 6
    np.testing.assert_allclose(here.predict(X), there.predict(X), rtol=1e-4, atol=1e-6)


class Counting(concurrent.futures.ThreadPoolExecutor):
    """Counts its tasks."""

    submitted = 0

    def submit(self, *args):
        self.submitted += 1
        return super().submit(*args)


# -------------------------------------------------------------- Ctrl-C and errors


@pytest.mark.slow
@pytest.mark.parametrize("run", [5, 10])
def test_an_interrupted_path_keeps_its_runs_and_leaves_the_model_as_it_was(run):
    # The tenth run is the fit to all data.
    model = compiled(network(0.7))
    before, config = model.get_weights(), model.get_config()
    path = cv_of(model, callbacks=[Interrupt(run)])
    assert path.interrupted and len(path.runs) == run - 1
    assert path.best["folds"] == 3
    assert model.get_config() == config
    assert_same_weights(model, before)


@pytest.mark.slow
@pytest.mark.parametrize("run", [5, 10])
def test_an_error_carries_the_runs_finished_before_it(run):
    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    with pytest.raises(RuntimeError, match="no memory") as caught:
        cv_of(wrapped, callbacks=[Fail(run)])
    assert len(caught.value.path.runs) == run - 1
    (note,) = caught.value.__notes__
    expected = {5: "4 of 9 runs are finished.*l2=\\[0.03, 0.0\\]", 10: "All 9 runs"}
    assert pytest.approx(0.7) == wrapped.l2
    assert re.search(expected[run], note)
    assert_same_weights(wrapped, before)


@pytest.mark.slow
def test_if_the_fit_to_all_data_diverges_the_model_is_left_as_it_was():
    class Diverges(Fail):
        def act(self):
            weights = self.model.get_weights()
            self.model.set_weights([np.full_like(w, np.inf) for w in weights])

    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    with pytest.warns(UserWarning, match="fit to all data at the best, l2=.*diverged"):
        path = cv_of(wrapped, callbacks=[Diverges(10)])
    assert path.best is not None and not path.interrupted
    assert_same_weights(wrapped, before)
    assert wrapped.l2 == pytest.approx(0.7)


# --------------------------------------------------------------------- arguments

ALL, HALF = np.arange(24), np.arange(12)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, Y


@pytest.mark.parametrize(
    ("cv", "error", "message"),
    [
        (1, ValueError, "cv=1"),
        (25, ValueError, "cv=25, for 24 samples"),
        (True, TypeError, "cv=True"),
        (5.0, TypeError, "integer >= 2.*cv=5.0"),
        ("5", TypeError, "integer >= 2.*cv='5'"),
        ({}, TypeError, "integer >= 2.*cv={}"),
        ([], ValueError, "no folds"),
        (iter([]), ValueError, "read only once"),
        ((ALL[:12], ALL[12:]), TypeError, r"cv=\[\(train, valid\)\]"),
        (ALL % 3, TypeError, "PredefinedSplit"),
        ([(HALF, [])], ValueError, "empty part"),
        ([([], HALF)], ValueError, "empty part"),
        ([(HALF, ALL >= 99)], ValueError, "empty part"),
        ([(HALF, HALF + 13)], ValueError, "from 0 to 23.*from 13 to 24"),
        ([(HALF, [-1])], ValueError, "indices from -1"),
        ([(HALF, [20.0])], TypeError, "float64"),
        ([(HALF, [[20]])], TypeError, r"\(1, 1\)"),
        ([(HALF, np.ones(23, bool))], TypeError, r"the shape \(24,\)"),
        ([(HALF, [11, 12])], ValueError, "1 samples in both parts, such as 11"),
        ([(HALF, HALF + 12), (ALL, [3])], ValueError, "fold 1"),
        (StratifiedKFold(3), ValueError, "target"),
    ],
)
def test_a_bad_cv_is_refused_before_anything_is_changed(cv, error, message):
    model = compiled(network(0.7))
    before, config = model.get_weights(), model.get_config()
    with pytest.raises(error, match=f"(?s){message}"):
        cv_of(model, cv)
    assert not model.optimizer.built
    assert model.get_config() == config
    assert_same_weights(model, before)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"validation_data": (X, Y)}, ValueError, "Received: both"),
        ({"validation_data": None, "cv": None}, ValueError, "or `cv`.*cv=None"),
        ({"x": Batches(), "y": None}, TypeError, "Batches.*`validation_data`"),
        ({"x": iter([(X, Y)]), "y": None}, TypeError, "read only once"),
        ({"x": X.tolist()}, TypeError, "np.asarray"),
        ({"y": Y[:5]}, ValueError, "same number of samples"),
        ({"sample_weight": np.ones(3)}, ValueError, "same number of samples"),
    ],
)
def test_data_that_cannot_be_split_are_refused(arguments, error, message):
    model = compiled(network(0.7))
    config = model.get_config()
    with pytest.raises(error, match=f"(?s){message}"):
        path_of(model, **{"cv": 3, "validation_data": None, **arguments})
    assert model.get_config() == config


@pytest.mark.slow
def test_one_fold_and_overlapping_folds_are_allowed():
    split = ShuffleSplit(1, test_size=5, random_state=0)
    path = cv_of(compiled(network()), split, epochs=1)
    assert [record["folds"] for record in path.records] == [1, 1, 1]
    assert path.one_standard_error is None
    overlapping = ShuffleSplit(3, test_size=9, random_state=0)
    path = cv_of(compiled(network()), overlapping, l2=[0.1], epochs=1)
    assert path.records[0]["folds"] == 3


@pytest.mark.slow
def test_the_default_grid_is_derived_from_all_data():
    model = compiled(L2AllWeights(network()))
    arguments = {"l2": L2Grid(2), "epochs": 1, "restore_best_weights": False}
    by_folds = cv_of(model, [(HALF, HALF + 12)], **arguments)
    by_data = path_of(model, **arguments)
    assert [r["l2"] for r in by_folds.records] == [r["l2"] for r in by_data.records]
