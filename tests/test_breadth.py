"""The battery on real architectures: keras.applications, and KerasHub's made tiny.

A model each of 29 families takes its time: `pytest -m slow tests/test_breadth.py`;
two small ones run always.
"""

import keras
import numpy as np
import pytest

from keras_l2reg.testing import check_model

# family: its smallest member, and the smallest side of image that it takes
FAMILIES = {
    "ConvNeXt": ("ConvNeXtTiny", 32),
    "DenseNet": ("DenseNet121", 32),
    "EfficientNet": ("EfficientNetB0", 32),
    "EfficientNetV2": ("EfficientNetV2B0", 32),
    "EfficientNetV2S": ("EfficientNetV2S", 32),
    "InceptionV3": ("InceptionV3", 75),
    "InceptionResNetV2": ("InceptionResNetV2", 75),
    "MobileNet": ("MobileNet", 32),
    "MobileNetV2": ("MobileNetV2", 32),
    "MobileNetV3Small": ("MobileNetV3Small", 32),
    "MobileNetV3Large": ("MobileNetV3Large", 32),
    "NASNetMobile": ("NASNetMobile", 32),
    "ResNet": ("ResNet50", 32),
    "ResNetV2": ("ResNet50V2", 32),
    "VGG16": ("VGG16", 32),
    "VGG19": ("VGG19", 32),
    "Xception": ("Xception", 71),
}
ALWAYS = ("MobileNet", "MobileNetV2")


def family_parameters():
    return [
        pytest.param(name, marks=[] if name in ALWAYS else pytest.mark.slow)
        for name in FAMILIES
    ]


def images(side):
    return np.random.default_rng(0).uniform(0, 1, (2, side, side, 3)).astype("float32")


@pytest.mark.parametrize("family", family_parameters())
def test_applications(family):
    member, side = FAMILIES[family]
    narrow = {"alpha": 0.25} if family == "MobileNet" else {}
    narrow = {"alpha": 0.35} if family == "MobileNetV2" else narrow

    def build():
        model = getattr(keras.applications, member)
        shape = (side, side, 3)
        return model(
            weights=None, include_top=False, pooling="avg", input_shape=shape, **narrow
        )

    check_model(build, images(side))
