"""Is an L2 penalty on all weights needed, or is one on the output weights enough?

    python examples/notmnist.py                         # letters from fonts, a minute
    python examples/notmnist.py --start sound           # better initial weights
    python examples/notmnist.py --data notMNIST.pickle  # the original letters

Trains the network of the Udacity assignment (784-1024-10, ReLU, SGD) three times
from the same initial weights: without a penalty, with `beta * tf.nn.l2_loss` on the
output weights only, and on all weights. Each uses the strength that is best on the
validation data for the first seed. Prints a table of the final results and a
conclusion; saves a plot of the training.

The literal start is that of the assignment: weights from N(0, 1), truncated at 2, and a
learning rate of 0.5. The sound start has He and Glorot initialization, and a learning
rate that falls from 0.2 to 0.

Needs matplotlib and rich; runs on every Keras backend (KERAS_BACKEND=jax).
"""

import argparse
import dataclasses
import math
import pickle
import sys
import time

import hush  # noqa: F401  (before Keras)
import keras
import numpy as np
from glyphs import SPLITS, load_glyphs, read_notmnist
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from keras_l2reg import L2AllWeights, L2Loss, PenaltyLogger
from keras_l2reg.plotting import save_picture

LAYERS = ("hidden", "output")
# Which weights each model penalizes; the first keeps its strength at zero.
MODELS = {"no penalty": None, "output only": "output/*", "all weights": None}
# The learning rate of each start. "literal" is exactly as in the assignment, with
# initial weights that are far too large.
RATES = {"literal": 0.5, "sound": 0.2}
BETAS = [0.003, 0.01, 0.03, 0.1]
QUICK = {"per_font": 200, "epochs": 10, "seeds": 1, "betas": [0.01, 0.03]}
# With some thousand images, smaller differences in accuracy are not significant.
CLEAR = 0.01


@dataclasses.dataclass(frozen=True)
class Run:
    """One training: its strength, accuracy by split, and logs by epoch."""

    beta: float
    accuracy: dict
    history: dict


# -------------------------------------------------------------------- training


def initializers(start):
    """The initializers of the hidden and of the output kernel."""
    if start == "literal":
        # The default of `tf.truncated_normal(shape)`.
        return [keras.initializers.TruncatedNormal(stddev=1.0) for _ in LAYERS]
    return keras.initializers.HeNormal(), keras.initializers.GlorotUniform()


def network(args):
    """The network of the assignment with new initial weights."""
    hidden, output = initializers(args.start)
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(
                args.hidden, "relu", kernel_initializer=hidden, name="hidden"
            ),
            keras.layers.Dense(10, kernel_initializer=output, name="output"),
        ]
    )


def learning_rate(args, images):
    """The constant rate of the assignment; for the sound start, it decays to 0."""
    if args.start == "literal":
        return args.learning_rate
    steps = args.epochs * steps_per_epoch(args, images)
    return keras.optimizers.schedules.CosineDecay(args.learning_rate, steps)


def steps_per_epoch(args, images):
    """The number of batches in an epoch."""
    return math.ceil(images / args.batch)


def penalized(args, layers, images):
    """A compiled network with a penalty of strength 0 on `layers` (None: all)."""
    model = L2AllWeights(network(args), regularizer=L2Loss(0.0), layers=layers)
    # A whole epoch per execution saves a third of the time; torch does not support it.
    is_torch = keras.backend.backend() == "torch"
    model.compile(
        keras.optimizers.SGD(learning_rate(args, images)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=1 if is_torch else steps_per_epoch(args, images),
    )
    return model


class NormLogger(keras.callbacks.Callback):
    """Adds the norm of each kernel, penalized or not, to the epoch's logs."""

    def on_epoch_end(self, epoch, logs=None):
        for name in LAYERS:
            kernel = keras.ops.convert_to_numpy(self.model.get_layer(name).kernel)
            logs[f"norm/{name}/kernel"] = float(np.linalg.norm(kernel))


def train_all(args, data):
    """Train every model with every seed, and print a line about each.

    Args:
        args: The command-line arguments.
        data: A dict as of `load_glyphs`.

    Returns:
        A dict from names of models to their `Run`s at the best strength, one per seed.
    """
    # One trace per model: strength and weights are assigned for every run.
    images = len(data["x_train"])
    models = {name: penalized(args, layers, images) for name, layers in MODELS.items()}
    chosen = {name: [] for name in MODELS}
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        start = network(args).get_weights()
        for name, model in models.items():
            trials, began = [], time.perf_counter()
            for beta in strengths(name, chosen[name], args.betas):
                keras.utils.set_random_seed(seed)  # the same order of batches
                model.wrapped_model.set_weights(start)
                trials.append(train(model, beta, args, data))
            best = max(trials, key=lambda run: run.accuracy["valid"])
            chosen[name].append(best)
            seconds = time.perf_counter() - began
            # Flushed, since a pipe would buffer the lines until the end.
            print(f"seed {seed}, {name}: {summary(best, trials, seconds)}", flush=True)
    return chosen


def summary(best, trials, seconds):
    """The result of the runs of one model with one seed, as a line of text."""
    at = f" at beta {best.beta:g}" * (best.beta > 0)
    of = f", best of {len(trials)}" * (len(trials) > 1)
    return f"valid accuracy {best.accuracy['valid']:.3f}{at}{of} ({seconds:.0f} s)"


def strengths(name, earlier, betas):
    """The strengths to try: all for the first seed, then only the best of them."""
    if earlier:
        return [earlier[0].beta]
    return [0.0] if name == "no penalty" else betas


def train(model, beta, args, data):
    """Train `model` from its current weights at the strength `beta`."""
    model.optimizer.iterations.assign(0)  # restarts its learning rate schedule
    model.l2 = beta / 2  # beta * tf.nn.l2_loss(w) = beta / 2 * sum(w**2)
    callbacks = [
        # With the literal start the penalty is nearly all of the loss.
        PenaltyLogger(warn_share=1.0),
        NormLogger(),
    ]
    history = model.fit(
        data["x_train"],
        data["y_train"],
        batch_size=args.batch,
        epochs=args.epochs,
        verbose=0,
        callbacks=callbacks,
    )
    accuracy = {}
    for split in SPLITS:
        x, y = data[f"x_{split}"], data[f"y_{split}"]
        logs = model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)
        accuracy[split] = logs["accuracy"]
    return Run(beta, accuracy, history.history)


# ------------------------------------------------------------------- reporting


def mean(group, split):
    """The mean accuracy of a model's runs on one split."""
    return float(np.mean([run.accuracy[split] for run in group]))


def curve(group, key):
    """A logged value over the epochs, as mean over the seeds; 0 if not logged."""
    epochs = len(group[0].history["loss"])
    return np.mean([run.history.get(key, [0.0] * epochs) for run in group], axis=0)


def with_spread(values):
    """The mean and, for several seeds, the standard deviation: `0.612 ± 0.004`."""
    text = f"{np.mean(values):.3f}"
    return f"{text} ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else text


def beta_text(beta, betas):
    """A strength for the table; marked if a wider grid might have a better one."""
    if beta == 0:
        return "-"
    return f"{beta:g}" + " (end of grid)" * (beta in (min(betas), max(betas)))


def table(chosen, args):
    """The final results of the three models, one per column."""
    result = Table(
        title=f"784-{args.hidden}-10, {args.start} start, SGD {args.learning_rate:g}, "
        f"{args.epochs} epochs, {args.seeds} seed(s)",
        box=box.ASCII2,
    )
    result.add_column("")
    for name in chosen:
        result.add_column(name, justify="right")
    groups = chosen.values()
    result.add_row("beta", *(beta_text(g[0].beta, args.betas) for g in groups))
    for split in SPLITS:
        cells = (with_spread([run.accuracy[split] for run in g]) for g in groups)
        result.add_row(f"{split} accuracy", *cells)
    for layer in LAYERS:
        for what in ("norm", "penalty"):
            lasts = (curve(g, f"{what}/{layer}/kernel")[-1] for g in groups)
            result.add_row(f"{layer} {what}", *(f"{last:.4g}" for last in lasts))
    return result


def verdict(chosen):
    """A sentence that answers the question from the results."""
    names = sorted(chosen, key=lambda name: -mean(chosen[name], "test"))
    ranking = ", ".join(f"{name} {mean(chosen[name], 'test'):.3f}" for name in names)
    rival = next(name for name in names if name != "all weights")
    gains = [
        a.accuracy["test"] - b.accuracy["test"]
        for a, b in zip(chosen["all weights"], chosen[rival], strict=True)
    ]
    gain, ahead = np.mean(gains), sum(g > 0 for g in gains)
    if gain >= CLEAR and ahead == len(gains):
        answer = "Yes, here the penalty on all weights is needed"
    elif gain <= -CLEAR and ahead == 0:
        answer = f"No, here the penalty on all weights loses to {rival}"
    else:
        answer = f"Not clear: here all weights and {rival} do about equally well"
    none, output, everywhere = (
        curve(chosen[name], "norm/hidden/kernel")[-1] for name in MODELS
    )
    # It controls them if it has at least half of the effect of a penalty on them.
    controls = none - output >= (none - everywhere) / 2 > 0
    return (
        f"{answer} (test accuracy: {ranking}; {gain:+.3f} against {rival}, ahead on "
        f"{ahead} of {len(gains)} seeds), and the penalty on the output weights "
        f"{'also controls' if controls else 'does not control'} the hidden ones: "
        f"it changes their norm by {output / none - 1:+.1%}, "
        f"the penalty on all weights by {everywhere / none - 1:+.1%}."
    )


def plot(chosen, path):
    """Save each layer's penalty and norm over the epochs, model by model."""
    figure = Figure(figsize=(9, 6), layout="constrained")
    grid = figure.subplots(2, 2, sharex=True)
    units = {"penalty": "penalty (units of the loss)", "norm": "norm (root of sum w²)"}
    for row, what in zip(grid, units, strict=True):
        row[0].set_ylabel(units[what])
        for ax, layer in zip(row, LAYERS, strict=True):
            # From wide to narrow, so that equal lines don't hide each other.
            for k, (name, group) in enumerate(chosen.items()):
                values = curve(group, f"{what}/{layer}/kernel")
                epochs = np.arange(1, len(values) + 1)
                style = {"color": f"C{k}", "lw": 6 - 2 * k, "ls": ("-", "--", "-")[k]}
                if values.any():  # there is no line without a penalty
                    ax.plot(epochs, values, label=name, **style)
            ax.set(title=f"{layer} kernel", yscale="log")
    for ax in grid[-1]:
        ax.set_xlabel("epoch (mean over the seeds)")
    # All three models have norms. Above the panels, the legend hides no lines.
    lines = grid[-1][0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=3, frameon=False)
    save_picture(figure, path, dpi=100)


# ---------------------------------------------------------------- command line


def positive(text):
    """An integer >= 1, for argparse."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected at least 1, received {value}")
    return value


def parse(argv=None):
    """The command-line arguments; --start and --quick change the defaults."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a small run, about 20 seconds")
    add("--data", metavar="FILE", help="notMNIST.pickle; default: letters from fonts")
    add("--per-font", type=positive, default=500, help="letters per font; %(default)s")
    add("--noise", type=float, default=0.4, help="on the fonts' letters; %(default)s")
    add("--train-size", type=positive, default=2400, help="at most; %(default)s")
    add("--start", choices=RATES, default="literal", help="see above; %(default)s")
    add("--hidden", type=positive, default=1024, help="hidden units; %(default)s")
    add("--batch", type=positive, default=128, help="batch size; %(default)s")
    add("--learning-rate", type=float, help=f"of SGD; by start: {RATES}")
    add("--epochs", type=positive, default=30, help="%(default)s")
    add("--betas", type=float, nargs="+", default=BETAS, help="to try; %(default)s")
    add("--seeds", type=positive, default=3, help="seeds to average; %(default)s")
    add("--plot", metavar="FILE", default="notmnist.png", help="%(default)s")
    args = parser.parse_args(argv)
    parser.set_defaults(learning_rate=RATES[args.start], **QUICK if args.quick else {})
    return parser.parse_args(argv)


def load(args):
    """Load the letters according to the arguments."""
    if args.data:
        data = read_notmnist(args.data)
    else:
        data = load_glyphs(per_font=args.per_font, noise=args.noise)
    for name in ("x_train", "y_train"):
        data[name] = data[name][: args.train_size]
    return data


def main(argv=None):
    """Train, and print the results."""
    args = parse(argv)
    console = Console(highlight=False, markup=False)
    try:
        data = load(args)
    except (OSError, ValueError, pickle.UnpicklingError) as error:
        sys.exit(str(error))
    runs = 1 + 2 * len(args.betas) + len(MODELS) * (args.seeds - 1)
    images = len(data["x_train"])
    print(f"{runs} runs of {args.epochs} epochs on {images} letters", flush=True)
    chosen = train_all(args, data)
    console.print(table(chosen, args))
    console.print(verdict(chosen))
    plot(chosen, args.plot)
    console.print(f"Picture: {args.plot}")


if __name__ == "__main__":
    main()
