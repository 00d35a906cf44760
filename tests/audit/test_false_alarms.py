"""Errors and warnings in sound models: only those that are true."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from sound_models import SOUND

from keras_l2reg import L2, L2AllWeights, L2Loss, Scaled, Sum, attach, audit

slow = pytest.mark.slow
# Keras, of the layers of a model that it leaves as they are.
QUANTIZES_WHAT_IT_CAN = pytest.mark.filterwarnings(
    "ignore:Layer InputLayer does not have a `quantize`"
)


def above_info(model: keras.Model, *batch: Any) -> dict[str, set[str]]:
    """The names in the errors and warnings, by code."""
    # Whether a penalty dominates depends on the strength, not on the model.
    found = audit(model, *batch, max_share=1e9)
    return {f.code: set(f.where) for f in found if f.severity != "info"}


# --- Every Keras layer with every regularizer argument ------------------------------

E = layers.EinsumDense
CONV = {1: (6, 2), 2: (6, 6, 2), 3: (4, 4, 4, 2)}


def conv(name: str, rank: int) -> tuple[Callable, tuple[int, ...]]:
    units = () if "Depthwise" in name else (2,)
    return functools.partial(getattr(layers, name), *units, 3), CONV[rank]


def around(wrapper: type, inner: type) -> Callable[..., layers.Layer]:
    return lambda **regularizers: wrapper(inner(3, **regularizers))


LAYERS = {
    "Dense": (functools.partial(layers.Dense, 3), (6,)),
    "EinsumDense": (functools.partial(E, "ab,bc->ac", 3, bias_axes="c"), (6,)),
    "Embedding": (functools.partial(layers.Embedding, 7, 3), None),
    "ReversibleEmbedding": (functools.partial(layers.ReversibleEmbedding, 7, 3), None),
    "PReLU": (layers.PReLU, (6,)),
    "BatchNormalization": (layers.BatchNormalization, (6,)),
    "LayerNormalization": (layers.LayerNormalization, (6,)),
    "GroupNormalization": (functools.partial(layers.GroupNormalization, 2), (6,)),
    "SimpleRNN": (functools.partial(layers.SimpleRNN, 3), (5, 6)),
    "LSTM": (functools.partial(layers.LSTM, 3), (5, 6)),
    "GRU": (functools.partial(layers.GRU, 3), (5, 6)),
    "SimpleRNNCell": (around(layers.RNN, layers.SimpleRNNCell), (5, 6)),
    "LSTMCell": (around(layers.RNN, layers.LSTMCell), (5, 6)),
    "GRUCell": (around(layers.RNN, layers.GRUCell), (5, 6)),
    "ConvLSTM1D": (functools.partial(layers.ConvLSTM1D, 2, 3), (3, 6, 2)),
    "ConvLSTM2D": (functools.partial(layers.ConvLSTM2D, 2, 3), (3, 6, 6, 2)),
    "ConvLSTM3D": (functools.partial(layers.ConvLSTM3D, 2, 3), (2, 4, 4, 4, 2)),
    "MultiHeadAttention": (functools.partial(layers.MultiHeadAttention, 2, 3), (5, 6)),
    "GroupQueryAttention": (
        functools.partial(layers.GroupQueryAttention, 3, 2, 1),
        (5, 6),
    ),
    **{
        name: conv(name, rank)
        for name, rank in {
            **{f"Conv{rank}D": rank for rank in (1, 2, 3)},
            **{f"Conv{rank}DTranspose": rank for rank in (1, 2, 3)},
            **{f"DepthwiseConv{rank}D": rank for rank in (1, 2)},
            **{f"SeparableConv{rank}D": rank for rank in (1, 2)},
        }.items()
    },
}
WRAPPED = {
    "Bidirectional": (around(layers.Bidirectional, layers.LSTM), (5, 6)),
    "TimeDistributed": (around(layers.TimeDistributed, layers.Dense), (5, 6)),
    "SpectralNormalization": (
        around(layers.SpectralNormalization, layers.Dense),
        (6,),
    ),
}
INNER = {"Bidirectional": "LSTM"}


def arguments_of(name: str) -> set[str]:
    """The regularizer arguments of a layer, apart from its activity's."""
    cls = getattr(layers, INNER.get(name, name if name in LAYERS else "Dense"))
    named = {
        parameter
        for base in cls.__mro__
        if issubclass(base, layers.Layer) and base is not layers.Layer
        for parameter in inspect.signature(base.__init__).parameters
        if parameter.endswith("_regularizer")
    }
    return named - {"activity_regularizer"}


def test_every_layer_that_takes_a_regularizer_is_in_the_table():
    def takes(cls):
        return any(
            parameter.endswith("_regularizer") and parameter != "activity_regularizer"
            for base in cls.__mro__
            if issubclass(base, layers.Layer)
            for parameter in inspect.signature(base.__init__).parameters
        )

    public = {
        cls.__name__
        for cls in vars(layers).values()
        if inspect.isclass(cls) and issubclass(cls, layers.Layer) and takes(cls)
    }
    # The class behind `GroupQueryAttention` has another name.
    public = {name.replace("GroupedQuery", "GroupQuery") for name in public}
    assert public == set(LAYERS)


def model_of(
    name: str, regularizers: dict[str, Any], **kwargs: Any
) -> tuple[keras.Model, np.ndarray, np.ndarray]:
    make, shape = {**LAYERS, **WRAPPED}[name]
    layer = make(**regularizers, **kwargs)
    takes_tokens = shape is None
    inputs = keras.Input((5,), dtype="int32") if takes_tokens else keras.Input(shape)
    x = layer(inputs, inputs) if "Attention" in name else layer(inputs)
    x = layers.Flatten()(x)
    out = layers.Dense(2, kernel_regularizer="l2", name="head")(x)
    model = keras.Model(inputs, out)
    model.compile("sgd", "mse")
    random = np.random.default_rng(0)
    if takes_tokens:
        return model, random.integers(0, 7, (4, 5)), np.ones((4, 2), "float32")
    return model, random.normal(size=(4, *shape)), np.ones((4, 2), "float32")


NOT_KERNELS = {"bias_regularizer", "gamma_regularizer", "beta_regularizer"}
# Embeddings and slopes are not kernels, so they need no penalty.
NEITHER = {"embeddings_regularizer", "alpha_regularizer"}


def expected_codes(name: str, given: set[str]) -> set[str]:
    expected = set()
    if given & NOT_KERNELS:
        expected.add("norm-or-bias")
    kernels = arguments_of(name) - NOT_KERNELS - NEITHER
    if kernels - given:
        expected.add("uncovered" if kernels & given else "last-layer-only")
    return expected


def check_layer(name: str, regularizers: dict[str, Any], *, fit: bool = False) -> None:
    model, x, y = model_of(name, regularizers)
    given = set(regularizers) - {"activity_regularizer"}
    expected = expected_codes(name, given)
    assert set(above_info(model)) == expected
    if fit:
        model.fit(x, y, verbose=0)
        model.evaluate(x, y, verbose=0)
    found = above_info(model, x, y)
    assert set(found) == expected
    # The finding names just the weights that have a penalty.
    roles = {where.rsplit("/", 1)[-1] for where in found.get("norm-or-bias", ())}
    assert {f"{role}_regularizer" for role in roles} == given & NOT_KERNELS


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("Dense", "LSTM", "PReLU") else slow)
        for name in (*LAYERS, *WRAPPED)
    ],
)
def test_every_layer_with_every_argument(name):
    arguments = arguments_of(name)
    check_layer(name, dict.fromkeys(arguments, "l2"), fit=True)
    for argument in arguments:
        check_layer(name, {argument: "l2"})
    if name not in WRAPPED:
        # A cell takes no `activity_regularizer`.
        activity = () if "Cell" in name else ("activity_regularizer",)
        check_layer(name, dict.fromkeys((*arguments, *activity), "l1"))


class Custom(keras.Regularizer):
    """A custom regularizer."""

    def __call__(self, w):
        return 0.01 * ops.mean(ops.abs(w) ** 3)

    def get_config(self):
        return {}


class Clipped(Custom):
    def __call__(self, w):
        return ops.maximum(super().__call__(w), 0.5)


REGULARIZERS = {
    "l1": lambda: "l1",
    "l2": lambda: "l2",
    "L1L2": lambda: keras.regularizers.L1L2(0.01, 0.01),
    "L2": lambda: L2(0.01),
    "L2Loss": lambda: L2Loss(0.01),
    "Scaled": lambda: Scaled("l1", 0.5),
    "Sum": lambda: Sum([L2(0.01), "l1"]),
    "custom": Custom,
    "clipped": Clipped,
}


@slow
@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_with_every_regularizer(name, regularizer):
    kernels = arguments_of(name) - NOT_KERNELS
    make = REGULARIZERS[regularizer]
    # One instance for all kernels, then an instance for each.
    check_layer(name, dict.fromkeys(kernels, make()))
    check_layer(name, {argument: make() for argument in kernels})


@slow
@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_with_every_constraint(name):
    constraints = {
        argument.replace("_regularizer", "_constraint"): "max_norm"
        for argument in arguments_of(name)
    }
    kernels = arguments_of(name) - NOT_KERNELS
    model, _, _ = model_of(name, dict.fromkeys(kernels, "l2"), **constraints)
    assert above_info(model) == {}


# --- Sound models ------------------------------------------------------------------

FAST = ("mlp", "shared_layer_with_activity_penalty", "variational_autoencoder")
FAST += ("loss_scaling", "low_rank_adapted", "mixture_of_experts")


def trained(model: keras.Model, x: Any, y: Any) -> keras.Model:
    if not model.compiled:
        model.compile("sgd", "mse" if y is not None else None)
    model.fit(x, y, batch_size=4, verbose=0)
    model.evaluate(x, y, batch_size=4, verbose=0)
    return model


@pytest.mark.filterwarnings("ignore:The configuration of")
@QUANTIZES_WHAT_IT_CAN
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else slow) for n in SOUND]
)
@pytest.mark.parametrize("wrap", [False, True], ids=["attached", "wrapped"])
def test_sound_models_have_only_the_expected_warnings(name, wrap):
    entry = SOUND[name]
    model, x, y = entry.build()
    expected = set(entry.above_info)
    if wrap and entry.has_custom_step:
        pytest.skip("the wrapper does not accept custom steps")
    if wrap:
        model = L2AllWeights(model, 1e-4, existing="keep")
        # A wrapper saves its penalty, but not the exclusions from weight decay.
        if name != "decay_of_kernels":
            expected -= {"lost-on-save"}
        if name == "activity_and_orthogonal_penalties":
            # The recurrent kernel keeps its orthogonal regularizer.
            expected = {"partly-covered"}
    else:
        attach(model, 1e-4, existing="keep")
    trained(model, x, y)
    assert set(above_info(model)) == expected
    if y is not None:
        assert set(above_info(model, x, y)) == expected


@slow
@QUANTIZES_WHAT_IT_CAN
@pytest.mark.parametrize("name", SOUND)
def test_models_without_a_penalty_have_only_the_expected_warnings(name):
    model, x, y = SOUND[name].build()
    trained(model, x, y)
    found = above_info(model, *[x, y] * (y is not None))
    # A penalty that is not there is neither lost on save nor a second decay.
    decays = {"decays-bias-or-norm"} & SOUND[name].above_info
    lost = {"lost-on-save"} & SOUND[name].above_info if "decay" in name else set()
    if name == "activity_and_orthogonal_penalties":
        assert set(found) == {"uncovered"}
    else:
        assert set(found) == decays | lost
