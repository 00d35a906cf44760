"""Find the strength: fit a network at several strengths, on images of letters.

    python examples/tune.py
    KERAS_BACKEND=jax python examples/tune.py --plot tune.pdf

Trains 784-1024-10 (ReLU, SGD, He initialization) at each strength with `l2_path`, three
times from newly drawn weights, prints a table of the results and saves a plot of them.
Then compares the best strength, the strongest within one standard error of it, and no
penalty on the test images, which are in other fonts; the last line sums up the result.
"""

import argparse
import math

import hush  # noqa: F401  (before Keras)
import keras
import numpy as np
from glyphs import load_glyphs

from keras_l2reg import l2_path
from keras_l2reg.plotting import save_picture

STRENGTHS = [0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0]
BATCH = 128


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--images", type=int, default=1200, help="to train on; %(default)s")
    add("--epochs", type=int, default=40, help="%(default)s")
    add("--plot", metavar="FILE", default="tune.png", help="%(default)s")
    add("--quick", action="store_true", help="a few steps, for CI")
    args = parser.parse_args()
    if args.quick:
        args.images, args.epochs = 400, 3
    strengths, repeats = ([0.02, 0.01, 0.0], 2) if args.quick else (STRENGTHS, 3)

    glyphs = load_glyphs()
    images = [glyphs[f"{part}_train"][: args.images] for part in "xy"]
    validation, test = (
        (glyphs[f"x_{split}"], glyphs[f"y_{split}"]) for split in ("valid", "test")
    )
    model = network(steps=args.epochs * math.ceil(args.images / BATCH))
    settings = {
        "epochs": args.epochs,
        "batch_size": BATCH,
        "validation_batch_size": 1000,
        "repeats": repeats,
        "new_starts": True,
    }
    path = l2_path(model, *images, strengths, validation, **settings)
    print(path)
    save_picture(path.plot(), args.plot, dpi=120)
    print(f"Picture: {args.plot}")

    # The same runs again, as a path keeps only the weights of its best run.
    best, strongest = path.best["l2"], path.one_standard_error["l2"]
    tested = l2_path(model, *images, {best, strongest, 0.0}, test, **settings)
    accuracy = {
        l2: np.array([run["val_accuracy"] for run in tested.runs if run["l2"] == l2])
        for l2 in (best, strongest, 0.0)
    }
    for name, l2 in [("best", best), ("one standard error", strongest), ("none", 0.0)]:
        print(f"test accuracy, {name} (l2={l2:g}): {with_error(accuracy[l2])}")
    print(verdict(best, accuracy[best] - accuracy[0.0]))


def network(steps):
    model = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(1024, "relu", kernel_initializer="he_normal"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.2, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def verdict(best, gains):
    """A sentence about the gains in test accuracy, of runs from the same weights."""
    if best == 0:
        return "Here, by the validation loss, no penalty is best."
    ahead, runs = int(np.sum(gains > 0)), len(gains)
    is_clear = abs(np.mean(gains)) > 2 * standard_error(gains)
    if is_clear and ahead == runs:
        answer = "helps"
    elif is_clear and ahead == 0:
        answer = "hurts"
    else:
        answer = "makes no clear difference"
    return (
        f"Here, l2={best:g} {answer}: {with_error(gains, '+.3f')} in test accuracy "
        f"over no penalty from the same weights, higher in {ahead} of {runs} runs."
    )


def with_error(values, shape=".3f"):
    return f"{np.mean(values):{shape}} ±{standard_error(values):.3f}"


def standard_error(values):
    return np.std(values, ddof=1) / math.sqrt(len(values))


if __name__ == "__main__":
    main()
