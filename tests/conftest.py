"""What every test gets: a fresh Keras, the same seeds."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture(autouse=True)
def fresh_keras():
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
