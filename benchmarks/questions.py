"""The measurements: one question, one backend, one process (called by run.py).

Each answer is a nested dict whose leaves are lists with one value per round, in seconds
unless stated otherwise. report.py computes medians and ratios of them.
"""

import argparse
import functools
import json
import os
import pathlib
import shlex
import subprocess
import sys
import tempfile
import time
import warnings

import keras
import numpy as np
from devices import device_name, peak_memory
from paths import path
from rivals import NETWORKS, RIVALS, dense_network, rivals_for
from rounds import interleaved, timed

from keras_l2reg import L2, L2AllWeights, PenaltyLogger, attach, audit

JIT = "L2REG_JIT" in os.environ
BATCH = 128
# Elsewhere they keep computing while they wait, so that time tells less.
IDLE_CORES_SLEEP = keras.backend.backend() == "tensorflow"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("answer", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, required=True)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"{args.question}, {keras.backend.backend()}: on {device_name()}")
    answer = QUESTIONS[args.question](args.quick, args.rounds)
    args.answer.write_text(json.dumps(answer))


def epoch(model, shape, batch, steps, decay=None):
    """A function of callbacks that trains `model` for an epoch of `steps` steps."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, *shape)).astype("float32")
    y = rng.normal(size=(batch * steps, *model.output_shape[1:])).astype("float32")
    optimizer = keras.optimizers.SGD(1e-6, weight_decay=decay)
    model.compile(optimizer, "mse", jit_compile=JIT or "auto")

    def run(*callbacks):
        model.fit(x, y, batch, verbose=0, shuffle=False, callbacks=list(callbacks))

    return run


class StepTimer(keras.callbacks.Callback):
    """Records when each step of an epoch began, after the previous one was finished.

    By the clock, and by the time that the process has computed, on any core.
    """

    def on_train_begin(self, logs=None):
        self.begins = []

    def on_train_batch_begin(self, batch, logs=None):
        self.begins.append((time.perf_counter(), time.process_time()))

    def on_train_batch_end(self, batch, logs=None):
        float(logs["loss"])  # waits for the step, as a progress bar does


def one_step(model, shape, batch, steps, decay=None):
    """A function that trains `model` and returns the seconds of its median step.

    By the clock and of computing. The median excludes the start of the epoch and other
    load of the machine.
    """
    timer = StepTimer()
    run = epoch(model, shape, batch, steps, decay)

    def seconds():
        run(timer)
        return np.median(np.diff(timer.begins, axis=0)[1:], axis=0).tolist()

    return seconds


def step(quick, rounds):
    """A step of each network with each rival."""
    networks = dict(list(NETWORKS.items())[:2]) if quick else NETWORKS
    answer = {}
    for name, (build, shape, batch, steps) in networks.items():
        rivals = {}
        for rival in rivals_for(name):
            model, decay = RIVALS[rival](build)
            steps = 4 if quick else steps
            rivals[rival] = one_step(model, shape, batch, steps, decay)
        answer[name], computing = separated(interleaved(rivals, rounds))
        if IDLE_CORES_SLEEP:
            answer[f"{name}, computing"] = computing
        keras.backend.clear_session()
    return answer


def separated(pairs_of):
    """From pairs for each rival, the first and the second numbers of each."""
    return [
        {rival: [pair[part] for pair in pairs] for rival, pairs in pairs_of.items()}
        for part in (0, 1)
    ]


def memory(quick, rounds):
    """Memory for the forward pass of the penalty, relative to that of the weight."""
    side = 1024 if quick else 8192
    variable = keras.Variable(np.ones((side, side), "float32"))
    penalty = L2(1e-4)
    size = side * side * 4
    return {
        name: [peak_memory(compiled_call(rival, variable)) / size]
        for name, rival in {
            "L2": penalty,
            "keras.regularizers.L2": keras.regularizers.L2(1e-4),
        }.items()
    }


def compiled_call(function, variable):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda: function(variable), jit_compile=JIT)
        return lambda: float(graph())
    if backend == "jax":
        import jax

        jitted = jax.jit(function)
        return lambda: float(jitted(variable.value))
    import torch

    def call():
        with torch.no_grad():
            return float(function(variable))

    return call


class BlockTimer(keras.callbacks.Callback):
    """Records when each block of ten steps began, and when the training ended."""

    def on_train_begin(self, logs=None):
        self.begins = []

    def on_train_batch_begin(self, batch, logs=None):
        if batch % 10 == 0:
            self.begins.append(time.perf_counter())

    def on_train_end(self, logs=None):
        self.ended = time.perf_counter()


def one_epoch(run, callbacks):
    """A function that returns the seconds of `run(*callbacks)`, without outliers.

    From the first step to the end of the training, including the callbacks. Before and
    after that, `fit` copies the data and frees the copy, which takes between a tenth
    and half of the epoch. Each block of ten steps counts as the median block.
    """
    timer = BlockTimer()

    def seconds():
        run(*callbacks, timer)
        blocks = np.diff(timer.begins)
        outliers = blocks.sum() - len(blocks) * np.median(blocks)
        return float(timer.ended - timer.begins[0] - outliers)

    return seconds


class FloatLoss(keras.callbacks.Callback):
    """The naive way: read every penalty after every batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.seen = [float(loss) for loss in self.model.losses]


class Empty(keras.callbacks.Callback):
    """Does nothing after each batch, for which Keras waits."""

    def on_train_batch_end(self, batch, logs=None):
        pass


def watching(quick, rounds):
    """An epoch of a model with each kind of monitoring."""
    name = "seed 784-1024-10"
    build, shape, batch, _ = NETWORKS[name]
    with tempfile.TemporaryDirectory() as logs:
        watchers = {
            "none": [],
            "an empty callback": [Empty()],
            "PenaltyLogger": [PenaltyLogger()],
            "PenaltyLogger, every 10 batches": [PenaltyLogger(10)],
            "with norms": [PenaltyLogger(norms=True)],
            "with norms, every 10 batches": [PenaltyLogger(10, norms=True)],
            "TensorBoard histograms": [
                keras.callbacks.TensorBoard(logs, histogram_freq=1)
            ],
            "float(loss) each batch": [FloatLoss()],
        }
        model = L2AllWeights(build(), l2=1e-4)
        run = epoch(model, shape, batch, 21 if quick else 234)
        rivals = {
            watcher: one_epoch(run, callbacks)
            for watcher, callbacks in watchers.items()
        }
        return {name: interleaved(rivals, rounds)}


def around(quick, rounds):
    """What is not a step: to import, to attach to networks of any depth, to audit."""
    sys.setrecursionlimit(200_000)  # Keras traverses a network recursively
    models = {
        f"{count} layers": dense_network([4] * (count + 1))
        for count in ([10, 30, 100] if quick else [10, 100, 1000, 3000, 10000])
    }
    if not quick:
        models["NASNetMobile"] = keras.applications.NASNetMobile(weights=None)
    rivals = {
        f"attach, {name}": timed(functools.partial(attach, model, 1e-4))
        for name, model in models.items()
    }
    audited = list(models)[2]
    rivals[f"audit, {audited}"] = timed(functools.partial(audit, models[audited]))
    for command in ("-c 'import keras'", "-c 'import keras_l2reg'"):
        rivals[f"python {command}"] = timed(functools.partial(python, command))
    command = "-m keras_l2reg --help"
    rivals[f"python {command}"] = timed(functools.partial(python, command))
    return interleaved(rivals, rounds)


def python(command):
    command = [sys.executable, *shlex.split(command)]
    subprocess.run(command, check=True, capture_output=True)


def counted(quick, rounds):
    """What a step consists of; the same in every round."""
    if keras.backend.backend() == "torch":
        from counts_torch import counts
    else:
        from counts import counts
    return counts(quick)


def growth(quick, rounds):
    """A step with one kernel of increasing size, and one read of that memory."""
    answer = {}
    for side in [316, 1000] if quick else [316, 1000, 3162, 10000]:
        rivals = {}
        for name in ("no penalty", "keras.regularizers.L2", "L2AllWeights"):
            model, _ = RIVALS[name](functools.partial(dense_network, [side, side]))
            rivals[name] = by_clock(one_step(model, (side,), 8, 6))
        block = np.ones(side * side, "float32")
        rivals["read of memory"] = timed(lambda block=block: np.dot(block, block))
        answer[side * side] = interleaved(rivals, rounds)
        keras.backend.clear_session()
    return answer


def by_clock(seconds):
    """A function that returns only the first number of what `seconds` returns."""
    return lambda: seconds()[0]


QUESTIONS = {
    "step": step,
    "counts": counted,
    "memory": memory,
    "watching": watching,
    "around": around,
    "path": path,
    "growth": growth,
}

if __name__ == "__main__":
    main()
