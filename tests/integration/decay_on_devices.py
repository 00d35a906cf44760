"""Prints how far decay on several devices is from decay on one; run by test_devices.

    python decay_on_devices.py mirrored

Each way needs a process of its own, since devices are set up before the backend starts.
"""

import os
import sys

WAYS = {
    "mirrored": "tensorflow",
    "mirrored-scaled": "tensorflow",
    "data-parallel": "jax",
    "model-parallel": "jax",
}


def main(way):
    os.environ["KERAS_BACKEND"] = WAYS[way]
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    start = {"tensorflow": mirrored, "jax": shards}[WAYS[way]]
    print(max(start(way)))


def mirrored(way):
    import tensorflow as tf

    cpu = tf.config.list_physical_devices("CPU")[0]
    halves = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(cpu, halves)
    for couple in ("lr", "corrected"):
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
        one = trained(couple, way)
        with strategy.scope():
            model = compiled(couple, way)
        yield distance(one, fitted(model))


def shards(way):
    import keras

    distribution = keras.distribution
    for couple in ("lr", "corrected"):
        one = trained(couple, way)
        devices = distribution.list_devices()
        mesh = distribution.DeviceMesh((2, 2), ["batch", "model"], devices)
        layout = distribution.LayoutMap(mesh)
        layout[".*hidden/kernel"] = (None, "model")
        layout[".*output/kernel"] = ("model", None)
        distribution.set_distribution(
            distribution.DataParallel()
            if way == "data-parallel"
            else distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
        )
        yield distance(one, trained(couple, way))
        distribution.set_distribution(None)


def trained(couple, way):
    return fitted(compiled(couple, way))


def compiled(couple, way):
    import keras

    from keras_l2reg import set_weight_decay

    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((16,)),
        keras.layers.Dense(32, activation="relu", name="hidden"),
        keras.layers.Dense(8, name="output"),
    ]
    model = keras.Sequential(layers)
    schedule = keras.optimizers.schedules.CosineDecay(0.01, 20, warmup_steps=2)
    # Keras can't accumulate gradients in a MirroredStrategy.
    steps = None if way.startswith("mirrored") else 2
    sgd = keras.optimizers.SGD(schedule, 0.9, gradient_accumulation_steps=steps)
    rule = {"couple": couple, "multipliers": {"output/*": 0.5}}
    optimizer = set_weight_decay(sgd, model, 5.0, **rule)
    if way == "mirrored-scaled":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse")
    return model


def fitted(model):
    import numpy as np

    x = np.random.default_rng(0).normal(size=(64, 16))
    y = np.tanh(x[:, :8])
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0)
    return model.get_weights()


def distance(one, many):
    import numpy as np

    return max(
        float(np.max(np.abs(a - b)) / np.max(np.abs(a)))
        for a, b in zip(one, many, strict=True)
    )


if __name__ == "__main__":
    main(sys.argv[1])
