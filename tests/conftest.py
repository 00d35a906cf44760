"""Every test starts with the same seed, every module with a new Keras session."""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

# Files whose code triggers a warning that is not what they test or explain.
ON_PURPOSE = {
    "test_errors.py": "ignore:These weights already have a penalty",
    "uncovered.py": "ignore:These weights already have a penalty",
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
    """torch, as a reference on every backend; skips the test if it is not installed."""
    return pytest.importorskip("torch")
