"""The penalty in TensorBoard: train, check the event files, take a screenshot.

    python examples/dashboard.py
    python examples/dashboard.py --logs logs && tensorboard --logdir logs

Trains a small network with `PenaltyLogger` and a strength that rises over the first
half, with `TensorBoard` after both callbacks. Prints the contents of the event files,
which must match the history of `fit`; then serves the page on loopback, opens it in
headless Chromium, and saves a screenshot. Without Chromium, there is no screenshot.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import hush  # noqa: F401  (before Keras)
import keras
import numpy as np
from glyphs import load_glyphs
from PIL import Image

from keras_l2reg import L2AllWeights, PenaltyLogger, StrengthScheduler

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
# The scalars page, unsmoothed, with these charts only.
PAGE = "#scalars&_smoothingWeight=0&tagFilter=%5Eepoch_(penalty%7Cdata_loss%7Cl2)"
WINDOW = (1480, 760)
LINES = (255, 112, 67)  # the color of the run `train`


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=20, help="%(default)s")
    parser.add_argument("--l2", type=float, default=1e-3, help="%(default)s")
    parser.add_argument(
        "--logs", metavar="DIR", help="a new directory to keep the logs in"
    )
    parser.add_argument("--picture", metavar="FILE", default="tensorboard.png")
    parser.add_argument("--quick", action="store_true", help="a few steps, for CI")
    args = parser.parse_args()
    if args.quick:
        args.epochs = 4
    if args.logs and Path(args.logs).exists():
        sys.exit(f"Expected a new directory for the logs. Received: {args.logs}")
    try:
        import tensorboard  # noqa: F401 - not a dependency of Keras or TensorFlow
    except ImportError:
        sys.exit("This needs TensorBoard: pip install 'keras_l2reg[examples]'")

    with tempfile.TemporaryDirectory() as scratch:
        logs = Path(args.logs or scratch)
        compare(train(args.epochs, args.l2, logs), logs)
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            print(f"Picture: skipped, found none of {', '.join(BROWSERS)}")
            return
        take_picture(browser, serve(logs) + PAGE, args.picture)
        print(f"Picture: {args.picture}")


def train(epochs, l2, logs):
    """Train with TensorBoard logs; returns the history."""
    keras.utils.set_random_seed(0)
    glyphs = load_glyphs()
    network = keras.Sequential(
        [
            keras.Input((28, 28)),
            keras.layers.Flatten(),
            keras.layers.Dense(256, "relu", name="hidden"),
            keras.layers.Dense(64, "relu", name="middle"),
            keras.layers.Dense(10, name="output"),
        ]
    )
    model = L2AllWeights(network)
    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    history = model.fit(
        glyphs["x_train"],
        glyphs["y_train"],
        batch_size=128,
        epochs=epochs,
        verbose=0,
        validation_data=(glyphs["x_valid"], glyphs["y_valid"]),
        callbacks=[
            PenaltyLogger(),
            StrengthScheduler(lambda epoch: l2 * min(1.0, 2 * epoch / epochs)),
            # After these two, or it would miss their keys.
            keras.callbacks.TensorBoard(logs),
        ],
    )
    return history.history


def compare(history, logs):
    """Print the first and last value of each chart; exit if the history differs."""
    charts = {run: read_charts(logs / run) for run in ("train", "validation")}
    for key, values in history.items():
        run = "validation" if key.startswith("val_") else "train"
        chart = charts[run].get("epoch_" + key.removeprefix("val_"))
        if chart != np.float32(values).tolist():
            sys.exit(f"{key}: the event files contain {chart}, `fit` returned {values}")
        print(f"{key:22} {chart[0]:8.4g} -> {chart[-1]:8.4g}")
    print("The event files match the history of `fit`.")


def read_charts(directory):
    """The values of each tag in a directory of event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(directory), size_guidance={"tensors": 0})
    events.Reload()
    return {
        tag: [make_ndarray(e.tensor_proto).tolist() for e in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
    }


def serve(logs):
    """Serve the logs on loopback until this process ends; returns the address."""
    from tensorboard import program

    server = program.TensorBoard()
    options = ["--logdir", str(logs), "--host", "127.0.0.1", "--port", "0"]
    # The fast loader is a separate process, and prints a message at each start.
    server.configure(argv=["tensorboard", *options, "--load_fast", "false"])
    address = server.launch()
    for _ in range(120):
        with urllib.request.urlopen(address + "data/plugin/scalars/tags") as answer:
            if json.load(answer).keys() >= {"train", "validation"}:
                return address
        time.sleep(0.5)
    sys.exit("TensorBoard did not load the logs within a minute")


def take_picture(browser, page, path):
    """Save a screenshot of `page`; exit if it shows no charts."""
    width, height = WINDOW
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless",
            "--no-sandbox",  # the sandbox does not allow root; the page is local
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            # Fast-forwards the timers of the page, but waits for its requests.
            "--virtual-time-budget=30000",
            f"--screenshot={Path(path).resolve()}",
            page,
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    if (pixels == LINES).all(axis=-1).sum() < 1000:
        sys.exit(f"The TensorBoard page has no charts: see {path}")


if __name__ == "__main__":
    main()
