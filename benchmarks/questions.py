"""The measuring: one question, one backend, one process (called by run.py)."""

import argparse
import functools
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time
import warnings

import keras
import numpy as np

from keras_l2reg import L2, L2AllWeights, PenaltyLogger, attach

JIT = "L2REG_JIT" in os.environ
BATCH = 128


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("question", choices=QUESTIONS)
    parser.add_argument("answer", type=pathlib.Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    rounds = args.rounds or (3 if args.quick else 15)
    answer = QUESTIONS[args.question](args.quick, rounds)
    args.answer.write_text(json.dumps(answer))


def interleaved(rivals, rounds):
    """Seconds of each rival in each round: `{name: [seconds, ...]}`."""
    for run in rivals.values():
        run()  # traces and warms up
    seconds = {name: [] for name in rivals}
    for _ in range(rounds):
        for name in random.sample(list(rivals), len(rivals)):
            start = time.perf_counter()
            rivals[name]()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def quartiles(values):
    values = sorted(values)
    if len(values) < 2:
        return {"low": values[0], "median": values[0], "high": values[0]}
    low, _, high = statistics.quantiles(values, n=4)
    return {"low": low, "median": statistics.median(values), "high": high}


# -------------------------------------------------------------------- networks


def seed_network(regularizer=None):
    return dense_network([784, 1024, 10], regularizer)


def dense_network(widths, regularizer=None):
    layers = [keras.Input((widths[0],))]
    for width in widths[1:]:
        layers.append(keras.layers.Dense(width, "relu", kernel_regularizer=regularizer))
    return keras.Sequential(layers)


def deep_network(regularizer=None):
    return dense_network([256] * 51, regularizer)


def wide_network(regularizer=None):
    return dense_network([4096, 4096], regularizer)


def resnet(regularizer=None):
    model = keras.applications.ResNet50(
        input_shape=(64, 64, 3), weights=None, classes=10
    )
    if regularizer is None:
        return model
    for layer in model.layers:
        if hasattr(layer, "kernel_regularizer"):
            layer.kernel_regularizer = regularizer
    return keras.Model.from_config(model.get_config())


# name: builder, input shape, batch, steps per timed run
NETWORKS = {
    "seed 784-1024-10": (seed_network, (784,), 128, 40),
    "deep 50 x 256": (deep_network, (256,), 128, 20),
    "wide 4096 x 4096": (wide_network, (4096,), 128, 8),
    "ResNet50 at 64x64": (resnet, (64, 64, 3), 16, 2),
}


def trained(model, shape, batch, steps, callbacks=(), decay=None):
    """A function that trains `model` for so many steps, as a user would."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * steps, *shape)).astype("float32")
    y = rng.normal(size=(batch * steps, *model.output_shape[1:])).astype("float32")
    optimizer = keras.optimizers.SGD(1e-6, weight_decay=decay)
    model.compile(optimizer, "mse", jit_compile=JIT or "auto")

    def run():
        model.fit(x, y, batch, verbose=0, shuffle=False, callbacks=list(callbacks))

    return run


class ByHand(keras.Model):
    """The original answer: add `tf.nn.l2_loss` of each weight matrix to the loss."""

    def compute_loss(self, *args, **kwargs):
        loss = super().compute_loss(*args, **kwargs)
        for variable in self.trainable_variables:
            if variable.name == "kernel":
                loss = loss + 2e-4 * half_sum_of_squares(variable)
        return loss


def half_sum_of_squares(variable):
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.l2_loss(variable.value)
    return keras.ops.sum(keras.ops.square(variable)) / 2


def by_hand(model):
    return ByHand(model.inputs, model.outputs)


RIVALS = {
    "no penalty": lambda build: (build(), None),
    "keras.regularizers.L2": lambda build: (build(keras.regularizers.L2(1e-4)), None),
    "by hand": lambda build: (by_hand(build()), None),
    "weight_decay": lambda build: (build(), 2e-4),
    "attach": lambda build: (attach(build(), L2(1e-4)), None),
    "L2AllWeights": lambda build: (L2AllWeights(build(), l2=1e-4), None),
}


# ------------------------------------------------------------------- questions


def step(quick, rounds):
    """What each rival adds to a step, over what Keras' own L2 adds."""
    networks = dict(list(NETWORKS.items())[:2]) if quick else NETWORKS
    answer = {}
    for name, (build, shape, batch, steps) in networks.items():
        steps = 2 if quick else steps
        runs = {}
        for rival, make in RIVALS.items():
            model, decay = make(build)
            runs[rival] = trained(model, shape, batch, steps, decay=decay)
        seconds = interleaved(runs, rounds)
        bare = seconds["no penalty"]
        keras_adds = statistics.median(added(seconds["keras.regularizers.L2"], bare))
        answer[name] = {
            rival: {
                "milliseconds": quartiles([1e3 * s / steps for s in times]),
                "of bare step": quartiles(
                    [t / b for t, b in zip(times, bare, strict=True)]
                ),
                "added, of Keras L2": quartiles(
                    [extra / keras_adds for extra in added(times, bare)]
                ),
            }
            for rival, times in seconds.items()
        }
        split = [
            (w - a) / b
            for w, a, b in zip(
                seconds["L2AllWeights"], seconds["attach"], bare, strict=True
            )
        ]
        answer[name]["loss split, of bare step"] = quartiles(split)
        keras.backend.clear_session()
    return answer


def added(times, bare):
    return [t - b for t, b in zip(times, bare, strict=True)]


def memory(quick, rounds):
    """What the forward pass of the penalty takes, over the size of the weight."""
    side = 1024 if quick else 8192
    variable = keras.Variable(np.ones((side, side), "float32"))
    penalty = L2(1e-4)
    size = side * side * 4
    return {
        name: most_taken_by(compiled_call(rival, variable)) / size
        for name, rival in {
            "L2": penalty,
            "keras.regularizers.L2": keras.regularizers.L2(1e-4),
        }.items()
    }


def most_taken_by(call):
    """Bytes by which the memory of this process (on Linux) rises within `call`."""
    call()  # compiles, which takes memory of its own
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = memory_of("VmRSS")
    call()
    return max(memory_of("VmHWM") - before, 0)


def memory_of(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(key))
    return int(line.split()[1]) * 1024


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


class FloatLoss(keras.callbacks.Callback):
    """The naive way: look at every penalty after every batch."""

    def on_train_batch_end(self, batch, logs=None):
        self.seen = [float(loss) for loss in self.model.losses]


def watching(quick, rounds):
    """What watching adds to an epoch, over an epoch without."""
    answer = {}
    names = ["seed 784-1024-10"] + ["ResNet50 at 64x64"] * (not quick)
    for name in names:
        build, shape, batch, steps = NETWORKS[name]
        steps = 4 if quick else {128: 150, 16: 20}[batch]
        with tempfile.TemporaryDirectory() as logs:
            board = keras.callbacks.TensorBoard(logs, histogram_freq=1)
            watchers = {
                "none": [],
                "PenaltyLogger": [PenaltyLogger()],
                "PenaltyLogger, every 10 batches": [PenaltyLogger(10)],
                "TensorBoard histograms": [board],
                "float(loss) each batch": [FloatLoss()],
            }
            runs = {
                watcher: trained(
                    L2AllWeights(build(), l2=1e-4), shape, batch, steps, callbacks
                )
                for watcher, callbacks in watchers.items()
            }
            seconds = interleaved(runs, rounds)
        answer[name] = {
            watcher: quartiles(
                [t / b - 1 for t, b in zip(times, seconds["none"], strict=True)]
            )
            for watcher, times in seconds.items()
            if watcher != "none"
        }
    return answer


def attaching(quick, rounds):
    """Seconds to attach to NASNetMobile and to ever deeper networks."""
    sys.setrecursionlimit(100_000)  # Keras goes through a network layer by layer
    counts = [10, 30, 100] if quick else [10, 30, 100, 300, 1000, 3000]
    answer = {"layers": {}}
    for count in counts:
        model = dense_network([4] * (count + 1))
        runs = {"attach": functools.partial(attach, model, 1e-4)}
        seconds = interleaved(runs, min(rounds, 5))
        answer["layers"][count] = quartiles(seconds["attach"])
    if not quick:
        nasnet = keras.applications.NASNetMobile(weights=None)
        runs = {
            "attach": lambda: attach(nasnet, 1e-4),
            "L2AllWeights": lambda: L2AllWeights(nasnet, l2=1e-4),
        }
        seconds = interleaved(runs, min(rounds, 5))
        answer["NASNetMobile"] = {name: quartiles(s) for name, s in seconds.items()}
    return answer


def path(quick, rounds):
    """12 strengths x 3 epochs: `l2_path` against two ways to do without it."""
    from keras_l2reg import l2_path

    strengths = np.geomspace(1e-5, 1e-2, 3 if quick else 12).tolist()
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512 if quick else 2560, 784)).astype("float32")
    y = rng.normal(size=(len(x), 10)).astype("float32")
    fit = {"batch_size": BATCH, "epochs": 3, "verbose": 0}
    held_out = (x[:BATCH], y[:BATCH])

    def ours():
        model = seed_network()
        model.compile("sgd", "mse")
        l2_path(model, x, y, l2=strengths, validation_data=held_out, **fit)

    def rebuild(strength):
        model = seed_network(keras.regularizers.L2(strength))
        model.compile("sgd", "mse")
        return model

    def loop():
        for strength in strengths:
            rebuild(strength).fit(x, y, validation_data=held_out, **fit)

    runs = {"l2_path": ours, "rebuild per strength": loop}
    try:
        import keras_tuner

        def tuner():
            with tempfile.TemporaryDirectory() as folder:
                search = keras_tuner.GridSearch(
                    lambda hp: rebuild(hp.Choice("l2", strengths)),
                    objective="val_loss",
                    max_trials=len(strengths),
                    directory=folder,
                )
                search.search(x, y, validation_data=held_out, **fit)

        runs["KerasTuner GridSearch"] = tuner
    except ImportError:
        print("path: KerasTuner is not installed, left out")
    seconds = interleaved(runs, min(rounds, 5))
    return {name: quartiles(times) for name, times in seconds.items()}


def growth(quick, rounds):
    """Milliseconds that the penalty adds, by number of weights."""
    sides = [316, 1000] if quick else [316, 1000, 3162, 10000]
    answer = {"weights": {}, "read of memory": {}}
    for side in sides:
        rivals = {}
        for name, regularizer in {
            "no penalty": None,
            "keras.regularizers.L2": keras.regularizers.L2(1e-4),
            "attach": L2(1e-4),
        }.items():
            model = dense_network([side, side], regularizer)
            rivals[name] = trained(model, (side,), 8, 2)
        block = np.ones(side * side, "float32")
        rivals["read of memory"] = lambda block=block: block.sum()
        seconds = interleaved(rivals, min(rounds, 7))
        read = seconds.pop("read of memory")
        answer["read of memory"][side * side] = quartiles([1e3 * s for s in read])
        bare = seconds.pop("no penalty")
        answer["weights"][side * side] = {
            name: quartiles([1e3 * (t - b) / 2 for t, b in zip(s, bare, strict=True)])
            for name, s in seconds.items()
        }
    return answer


QUESTIONS = {
    "step": step,
    "memory": memory,
    "watching": watching,
    "attach": attaching,
    "path": path,
    "growth": growth,
}

if __name__ == "__main__":
    main()
