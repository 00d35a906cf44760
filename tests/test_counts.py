"""What a penalty adds to a compiled step, in counts: next to what Keras' L2 adds."""

import pathlib
import sys

import keras
import pytest
from keras import layers

from keras_l2reg import L2, L2AllWeights, attach

BACKEND = keras.backend.backend()
BENCHMARKS = pathlib.Path(__file__).parents[1] / "benchmarks"
SHAPE = (8, 8, 3)

needs_xla = pytest.mark.skipif(BACKEND == "torch", reason="XLA only")
needs_graph = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow only")


def network(regularizer=None, hidden=0):
    """Kernels of several shapes, some of a size that is odd or has a large factor."""
    penalized = {"kernel_regularizer": regularizer}
    return keras.Sequential(
        [
            keras.Input(SHAPE),
            layers.Conv2D(40, 3, **penalized),
            layers.Flatten(),
            layers.Dense(37, "relu", **penalized),
            *[layers.Dense(37, "relu", **penalized) for _ in range(hidden)],
            layers.Dense(67, **penalized),
        ]
    )


MODELS = {
    "bare": network,
    "keras": lambda **kwargs: network(keras.regularizers.L2(0.1), **kwargs),
    "attach": lambda **kwargs: attach(network(**kwargs), L2(0.1)),
    "wrapper": lambda **kwargs: L2AllWeights(network(**kwargs), l2=0.1),
}


def counts_of_each(jit_compile, **kwargs):
    """The counts of a training step, by name of the model."""
    if str(BENCHMARKS) not in sys.path:
        sys.path.append(str(BENCHMARKS))
    from counts import counts_of_step

    found = {}
    for name, make in MODELS.items():
        model = make(**kwargs)
        model.compile(keras.optimizers.SGD(0.1), "mse", jit_compile=jit_compile)
        found[name] = counts_of_step(model, SHAPE, batch=4)
    return found


@needs_xla
def test_under_xla_no_weight_is_read_or_summed_more_often_than_with_l2_of_keras():
    pytest.importorskip("jaxlib", reason="counts the bytes")
    of = counts_of_each(jit_compile=True)
    for count in ("bytes accessed", "reductions", "kernels run"):
        assert of["bare"][count] < of["attach"][count] <= of["keras"][count]
    assert of["wrapper"]["reductions"] == of["attach"]["reductions"]
    # The wrapper also reads the strength for each weight, and logs two means: far less
    # than another read of the smallest kernel.
    scalars = 40 + 2 * 3
    added = of["wrapper"]["bytes accessed"] - of["attach"]["bytes accessed"]
    assert added <= 4 * scalars < 4 * (3 * 3 * 3 * 40)


@needs_graph
def test_a_graph_has_four_operations_for_each_weight_where_keras_has_more():
    few, more = (counts_of_each(jit_compile=False, hidden=n) for n in (0, 2))
    added = {name: more[name]["operations"] - few[name]["operations"] for name in few}
    per_weight = {name: (n - added["bare"]) / 2 for name, n in added.items()}
    assert per_weight["keras"] >= 6
    # With `attach`, Keras multiplies each penalty by its strength.
    assert per_weight["attach"] <= 5
    # It is read and summed; its gradient is computed, and added to that of the data.
    assert per_weight["wrapper"] <= 4
    assert few["wrapper"]["L2Loss"] == few["attach"]["L2Loss"] == 3
    # The strength, the sum, and the logs.
    others = few["wrapper"]["operations"] - few["bare"]["operations"] - 4 * 3
    assert others <= 18
