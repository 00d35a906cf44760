"""An invalid call raises a clear error and changes nothing.

Each case holds a text that must be in the message: what was received, or its name.
"""

import ast
import fractions
import pathlib

import keras
import numpy as np
import pytest

import keras_l2reg
from keras_l2reg import (
    L1L2,
    L2,
    L2AllWeights,
    L2Loss,
    PenaltyLogger,
    Scaled,
    StrengthScheduler,
    Sum,
    attach,
    audit,
    detach,
    l2_path,
    penalties,
    print_penalties,
    select_weights,
    set_weight_decay,
)
from keras_l2reg._builtin import convert_to_builtin
from keras_l2reg.attachment import as_regularizer
from keras_l2reg.testing import check_model

layers, regularizers = keras.layers, keras.regularizers
pytestmark = pytest.mark.filterwarnings("ignore:These weights already have a penalty")
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
        "l1": lambda m, v=value: L2AllWeights(m, l1=v),
        "L1L2_l1": lambda m, v=value: L1L2(l1=v),
        "L1L2_l2": lambda m, v=value: L1L2(l2=v),
        "live_l1": lambda m, v=value: setattr(
            L2AllWeights(dense_model(), l1=0.1), "l1", v
        ),
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
    "both_l1": (
        lambda m: L2AllWeights(m, l1=0.1, regularizer="l2"),
        dense_model,
        "l1=0.1, regularizer='l2'",
    ),
    "l1_variable": (
        lambda m: L2AllWeights(m, l1=keras.Variable(0.1)),
        dense_model,
        "`regularizer=keras_l2reg.L1L2(l1=variable)`",
    ),
    "L1L2_vector_variable": (
        lambda m: L1L2(l1=keras.Variable([0.1, 0.2])),
        dense_model,
        "`l1`. Expected a scalar",
    ),
    "live_without_l1": (
        lambda m: setattr(L2AllWeights(dense_model(), 0.5), "l1", 0.1),
        dense_model,
        "L2AllWeights(model, l2=0.5, l1=0.0)",
    ),
    "live_l2_of_parts": (
        lambda m: setattr(
            L2AllWeights(dense_model(), regularizer={"head/*": "l1"}), "l2", 0.1
        ),
        dense_model,
        "{'head/*': <",
    ),
    # a regularizer for each part
    "parts_empty": (lambda m: attach(m, {}), dense_model, "at least one glob"),
    "parts_all_none": (
        lambda m: attach(m, {"*": None}),
        dense_model,
        "regularizer={'*': None}",
    ),
    "parts_key": (lambda m: attach(m, {0: 0.1}), dense_model, "as keys. Received: 0"),
    "parts_layer_as_key": (
        lambda m: attach(m, {m.layers[0]: 0.1}),
        dense_model,
        "write 'hidden/*'",
    ),
    "parts_without_match": (
        lambda m: attach(m, {"*": 0.1, "tail/*": 0.2}),
        dense_model,
        "'tail/*', which matches nothing",
    ),
    "parts_of_a_bias": (
        lambda m: attach(m, {"head/bias": 0.1}),
        dense_model,
        "pass `biases=True`",
    ),
    "parts_unknown": (
        lambda m: attach(m, {"head/*": "l7"}),
        dense_model,
        "regularizer['head/*']='l7'",
    ),
    "parts_negative": (
        lambda m: L2AllWeights(m, regularizer={"head/*": -0.1}),
        dense_model,
        "regularizer['head/*']=-0.1",
    ),
    "parts_class": (
        lambda m: attach(m, {"head/*": regularizers.L1}),
        dense_model,
        "L1(...)",
    ),
    "parts_nested": (
        lambda m: attach(m, {"head/*": {"kernel": 0.1}}),
        dense_model,
        "regularizer['head/*']={'kernel': 0.1}",
    ),
    "parts_as_l2": (
        lambda m: L2AllWeights(m, {"head/*": 0.1}),
        dense_model,
        "`regularizer=`",
    ),
    "parts_beside_a_strength": (
        lambda m: L2AllWeights(m, 0.1, regularizer={"head/*": 0.1}),
        dense_model,
        "either `l2` and `l1`, or `regularizer`",
    ),
    "parts_of_select_weights": (
        lambda m: select_weights(m, regularizer=0.1),
        dense_model,
        "Expected a dict from globs",
    ),
    # towards the start
    "towards_start_without_match": (
        lambda m: L2AllWeights(m, towards_start="head"),
        dense_model,
        "'head/*'",
    ),
    "towards_start_excluded": (
        lambda m: L2AllWeights(m, exclude="head/*", towards_start="head/*"),
        dense_model,
        "which matches only [head/kernel",
    ),
    "towards_start_number": (
        lambda m: L2AllWeights(m, towards_start=0.1),
        dense_model,
        "towards_start=0.1",
    ),
    "towards_start_of_attach": (
        lambda m: attach(m, 0.1, towards_start=True),
        dense_model,
        "towards_start",
    ),
    "towards_start_unbuilt": (
        lambda m: L2AllWeights(m, towards_start=True),
        lambda: keras.Sequential([layers.Dense(2)], name="unbuilt"),
        "'unbuilt', which has layers that are not built",
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
    "convert_a_scaled_custom_regularizer": (
        lambda m: convert_to_builtin(Scaled(vector_penalty, 0.5)),
        dense_model,
        "function",
    ),
    "convert_a_sum_with_orthogonal": (
        lambda m: convert_to_builtin(Sum(["l2", "orthogonal_regularizer"])),
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
            "select_weights": select_weights,
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
    "schedule_number": (lambda m: StrengthScheduler(0.1), dense_model, "0.1"),
    "schedule_none": (lambda m: StrengthScheduler(None), dense_model, "none"),
    "schedule_of_nothing": (
        lambda m: StrengthScheduler(lambda: 0.1),
        dense_model,
        "lambda",
    ),
    "schedule_of_three": (
        lambda m: StrengthScheduler(lambda a, b, c: 0.1),
        dense_model,
        "lambda",
    ),
    "unit_unknown": (
        lambda m: StrengthScheduler(lambda epoch: 0.1, unit="batch"),
        dense_model,
        "batch",
    ),
    "schedule_of_no_l1": (
        lambda m: StrengthScheduler(l1=lambda epoch: 0.1).set_model(
            L2AllWeights(dense_model(), 0.1)
        ),
        dense_model,
        "l1=0.0",
    ),
    "scheduler_on_a_bare_model": (
        lambda m: StrengthScheduler(lambda epoch: 0.1).set_model(m),
        dense_model,
        "Sequential",
    ),
    "scheduler_without_l2": (
        lambda m: StrengthScheduler(lambda epoch: 0.1).set_model(
            L2AllWeights(dense_model(), regularizer="l1")
        ),
        dense_model,
        "regularizer=",
    ),
}


def nested_model():
    inner = keras.Sequential([layers.Dense(3, name="deep")], name="block")
    return keras.Sequential([keras.Input((4,)), inner, layers.Dense(2, name="head")])


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return np.ones((2, 4)), np.ones((2, 2))


def numpy_batches():
    yield np.ones((2, 4)), np.ones((2, 2))


# (what is called, on which model, what to do instead)
ADVICE = {
    # a layer instead of a glob over weight names
    "layers_name": (lambda m: attach(m, layers="head"), dense_model, "'head/*'"),
    "layers_name_within": (
        lambda m: attach(m, layers="deep"),
        nested_model,
        "'*/deep/*'",
    ),
    "layers_weight": (lambda m: attach(m, layers="kernel"), dense_model, "'*/kernel'"),
    "layers_upper_case": (
        lambda m: attach(m, layers="HEAD/*"),
        dense_model,
        "'head/kernel', in this upper and lower case",
    ),
    "layers_misspelt": (
        lambda m: attach(m, layers="hed/kernel"),
        dense_model,
        "'head/kernel'?",
    ),
    "exclude_name": (lambda m: attach(m, exclude="head"), dense_model, "'head/*'"),
    "multipliers_name": (
        lambda m: attach(m, multipliers={"head": 0.1}),
        dense_model,
        "'head/*'",
    ),
    "layers_layer": (
        lambda m: attach(m, layers=m.get_layer("head")),
        dense_model,
        "'head/*'",
    ),
    "layers_layer_within": (
        lambda m: attach(m, layers=[m.get_layer("block").layers[-1]]),
        nested_model,
        "'block/deep/*'",
    ),
    "layers_layer_of_another": (
        lambda m: attach(m, layers=layers.Dense(2, name="stray")),
        dense_model,
        "'stray' is not a layer of this model",
    ),
    "exclude_layer": (
        lambda m: attach(m, exclude=[m.get_layer("head")]),
        dense_model,
        "'head/*'",
    ),
    "multipliers_layer": (
        lambda m: attach(m, multipliers={m.get_layer("head"): 0.1}),
        dense_model,
        "'head/*'",
    ),
    # a regularizer instead of a number, and the reverse
    "l2_regularizer": (
        lambda m: L2AllWeights(m, regularizers.L2(0.01)),
        dense_model,
        "`regularizer=`",
    ),
    "l2_class": (
        lambda m: L2AllWeights(m, regularizers.L2),
        dense_model,
        "`regularizer=L2(...)`",
    ),
    "l2_name": (lambda m: L2AllWeights(m, "l1"), dense_model, "`regularizer='l1'`"),
    "l2_config": (
        lambda m: L2AllWeights(m, {"class_name": "L2", "config": {}}),
        dense_model,
        "`regularizer=`",
    ),
    "l2_variable": (
        lambda m: L2AllWeights(m, keras.Variable(0.1)),
        dense_model,
        "`regularizer=keras_l2reg.L2(variable)`",
    ),
    "l2_text": (lambda m: L2AllWeights(m, "0.01"), dense_model, "l2=0.01, without"),
    "attach_text": (lambda m: attach(m, "0.01"), dense_model, "regularizer=0.01, with"),
    "attach_unknown_name": (lambda m: attach(m, "l7"), dense_model, "'l2'"),
    "attach_class_not_called": (
        lambda m: attach(m, regularizers.L1),
        dense_model,
        "L1(...)",
    ),
    "attach_two": (lambda m: attach(m, ["l1", "l2"]), dense_model, "Sum([...])"),
    "Scaled_strength": (lambda m: Scaled(0.1), dense_model, "keras_l2reg.L2(0.1)"),
    "Scaled_class": (lambda m: Scaled(L2), dense_model, "L2(...)"),
    "Sum_class": (lambda m: Sum([L2]), dense_model, "L2(...)"),
    "factor_variable": (
        lambda m: Scaled("l2", keras.Variable(0.1)),
        dense_model,
        "convert_to_numpy(variable)",
    ),
    "rate_text": (
        lambda m: set_weight_decay(m.optimizer, m, "0.1"),
        dense_model,
        "rate=0.1, without quotes",
    ),
    "optimizer_name": (
        lambda m: set_weight_decay("adamw", m, 0.1),
        dense_model,
        "`keras.optimizers.get(name)`",
    ),
    "path_of_variables": (
        lambda m: l2_path(
            m,
            np.ones((2, 4)),
            np.ones((2, 2)),
            l2=[keras.Variable(0.1)],
            validation_data=(np.ones((2, 4)), np.ones((2, 2))),
        ),
        dense_model,
        "convert_to_numpy(variable)",
    ),
    # a model
    "file": (lambda m: attach("best.keras"), dense_model, "load_model('best.keras')"),
    "function": (lambda m: L2AllWeights(dense_model), dense_model, "dense_model(...)"),
    "layer": (
        lambda m: L2AllWeights(layers.Dense(2)),
        dense_model,
        "keras.Sequential([layer])",
    ),
    "penalties_of_a_file": (
        lambda m: penalties("best.keras"),
        dense_model,
        "load_model('best.keras')",
    ),
    "print_penalties_of_nothing": (
        lambda m: print_penalties(None),
        dense_model,
        "Expected a `keras.Model`",
    ),
    "penalties_unbuilt": (
        lambda m: penalties(keras.Sequential([layers.Dense(2)])),
        dense_model,
        "`model.build(input_shape)`",
    ),
    # a wrapper
    "wrap_twice": (
        lambda m: L2AllWeights(L2AllWeights(dense_model(), existing="keep")),
        dense_model,
        "`model.l2 = 0.01`",
    ),
    "attach_to_wrapper": (
        lambda m: attach(L2AllWeights(dense_model(), existing="keep")),
        dense_model,
        "set its `l2`",
    ),
    "detach_wrapper": (
        lambda m: detach(L2AllWeights(dense_model(), existing="keep")),
        dense_model,
        "`unwrap(strip=True)`",
    ),
    "detach_none": (lambda m: detach(None), dense_model, "Expected a `keras.Model`"),
    "detach_loaded": (detach, dense_model, "existing='replace'"),
    # a batch
    **{
        f"audit_{name}": (
            lambda m, args=args: audit(m, *args),
            dense_model,
            said,
        )
        for name, args, said in [
            ("dataset", (Batches(),), "x, y = dataset[0]"),
            ("generator", (numpy_batches(),), "x, y = next(iter(dataset))"),
            ("pair", ((np.ones((2, 4)), np.ones((2, 2))),), "audit(model, *batch)"),
            ("inputs_only", (np.ones((2, 4)),), "give both"),
            ("targets_only", (None, np.ones((2, 4))), "give both"),
        ]
    },
    "audit_uncompiled": (
        lambda m: audit(conv_model(), np.ones((1, 4, 4, 1)), np.ones((1, 8))),
        dense_model,
        "`model.compile(loss=...)`",
    ),
    # the battery
    "check_model_nonsense": (
        lambda m: check_model(dense_model, nonsense=1),
        dense_model,
        "nonsense=1",
    ),
    "check_model_bias": (
        lambda m: check_model(dense_model, bias=True),
        dense_model,
        "did you mean `biases`?",
    ),
    "check_model_bad_value": (
        lambda m: check_model(dense_model, biases=1),
        dense_model,
        "biases=1",
    ),
    "check_model_no_function": (check_model, dense_model, "`lambda: ...`"),
    "check_model_same_model": (
        lambda m: check_model(lambda: m),
        dense_model,
        "'plain' twice; build the model",
    ),
    "check_model_no_model": (
        lambda m: check_model(lambda: None),
        dense_model,
        "`return model`",
    ),
    "check_model_no_checks": (
        lambda m: check_model(dense_model, checks=[]),
        dense_model,
        "leave it out",
    ),
    "check_model_one_check": (
        lambda m: check_model(dense_model, checks=print),
        dense_model,
        "checks=[...]",
    ),
    "check_model_no_inputs": (
        lambda m: check_model(OwnTrainStep),
        dense_model,
        "pass arrays of shape (batch, ...)",
    ),
    "check_model_batch_of_one": (
        lambda m: check_model(dense_model, np.ones((1, 4))),
        dense_model,
        "np.repeat",
    ),
    "check_model_safe_mode": (
        lambda m: check_model(dense_model, safe_mode=0),
        dense_model,
        "safe_mode=0",
    ),
}
TYPE_ERRORS = {
    *("check_model_nonsense", "check_model_bias", "check_model_bad_value"),
    *("check_model_no_function", "check_model_no_model", "check_model_one_check"),
    *("layers_layer", "l2_regularizer", "l2_text", "file", "detach_none"),
}
CASES |= ADVICE


def state(model):
    """All that a call could change."""
    return {
        "config": str(model.get_config()),
        "losses": [float(loss) for loss in model.losses],
        "weights": [w.tolist() for w in model.get_weights()],
        "effects": [(v.path, v.trainable, v.regularizer) for v in model.weights],
        "attributes": sorted(vars(model)),
    }


def test_there_are_many_cases():
    assert len(CASES) > 60


@pytest.mark.parametrize("name", CASES)
def test_an_invalid_call_says_why_and_changes_nothing(name):
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


@pytest.mark.parametrize("name", sorted(TYPE_ERRORS))
def test_an_argument_of_the_wrong_type_is_a_type_error(name):
    call, build, _ = CASES[name]
    model = build()
    with pytest.raises(TypeError):
        call(model)


def test_every_error_says_what_was_expected_and_received():
    package = pathlib.Path(keras_l2reg.__file__).parent
    silent = []
    for file in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind, said = ast.unparse(node.exc.func), ast.unparse(node.exc)
                if kind in ("ValueError", "TypeError", "RuntimeError") and not (
                    "Expected" in said and "Received" in said
                ):
                    silent.append(f"{file.relative_to(package)}: {said}")
    # The text of this one is a constant that two errors share.
    assert [line for line in silent if "_NO_LEGACY_FILE" not in line] == []


def test_a_message_about_a_number_does_not_suggest_a_variable():
    for call in (
        lambda value: L2AllWeights(dense_model(), value, existing="keep"),
        lambda value: Scaled("l2", value),
        lambda value: attach(dense_model(), multipliers={"head/*": value}),
        lambda value: set_weight_decay(keras.optimizers.SGD(), dense_model(), value),
    ):
        with pytest.raises(TypeError) as caught:
            call("0.01")
        assert "Variable" not in str(caught.value)
        with pytest.raises(TypeError):
            call(keras.Variable(0.01))


@pytest.mark.parametrize(
    "number",
    [
        np.float16(0.25),
        np.float64(0.25),
        np.array(0.25),
        np.array(0.25, "float16"),
        fractions.Fraction(1, 4),
        keras.ops.convert_to_tensor(0.25),
        keras.ops.convert_to_tensor(0.25, "bfloat16"),
    ],
    ids=lambda number: type(number).__name__,
)
def test_a_number_of_numpy_or_the_backend_is_a_number(number):
    assert L2(number).l2 == L2Loss(number).beta == Scaled("l2", number).factor == 0.25
    assert as_regularizer(number).l2 == 0.25
    wrapped = L2AllWeights(dense_model(), number, existing="keep")
    assert wrapped.l2 == 0.25
    wrapped.l2 = 0.5
    wrapped.l2 = number
    assert wrapped.l2 == 0.25
    head = {"head/*": number}
    [loss] = attach(dense_model(), 1.0, multipliers=head, layers="head/*").losses[1:]
    assert float(loss) > 0
    assert PenaltyLogger(warn_share=number).warn_share == 0.25
    optimizer = keras.optimizers.SGD()
    assert set_weight_decay(optimizer, dense_model(), number).weight_decay == 0.25


@pytest.mark.parametrize(
    "value",
    [np.array(True), np.array("0.1"), np.array(None), np.array([0.1]), np.array(1j)],
    ids=str,
)
def test_other_arrays_are_refused_as_numbers(value):
    with pytest.raises(TypeError, match="l2"):
        L2(value)
    with pytest.raises(TypeError, match="regularizer"):
        attach(dense_model(), value)


def test_a_symbolic_tensor_is_refused_as_a_number():
    with pytest.raises(TypeError, match="l2"):
        L2(keras.KerasTensor(()))


@pytest.mark.parametrize("number", [np.int64(2), np.array(2)])
def test_an_integer_of_numpy_is_an_integer(number):
    assert PenaltyLogger(every_n_batches=number).every_n_batches == 2


def test_an_attribute_in_the_wrong_case_is_an_error():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    inner.Note = "mine"
    wrapped = L2AllWeights(inner, 0.25)
    for misspelt, meant in [("L2", "l2"), ("Optimizer", "optimizer"), ("FIT", "fit")]:
        with pytest.raises(AttributeError, match=f"did you mean `{meant}`"):
            setattr(wrapped, misspelt, 0.1)
        with pytest.raises(AttributeError, match=f"did you mean `{meant}`"):
            getattr(wrapped, misspelt)
        assert misspelt not in vars(wrapped) and misspelt not in vars(inner)
    assert wrapped.l2 == 0.25
    # Other new names, names of the inner model and private names can be set.
    wrapped.Note, wrapped.remark, wrapped._L2 = "yours", "new", 1
    assert (inner.Note, wrapped.remark, wrapped._L2) == ("yours", "new", 1)


def test_penalties_of_a_wrapper_whose_inner_model_is_built_later():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2, name="dense")

        def call(self, x):
            return self.dense(x)

    inner = Own()
    wrapped = L2AllWeights(inner, 0.25)
    with pytest.raises(ValueError, match="not built"):
        penalties(wrapped)
    inner(np.ones((1, 4)))
    assert list(penalties(inner)) == list(penalties(wrapped))


@pytest.mark.parametrize("value", [v for v, _ in STRENGTHS.values()], ids=STRENGTHS)
def test_an_invalid_l2_is_refused_and_the_old_one_stays(value):
    wrapped = L2AllWeights(dense_model(), 0.25)
    with pytest.raises((ValueError, TypeError)):
        wrapped.l2 = value
    assert wrapped.l2 == 0.25


def test_a_schedule_that_returns_no_strength_stops_fit():
    wrapped = L2AllWeights(dense_model(), 0.25)
    wrapped.compile("sgd", "mse")
    x, y = np.ones((4, 4), "float32"), np.ones((4, 2), "float32")
    for nonsense in (None, -1.0, NAN, "0.1"):
        with pytest.raises((ValueError, TypeError), match="l2"):
            callback = StrengthScheduler(lambda epoch, value=nonsense: value)
            wrapped.fit(x, y, verbose=0, callbacks=[callback])
        assert wrapped.l2 == 0.25
    assert np.isfinite(wrapped.fit(x, y, verbose=0).history["loss"]).all()
