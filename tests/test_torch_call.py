"""A wrapper's call on torch: it skips Keras' own, unless that would do something."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_l2reg import L2AllWeights, _keras

torch = pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("for torch", allow_module_level=True)

from torch._dynamo.utils import counters  # noqa: E402
from torch.nn.modules.module import register_module_forward_hook  # noqa: E402


@pytest.fixture
def x():
    return torch.ones(2, 4)


@pytest.fixture
def wrapped(x):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    return L2AllWeights(model, l2=0.5)


@pytest.fixture
def calls(monkeypatch):
    """The layers that Keras calls."""
    called, keras_call = [], keras.layers.Layer.__call__

    def call(layer, *args, **kwargs):
        called.append(layer)
        return keras_call(layer, *args, **kwargs)

    monkeypatch.setattr(keras.layers.Layer, "__call__", call)
    return called


def test_a_step_calls_only_the_model(wrapped, calls):
    wrapped.compile("sgd", "mse")
    wrapped.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    assert wrapped.wrapped_model in calls and wrapped not in calls


@pytest.mark.parametrize(
    "call",
    [
        lambda wrapped, x: wrapped(x.numpy()),
        lambda wrapped, x: wrapped(inputs=x),
        lambda wrapped, x: wrapped(keras.Input((4,))),
        lambda wrapped, x: wrapped(x, mask=None),
    ],
    ids=["array", "keyword", "symbolic", "mask"],
)
def test_keras_calls_it_otherwise(call, wrapped, x, calls):
    call(wrapped, x)
    assert wrapped in calls


def test_an_unbuilt_model_is_built_by_keras(x, calls):
    wrapped = L2AllWeights(keras.Sequential([layers.Dense(3)]))
    wrapped(x)
    assert wrapped in calls and len(wrapped.losses) == 1


@pytest.mark.parametrize("training", [True, False])
def test_within_another_model(training, x):
    dropout = layers.Dropout(0.5, seed=1)
    wrapped = L2AllWeights(
        keras.Sequential([keras.Input((4,)), layers.Dense(3), dropout])
    )
    inputs = keras.Input((4,))
    outer = keras.Model(inputs, wrapped(inputs))
    is_dropped = outer(torch.ones(9, 4), training=training) == 0
    assert bool(is_dropped.any()) == training
    assert len(outer.losses) == 1


def test_a_direct_call_returns_the_same(wrapped, x):
    direct = wrapped(x, training=True)
    handle = wrapped.register_forward_hook(lambda *_: None)
    assert torch.equal(wrapped(x, training=True), direct)
    handle.remove()


def test_hooks_of_the_wrapper_run(wrapped, x):
    double = wrapped.register_forward_hook(lambda module, args, output: 2 * output)
    doubled = wrapped(x)
    double.remove()
    assert torch.equal(doubled, 2 * wrapped(x))
    seen = []
    for register in (
        wrapped.register_forward_pre_hook,
        wrapped.register_full_backward_hook,
        wrapped.register_full_backward_pre_hook,
    ):
        handle = register(lambda module, *_: seen.append(module))
        wrapped(x.requires_grad_()).sum().backward()
        handle.remove()
    assert seen == [wrapped] * 3


def test_hooks_of_all_modules_run(wrapped, x):
    seen = []
    handle = register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        wrapped(x)
    finally:
        handle.remove()
    assert wrapped in seen


def test_an_activity_regularizer_of_the_wrapper(wrapped, x):
    wrapped.activity_regularizer = keras.regularizers.L2(0.1)
    output = wrapped(x)
    expected = 0.1 * float((output**2).sum()) / len(x)
    assert sum(map(float, _keras.losses_of_calls(wrapped))) == pytest.approx(expected)


def test_a_loss_added_to_the_wrapper_lasts_until_the_next_call(wrapped, x):
    wrapped.add_loss(torch.ones(()))
    assert len(wrapped.losses) == 2
    wrapped(x)
    assert len(wrapped.losses) == 1


def test_rematerialization_of_the_wrapper(x, calls):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    with keras.RematScope(mode="full"):
        wrapped = L2AllWeights(model)
    wrapped(x)
    assert wrapped in calls


def test_keras_calls_a_subclass_that_overrides_call(x, calls):
    class Doubled(L2AllWeights):
        def call(self, *args, **kwargs):
            return 2 * super().call(*args, **kwargs)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    doubled = Doubled(model)
    assert torch.equal(doubled(x), 2 * model(x))
    assert doubled in calls


def test_compiled_by_torch(wrapped, x):
    compiled = torch.compile(wrapped, backend="eager")
    assert torch.allclose(compiled(x), wrapped(x))


def breaks(model):
    """How often a compiled training step leaves its graph, by the reason."""
    model.compile("sgd", "mse")
    batch = torch.ones(8, 4), torch.ones(8, 3)
    model.train_step(batch)
    torch._dynamo.reset()
    counters.clear()
    torch.compile(model.train_step, backend="eager")(batch)
    return {r.partition("\n")[0]: n for r, n in counters["graph_break"].items()}


@pytest.mark.parametrize("argument", ["l2", "weight_decay"])
def test_a_compiled_step_leaves_its_graph_no_more_often_than_that_of_the_model(
    argument,
):
    def network():
        return keras.Sequential([keras.Input((4,)), layers.Dense(3)])

    expected = breaks(network())
    assert expected
    assert breaks(L2AllWeights(network(), **{argument: 0.1})) == expected
