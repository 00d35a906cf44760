"""What a `L2Path` says of its runs, made up here, whatever was in their logs."""

import math
import resource

import keras
import numpy as np
import pandas
import pytest
from paths import L2, compiled, network, path_of

from keras_l2reg import L2AllWeights, L2Path, L2Scheduler

NAN = math.nan


def made_up(figures, **arguments):
    """A path of made-up runs: `{l2: [value of each repeat]}`."""
    runs = [
        {"l2": l2, "repeat": k, "data_loss": v, "val_data_loss": v, "val_acc": 1 - v}
        for l2, values in figures.items()
        for k, v in enumerate(values)
    ]
    return L2Path(runs, **arguments)


# The best, 0.1, has mean 2 and standard error 1.
FIGURES = {0.1: [1, 3], 0.01: [2, 4], 1.0: [2.5, 3.5], 10.0: [3.1, 3.1]}


def test_best_and_one_standard_error():
    path = made_up(FIGURES)
    assert [record["l2"] for record in path.records] == [10.0, 1.0, 0.1, 0.01]
    assert path.best["l2"] == 0.1
    assert path.one_standard_error["l2"] == 1.0
    highest = made_up(FIGURES, monitor="val_acc", mode="max")
    assert highest.best["l2"] == 0.1
    assert highest.one_standard_error["l2"] == 1.0
    assert made_up({0.1: [1.0], 0.2: [1.0]}).one_standard_error is None


def test_a_path_prints_a_table():
    assert str(made_up(FIGURES, interrupted=True)).splitlines() == [
        "  l2 | data_loss | val_data_loss | val_acc |",
        "-----+-----------+---------------+---------+-------------------",
        "  10 |    3.1 ±0 |        3.1 ±0 | -2.1 ±0 |",
        "   1 |    3 ±0.5 |        3 ±0.5 | -2 ±0.5 | one standard error",
        " 0.1 |      2 ±1 |          2 ±1 |   -1 ±1 | best",
        "0.01 |      3 ±1 |          3 ±1 |   -2 ±1 |",
        "interrupted: these are the runs that were done",
    ]
    assert repr(made_up(FIGURES)) == "<L2Path of 4 strengths, best l2=0.1>"


def test_a_best_strength_at_the_edge_of_the_grid_is_said():
    assert "try stronger" in str(made_up({1.0: [1], 0.1: [2]}))
    assert "try weaker" in str(made_up({1.0: [2], 0.1: [1]}))
    assert "try" not in str(made_up({1.0: [2], 0.0: [1]}))
    assert "try" not in str(made_up({1.0: [2]}))


def test_to_csv_is_read_by_pandas(tmp_path):
    path = made_up({**FIGURES, 99.0: [float("nan"), 1.0]})
    path.to_csv(tmp_path / "path.csv")
    pandas.testing.assert_frame_equal(
        pandas.read_csv(tmp_path / "path.csv"),
        pandas.DataFrame(path.records),
        check_dtype=False,
    )
    assert [file.name for file in tmp_path.iterdir()] == ["path.csv"]


def test_a_full_disk_leaves_the_old_file(tmp_path):
    file = tmp_path / "path.csv"
    file.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            made_up(FIGURES).to_csv(file)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_plot_is_that_of_plotting(monkeypatch):
    calls = []
    monkeypatch.setattr(
        "keras_l2reg.plotting.plot_path",
        lambda path, figure=None: calls.append((path, figure)),
        raising=False,
    )
    path = made_up(FIGURES)
    path.plot(figure="here")
    assert calls == [(path, "here")]


# --------------------------------------------------------------- an empty path


def test_a_path_without_runs_is_said(tmp_path):
    empty = L2Path([])
    assert str(empty) == "No runs."
    assert str(L2Path([], interrupted=True)).startswith("No runs.\ninterrupted")
    assert repr(empty) == "<L2Path of 0 strengths, best l2=None>"
    assert empty.records == []
    assert empty.best is None and empty.one_standard_error is None
    empty.to_csv(tmp_path / "empty.csv")
    table = pandas.read_csv(tmp_path / "empty.csv")
    assert [*table.columns] == ["l2", "repeats", "diverged"] and table.empty


# ------------------------------------------------------------ runs unlike others


def test_a_run_that_lacks_a_metric_costs_only_that_metric():
    whole = {"loss": 1.0, "val_data_loss": 2.0, "lr": 0.1, "val_f1": 0.5}
    lost = {"loss": NAN, "val_data_loss": NAN, "val_lr": NAN}
    runs = [{"l2": 0.1, "repeat": 0, **lost}, {"l2": 0.1, "repeat": 1, **whole}]
    runs += [{"l2": 0.01, "repeat": repeat, **whole} for repeat in (0, 1)]
    path = L2Path(runs)
    diverged, sound = path.records
    assert [*diverged] == [*sound]
    assert (diverged["repeats"], diverged["diverged"]) == (2, 1)
    assert (sound["repeats"], sound["diverged"], sound["lr"]) == (2, 0, 0.1)
    assert path.best is sound
    assert "1 of 2 diverged" in str(path)


@pytest.mark.parametrize("value", [NAN, math.inf])
def test_a_metric_that_is_not_finite_is_no_divergence(value):
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
def test_a_loss_that_is_not_finite_is_a_divergence(name):
    runs = [{"l2": 0.1, "repeat": 0, "val_data_loss": 1.0, name: math.inf}]
    assert L2Path(runs).records[0]["diverged"] == 1


def test_the_monitor_is_in_the_table():
    runs = [{"l2": 0.1, "repeat": 0, "val_data_loss": 1.0, "f1[x]": 0.5}]
    # The name is plain text, not markup.
    assert "f1[x]" in str(L2Path(runs, "f1[x]", "max"))


def test_no_penalty_is_compared():
    assert "no penalty at all\n" not in str(made_up({1.0: [1], 0.0: [2]})) + "\n"
    assert "the best is no penalty at all" in str(made_up({1.0: [2], 0.0: [1]}))
    within = {1.0: [1, 3], 0.1: [5, 5], 0.0: [2.9, 2.9]}
    assert "within one standard error of the best" in str(made_up(within))
    beyond = {1.0: [1, 3], 0.1: [5, 5], 0.0: [3.1, 3.1]}
    assert "within" not in str(made_up(beyond))


# ------------------------------------------------------- logs of all kinds, real


class Adds(keras.callbacks.Callback):
    """Adds the same keys to the logs of each epoch."""

    def __init__(self, **logs):
        super().__init__()
        self.logs = logs

    def on_epoch_end(self, epoch, logs=None):
        logs.update(self.logs)


class DivergesOnce(keras.callbacks.Callback):
    """Makes the weights infinite in the n-th run."""

    def __init__(self, run):
        super().__init__()
        self.run = run

    def on_train_begin(self, logs=None):
        self.run -= 1
        if self.run == 0:
            weights = self.model.get_weights()
            self.model.set_weights([np.full_like(w, np.inf) for w in weights])


@pytest.mark.parametrize(
    "run", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (2, 3))]
)
def test_added_keys_and_one_run_that_diverges(run):
    path = path_of(
        compiled(L2AllWeights(network())),
        [0.1, 0.01],
        repeats=2,
        callbacks=[DivergesOnce(run), Adds(speed=3.0, val_f1=0.5)],
    )
    lost = 0 if run < 3 else 1
    assert [r["diverged"] for r in path.records] == [1 - lost, lost]
    sound, diverged = path.records[1 - lost], path.records[lost]
    assert (sound["speed"], sound["val_f1"], sound["repeats"]) == (3.0, 0.5, 2)
    assert math.isnan(diverged["speed"]) and diverged["repeats"] == 2
    assert [*sound] == [*diverged]
    assert path.best is sound
    frame = pandas.DataFrame(path.runs)
    assert frame["val_data_loss"].isna().sum() == 1


def test_a_metric_of_a_callback_is_monitored():
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


def test_a_metric_that_is_nan_in_each_run():
    model = network()
    model.compile("sgd", "mse", metrics=[undefined])
    path = path_of(model)
    assert [record["diverged"] for record in path.records] == [0, 0, 0]
    assert np.isnan([record["val_undefined"] for record in path.records]).all()
    assert path.best is not None
    with pytest.warns(UserWarning, match="'val_undefined' is finite in all repeats of"):
        path_of(model, monitor="val_undefined", mode="min")


def test_the_strength_that_a_callback_sets_merges_no_strengths():
    wrapped = compiled(L2AllWeights(network()))
    schedule = L2Scheduler(lambda epoch: 0.02)
    path = path_of(wrapped, callbacks=[schedule])
    assert [(r["l2"], r["repeats"]) for r in path.records] == [(l2, 1) for l2 in L2]
    logged = [record["logged_l2"] for record in path.records]
    assert logged == pytest.approx([0.02] * 3)
    assert "the runs ended with `logged_l2`" in str(path)
    same = path_of(wrapped, callbacks=[L2Scheduler(lambda epoch, l2: l2)])
    assert "logged_l2" not in str(same)


def test_log_keys_of_a_records_own_names_are_kept_apart():
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
        own = record["l2"], record["repeats"], record["diverged"]
        assert own == (l2, 2, 0)
        assert {k: record[f"logged_{k}"] for k in added} == added
        losses = [run["loss"] for run in path.runs if run["l2"] == l2]
        assert record["loss_se"] == pytest.approx(pandas.Series(losses).sem())


def test_what_is_no_number_in_the_logs_is_left_out():
    scalar = keras.ops.convert_to_tensor(0.25)
    added = {"phase": "warm", "none": None, "many": np.ones(3), "text": "3.0"}
    path = path_of(compiled(network()), [0.1], callbacks=[Adds(**added, scalar=scalar)])
    assert path.records[0]["scalar"] == 0.25
    assert not {*added} & {*path.records[0]}


def test_an_error_keeps_runs_unlike_each_other():
    class Fails(DivergesOnce):
        def on_train_begin(self, logs=None):
            super().on_train_begin(logs)
            if self.run == -2:
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
    assert "3 of 6 runs were done" in note and "l2=[0.03, 0.0]" in note
    assert "interrupted" in str(path)
