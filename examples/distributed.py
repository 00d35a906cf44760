"""L2AllWeights on several devices gives the same numbers as on one device.

    python examples/distributed.py                  # every installed backend
    python examples/distributed.py --way mirrored   # one of them

Each way trains the same network from the same initial weights on one device and on
several (here: virtual devices on the CPU), and prints the relative distance of the two
runs in loss, penalty and weights. Needs the extras `jax` and `torch` for the ways on
these backends.
"""

import argparse
import importlib.util
import multiprocessing
import os
import subprocess
import sys

WAYS = {
    "mirrored": ("tensorflow", "tf.distribute.MirroredStrategy, 2 logical CPUs"),
    "data-parallel": ("jax", "keras.distribution.DataParallel, 4 host devices"),
    "model-parallel": ("jax", "keras.distribution.ModelParallel, 4 host devices"),
    "processes": ("jax", "DataParallel over 2 processes, jax.distributed"),
    "ddp": ("torch", "torch DistributedDataParallel, 2 processes, custom loop"),
}
BATCH, STEPS, L2 = 32, 8, 0.01


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--way", choices=WAYS, help="default: all")
    parser.add_argument("--quick", action="store_true", help="accepted for CI")
    way = parser.parse_args().way
    if way:
        os.environ["KERAS_BACKEND"] = WAYS[way][0]
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        {
            "mirrored": mirrored,
            "data-parallel": data_parallel,
            "model-parallel": model_parallel,
            "processes": processes,
            "ddp": ddp,
        }[way]()
        return
    for way, (backend, _) in WAYS.items():
        if importlib.util.find_spec(backend):
            subprocess.run([sys.executable, __file__, "--way", way], check=True)
        else:
            print(f"{way}: skipped, {backend} is not installed")


def build():
    import keras

    from keras_l2reg import L2AllWeights

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((64,)),
        keras.layers.Dense(128, activation="relu", name="hidden"),
        keras.layers.Dense(8, name="output"),
    ]
    model = L2AllWeights(keras.Sequential(layers), l2=L2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    return model


def data():
    import numpy as np

    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH * STEPS, 64)).astype("float32")
    return x, rng.integers(0, 8, BATCH * STEPS)


def half_of_each_batch(rank):
    """The samples for process `rank` of two."""
    return [a.reshape(STEPS, 2, BATCH // 2, -1)[:, rank] for a in data()]


def run(model, x, y, batch=BATCH):
    """Train, and return what is compared: the history and the weights."""
    history = model.fit(x, y, batch, epochs=2, shuffle=False, verbose=0).history
    return history, model.get_weights()


def report(way, one, many):
    import numpy as np

    (logs, weights), (other_logs, other_weights) = one, many
    distances = {key: distance(logs[key], other_logs[key]) for key in logs}
    distances["weights"] = max(
        distance(a, b) for a, b in zip(weights, other_weights, strict=True)
    )
    shown = ", ".join(f"{key} {value:.1e}" for key, value in distances.items())
    print(f"{way} ({WAYS[way][1]}): relative distance from one device: {shown}")
    if not np.max([*distances.values()]) <= 1e-5:
        raise SystemExit(f"{way}: the relative distance is more than 1e-5")


def distance(a, b):
    import numpy as np

    a, b = np.asarray(a), np.asarray(b)
    return np.max(np.abs(a - b)) / np.max(np.abs(a))


def mirrored():
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    one = run(build(), *data())
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        model = build()
    report("mirrored", one, run(model, *data()))


def four_host_devices():
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"


def data_parallel():
    four_host_devices()
    import keras

    one = run(build(), *data())
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    report("data-parallel", one, run(build(), *data()))


def model_parallel():
    four_host_devices()
    import keras

    one = run(build(), *data())
    devices = keras.distribution.list_devices()
    mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*hidden/kernel"] = (None, "model")
    layout[".*hidden/bias"] = ("model",)
    layout[".*output/kernel"] = ("model", None)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    )
    report("model-parallel", one, run(build(), *data()))


def processes():
    in_two_processes("processes", _jax_process)


def _jax_process(rank, port, answers):
    import jax

    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    import keras

    # Keras concatenates the batches of the processes, so each passes its half.
    whole = keras.distribution.DataParallel(auto_shard_dataset=False)
    keras.distribution.set_distribution(whole)
    x, y = half_of_each_batch(rank)
    many = run(build(), x.reshape(-1, 64), y.reshape(-1), BATCH // 2)
    if rank == 0:
        answers.put(many)


def ddp():
    in_two_processes("ddp", _torch_process)


def _torch_process(rank, port, answers):
    import keras
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = build()
    parallel = torch.nn.parallel.DistributedDataParallel(model)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    logs = {"loss": [], "data_loss": [], "penalty": []}
    x, y = map(torch.from_numpy, half_of_each_batch(rank))
    for _ in range(2):
        sums = torch.zeros(3)
        for step in range(STEPS):
            data_loss = loss_of(y[step, :, 0], parallel(x[step]))
            # torch averages the gradients, so each process adds the full penalty, and
            # it still counts once.
            penalty = sum(model.losses)
            optimizer.zero_grad()
            (data_loss + penalty).backward()
            optimizer.step()
            parts = torch.stack([data_loss + penalty, data_loss, penalty]).detach()
            dist.all_reduce(parts)
            sums += parts / 2 / STEPS
        for key, value in zip(logs, sums.tolist(), strict=True):
            logs[key].append(value)
    if rank == 0:
        answers.put((logs, model.get_weights()))
    dist.destroy_process_group()


def in_two_processes(way, work):
    one = run(build(), *data())
    context = multiprocessing.get_context("spawn")
    answers, port = context.Queue(), free_port()
    workers = [
        context.Process(target=work, args=(rank, port, answers)) for rank in (0, 1)
    ]
    for worker in workers:
        worker.start()
    try:
        report(way, one, answers.get(timeout=120))
    finally:
        for worker in workers:
            worker.join(timeout=20)
            worker.kill()


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


if __name__ == "__main__":
    main()
