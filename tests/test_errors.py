"""Bad calls: a clear error each, and nothing changed after it.

Each case names what must stand in the message: what came, or its name.
"""

import keras
import numpy as np
import pytest

from keras_l2reg import (
    L2,
    L2AllWeights,
    L2Loss,
    L2Scheduler,
    PenaltyLogger,
    Scaled,
    Sum,
    attach,
    detach,
    select,
)
from keras_l2reg.stock import to_stock

layers, regularizers = keras.layers, keras.regularizers
NAN, INF = float("nan"), float("inf")


def dense_model():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, kernel_regularizer="l1", name="hidden"),
            layers.Dense(2, name="head"),
        ],
        name="plain",
    )


def conv_model():
    return keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(2, 3, name="conv"), layers.Flatten()]
    )


def weightless_model():
    return keras.Sequential([keras.Input((4,)), layers.Flatten()], name="weightless")


def normalization_model():
    return keras.Sequential([keras.Input((4,)), layers.BatchNormalization(name="bn")])


class OwnTrainStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)
        self.dense.build((None, 4))
        self.built = True

    def call(self, x):
        return self.dense(x)

    def train_step(self, *args):
        return super().train_step(*args)


class OwnComputeLoss(OwnTrainStep):
    train_step = keras.Model.train_step

    def compute_loss(self, *args, **kwargs):
        return super().compute_loss(*args, **kwargs)


def vector_penalty(w):
    return w


class VectorPenalty(keras.Regularizer):
    def __call__(self, w):
        return w


# (what is called, on which model, what the message must hold)
STRENGTHS = {
    "negative": (-0.1, "-0.1"),
    "tiny_negative": (-1e-30, "-1e-30"),
    "nan": (NAN, "nan"),
    "inf": (INF, "inf"),
    "minus_inf": (-INF, "-inf"),
    "numpy_nan": (np.float32("nan"), "nan"),
    "bool": (True, "bool"),
    "numpy_bool": (np.bool_(True), "True"),
    "text": ("0.1", "0.1"),
    "list": ([0.1], "0.1"),
    "array": (np.array([0.1, 0.2]), "0.1"),
    "complex": (1j, "1j"),
}

CASES = {
    f"{name}_{kind}": (call, dense_model, said)
    for kind, (value, said) in STRENGTHS.items()
    for name, call in {
        "l2": lambda m, v=value: L2AllWeights(m, v),
        "attach": lambda m, v=value: attach(m, v),
        "L2": lambda m, v=value: L2(v),
        "L2Loss": lambda m, v=value: L2Loss(v),
        "Scaled": lambda m, v=value: Scaled("l2", v),
        "multiplier": lambda m, v=value: attach(m, multipliers={"head/*": v}),
        "live": lambda m, v=value: setattr(L2AllWeights(dense_model()), "l2", v),
    }.items()
}

CASES |= {
    # the strength
    "l2_vector_variable": (
        lambda m: L2(keras.Variable([0.1, 0.2])),
        dense_model,
        "scalar",
    ),
    "wrap_variable": (
        lambda m: L2AllWeights(m, keras.Variable(0.1)),
        dense_model,
        "Expected a float",
    ),
    "Scaled_variable": (
        lambda m: Scaled("l2", keras.Variable(0.1)),
        dense_model,
        "factor",
    ),
    "both": (
        lambda m: L2AllWeights(m, 0.1, regularizer="l1"),
        dense_model,
        "regularizer='l1'",
    ),
    "live_without_l2": (
        lambda m: setattr(L2AllWeights(dense_model(), regularizer="l1"), "l2", 0.1),
        dense_model,
        "regularizer=",
    ),
    # the regularizer
    "attach_none": (lambda m: attach(m, None), dense_model, "None"),
    "attach_class": (lambda m: attach(m, regularizers.L2), dense_model, "L2"),
    "attach_unknown": (lambda m: attach(m, "l7"), dense_model, "l7"),
    "attach_list": (lambda m: attach(m, ["l1"]), dense_model, "l1"),
    "attach_bad_config": (
        lambda m: attach(m, {"class_name": "L7", "config": {}}),
        dense_model,
        "L7",
    ),
    "attach_vector_penalty": (
        lambda m: attach(m, VectorPenalty()),
        dense_model,
        "scalar",
    ),
    "wrap_unknown": (
        lambda m: L2AllWeights(m, regularizer="l7"),
        dense_model,
        "l7",
    ),
    "wrap_negative_L2": (
        lambda m: L2AllWeights(m, regularizer=-0.1),
        dense_model,
        "-0.1",
    ),
    "attach_orthogonal_on_conv": (
        lambda m: attach(m, "orthogonal_regularizer"),
        conv_model,
        "conv/kernel",
    ),
    "wrap_orthogonal_on_conv": (
        lambda m: L2AllWeights(m, regularizer="orthogonal_regularizer"),
        conv_model,
        "conv/kernel",
    ),
    "Scaled_none": (lambda m: Scaled(None), dense_model, "None"),
    "Scaled_unknown": (lambda m: Scaled("l7"), dense_model, "l7"),
    "Scaled_number": (lambda m: Scaled(0.1), dense_model, "0.1"),
    "Sum_none": (lambda m: Sum([None]), dense_model, "None"),
    "Sum_empty": (lambda m: Sum([]), dense_model, "[]"),
    "Sum_text": (lambda m: Sum("l2"), dense_model, "l2"),
    "Sum_number": (lambda m: Sum(0.1), dense_model, "0.1"),
    "to_stock_of_a_scaled_stranger": (
        lambda m: to_stock(Scaled(vector_penalty, 0.5)),
        dense_model,
        "function",
    ),
    "to_stock_of_a_sum_with_orthogonal": (
        lambda m: to_stock(Sum(["l2", "orthogonal_regularizer"])),
        dense_model,
        "Orthogonal",
    ),
    # the model
    **{
        f"{name}_{kind}": (
            lambda m, call=call, thing=thing: call(thing),
            dense_model,
            s,
        )
        for name, call in {
            "wrap": L2AllWeights,
            "attach": attach,
            "select": select,
        }.items()
        for kind, (thing, s) in {
            "a_layer": (layers.Dense(3, name="stray"), "stray"),
            "a_class": (keras.Sequential, "Sequential"),
            "none": (None, "None"),
            "a_list": ([layers.Dense(3)], "list"),
            "a_path": ("model.keras", "model.keras"),
        }.items()
    },
    "wrap_weightless": (L2AllWeights, weightless_model, "weightless"),
    "attach_weightless": (attach, weightless_model, "weightless"),
    "wrap_normalization": (L2AllWeights, normalization_model, "bn/gamma"),
    "wrap_a_wrapper": (
        lambda m: L2AllWeights(L2AllWeights(dense_model())),
        dense_model,
        "wrapper",
    ),
    "wrap_a_nested_wrapper": (
        lambda m: L2AllWeights(
            keras.Sequential([keras.Input((4,)), L2AllWeights(dense_model())])
        ),
        dense_model,
        "wrapper",
    ),
    "attach_to_a_wrapper": (
        lambda m: attach(L2AllWeights(dense_model())),
        dense_model,
        "wrapped",
    ),
    "wrap_own_train_step": (L2AllWeights, OwnTrainStep, "train_step"),
    "wrap_own_compute_loss": (L2AllWeights, OwnComputeLoss, "compute_loss"),
    "detach_nothing": (detach, dense_model, "attach"),
    # which weights
    "existing_unknown": (
        lambda m: attach(m, existing="drop"),
        dense_model,
        "existing='drop'",
    ),
    "existing_bool": (
        lambda m: attach(m, existing=True),
        dense_model,
        "existing=True",
    ),
    "biases_text": (lambda m: attach(m, biases="yes"), dense_model, "biases='yes'"),
    "biases_number": (lambda m: attach(m, biases=1), dense_model, "biases=1"),
    "embeddings_none": (
        lambda m: L2AllWeights(m, embeddings=None),
        dense_model,
        "embeddings=None",
    ),
    "layers_no_match": (lambda m: attach(m, layers="conv*"), dense_model, "conv*"),
    "layers_case": (lambda m: attach(m, layers="HEAD/*"), dense_model, "HEAD/*"),
    "layers_class_no_match": (
        lambda m: L2AllWeights(m, layers=layers.Conv2D),
        dense_model,
        "Conv2D",
    ),
    "layers_one_of_two": (
        lambda m: attach(m, layers=["head/*", "conv*"]),
        dense_model,
        "conv*",
    ),
    "layers_bias_without_biases": (
        lambda m: attach(m, layers="*/bias"),
        dense_model,
        "*/bias",
    ),
    "layers_empty": (lambda m: attach(m, layers=[]), dense_model, "layers=[]"),
    "layers_empty_text": (lambda m: attach(m, layers=""), dense_model, "''"),
    "layers_number": (lambda m: attach(m, layers=1), dense_model, "layers=1"),
    "layers_bool": (lambda m: attach(m, layers=True), dense_model, "layers=True"),
    "layers_other_class": (lambda m: attach(m, layers=[int]), dense_model, "int"),
    "layers_instance": (
        lambda m: attach(m, layers=m.layers[0]),
        dense_model,
        "layers=",
    ),
    "multipliers_list": (
        lambda m: attach(m, multipliers=["head/*"]),
        dense_model,
        "head/*",
    ),
    "multipliers_number": (
        lambda m: attach(m, multipliers=0.1),
        dense_model,
        "multipliers=0.1",
    ),
    "multipliers_no_match": (
        lambda m: attach(m, multipliers={"conv*": 0.1}),
        dense_model,
        "conv*",
    ),
    "multipliers_key": (
        lambda m: attach(m, multipliers={layers.Dense: 0.1}),
        dense_model,
        "Dense",
    ),
    "multipliers_none": (
        lambda m: attach(m, multipliers={"head/*": None}),
        dense_model,
        "None",
    ),
    "multipliers_variable": (
        lambda m: attach(m, multipliers={"head/*": keras.Variable(0.1)}),
        dense_model,
        "head/*",
    ),
    "multipliers_all_zero": (
        lambda m: attach(m, multipliers={"*": 0}),
        dense_model,
        "{'*': 0}",
    ),
    # the callbacks
    "every_0": (lambda m: PenaltyLogger(0), dense_model, "every_n_batches=0"),
    "every_negative": (lambda m: PenaltyLogger(-1), dense_model, "-1"),
    "every_half": (lambda m: PenaltyLogger(1.5), dense_model, "1.5"),
    "every_bool": (lambda m: PenaltyLogger(True), dense_model, "True"),
    "every_text": (lambda m: PenaltyLogger("epoch"), dense_model, "epoch"),
    "verbose_2": (lambda m: PenaltyLogger(verbose=2), dense_model, "verbose=2"),
    "share_0": (lambda m: PenaltyLogger(warn_share=0), dense_model, "warn_share=0"),
    "share_2": (lambda m: PenaltyLogger(warn_share=2.0), dense_model, "2.0"),
    "share_nan": (lambda m: PenaltyLogger(warn_share=NAN), dense_model, "nan"),
    "share_text": (lambda m: PenaltyLogger(warn_share="a"), dense_model, "'a'"),
    "share_bool": (lambda m: PenaltyLogger(warn_share=True), dense_model, "True"),
    "schedule_number": (lambda m: L2Scheduler(0.1), dense_model, "0.1"),
    "schedule_none": (lambda m: L2Scheduler(None), dense_model, "None"),
    "schedule_of_nothing": (lambda m: L2Scheduler(lambda: 0.1), dense_model, "lambda"),
    "schedule_of_three": (
        lambda m: L2Scheduler(lambda a, b, c: 0.1),
        dense_model,
        "lambda",
    ),
    "unit_unknown": (
        lambda m: L2Scheduler(lambda epoch: 0.1, unit="batch"),
        dense_model,
        "batch",
    ),
    "function_of_steps": (
        lambda m: L2Scheduler(lambda step: 0.1, unit="step"),
        dense_model,
        "schedule=",
    ),
    "scheduler_on_a_bare_model": (
        lambda m: L2Scheduler(lambda epoch: 0.1).set_model(m),
        dense_model,
        "Sequential",
    ),
    "scheduler_without_l2": (
        lambda m: L2Scheduler(lambda epoch: 0.1).set_model(
            L2AllWeights(dense_model(), regularizer="l1")
        ),
        dense_model,
        "regularizer=",
    ),
}


def state(model):
    """All that a call could change."""
    return {
        "config": str(model.get_config()),
        "losses": [float(loss) for loss in model.losses],
        "weights": [w.tolist() for w in model.get_weights()],
        "effects": [(v.path, v.trainable, v.regularizer) for v in model.weights],
        "attributes": sorted(vars(model)),
    }


def test_there_are_many():
    assert len(CASES) > 60


@pytest.mark.parametrize("name", CASES)
def test_a_bad_call_says_so_and_changes_nothing(name):
    call, build, said = CASES[name]
    model = build()
    if not isinstance(model, OwnTrainStep):
        model.compile("sgd", "mse")
    before = None if isinstance(model, OwnTrainStep) else state(model)
    with pytest.raises((ValueError, TypeError)) as caught:
        call(model)
    message = str(caught.value)
    assert said in message
    assert "xpected" in message or "Unknown" in message or "ould not" in message
    if before is not None:
        assert state(model) == before


@pytest.mark.parametrize("value", [v for v, _ in STRENGTHS.values()], ids=STRENGTHS)
def test_a_bad_live_strength_leaves_the_old_one(value):
    wrapped = L2AllWeights(dense_model(), 0.25)
    with pytest.raises((ValueError, TypeError)):
        wrapped.l2 = value
    assert wrapped.l2 == 0.25


def test_a_schedule_that_returns_nonsense_stops_the_fit():
    wrapped = L2AllWeights(dense_model(), 0.25)
    wrapped.compile("sgd", "mse")
    x, y = np.ones((4, 4), "float32"), np.ones((4, 2), "float32")
    for nonsense in (None, -1.0, NAN, "0.1"):
        with pytest.raises((ValueError, TypeError), match="l2"):
            callback = L2Scheduler(lambda epoch, value=nonsense: value)
            wrapped.fit(x, y, verbose=0, callbacks=[callback])
        assert wrapped.l2 == 0.25
    assert np.isfinite(wrapped.fit(x, y, verbose=0).history["loss"]).all()
