"""L2Path: the records, table and file of runs, whatever is in their logs."""

import math

import keras
import numpy as np
import pandas
import pytest
from disk import full_disk
from paths import L2, InNthRun, compiled, network, path_of

from keras_l2reg import L2AllWeights, L2Path, StrengthScheduler

NAN = math.nan


def made_up(losses, **arguments):
    """A path of made-up runs: `{l2: [loss of each repeat]}`."""
    runs = [
        {"l2": l2, "repeat": k, "data_loss": v, "val_data_loss": v, "val_acc": 1 - v}
        for l2, values in losses.items()
        for k, v in enumerate(values)
    ]
    return L2Path(runs, **arguments)


# The best, 0.1, has mean 2 and standard error 1.
LOSSES = {0.1: [1, 3], 0.01: [2, 4], 1.0: [2.5, 3.5], 10.0: [3.1, 3.1]}


def test_best_and_one_standard_error_follow_the_monitored_metric():
    path = made_up(LOSSES)
    assert [record["l2"] for record in path.records] == [10.0, 1.0, 0.1, 0.01]
    assert path.best["l2"] == 0.1
    assert path.one_standard_error["l2"] == 1.0
    highest = made_up(LOSSES, monitor="val_acc", mode="max")
    assert highest.best["l2"] == 0.1
    assert highest.one_standard_error["l2"] == 1.0
    assert made_up({0.1: [1.0], 0.2: [1.0]}).one_standard_error is None


def test_a_path_prints_a_table():
    assert str(made_up(LOSSES, interrupted=True)).splitlines() == [
        "  l2 | data_loss | val_data_loss | val_acc |",
        "-----+-----------+---------------+---------+-------------------",
        "  10 |    3.1 ±0 |        3.1 ±0 | -2.1 ±0 |",
        "   1 |    3 ±0.5 |        3 ±0.5 | -2 ±0.5 | one standard error",
        " 0.1 |      2 ±1 |          2 ±1 |   -1 ±1 | best",
        "0.01 |      3 ±1 |          3 ±1 |   -2 ±1 |",
        "interrupted: only the finished runs are shown",
    ]
    assert repr(made_up(LOSSES)) == "<L2Path of 4 strengths, best l2=0.1>"


def test_the_table_says_if_the_best_strength_is_at_the_edge_of_the_grid():
    assert "try stronger" in str(made_up({1.0: [1], 0.1: [2]}))
    assert "try weaker" in str(made_up({1.0: [2], 0.1: [1]}))
    assert "try" not in str(made_up({1.0: [2], 0.0: [1]}))
    assert "try" not in str(made_up({1.0: [2]}))


def test_pandas_reads_what_to_csv_writes(tmp_path):
    path = made_up({**LOSSES, 99.0: [float("nan"), 1.0]})
    path.to_csv(tmp_path / "path.csv")
    pandas.testing.assert_frame_equal(
        pandas.read_csv(tmp_path / "path.csv"),
        pandas.DataFrame(path.records),
        check_dtype=False,
    )
    assert [file.name for file in tmp_path.iterdir()] == ["path.csv"]


def test_on_a_full_disk_to_csv_keeps_the_old_file(tmp_path):
    file = tmp_path / "path.csv"
    file.write_text("old")
    with full_disk(100), pytest.raises(OSError, match="too large"):
        made_up(LOSSES).to_csv(file)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_plot_passes_its_arguments_to_plot_path(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "keras_l2reg._path.result.plot_path",
        lambda path, figure=None: calls.append((path, figure)),
    )
    path = made_up(LOSSES)
    path.plot(figure="here")
    assert calls == [(path, "here")]


# --------------------------------------------------------------- an empty path


def test_a_path_without_runs_says_so(tmp_path):
    empty = L2Path([])
    assert str(empty) == "No runs."
    assert str(L2Path([], interrupted=True)).startswith("No runs.\ninterrupted")
    assert repr(empty) == "<L2Path of 0 strengths, best l2=None>"
    assert empty.records == []
    assert empty.best is None and empty.one_standard_error is None
    empty.to_csv(tmp_path / "empty.csv")
    table = pandas.read_csv(tmp_path / "empty.csv")
    assert [*table.columns] == ["l2", "repeats", "diverged"] and table.empty


# --------------------------------------------------- runs with other metrics


def test_a_run_that_lacks_a_metric_makes_only_that_metric_nan():
    whole = {"loss": 1.0, "val_data_loss": 2.0, "lr": 0.1, "val_f1": 0.5}
    lost = {"loss": NAN, "val_data_loss": NAN, "val_lr": NAN}
    runs = [{"l2": 0.1, "repeat": 0, **lost}, {"l2": 0.1, "repeat": 1, **whole}]
    runs += [{"l2": 0.01, "repeat": repeat, **whole} for repeat in (0, 1)]
    path = L2Path(runs)
    diverged, finite = path.records
    assert [*diverged] == [*finite]
    assert (diverged["repeats"], diverged["diverged"]) == (2, 1)
    assert (finite["repeats"], finite["diverged"], finite["lr"]) == (2, 0, 0.1)
    assert path.best is finite
    assert "1 of 2 diverged" in str(path)


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_metric_that_is_not_finite_does_not_count_as_divergence(value):
    runs = [
        {"l2": 0.1, "repeat": k, "val_data_loss": 1.0, "val_auc": [0.5, value][k]}
        for k in range(2)
    ]
    path = L2Path(runs)
    (record,) = path.records
    assert record["diverged"] == 0
    assert not math.isfinite(record["val_auc"])
    assert path.best is record
    assert "diverged" not in str(path)


@pytest.mark.parametrize("name", ["loss", "data_loss", "val_loss", "val_data_loss"])
def test_a_loss_that_is_not_finite_counts_as_divergence(name):
    runs = [{"l2": 0.1, "repeat": 0, "val_data_loss": 1.0, name: math.inf}]
    assert L2Path(runs).records[0]["diverged"] == 1


def test_the_table_shows_the_monitored_metric():
    runs = [{"l2": 0.1, "repeat": 0, "val_data_loss": 1.0, "f1[x]": 0.5}]
    # The name is plain text, not markup.
    assert "f1[x]" in str(L2Path(runs, "f1[x]", "max"))


def test_the_table_compares_the_best_with_no_penalty():
    assert "no penalty at all\n" not in str(made_up({1.0: [1], 0.0: [2]})) + "\n"
    assert "the best is no penalty at all" in str(made_up({1.0: [2], 0.0: [1]}))
    within = {1.0: [1, 3], 0.1: [5, 5], 0.0: [2.9, 2.9]}
    assert "within one standard error of the best" in str(made_up(within))
    beyond = {1.0: [1, 3], 0.1: [5, 5], 0.0: [3.1, 3.1]}
    assert "within" not in str(made_up(beyond))


# --------------------------------------------------------- the logs of callbacks


class Adds(keras.callbacks.Callback):
    """Adds the same keys to the logs of each epoch."""

    def __init__(self, **logs):
        super().__init__()
        self.logs = logs

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.logs)


class DivergesOnce(InNthRun):
    """Makes the weights infinite in the n-th run."""

    def act(self):
        weights = self.model.get_weights()
        self.model.set_weights([np.full_like(w, np.inf) for w in weights])


@pytest.mark.parametrize(
    "run", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))]
)
def test_if_one_run_diverges_the_metrics_of_callbacks_are_nan_at_its_strength(run):
    path = path_of(
        compiled(L2AllWeights(network())),
        [0.1, 0.01],
        repeats=2,
        callbacks=[DivergesOnce(run), Adds(speed=3.0, val_f1=0.5)],
    )
    at = 0 if run < 3 else 1
    assert [r["diverged"] for r in path.records] == [1 - at, at]
    finite, diverged = path.records[1 - at], path.records[at]
    assert (finite["speed"], finite["val_f1"], finite["repeats"]) == (3.0, 0.5, 2)
    assert math.isnan(diverged["speed"]) and diverged["repeats"] == 2
    assert [*finite] == [*diverged]
    assert path.best is finite
    frame = pandas.DataFrame(path.runs)
    assert frame["val_data_loss"].isna().sum() == 1


def test_a_metric_that_a_callback_logs_can_be_monitored():
    class Rising(keras.callbacks.Callback):
        value = 0.0

        def on_epoch_end(self, epoch, logs=None):
            self.value += 1
            logs["val_f1"] = self.value

    arguments = {"monitor": "val_f1", "mode": "max", "callbacks": [Rising()]}
    path = path_of(compiled(network()), **arguments)
    assert [record["val_f1"] for record in path.records] == [2, 4, 6]
    assert path.best["l2"] == 0.0
    with pytest.raises(ValueError, match=r"'val_f1'.*Received: 'val_f2'"):
        path_of(compiled(network()), **{**arguments, "monitor": "val_f2"})


@keras.saving.register_keras_serializable(__name__)
def undefined(y, y_pred):
    return y_pred[:, 0] * NAN


@pytest.mark.slow
def test_a_metric_that_is_nan_in_each_run_can_only_be_shown():
    model = network()
    model.compile("sgd", "mse", metrics=[undefined])
    path = path_of(model)
    assert [record["diverged"] for record in path.records] == [0, 0, 0]
    assert np.isnan([record["val_undefined"] for record in path.records]).all()
    assert path.best is not None
    with pytest.warns(UserWarning, match="finite 'val_undefined' in all repeats"):
        path_of(model, monitor="val_undefined", mode="min")


@pytest.mark.slow
def test_runs_whose_strength_a_callback_changes_keep_their_records():
    wrapped = compiled(L2AllWeights(network()))
    schedule = StrengthScheduler(lambda epoch: 0.02)
    path = path_of(wrapped, callbacks=[schedule])
    assert [(r["l2"], r["repeats"]) for r in path.records] == [(l2, 1) for l2 in L2]
    logged = [record["logged_l2"] for record in path.records]
    assert logged == pytest.approx([0.02] * 3)
    assert "the runs ended with `logged_l2`" in str(path)
    same = path_of(wrapped, callbacks=[StrengthScheduler(lambda epoch, l2: l2)])
    assert "logged_l2" not in str(same)


@pytest.mark.slow
def test_log_keys_with_the_names_of_record_keys_are_renamed():
    added = {
        "l2": 7.0,
        "repeat": 8.0,
        "repeats": 9.0,
        "diverged": 10.0,
        "loss_se": 11.0,
    }
    path = path_of(
        compiled(network()), [0.1, 0.0], repeats=2, callbacks=[Adds(**added)]
    )
    for record, l2 in zip(path.records, [0.1, 0.0], strict=True):
        assert (record["l2"], record["repeats"], record["diverged"]) == (l2, 2, 0)
        assert {k: record[f"logged_{k}"] for k in added} == added
        losses = [run["loss"] for run in path.runs if run["l2"] == l2]
        assert record["loss_se"] == pytest.approx(pandas.Series(losses).sem())


def test_logs_that_are_not_numbers_are_left_out():
    scalar = keras.ops.convert_to_tensor(0.25)
    added = {"phase": "warm", "none": None, "many": np.ones(3), "text": "3.0"}
    path = path_of(compiled(network()), [0.1], callbacks=[Adds(**added, scalar=scalar)])
    assert path.records[0]["scalar"] == 0.25
    assert not {*added} & {*path.records[0]}


def test_an_error_keeps_a_run_that_diverged_and_one_that_did_not():
    class Fails(DivergesOnce):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            if self.runs_left == -2:
                raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory") as caught:
        path_of(
            compiled(network()),
            repeats=2,
            callbacks=[Fails(2), Adds(speed=3.0)],
        )
    path = caught.value.path
    assert [(r["l2"], r["repeats"], r["diverged"]) for r in path.records] == [
        (0.3, 2, 1),
        (0.03, 1, 0),
    ]
    (note,) = caught.value.__notes__
    assert "3 of 6 runs are finished" in note and "l2=[0.03, 0.0]" in note
    assert "interrupted" in str(path)
