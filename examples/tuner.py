"""Search the strength with KerasTuner, by the loss on letters in other fonts.

    python examples/tuner.py
    KERAS_BACKEND=jax python examples/tuner.py --trials 20

Searches `l2` on a log scale by Bayesian optimization; each trial trains 784-1024-10
(ReLU, SGD) from the same initial weights. The objective is `val_data_loss`, since
`val_loss` includes the penalty and so favors weak strengths. Prints all trials, and
the accuracy of the best model on the test fonts.

For the strength alone, `examples/tune.py` is quicker, as it compiles the training step
once for all strengths. A tuner is useful to search other hyperparameters as well.
"""

import argparse
import sys
import tempfile

import hush  # noqa: F401  (before Keras)
import keras
from glyphs import load_glyphs

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
    # The tuner saves each trial's best weights in files.
    with tempfile.TemporaryDirectory() as directory:
        tuner = keras_tuner.BayesianOptimization(
            build,
            objective=keras_tuner.Objective("val_data_loss", "min"),
            max_trials=args.trials,
            seed=1,  # KerasTuner treats 0 as no seed
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
    print_trials(tuner.oracle.get_best_trials(args.trials))
    test = model.evaluate(
        glyphs["x_test"], glyphs["y_test"], verbose=0, return_dict=True
    )
    print(f"best: l2={model.l2:.3g}, test accuracy {test['accuracy']:.3f}")


def build(hp):
    """The model of one trial."""
    keras.utils.set_random_seed(0)  # trials differ only in their strength
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


def print_trials(trials):
    """Print each trial at its best epoch, by strength; the first one is the best."""
    print("      l2 | epoch | val_data_loss | val_accuracy")
    for trial in sorted(trials, key=lambda t: t.hyperparameters.get("l2")):
        l2, epoch = trial.hyperparameters.get("l2"), trial.best_step + 1
        accuracy = trial.metrics.get_best_value("val_accuracy")
        mark = " best" if trial is trials[0] else ""
        print(f"{l2:8.3g} | {epoch:5} | {trial.score:13.4f} | {accuracy:12.3f}{mark}")


if __name__ == "__main__":
    main()
