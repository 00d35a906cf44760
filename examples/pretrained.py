"""Fine-tune on few images: a penalty towards zero, or towards the pretrained weights?

    python examples/pretrained.py
    python examples/pretrained.py --source-noise 0.4     # a source just like the target
    KERAS_BACKEND=jax python examples/pretrained.py --plot pretrained.pdf

A convolutional backbone is trained on the letters K to Z with little noise (nothing is
downloaded), then fine-tuned on ten noisy images of each of A to J, in five ways: no
penalty, L2 on all weights, L2 towards the pretrained weights (L2-SP, by
`towards_start="backbone/*"`), a frozen backbone with L2 on the new head, and, to see
what pretraining is worth, L2 from newly drawn weights. Each uses the strength with the
best accuracy on letters in other fonts, and is tested on a third family of fonts.

Prints a table of means and standard deviations over the seeds, which draw all weights
and the ten images, and a conclusion; saves a plot of the accuracy by strength.

Reference: Li, Grandvalet & Davoine, Explicit Inductive Bias for Transfer Learning with
Convolutional Networks, ICML 2018, https://proceedings.mlr.press/v80/li18a.html
"""

import argparse
import dataclasses
import math
import time

import hush  # noqa: F401  (before Keras)
import keras
import numpy as np
from glyphs import load_glyphs
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table

from keras_l2reg import L2AllWeights, L2Path, find_weights, l2_path
from keras_l2reg.plotting import save_picture

SOURCE, TARGET = "KLMNOPQRSTUVWXYZ", "ABCDEFGHIJ"
STRENGTHS = [1.0, 0.3, 0.1, 0.03, 0.01, 0.003]
NONE, TO_ZERO, TO_START = "no penalty", "to zero", "to the start"
FROZEN, SCRATCH = "frozen", "from scratch"
BATCH = 32
# With some thousand images, smaller differences in accuracy are not significant.
CLEAR = 0.01


@dataclasses.dataclass(frozen=True)
class Run:
    """One way of fine-tuning with one seed, at its best strength."""

    path: L2Path
    test_accuracy: float
    distance: float

    @property
    def valid_accuracy(self):
        return self.path.best["val_accuracy"]


# -------------------------------------------------------------------- training


def new_backbone():
    return keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Reshape((28, 28, 1)),
            keras.layers.Conv2D(16, 5, 2, "same", activation="relu"),
            keras.layers.Conv2D(32, 3, 2, "same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(128, "relu"),
        ],
        name="backbone",
    )


def with_head(backbone, classes):
    head = keras.layers.Dense(classes, name="head")
    return keras.Sequential([keras.Input((28, 28)), backbone, head])


def compile_model(model, rate, epochs, images):
    steps = epochs * math.ceil(images / BATCH)
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    model.compile(
        keras.optimizers.SGD(schedule, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )


def pretrained(glyphs, epochs):
    """A backbone trained on the source, and its accuracy on the test fonts."""
    backbone = new_backbone()
    model = with_head(backbone, len(SOURCE))
    x, y = glyphs["x_train"], glyphs["y_train"]
    compile_model(model, 0.05, epochs, len(x))
    model.fit(x, y, batch_size=BATCH, epochs=epochs, verbose=0)
    return backbone, accuracy(model, glyphs)


def fine_tune(way, source, few, glyphs, args, seed):
    """Fine-tune a copy of the backbone `source` on the images `few`."""
    keras.utils.set_random_seed(seed)  # the same new head for all ways
    backbone = new_backbone()
    model = with_head(backbone, len(TARGET))
    if way != SCRATCH:
        backbone.set_weights(source.get_weights())
    if way == FROZEN:
        backbone.trainable = False
    towards_start = "backbone/*" if way == TO_START else False
    model = L2AllWeights(model, towards_start=towards_start)
    compile_model(model, 0.02, args.epochs, len(few[0]))
    path = l2_path(
        model,
        *few,
        [0.0] if way == NONE else args.strengths,
        (glyphs["x_valid"], glyphs["y_valid"]),
        epochs=args.epochs,
        batch_size=BATCH,
        validation_batch_size=1000,
        monitor="val_accuracy",
        mode="max",
        seed=seed,
        verbose=0,
    )
    # The path leaves the model with the weights of its best run.
    return Run(path, accuracy(model, glyphs), distance(backbone, source))


def accuracy(model, glyphs):
    x, y = glyphs["x_test"], glyphs["y_test"]
    logs = model.evaluate(x, y, batch_size=1000, verbose=0, return_dict=True)
    return logs["accuracy"]


def distance(backbone, source):
    """`||w - w0||` over all kernels."""
    kernels = zip(kernels_of(backbone), kernels_of(source), strict=True)
    return math.sqrt(sum(np.sum((w - w0) ** 2) for w, w0 in kernels))


def kernels_of(backbone):
    weights = find_weights(backbone)
    kernels = [weight.variable for weight in weights if weight.role == "kernel"]
    return [keras.ops.convert_to_numpy(kernel) for kernel in kernels]


def some_of_each(glyphs, count, seed):
    """`count` training images of each letter, and their labels."""
    rng, labels = np.random.default_rng(seed), glyphs["y_train"]
    chosen = [
        rng.choice(np.flatnonzero(labels == label), count, replace=False)
        for label in range(len(TARGET))
    ]
    chosen = np.concatenate(chosen)
    return glyphs["x_train"][chosen], labels[chosen]


def train_all(args):
    """A dict from each way of fine-tuning to its `Run`s, one per seed."""
    source = load_glyphs(per_font=640, noise=args.source_noise, letters=SOURCE)
    target = load_glyphs(noise=args.noise, letters=TARGET)
    runs = {way: [] for way in (NONE, TO_ZERO, TO_START, FROZEN, SCRATCH)}
    for seed in range(args.seeds):
        keras.utils.set_random_seed(seed)
        began = time.perf_counter()
        backbone, source_accuracy = pretrained(source, args.source_epochs)
        few = some_of_each(target, args.images, seed)
        for way in runs:
            runs[way].append(fine_tune(way, backbone, few, target, args, seed))
        seconds = time.perf_counter() - began
        print(
            f"seed {seed}: pretrained to {source_accuracy:.3f} on K to Z in test "
            f"fonts, then fine-tuned in {len(runs)} ways ({seconds:.0f} s)",
            flush=True,
        )
    return runs


# ------------------------------------------------------------------- reporting


def table(runs, args):
    """The results, a row for each way of fine-tuning."""
    title = f"{args.images} images of each of A to J, {args.seeds} seed(s)"
    result = Table(title=title, box=box.ASCII2)
    result.add_column("")
    for column in ("l2", "valid accuracy", "test accuracy", "||w - w0||"):
        result.add_column(column, justify="right")
    for way, group in runs.items():
        result.add_row(
            way,
            "-" if way == NONE else strengths_text(group),
            with_spread([run.valid_accuracy for run in group], 3),
            with_spread([run.test_accuracy for run in group], 3),
            "-" if way == SCRATCH else with_spread([r.distance for r in group], 2),
        )
    return result


def strengths_text(group):
    """The chosen strength, or the range of them: `0.03 to 0.1`."""
    chosen = {run.path.best["l2"] for run in group}
    return " to ".join(f"{l2:g}" for l2 in sorted({min(chosen), max(chosen)}))


def with_spread(values, digits):
    """The mean and, for several seeds, the standard deviation: `0.612 ± 0.004`."""
    text = f"{np.mean(values):.{digits}f}"
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}"
    return text


def verdict(runs):
    """Sentences that compare the penalty towards the start with the others."""
    others = [way for way in runs if way != TO_START]
    parts = [compared(runs[TO_START], runs[way], way) for way in others]
    return f"Here, in test accuracy, {TO_START!r} {'; '.join(parts)}."


def compared(group, rivals, name):
    gains = [
        run.test_accuracy - rival.test_accuracy
        for run, rival in zip(group, rivals, strict=True)
    ]
    gain, ahead = np.mean(gains), sum(g > 0 for g in gains)
    if gain >= CLEAR and ahead == len(gains):
        result = "wins against"
    elif gain <= -CLEAR and ahead == 0:
        result = "loses to"
    else:
        result = "does about as well as"
    return f"{result} {name!r} ({gain:+.3f}, ahead on {ahead} of {len(gains)} seeds)"


def plot(runs, path):
    """Save the validation accuracy by strength, as mean over the seeds."""
    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    for k, way in enumerate((TO_START, TO_ZERO, FROZEN, SCRATCH)):
        strengths = [record["l2"] for record in runs[way][0].path.records]
        values = np.array(
            [[r["val_accuracy"] for r in run.path.records] for run in runs[way]]
        )
        mean, spread = values.mean(axis=0), values.std(axis=0)
        axes.plot(strengths, mean, "o-", color=f"C{k}", label=way)
        axes.fill_between(
            strengths, mean - spread, mean + spread, color=f"C{k}", alpha=0.15
        )
    none = np.mean([run.valid_accuracy for run in runs[NONE]])
    axes.axhline(none, color="gray", ls="--", label=NONE)
    axes.set(xscale="log", xlabel="l2", ylabel="validation accuracy")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    save_picture(figure, path, dpi=120)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=10, help="of each target letter; %(default)s")
    add("--epochs", type=int, default=30, help="of fine-tuning; %(default)s")
    add("--source-epochs", type=int, default=6, help="of pretraining; %(default)s")
    add("--source-noise", type=float, default=0.1, help="on K to Z; %(default)s")
    add("--noise", type=float, default=0.4, help="on A to J; %(default)s")
    add("--seeds", type=int, default=3, help="%(default)s")
    add("--strengths", type=float, nargs="+", default=STRENGTHS, help="%(default)s")
    add("--plot", metavar="FILE", default="pretrained.png", help="%(default)s")
    add("--quick", action="store_true", help="a small run, for CI")
    args = parser.parse_args()
    if args.quick:
        args.seeds, args.source_epochs, args.epochs = 1, 1, 5
        args.strengths = [0.3, 0.01]
    console = Console(highlight=False, markup=False)
    runs = train_all(args)
    console.print(table(runs, args))
    console.print(verdict(runs))
    plot(runs, args.plot)
    console.print(f"Picture: {args.plot}")


if __name__ == "__main__":
    main()
