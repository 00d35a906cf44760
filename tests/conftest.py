"""What every test gets: the same seeds, and a fresh Keras for each module."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True, scope="module")
def fresh_keras():
    # Slow (it collects garbage), so not for each test.
    keras.utils.clear_session()


@pytest.fixture
def torch():
    """torch as a reference for what other backends do; it is no requirement."""
    return pytest.importorskip("torch")
