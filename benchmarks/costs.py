"""The tables of docs/costs.md, from results.json: printed, to be pasted.

python benchmarks/costs.py
"""

import json
import pathlib

from report import (
    BARE,
    DECAY,
    KERAS,
    OUR_DECAYS,
    OURS,
    added_of_keras,
    quartiles,
    ratios,
    spread,
)

ALONE = "gradient alone"
MODES = {
    "tensorflow": "TensorFlow",
    "tensorflow-xla": "TensorFlow, XLA",
    "jax": "JAX",
    "torch": "torch",
}
NETWORKS = {
    "seed 784-1024-10": "784-1024-10, 128",
    "deep 50 x 256": "50 x 256, 128",
    "wide 4096 x 4096": "4096 x 4096, 128",
    "ResNet50 at 64x64": "ResNet50 at 64x64, 16",
    "small 30-64-64-1": "30-64-64-1, 64",
}


def main():
    file = pathlib.Path(__file__).with_name("results.json")
    answers = json.loads(file.read_text())["answers"]
    print("network, batch", "backend", KERAS, DECAY, OURS, OURS, ALONE, sep=" | ")
    for network, shown in NETWORKS.items():
        for mode, backend in MODES.items():
            rounds = answers["step"][mode][network]
            added = [percent(rounds, rival) for rival in (KERAS, DECAY, OURS)]
            show(shown, backend, *added, *of_keras(rounds))
    print("\nThe same in the time of computing")
    for network, shown in NETWORKS.items():
        for mode in ("tensorflow", "tensorflow-xla"):
            rounds = answers["step"][mode][f"{network}, computing"]
            show(shown, MODES[mode], *of_keras(rounds))
    for rival in OUR_DECAYS:
        print(f"\nA step with {rival}, of one with Keras' weight_decay")
        for network, shown in NETWORKS.items():
            steps = [answers["step"][mode][network] for mode in MODES]
            if rival in steps[0]:
                show(shown, *[of_decay(rounds, rival) for rounds in steps])
    print("\nCounts: added by Keras' L2, by L2AllWeights")
    for network, shown in NETWORKS.items():
        counts = {mode: answers["counts"][mode][network] for mode in MODES}
        show(shown, *added_counts(counts))


def show(*cells):
    print("|", " | ".join(cells), "|")


def percent(rounds, rival):
    """What a rival adds to the bare step, in percent."""
    if rival not in rounds:
        return ""
    shares = quartiles(ratios(rounds[rival], rounds[BARE]))
    low, median, high = (f"{100 * (share - 1):.0f}" for share in shares)
    return f"{median} ({low} to {high})"


def of_keras(rounds):
    """What the wrapper and the gradient alone add, of what Keras' L2 adds."""
    return [spread(added_of_keras(rounds, rival), digits=2) for rival in (OURS, ALONE)]


def of_decay(rounds, rival):
    low, median, high = quartiles(ratios(rounds[rival], rounds[DECAY]))
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def added_counts(counts):
    def added(mode, key, rival, unit=1):
        of_rival = counts[mode][rival].get(key, [0])[0]
        return (of_rival - counts[mode][BARE].get(key, [0])[0]) / unit

    def pair(mode, key, unit=1):
        return ", ".join(f"{added(mode, key, r, unit):.3g}" for r in (KERAS, OURS))

    more = added("jax", "bytes accessed", OURS) - added("jax", "bytes accessed", KERAS)
    yield pair("tensorflow-xla", "bytes accessed", 1e6)
    yield pair("tensorflow-xla", "reductions")
    yield f"{more:.0f}"
    yield pair("torch", "moved MB")
    yield pair("tensorflow", "operations")


if __name__ == "__main__":
    main()
