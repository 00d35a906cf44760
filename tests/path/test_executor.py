"""A path by the workers of an executor: results, data sent, errors."""

import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import pickle
import signal

import keras
import numpy as np
import pytest
from paths import (
    L2,
    Fail,
    X,
    Y,
    assert_same_runs,
    assert_same_weights,
    compiled,
    network,
    path_of,
)

from keras_l2reg import L2AllWeights, l2_path, set_weight_decay
from keras_l2reg._path import executor as path_executor
from keras_l2reg._path.points import Point


def sgd_with_decay():
    model = L2AllWeights(network(dropout=0.5, norm=True))
    model.compile(keras.optimizers.SGD(0.05, momentum=0.9), "mse", metrics=["mae"])
    # Keras saves the decay, but not which variables are excluded from it.
    set_weight_decay(model.optimizer, model, 0.5, layers="dense*")
    return model


def spawned(workers):
    spawn = multiprocessing.get_context("spawn")
    return concurrent.futures.ProcessPoolExecutor(workers, mp_context=spawn)


@pytest.fixture(scope="module")
def processes():
    with spawned(2) as executor:
        yield executor


# For each test, which so waits for tasks that would change the next one's seed.
@pytest.fixture
def threads():
    with concurrent.futures.ThreadPoolExecutor(2) as executor:
        yield executor


@contextlib.contextmanager
def cluster_executor(failures):
    """Dask's executor; a task may kill so many workers before it is given up."""
    dask = pytest.importorskip("dask")
    distributed = pytest.importorskip("dask.distributed")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": failures}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        assert len(client.scheduler_info()["workers"]) == 2
        yield client.get_executor()


@pytest.fixture(scope="module")
def dask():
    with cluster_executor(failures=3) as executor:
        yield executor


@pytest.mark.parametrize(
    ("kind", "warm"),
    [
        ("threads", True),
        pytest.param("processes", False, marks=pytest.mark.slow),
        pytest.param("dask", False, marks=pytest.mark.slow),
        pytest.param("processes", True, marks=pytest.mark.slow),
        pytest.param("dask", True, marks=pytest.mark.slow),
    ],
)
def test_workers_give_the_same_path_as_this_process(kind, warm, request):
    executor = request.getfixturevalue(kind)
    here = sgd_with_decay()
    there = sgd_with_decay()
    for model in (here, there):
        for index, variable in enumerate(model.variables):
            random = np.random.default_rng(index).uniform(0, 3, variable.shape)
            variable.assign(random.astype(variable.dtype))
    arguments = {"l2": L2[:2], "repeats": 2, "warm": warm, "new_starts": True}
    path_here = path_of(here, **arguments)
    path_there = path_of(there, executor=executor, **arguments)
    assert_same_runs(path_here, path_there)
    assert here.l2 == there.l2 == path_here.best["l2"]
    np.testing.assert_allclose(here.predict(X), there.predict(X), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_workers_scale_the_loss_of_half_precision_models(threads):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        wrapped = compiled(L2AllWeights(network()))
        arguments = {"epochs": 1, "restore_best_weights": False}
        here = path_of(wrapped, [0.1], **arguments)
        there = path_of(wrapped, [0.1], executor=threads, **arguments)
    finally:
        keras.config.set_dtype_policy("float32")
    assert_same_runs(here, there)


def test_a_worker_with_another_backend_is_refused():
    settings = {"backend": "openvino", "floatx": "float32", "dtype_policy": "float32"}
    with pytest.raises(RuntimeError, match="KERAS_BACKEND=openvino"):
        path_executor._run_task(settings, "file", [Point(0.1)], [None], [0])


def test_a_callback_that_does_not_pickle_is_refused(threads):
    model = compiled(network())
    config = model.get_config()
    hook = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: None)
    with pytest.raises(ValueError, match="can be pickled"):
        path_of(model, executor=threads, callbacks=[hook])
    assert model.get_config() == config


# ------------------------------------------------------------------ data sent


class Sent(concurrent.futures.Executor):
    """An executor that records the size in bytes of each task."""

    def __init__(self, executor):
        self.executor = executor
        self.sizes = []

    def submit(self, function, *args):
        self.sizes.append(len(pickle.dumps((function, *args))))
        return self.executor.submit(function, *args)


class Elsewhere(Sent):
    """An executor whose workers are on a machine without this one's files."""

    def __init__(self, executor):
        super().__init__(executor)
        if hasattr(executor, "_client"):
            self._client = executor._client

    def submit(self, function, settings, file, *args):
        file = f"/nowhere/{pathlib.Path(file).name}"
        if not hasattr(self, "_client"):
            return super().submit(function, settings, file, *args)
        self.sizes.append([type(arg).__name__ for arg in args])
        return self.executor.submit(function, settings, file, *args)


class Noted(keras.utils.PyDataset):
    """The data; writes to a file in which process it was unpickled."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return X, Y

    def __setstate__(self, state):
        vars(self).update(state)
        with open(self.file, "a") as file:
            file.write(f"{os.getpid()}\n")


STRENGTHS = [0.3, 0.1, 0.03, 0.01, 0.003, 0.0]
SHORT = {"epochs": 1, "verbose": 0, "restore_best_weights": False}


@pytest.mark.parametrize(
    "kind",
    [
        "threads",
        pytest.param("processes", marks=pytest.mark.slow),
        pytest.param("dask", marks=pytest.mark.slow),
    ],
)
def test_the_data_are_sent_once_per_worker(kind, request, tmp_path):
    executor = Sent(request.getfixturevalue(kind))
    data = Noted(tmp_path / "processes")
    model = compiled(L2AllWeights(network()))
    path = l2_path(model, data, None, STRENGTHS, (X, Y), executor=executor, **SHORT)
    assert len(path.records) == len(executor.sizes) == 6
    unpickled = collections.Counter((tmp_path / "processes").read_text().split())
    assert 1 <= len(unpickled) <= 2
    assert {*unpickled.values()} == {1}


@pytest.mark.slow
def test_tasks_do_not_contain_the_data(threads):
    x, y = np.zeros((400_000, 5), "float32"), np.zeros((400_000, 2), "float32")
    executor = Sent(threads)
    model = compiled(L2AllWeights(network()))
    arguments = {"batch_size": 8, "steps_per_epoch": 1, **SHORT}
    l2_path(model, x, y, STRENGTHS, (X, Y), executor=executor, **arguments)
    assert len(executor.sizes) == 6
    assert sum(executor.sizes) < 10_000 < x.nbytes


@pytest.mark.slow
def test_the_temporary_file_is_deleted(threads, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = compiled(L2AllWeights(network()))
    path_of(model, [0.1], executor=threads)
    with pytest.raises(RuntimeError, match="no memory"):
        path_of(model, executor=threads, callbacks=[Fail(1)])
    assert not list(tmp_path.iterdir())
    assert not path_executor._loaded


@pytest.mark.parametrize(
    "kind", ["threads", pytest.param("dask", marks=pytest.mark.slow)]
)
def test_workers_that_cannot_read_the_file_get_the_data_in_a_task(kind, request):
    executor = Elsewhere(request.getfixturevalue(kind))
    model = compiled(L2AllWeights(network()))
    arguments = {"l2": STRENGTHS, "epochs": 1, "restore_best_weights": False}
    here = path_of(model, **arguments)
    there = path_of(model, executor=executor, **arguments)
    assert_same_runs(here, there)
    if kind == "dask":
        # Dask sends what was scattered to each worker once, not with each task.
        sent = {kinds[3] for kinds in executor.sizes if len(kinds) > 3}
        assert sent == {"Future"}


# --------------------------------------------------- errors and dying workers


class KillsItsWorker(keras.callbacks.Callback):
    """Kills the worker at one strength, as the system does if memory runs out.

    With `file`, it does so only once, and creates the file.
    """

    def __init__(self, l2, file=None):
        super().__init__()
        self.l2 = l2
        self.file = file
        self.home = os.getpid()

    def on_train_begin(self, logs=None):
        if abs(self.model.l2 - self.l2) > 1e-6 or os.getpid() == self.home:
            return
        if self.file is not None:
            if self.file.exists():
                return
            self.file.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def assert_left_alone(model, before):
    assert model.l2 == pytest.approx(0.7)
    assert_same_weights(model, before)


@pytest.mark.slow
def test_a_killed_process_loses_only_its_task():
    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    arguments = {"callbacks": [KillsItsWorker(0.0)], "epochs": 1}
    with (
        spawned(1) as executor,
        pytest.raises(concurrent.futures.BrokenExecutor) as caught,
    ):
        path_of(wrapped, executor=executor, **arguments)
    assert_left_alone(wrapped, before)
    kept = caught.value.path
    assert [record["l2"] for record in kept.records] == [0.3, 0.03]
    assert kept.interrupted
    died, missing = caught.value.__notes__
    assert "create a new one" in died
    assert "2 of 3 runs" in missing and "l2=[0.0]" in missing
    # The callback kills only workers.
    here = path_of(wrapped, restore_best_weights=False, **arguments)
    here.runs.pop()
    assert_same_runs(here, kept)


@pytest.fixture
def fresh_dask(request):
    """A new cluster, with as many failures as the parameter says."""
    with cluster_executor(request.param) as executor:
        yield executor


@pytest.mark.slow
@pytest.mark.parametrize("fresh_dask", [3], indirect=True)
def test_dask_continues_without_a_killed_worker(fresh_dask, tmp_path):
    wrapped = compiled(L2AllWeights(network(), 0.7))
    kill = KillsItsWorker(0.03, tmp_path / "killed")
    arguments = {"callbacks": [kill], "epochs": 1, "restore_best_weights": False}
    there = path_of(wrapped, executor=fresh_dask, **arguments)
    assert (tmp_path / "killed").exists()
    assert_same_runs(path_of(wrapped, **arguments), there)


@pytest.mark.slow
@pytest.mark.parametrize("fresh_dask", [0], indirect=True)
def test_if_a_task_kills_dask_workers_the_other_runs_are_kept(fresh_dask):
    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    # The last task, so that others are done before.
    arguments = {"callbacks": [KillsItsWorker(0.0)], "epochs": 1}
    distributed = pytest.importorskip("dask.distributed")
    with pytest.raises(distributed.scheduler.KilledWorker) as caught:
        path_of(wrapped, STRENGTHS, executor=fresh_dask, **arguments)
    assert_left_alone(wrapped, before)
    kept = caught.value.path
    assert len(kept.records) >= 3
    assert 0.0 not in {record["l2"] for record in kept.records}
    assert f"{len(kept.runs)} of 6 runs" in caught.value.__notes__[-1]


class AtOnce(concurrent.futures.Executor):
    """Runs each task when it is submitted, so that all have ended after that."""

    def submit(self, function, *args):
        future = concurrent.futures.Future()
        try:
            future.set_result(function(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


class FailsAt(keras.callbacks.Callback):
    """An error at some strengths, at each of them in the n-th run."""

    def __init__(self, *strengths, run=1):
        super().__init__()
        self.runs_left = dict.fromkeys(strengths, run)

    def on_train_begin(self, logs=None):
        for l2 in self.runs_left:
            if abs(self.model.l2 - l2) < 1e-6:
                self.runs_left[l2] -= 1
                if self.runs_left[l2] == 0:
                    raise RuntimeError("no memory")


@pytest.mark.slow
def test_an_error_keeps_the_runs_of_other_workers():
    wrapped = compiled(L2AllWeights(network(), 0.7))
    before = wrapped.get_weights()
    # Half of the tasks fail, so that one of them is most likely awaited early.
    strengths = [0.01 * k for k in range(12, 0, -1)]
    arguments = {"callbacks": [FailsAt(*strengths[::2])], "epochs": 1}
    with pytest.raises(RuntimeError, match="no memory") as caught:
        path_of(wrapped, strengths, executor=AtOnce(), **arguments)
    assert_left_alone(wrapped, before)
    kept = [record["l2"] for record in caught.value.path.records]
    assert kept == strengths[1::2]


@pytest.mark.parametrize(
    "kind", ["threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_an_error_keeps_the_earlier_strengths_of_a_warm_task(kind, request):
    path = path_of_error(request.getfixturevalue(kind), FailsAt(0.0), warm=True)
    assert [record["l2"] for record in path.records] == [0.3, 0.03]


def test_an_error_keeps_the_earlier_repeats_of_a_task(threads):
    path = path_of_error(threads, FailsAt(0.03, run=2), l2=[0.03], repeats=2)
    assert [(run["l2"], run["repeat"]) for run in path.runs] == [(0.03, 0)]


def path_of_error(executor, callback, **arguments):
    """The path that is left after a callback raises an error."""
    wrapped = compiled(L2AllWeights(network(), 0.7))
    arguments = {"callbacks": [callback], "epochs": 1, **arguments}
    with pytest.raises(RuntimeError, match="no memory") as caught:
        path_of(wrapped, executor=executor, **arguments)
    # The arrays of each run are dropped from the error.
    assert "finished" not in vars(caught.value)
    return caught.value.path


@pytest.mark.slow
def test_ctrl_c_keeps_the_runs_that_workers_have_finished(monkeypatch):
    wait, calls = concurrent.futures.wait, []

    def interrupted(*args, **kwargs):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return wait(*args, **kwargs)

    monkeypatch.setattr("concurrent.futures.wait", interrupted)
    wrapped = compiled(L2AllWeights(network(), 0.7))
    path = path_of(wrapped, STRENGTHS, executor=AtOnce(), epochs=1)
    assert path.interrupted
    assert [record["l2"] for record in path.records] == STRENGTHS
    assert wrapped.l2 == pytest.approx(path.best["l2"])
