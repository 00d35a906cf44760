"""The runs of a path by the workers of an executor.

The model and the data are pickled once, to a temporary file, which each worker reads
once; a task carries the file's name, not the data. A worker that can't read the file,
being on another machine, says so, and gets its task again with the data.
"""

import concurrent.futures
import contextlib
import pathlib
import pickle
import tempfile
import threading
import uuid

import keras

from keras_l2reg import _keras
from keras_l2reg._path.runs import build, runs

# Models share the backend's seed, so a worker's threads must wait for each other.
_ONE_AT_A_TIME = threading.Lock()

# The model and task that this worker works on, under the name of their file.
_current = {}


def run_with_executor(executor, model, task, strengths, chunksize, on_epoch):
    """As `runs` for all repeats, but by the workers of an executor, in any order.

    A task is `chunksize` strengths; for warm starts, which depend on the previous
    strength, it is one repeat's whole path. A worker keeps the model, and so its one
    trace, from one task to the next.

    An error in a task, or the death of a worker, is raised after everything that any
    worker has finished was yielded.
    """
    settings = _settings()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_pickled(model, task))
        pending, data = {}, None
        stack.callback(lambda: [future.cancel() for future in pending])
        for chunk in _chunks(task, strengths, chunksize):
            pending[executor.submit(_work, settings, str(file), *chunk)] = chunk
        try:
            while pending:
                done, _ = concurrent.futures.wait(
                    pending, return_when=concurrent.futures.FIRST_COMPLETED
                )
                future = done.pop()
                results = future.result()
                chunk = pending.pop(future)
                if results is None:
                    data = data or _sent(executor, file)
                    again = executor.submit(_work, settings, str(file), *chunk, data)
                    pending[again] = chunk
                for result in results or ():
                    on_epoch(task.epochs)
                    yield result
        except (Exception, KeyboardInterrupt):
            for future in pending:
                yield from _finished(future)
            raise


def _chunks(task, strengths, chunksize):
    """The strengths and repeats of each task."""
    repeats = range(len(task.starts))
    if task.warm:
        return [(strengths, [repeat]) for repeat in repeats]
    return [
        (strengths[first : first + chunksize], [*repeats])
        for first in range(0, len(strengths), chunksize)
    ]


def _settings():
    """What a model was made under, which Keras saves a model without."""
    return {
        "backend": _keras.backend.name,
        "floatx": keras.config.floatx(),
        "dtype_policy": keras.config.dtype_policy().name,
    }


@contextlib.contextmanager
def _pickled(model, task):
    """A file that holds the model and the task, while the path runs."""
    with tempfile.TemporaryDirectory(prefix="keras_l2reg-") as folder:
        # The same name on another machine must not be taken for this file.
        file = pathlib.Path(folder, uuid.uuid4().hex)
        with file.open("wb") as stream:
            try:
                pickle.dump((model, task), stream, pickle.HIGHEST_PROTOCOL)
            except OSError:
                raise
            except Exception as error:
                raise ValueError(
                    "Expected a model, data and callbacks that pickle, to be sent to "
                    f"the workers of `executor`. Received: {error}; define functions "
                    "and classes at the top of a module, or leave out `executor`"
                ) from error
        try:
            yield file
        finally:
            # The workers of a `ThreadPoolExecutor` are in this process.
            _current.pop(str(file), None)


def _sent(executor, file):
    """The file's content as an argument of a task."""
    content = file.read_bytes()
    # Dask sends an argument with each task, but what was scattered to each worker once.
    scatter = getattr(getattr(executor, "_client", None), "scatter", None)
    return scatter(content, broadcast=True, hash=False) if scatter else content


def _finished(future):
    """What a task has done by now: all of its runs, or those before its error."""
    if not future.done() or future.cancelled():
        return ()
    error = future.exception()
    results = vars(error).pop("finished", ()) if error else future.result()
    return results or ()


def _work(settings, file, strengths, repeats, content=None):
    """In a worker: the runs of one task, or `None` if it can't get at the data."""
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
        if file not in _current:
            try:
                content = content or pathlib.Path(file).read_bytes()
            except OSError:
                return None
            _current.clear()
            _current[file] = _unpickled(content)
        try:
            for result in runs(*_current[file], strengths, repeats):
                finished.append(result)
        except BaseException as error:
            # An error pickles with its attributes, so this gets home too.
            error.finished = finished
            raise
    return finished


def _unpickled(content):
    model, task = pickle.loads(content)
    variables = model.trainable_variables
    left_out = [variables[index] for index in task.undecayed]
    for optimizer in {_keras.optimizer_for(model, v) for v in left_out}:
        optimizer.exclude_from_weight_decay(var_list=left_out)
    build(model, task.validation_data, task.fit_arguments)
    return model, task
