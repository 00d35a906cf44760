"""What every test gets: the same seeds, and a fresh Keras for each module."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

# Where a warning of ours is not what is tested: beside an error, on a page of its own.
ON_PURPOSE = {
    "test_errors.py": "ignore:These weights have a penalty already",
    "uncovered.py": "ignore:These weights have a penalty already",
}


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.name in ON_PURPOSE:
            item.add_marker(pytest.mark.filterwarnings(ON_PURPOSE[item.path.name]))


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
