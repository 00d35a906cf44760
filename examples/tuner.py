"""KerasTuner looks for the strength: the least loss on other fonts' letters.

    python examples/tuner.py
    KERAS_BACKEND=jax python examples/tuner.py --trials 20

Searches `l2` on a log scale by Bayesian optimization; each trial trains 784-1024-10
(ReLU, SGD) from the same start. The objective is `val_data_loss`: the whole
`val_loss` has the penalty in it, so that a weaker strength would look better for
being weak. Prints all trials, and the best model's accuracy on the test fonts.

For the strength alone `examples/tune.py` is quicker: one trace for all strengths. A
tuner pays off where other hyperparameters are searched along with it.
"""

import argparse
import sys
import tempfile

import hush  # noqa: F401  (before Keras)
import keras
from glyphs import load_glyphs
from rich import box
from rich.console import Console
from rich.table import Table

from keras_l2reg import L2AllWeights


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=10, help="%(default)s")
    parser.add_argument("--epochs", type=int, default=25, help="%(default)s")
    parser.add_argument("--images", type=int, default=1200, help="%(default)s")
    parser.add_argument("--quick", action="store_true", help="a small run, for CI")
    args = parser.parse_args()
    if args.quick:
        args.trials, args.epochs, args.images = 3, 2, 600
    try:
        import keras_tuner
    except ImportError:
        sys.exit("This needs KerasTuner: pip install 'keras_l2reg[examples]'")

    glyphs = load_glyphs()
    train = glyphs["x_train"][: args.images], glyphs["y_train"][: args.images]
    # The tuner keeps each trial's best weights in files.
    with tempfile.TemporaryDirectory() as directory:
        tuner = keras_tuner.BayesianOptimization(
            build,
            objective=keras_tuner.Objective("val_data_loss", "min"),
            max_trials=args.trials,
            seed=1,  # 0 would count as none
            directory=directory,
        )
        tuner.search(
            *train,
            batch_size=128,
            epochs=args.epochs,
            validation_data=(glyphs["x_valid"], glyphs["y_valid"]),
            verbose=0,
        )
        [model] = tuner.get_best_models()
    console = Console(highlight=False)
    console.print(table(tuner.oracle.get_best_trials(args.trials)))
    test = model.evaluate(
        glyphs["x_test"], glyphs["y_test"], verbose=0, return_dict=True
    )
    console.print(f"best: l2={model.l2:.3g}, test accuracy {test['accuracy']:.3f}")


def build(hp):
    """The model of one trial."""
    keras.utils.set_random_seed(0)  # trials differ by their strength alone
    network = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(1024, "relu", kernel_initializer="he_normal"),
            keras.layers.Dense(10),
        ]
    )
    model = L2AllWeights(network, hp.Float("l2", 1e-4, 1e-1, sampling="log"))
    model.compile(
        keras.optimizers.SGD(0.2),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def table(trials):
    """A line for each trial, by strength; the first of `trials` is the best."""
    result = Table(title="each trial at its best epoch", box=box.ASCII2)
    for column in ("l2", "epoch", "val_data_loss", "val_accuracy", ""):
        result.add_column(column, justify="right")
    for trial in sorted(trials, key=lambda t: t.hyperparameters.get("l2")):
        result.add_row(
            f"{trial.hyperparameters.get('l2'):.3g}",
            str(trial.best_step + 1),
            f"{trial.score:.4f}",
            f"{trial.metrics.get_best_value('val_accuracy'):.3f}",
            "best" if trial is trials[0] else "",
        )
    return result


if __name__ == "__main__":
    main()
