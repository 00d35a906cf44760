"""The battery on real architectures: keras.applications, and small ones of KerasHub.

They are slow: `pytest -m slow tests/integration/test_breadth.py`. A plain run has one
small model and the checks in `SAMPLE`.
"""

import hub_backbones
import keras
import numpy as np
import pytest

from keras_l2reg import find_weights
from keras_l2reg._testing.checks import (
    check_clone,
    check_detach,
    check_terms,
    check_wrapper_save,
)
from keras_l2reg.testing import CHECKS, check_model

SAMPLE = [check_terms, check_wrapper_save, check_detach]

# Each kind that keras.applications has, by members that are not too large, and the
# smallest side of image that they take.
MEMBERS = {
    "ConvNeXtTiny": 32,
    "ConvNeXtSmall": 32,
    "DenseNet121": 32,
    "DenseNet169": 32,
    "EfficientNetB0": 32,
    "EfficientNetB1": 32,
    "EfficientNetB2": 32,
    "EfficientNetB3": 32,
    "EfficientNetV2B0": 32,
    "EfficientNetV2B1": 32,
    "EfficientNetV2B2": 32,
    "EfficientNetV2B3": 32,
    "EfficientNetV2S": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Large": 32,
    "MobileNetV3Small": 32,
    "NASNetMobile": 32,
    "ResNet101": 32,
    "ResNet101V2": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}


def application(member):
    side = MEMBERS[member]
    images = np.random.default_rng(0).uniform(0, 1, (2, side, side, 3))

    def build():
        return getattr(keras.applications, member)(
            weights=None,
            include_top=False,
            pooling="avg",
            input_shape=(side, side, 3),
            **({"alpha": 0.25} if member == "MobileNet" else {}),
        )

    return build, images.astype("float32")


@pytest.mark.parametrize("member", ["MobileNet"])
def test_a_small_application_passes_a_sample_of_checks(member):
    check_model(*application(member), checks=SAMPLE)


@pytest.mark.slow
@pytest.mark.parametrize("member", MEMBERS)
def test_applications_pass_every_check(member):
    check_model(*application(member))


# KerasHub: class of the backbone and a configuration that makes it tiny.
TEXT = {"vocabulary_size": 11, "num_layers": 1, "hidden_dim": 8, "intermediate_dim": 12}
GROUPED = {**TEXT, "num_query_heads": 2, "num_key_value_heads": 1}
BACKBONES = {
    "AlbertBackbone": {**TEXT, "num_heads": 2, "embedding_dim": 4},
    "BertBackbone": {**TEXT, "num_heads": 2, "max_sequence_length": 6},
    "DebertaV3Backbone": {**TEXT, "num_heads": 2, "max_sequence_length": 6},
    "DistilBertBackbone": {**TEXT, "num_heads": 2, "max_sequence_length": 6},
    "ElectraBackbone": {
        "vocab_size": 11,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "embedding_dim": 4,
        "intermediate_dim": 12,
    },
    "FNetBackbone": {**TEXT, "max_sequence_length": 6},
    "GPT2Backbone": {**TEXT, "num_heads": 2, "max_sequence_length": 6},
    "GPTNeoXBackbone": {**TEXT, "num_heads": 2, "hidden_dim": 16},
    "GemmaBackbone": {**GROUPED, "head_dim": 4},
    "LlamaBackbone": GROUPED,
    "MistralBackbone": GROUPED,
    "OPTBackbone": {**TEXT, "num_heads": 2, "max_sequence_length": 6},
    "RobertaBackbone": {**TEXT, "num_heads": 2, "max_sequence_length": 6},
    "T5Backbone": {**TEXT, "num_heads": 2},
    "ViTBackbone": {
        "image_shape": (8, 8, 3),
        "patch_size": 4,
        "num_layers": 1,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 12,
    },
}


# `keras.models.clone_model` fails on these also without a penalty: a layer's
# `get_config` names what it lacks, or what its `__init__` does not take.
NOT_CLONED = ("GPTNeoXBackbone", "LlamaBackbone", "ViTBackbone")


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_of_keras_hub_pass_every_check(name):
    keras_hub = pytest.importorskip("keras_hub")

    def build():
        return getattr(keras_hub.models, name)(**BACKBONES[name])

    random = np.random.default_rng(0)
    tensors = build().input
    inputs = keras.tree.map_structure(
        lambda t: (
            np.ones((2, 6), "int32")
            if "int" in t.dtype
            else random.uniform(0, 1, (2, *t.shape[1:])).astype("float32")
        ),
        tensors,
    )
    checks = [c for c in CHECKS if name not in NOT_CLONED or c is not check_clone]
    check_model(build, inputs, checks=checks)


@pytest.mark.slow
@pytest.mark.parametrize("name", hub_backbones.BACKBONES)
def test_roles_of_weights_in_keras_hub(name):
    pytest.importorskip("keras_hub")
    model = hub_backbones.build(name)
    depthwise = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
    weights = [w for w in find_weights(model) if w.variable is not None]
    assert weights
    for weight in weights:
        own_name = weight.variable.name
        if own_name.startswith("variable"):
            own_name = weight.name.rsplit("/", 1)[-1]
        if own_name in hub_backbones.MISJUDGED:
            assert weight.role != hub_backbones.MISJUDGED[own_name]
            assert weight.is_guess
        elif own_name == "kernel" and isinstance(weight.layers[-1], depthwise):
            assert weight.role == "depthwise", weight
        else:
            assert weight.role == hub_backbones.ROLES[own_name], weight
