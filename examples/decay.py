"""L2, decay, or both? Measure what each does under SGD, momentum and Adam.

    python examples/decay.py                          # three minutes
    KERAS_BACKEND=jax python examples/decay.py --plot decay.pdf

Trains 784-256-10 (ReLU) on images of letters without regularization, with an L2 penalty
and with decoupled weight decay; Adam with decay is AdamW. Each has the strength of a
small grid that is best on the validation images, which are in other fonts, for the
first seed. Prints a table, and saves a plot of the norm of each kernel and of the
validation loss over the epochs.

It also compares the penalty with decay at `rate = 2 * l2`, which for plain SGD is the
same step:

    w - lr * (g + 2 * l2 * w) == (1 - lr * rate) * w - lr * g

Momentum `m` amplifies all gradients, also that of the penalty, by 1 / (1 - m) in the
long run, so there `rate = 2 * l2 / (1 - m)` is closer. With Adam, no rate is
equivalent.
"""

import argparse
import dataclasses
import time
from collections.abc import Callable

import hush  # noqa: F401  (before Keras)
import keras
import numpy as np
from glyphs import load_glyphs
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from keras_l2reg import L2AllWeights, PenaltyLogger
from keras_l2reg.plotting import save_picture

KERNELS = ("hidden/kernel", "output/kernel")
WAYS = {"none": "none", "l2": "L2 penalty", "decay": "weight decay"}
BATCH = 128


@dataclasses.dataclass(frozen=True)
class Setting:
    """An optimizer, the strengths to try with it, and the `rate / l2` to compare."""

    make: Callable
    l2: list
    decay: list
    ratios: tuple = (2,)


SETTINGS = {
    "SGD": Setting(
        lambda: keras.optimizers.SGD(0.1),
        l2=[0.001, 0.003, 0.01, 0.03],
        decay=[0.002, 0.006, 0.02, 0.06],
    ),
    "momentum": Setting(
        lambda: keras.optimizers.SGD(0.01, momentum=0.9),
        l2=[0.001, 0.003, 0.01, 0.03],
        decay=[0.02, 0.06, 0.2, 0.6],
        ratios=(2, 20),
    ),
    "Adam": Setting(
        lambda: keras.optimizers.Adam(0.001),
        l2=[0.0003, 0.001, 0.003, 0.01],
        decay=[0.3, 1.0, 3.0, 10.0],
    ),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its strengths, logs by epoch, and kernels by (some) epochs."""

    strengths: dict
    history: dict
    kernels: dict


# -------------------------------------------------------------------- training


class Experiment:
    """Trains one model with one optimizer at many strengths, with one trace.

    Args:
        make_optimizer: A function that returns an optimizer.
        data: A dict as of `load_glyphs`.
        epochs: Epochs of each run.
    """

    def __init__(self, make_optimizer, data, epochs):
        self.data, self.epochs = data, epochs
        # Both by name, so that both are live; at most one is not 0.
        self.model = L2AllWeights(network(), l2=0.0, weight_decay=0.0)
        self.model.compile(
            make_optimizer(),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        self.model.optimizer.build(self.model.trainable_variables)
        self.fresh = [np.array(v) for v in map(to_numpy, self.optimizer_state())]
        # On JAX and torch, the first `fit` draws other random numbers than later ones,
        # so that its batches would be others.
        self.model.fit(data["x_train"][:1], data["y_train"][:1], verbose=0)

    def optimizer_state(self):
        return self.model.optimizer.variables

    def run(self, seed, l2=0.0, decay=0.0):
        """Train from the initial weights of `seed`, with its order of batches."""
        keras.utils.set_random_seed(seed)
        self.model.wrapped_model.set_weights(network().get_weights())
        for variable, value in zip(self.optimizer_state(), self.fresh, strict=True):
            variable.assign(value)
        self.model.l2, self.model.weight_decay = l2, decay
        kernels = {}

        def keep_kernels(epoch, logs):
            if epoch + 1 in (1, self.epochs):
                layers = map(self.model.get_layer, ("hidden", "output"))
                kernels[epoch + 1] = [np.array(to_numpy(la.kernel)) for la in layers]

        history = self.model.fit(
            self.data["x_train"],
            self.data["y_train"],
            validation_data=(self.data["x_valid"], self.data["y_valid"]),
            batch_size=BATCH,
            validation_batch_size=1000,
            epochs=self.epochs,
            verbose=0,
            callbacks=[
                PenaltyLogger(norms=True, warn_share=1.0),
                keras.callbacks.LambdaCallback(on_epoch_end=keep_kernels),
            ],
        )
        return Run({"l2": l2, "decay": decay}, history.history, kernels)


def network():
    """784-256-10 with new initial weights."""
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(
                256, "relu", kernel_initializer="he_normal", name="hidden"
            ),
            keras.layers.Dense(10, name="output"),
        ]
    )


def to_numpy(variable):
    return keras.ops.convert_to_numpy(variable)


def train_all(setting, data, args):
    """Train in each way, at its best strength with every seed.

    Returns:
        A dict from ways to `Run`s, one per seed; and the `Run`s with weight decay at
        each ratio to the `l2` of the penalty, with the first seed.
    """
    experiment = Experiment(setting.make, data, args.epochs)
    chosen = {"none": [experiment.run(0)]}
    for way in ("l2", "decay"):
        grid = getattr(setting, way)[1 : 3 if args.quick else None]
        trials = [experiment.run(0, **{way: strength}) for strength in grid]
        chosen[way] = [min(trials, key=lambda run: run.history[LOSS][-1])]
    for runs in chosen.values():
        for seed in range(1, args.seeds):
            runs.append(experiment.run(seed, **runs[0].strengths))
    l2 = chosen["l2"][0].strengths["l2"]
    matched = [experiment.run(0, decay=ratio * l2) for ratio in setting.ratios]
    return chosen, matched


# ------------------------------------------------------------------- reporting

LOSS, ACCURACY = "val_data_loss", "val_accuracy"


def distance(one, other, epoch):
    """The largest absolute difference between the kernels of two runs."""
    pairs = zip(one.kernels[epoch], other.kernels[epoch], strict=True)
    return float(max(np.abs(a - b).max() for a, b in pairs))


def last(runs, key):
    """The value after the last epoch, as mean over the seeds."""
    return float(np.mean([run.history[key][-1] for run in runs]))


def table(results, args):
    """A line per optimizer and way."""
    title = f"784-256-10, {args.images} letters, {args.epochs} epochs, "
    title += (
        f"{args.seeds} seed(s):\nnorms of the kernels, validation loss and accuracy"
    )
    result = Table(title=title, box=box.ASCII2)
    for name in ("", "", "strength", "hidden", "output", "loss", "accuracy"):
        result.add_column(name, justify="right" if name else "left")
    for name, (chosen, _) in results.items():
        for way, runs in chosen.items():
            norms = [f"{last(runs, f'norm/{kernel}'):.2f}" for kernel in KERNELS]
            scores = [f"{last(runs, key):.3f}" for key in (LOSS, ACCURACY)]
            strength = f"{runs[0].strengths.get(way, 0.0):g}"
            result.add_row(name, WAYS[way], strength, *norms, *scores)
        result.add_section()
    return result


def distances(results):
    """How far each L2 penalty is from weight decay at the ratios to it, and from none.

    After the first epoch, and after the last, when rounding errors have grown.
    """
    result = Table(title="largest difference of the weights", box=box.ASCII2)
    for name in ("", "L2 penalty", "weight decay", "first epoch", "last epoch"):
        result.add_column(name, justify="right" if name else "left")
    for name, (chosen, matched) in results.items():
        penalized = chosen["l2"][0]
        l2 = penalized.strengths["l2"]
        for run in [*matched, chosen["none"][0]]:
            result.add_row(
                name,
                f"{l2:g}",
                f"{run.strengths['decay']:g}",
                *(f"{distance(penalized, run, e):.1e}" for e in penalized.kernels),
            )
        result.add_section()
    return result


def loss_limits(results):
    """Limits for the validation loss that show its last value in all runs."""
    ends = [
        last(runs, LOSS) for chosen, _ in results.values() for runs in chosen.values()
    ]
    return 0.95 * min(ends), 1.2 * max(ends)


def plot(results, path):
    """Save the norms and the validation loss over the epochs, by optimizer."""
    figure = Figure(figsize=(9, 7), layout="constrained")
    rows = [f"norm/{kernel}" for kernel in KERNELS] + [LOSS]
    labels = [f"norm of {kernel}" for kernel in KERNELS] + ["validation loss"]
    grid = figure.subplots(len(rows), len(results), sharex=True, sharey="row")
    # From wide to narrow, so that equal lines don't hide each other.
    styles = {
        "none": {"color": "0.6", "lw": 5},
        "l2": {"color": "C0", "lw": 3},
        "decay": {"color": "C1", "lw": 1.5, "ls": "--"},
    }
    for axes, key, label in zip(grid, rows, labels, strict=True):
        axes[0].set_ylabel(label)
        for ax, (chosen, _) in zip(axes, results.values(), strict=True):
            for way, runs in chosen.items():
                values = np.mean([run.history[key] for run in runs], axis=0)
                epochs = np.arange(1, len(values) + 1)
                ax.plot(epochs, values, label=WAYS[way], **styles[way])
        axes[0].set_ylim(bottom=0)
    # The first epochs are alike, and would leave little room for the last.
    grid[-1][0].set_ylim(*loss_limits(results))
    for ax, name in zip(grid[0], results, strict=True):
        ax.set_title("Adam (with decay: AdamW)" if name == "Adam" else name)
    for ax in grid[-1]:
        ax.set_xlabel("epoch")
    lines = grid[0][0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=3, frameon=False)
    save_picture(figure, path, dpi=100)


# ---------------------------------------------------------------- command line


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=1200, help="to train on; %(default)s")
    add("--epochs", type=int, default=40, help="%(default)s")
    add("--seeds", type=int, default=3, help="seeds to average; %(default)s")
    add("--plot", metavar="FILE", default="decay.png", help="%(default)s")
    add("--quick", action="store_true", help="a small run, for CI")
    args = parser.parse_args(argv)
    if args.quick:
        args.images, args.epochs, args.seeds = 400, 4, 1

    data = load_glyphs()
    for name in ("x_train", "y_train"):
        data[name] = data[name][: args.images]
    results = {}
    for name, setting in SETTINGS.items():
        began = time.perf_counter()
        results[name] = train_all(setting, data, args)
        # Flushed, since a pipe would buffer the lines until the end.
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    console = Console(highlight=False, markup=False)
    console.print(table(results, args))
    console.print(distances(results))
    plot(results, args.plot)
    print(f"Picture: {args.plot}")


if __name__ == "__main__":
    main()
