"""Run the fits of a path on the workers of an executor.

The model and the setup, with the data, are pickled once to a temporary file that each
worker reads once; a task contains the name of the file, not the data. A worker on
another machine can't read the file: it returns `None`, and gets the task again with the
data.
"""

import concurrent.futures
import contextlib
import itertools
import pathlib
import pickle
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._path.points import Point
from keras_l2reg._path.runs import Result, Setup, build, runs
from keras_l2reg.models import L2AllWeights

# The points, the folds and the repeats, both as indices, of one task.
Task = tuple[list[Point], list[int | None], list[int]]

# Models share the global seed, so the threads of one worker must take turns.
_ONE_AT_A_TIME = threading.Lock()

# The model and the setup that this worker has loaded, by the name of their file.
_loaded: dict[str, tuple[L2AllWeights, Setup]] = {}


def run_with_executor(
    executor: concurrent.futures.Executor,
    model: L2AllWeights,
    setup: Setup,
    lines: list[list[Point]],
    on_epoch: Callable[[int], None],
) -> Iterator[Result]:
    """Like `runs` for all lines, but on the workers of an executor, in any order.

    A task is one point and fold with all its repeats; with warm starts, which depend on
    the previous strength, a task is one line, fold and repeat. A worker keeps the
    model, and so its compiled step, between tasks.

    An error in a task, or the death of a worker, is raised after all finished results
    were yielded.
    """
    settings = _keras_settings()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_pickled(model, setup))
        pending: dict[concurrent.futures.Future, Task] = {}
        data = None
        stack.callback(lambda: [future.cancel() for future in pending])
        for task in _tasks(setup, lines):
            pending[executor.submit(_run_task, settings, str(file), *task)] = task
        try:
            while pending:
                done, _ = concurrent.futures.wait(
                    pending, return_when=concurrent.futures.FIRST_COMPLETED
                )
                future = done.pop()
                results = future.result()
                task = pending.pop(future)
                if results is None:
                    data = data or _content_for(executor, file)
                    again = executor.submit(_run_task, settings, str(file), *task, data)
                    pending[again] = task
                for result in results or ():
                    on_epoch(setup.epochs)
                    yield result
        except (Exception, KeyboardInterrupt):
            for future in pending:
                yield from _finished(future)
            raise


def _tasks(setup: Setup, lines: list[list[Point]]) -> list[Task]:
    folds, repeats = setup.data.fold_numbers, [*range(len(setup.starts))]
    if setup.warm:
        return [
            (line, [fold], [repeat])
            for line in lines
            for fold in folds
            for repeat in repeats
        ]
    points = itertools.chain.from_iterable(lines)
    return [([point], [fold], repeats) for point in points for fold in folds]


def _keras_settings() -> dict[str, str]:
    """The Keras settings that a saved model depends on but does not contain."""
    return {
        "backend": _keras.backend.name,
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
    }


@contextlib.contextmanager
def _pickled(model: L2AllWeights, setup: Setup) -> Iterator[pathlib.Path]:
    """A temporary file with the pickled model and setup."""
    with tempfile.TemporaryDirectory(prefix="keras_l2reg-") as folder:
        # Unique, since another machine may have a file with the same name.
        file = pathlib.Path(folder, uuid.uuid4().hex)
        with file.open("wb") as stream:
            try:
                pickle.dump((model, setup), stream, pickle.HIGHEST_PROTOCOL)
            except OSError:
                raise
            except Exception as error:
                raise ValueError(
                    "Expected a model, data and callbacks that can be pickled, to be "
                    f"sent to the workers of `executor`. Received: {error}; define "
                    "functions and classes at the top of a module, or leave out "
                    "`executor`"
                ) from error
        try:
            yield file
        finally:
            # The workers of a `ThreadPoolExecutor` are in this process.
            _loaded.pop(str(file), None)


def _content_for(executor: concurrent.futures.Executor, file: pathlib.Path) -> Any:
    """The content of the file, as an argument for tasks."""
    content = file.read_bytes()
    # Dask sends an argument with each task, but scattered data once to each worker.
    scatter = getattr(getattr(executor, "_client", None), "scatter", None)
    return scatter(content, broadcast=True, hash=False) if scatter else content


def _finished(future: concurrent.futures.Future) -> Iterable[Result]:
    """The results of a finished task: all its runs, or those before an error."""
    if not future.done() or future.cancelled():
        return ()
    error = future.exception()
    results = vars(error).pop("finished", ()) if error else future.result()
    return results or ()


def _run_task(
    settings: dict[str, str],
    file: str,
    points: list[Point],
    folds: list[int | None],
    repeats: list[int],
    content: bytes | None = None,
) -> list[Result] | None:
    """In a worker: the results of one task, or `None` if it can't read the file."""
    if _keras.backend.name != settings["backend"]:
        raise RuntimeError(
            f"Expected workers with KERAS_BACKEND={settings['backend']}, as here. "
            f"Received: a worker with KERAS_BACKEND={_keras.backend.name}; set the "
            "environment variable before the workers start"
        )
    finished = []
    with _ONE_AT_A_TIME:
        keras.config.set_floatx(settings["floatx"])
        keras.config.set_dtype_policy(settings["dtype_policy"])
        if file not in _loaded:
            try:
                content = content or pathlib.Path(file).read_bytes()
            except OSError:
                return None
            _loaded.clear()
            _loaded[file] = _unpickled(content)
        try:
            for result in runs(*_loaded[file], points, folds, repeats):
                finished.append(result)
        except BaseException as error:
            # An error pickles with its attributes, so the caller gets these too.
            error.finished = finished  # pyright: ignore[reportAttributeAccessIssue]
            raise
    return finished


def _unpickled(content: bytes) -> tuple[L2AllWeights, Setup]:
    model, setup = pickle.loads(content)
    variables = model.trainable_variables
    left_out = [variables[index] for index in setup.undecayed]
    optimizers: set[Any] = {_keras.optimizer_for(model, v) for v in left_out}
    for optimizer in optimizers:
        optimizer.exclude_from_weight_decay(var_list=left_out)
    first = setup.data.fold_numbers[0]
    build(model, setup.data.of_fold(first).validation_data, setup.fit_arguments)
    return model, setup
