"""Fine-tune a model with a tenth of the penalty on the backbone, all of it on the head.

    python examples/pretrained.py

A `keras.applications.MobileNet` is pretrained on five letters (nothing is downloaded),
then fine-tuned on the other five with `multipliers={"mobilenet*": 0.1, "head/*": 1}`.
Prints the accuracy, and the penalty of backbone and head before and after.
"""

import argparse

import hush  # noqa: F401  (before Keras)
import keras
import numpy as np
from glyphs import load_glyphs

from keras_l2reg import L2AllWeights, penalties

MULTIPLIERS = {"mobilenet*": 0.1, "head/*": 1.0}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--l2", type=float, default=2e-3)
    parser.add_argument("--quick", action="store_true", help="a few steps, for CI")
    args = parser.parse_args()

    keras.utils.set_random_seed(0)
    epochs, count = (1, 64) if args.quick else (args.epochs, 1500)
    glyphs = load_glyphs(noise=0.1)
    backbone = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, include_top=False
    )
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            # The default, 0.99, needs more steps than these few epochs have.
            layer.momentum = 0.9

    print("pretraining on A to E")
    pretrain = classifier(backbone)
    compile_and_fit(pretrain, glyphs, range(5), epochs, count)

    print("fine-tuning on F to J")
    model = L2AllWeights(classifier(backbone), l2=args.l2, multipliers=MULTIPLIERS)
    before = by_part(model)
    accuracy = compile_and_fit(model, glyphs, range(5, 10), epochs, count)
    after = by_part(model)
    print(f"validation accuracy {accuracy:.3f}")
    for part in before:
        print(f"penalty of {part:8}: {before[part]:.4f} -> {after[part]:.4f}")


def classifier(backbone):
    images = keras.Input((28, 28))
    x = keras.layers.Reshape((28, 28, 1))(images)
    x = keras.layers.ZeroPadding2D(2)(x)
    x = keras.layers.Concatenate()([x, x, x])
    x = keras.layers.GlobalAveragePooling2D()(backbone(x))
    return keras.Model(images, keras.layers.Dense(5, name="head")(x))


def compile_and_fit(model, glyphs, letters, epochs, count):
    train = some(glyphs, "train", letters, count)
    valid = some(glyphs, "valid", letters, count // 2)
    model.compile(
        keras.optimizers.Adam(2e-3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        *train, batch_size=32, epochs=epochs, validation_data=valid, verbose=2
    )
    return history.history["val_accuracy"][-1]


def some(glyphs, split, letters, count):
    x, y = glyphs[f"x_{split}"], glyphs[f"y_{split}"]
    chosen = np.flatnonzero(np.isin(y, letters))
    chosen = np.random.default_rng(0).permutation(chosen)[:count]
    return x[chosen], y[chosen] - min(letters)


def by_part(model):
    now = penalties(model)
    head = sum(value for name, value in now.items() if name.startswith("head/"))
    return {"backbone": sum(now.values()) - head, "head": head}


if __name__ == "__main__":
    main()
