"""L2AllWeights in a custom training loop, on TensorFlow, JAX or torch.

    KERAS_BACKEND=jax python examples/custom_loop.py

In each loop the penalty is `sum(model.losses)`, one term per kernel. Halfway through,
the strength is halved without retracing: the compiled step reads it from a variable.
"""

import argparse

import keras
import numpy as np

from keras_l2reg import L2AllWeights, penalties

LEARNING_RATE, BATCH = 0.1, 32
loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--quick", action="store_true", help="two epochs, for CI")
    args = parser.parse_args()
    epochs = 2 if args.quick else args.epochs

    keras.utils.set_random_seed(0)
    model = build()
    step = STEPS[keras.backend.backend()](model)
    x, y = two_rings(512)
    print(f"backend {keras.backend.backend()}")
    for epoch in range(epochs):
        if epoch == epochs // 2:
            model.l2 = model.l2 / 2
        data_loss, penalty = np.mean(
            [step(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, len(x), BATCH)],
            axis=0,
        )
        print(
            f"epoch {epoch + 1:2d}  l2 {model.l2:.4f}  "
            f"data_loss {data_loss:.4f}  penalty {penalty:.4f}"
        )
    scores = keras.ops.convert_to_numpy(model(x))
    print(f"accuracy {np.mean(scores.argmax(1) == y):.3f}")
    for name, penalty in penalties(model).items():
        print(f"penalty of {name}: {penalty:.4f}")


def build():
    layers = [
        keras.Input((2,)),
        keras.layers.Dense(64, activation="relu", name="hidden"),
        keras.layers.Dense(2, name="output"),
    ]
    return L2AllWeights(keras.Sequential(layers), l2=0.002)


def two_rings(count):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, count)
    angle = rng.uniform(0, 2 * np.pi, count)
    radius = 1.0 + y + rng.normal(0, 0.2, count)
    x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return x.astype("float32"), y


def tensorflow_step(model):
    import tensorflow as tf

    optimizer = keras.optimizers.SGD(LEARNING_RATE)

    @tf.function
    def compiled(x, y):
        with tf.GradientTape() as tape:
            data_loss = loss_of(y, model(x, training=True))
            penalty = tf.add_n(model.losses)
            loss = data_loss + penalty
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(
            zip(gradients, model.trainable_variables, strict=True)
        )
        return data_loss, penalty

    return lambda x, y: [float(v) for v in compiled(x, y)]


def jax_step(model):
    import jax

    optimizer = keras.optimizers.SGD(LEARNING_RATE)
    optimizer.build(model.trainable_variables)

    def loss_and_parts(trainable, fixed, x, y):
        scores, fixed, losses = model.stateless_call(
            trainable, fixed, x, training=True, return_losses=True
        )
        data_loss, penalty = loss_of(y, scores), sum(losses)
        return data_loss + penalty, (data_loss, penalty, fixed)

    @jax.jit
    def compiled(trainable, fixed, slots, x, y):
        gradient = jax.grad(loss_and_parts, has_aux=True)
        gradients, (data_loss, penalty, fixed) = gradient(trainable, fixed, x, y)
        trainable, slots = optimizer.stateless_apply(slots, gradients, trainable)
        return trainable, fixed, slots, data_loss, penalty

    def step(x, y):
        # The strength is among the non-trainable variables, so it is an argument of
        # the compiled step, not a constant in it.
        groups = model.trainable_variables, model.non_trainable_variables
        state = [[v.value for v in g] for g in (*groups, optimizer.variables)]
        *state, data_loss, penalty = compiled(*state, x, y)
        for group, values in zip((*groups, optimizer.variables), state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return float(data_loss), float(penalty)

    return step


def torch_step(model):
    import torch

    optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE)

    def step(x, y):
        data_loss = loss_of(torch.from_numpy(y), model(torch.from_numpy(x)))
        penalty = sum(model.losses)
        optimizer.zero_grad()
        (data_loss + penalty).backward()
        optimizer.step()
        return data_loss.item(), penalty.item()

    return step


STEPS = {"tensorflow": tensorflow_step, "jax": jax_step, "torch": torch_step}

if __name__ == "__main__":
    main()
