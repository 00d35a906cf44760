"""The path of the tabular network as a program for JAX alone, written by hand.

It trains and evaluates a run for each strength, as `l2_path` does, and nothing else: a
yardstick for the time that takes to compile and to run.
"""

import itertools
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from keras_l2reg._keras.backends.jax_stacked import _quick_compilation

RATE, BETA_1, BETA_2, EPSILON = 1e-3, 0.9, 0.999, 1e-7


def predictions(weights, x):
    for kernel, bias in zip(weights[::2], weights[1::2], strict=True):
        x = jax.nn.relu(x @ kernel + bias)
    return x


def loss(weights, x, y, l2):
    penalty = l2 * sum(jnp.sum(kernel**2) for kernel in weights[::2])
    return jnp.mean((predictions(weights, x) - y) ** 2) + penalty


def step(state, x, y):
    """A step of Adam, and the sum of the losses."""
    weights, firsts, seconds, count, l2, total = state
    value, gradients = jax.value_and_grad(loss)(weights, x, y, l2)
    count = count + 1
    rate = RATE * jnp.sqrt(1 - BETA_2**count) / (1 - BETA_1**count)
    new = [], [], []
    for w, m, v, g in zip(weights, firsts, seconds, gradients, strict=True):
        m, v = m + (g - m) * (1 - BETA_1), v + (g**2 - v) * (1 - BETA_2)
        w = w - rate * m / (jnp.sqrt(v) + EPSILON)
        for values, value_of_step in zip(new, (w, m, v), strict=True):
            values.append(value_of_step)
    return *new, count, l2, total + value * len(x)


def steps(state, x, y, rows):
    def of_batch(state, rows):
        return jax.vmap(step)(state, x[rows], y[rows]), None

    return jax.lax.scan(of_batch, state, rows)[0]


def evaluation(state, x, y):
    return jax.vmap(loss, in_axes=(0, None, None, 0))(state[0], x, y, state[4])


def start(widths, strengths):
    rng, runs = np.random.default_rng(0), len(strengths)
    weights = []
    for inputs, outputs in itertools.pairwise(widths):
        weights += [rng.normal(size=(runs, inputs, outputs)), np.zeros((runs, outputs))]
    weights = [w.astype("float32") for w in weights]
    zeros = [np.zeros_like(w) for w in weights]
    none = np.zeros(runs, "float32")
    return weights, zeros, zeros, none, np.asarray(strengths, "float32"), none


def path(widths, strengths, data, validation_data, batch_size, epochs, cores=2):
    """Train and evaluate a run for each strength, as many runs on each core."""
    pool = ThreadPoolExecutor(cores)
    states = [start(widths, part) for part in np.array_split(strengths, cores)]
    count = len(data[0])
    end = count - count % batch_size

    def batches(order, runs):
        parts = order[:end].reshape(-1, 1, batch_size), order[end:].reshape(1, 1, -1)
        return [np.repeat(part, runs, axis=1) for part in parts]

    well, quickly = (_quick_compilation(level) for level in (2, 0))
    state, rows = states[0], batches(np.arange(count, dtype="int32"), len(states[0][3]))

    def compiling(function, arguments, options, **donated):
        # A new function, since JAX would find the program of the old one.
        jitted = jax.jit(
            lambda *args: function(*args), compiler_options=options, **donated
        )
        return pool.submit(jitted.lower(state, *arguments).compile)

    programs = [
        compiling(steps, (*data, rows[0]), well, donate_argnums=0),
        compiling(steps, (*data, rows[1]), quickly, donate_argnums=0),
        compiling(evaluation, validation_data, quickly),
    ]
    train, train_rest, evaluate = (program.result() for program in programs)
    data, validation_data = jax.device_put((data, validation_data))

    def runs(state):
        rng = np.random.default_rng(0)
        for _ in range(epochs):
            order = rng.permutation(count).astype("int32")
            full, rest = batches(order, len(state[3]))
            state = train_rest(train(state, *data, full), *data, rest)
        return np.asarray(evaluate(state, *validation_data))

    return np.concatenate([*pool.map(runs, states)])
