"""Every test starts with the same seed, every module with a new Keras session."""

import contextlib
import gc
import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

# A user's file, which only the type checker reads.
collect_ignore = ["typing"]


def pytest_collection_finish():
    # What the imports made lives to the end: the collector need not walk it each time.
    gc.collect()
    gc.freeze()


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


@pytest.fixture
def float64():
    """Keras in float64, where rounding can't hide a difference."""
    floatx = keras.config.floatx()
    with contextlib.ExitStack() as stack:
        if keras.backend.backend() == "jax":
            import jax

            stack.enter_context(jax.enable_x64(True))
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        try:
            yield
        finally:
            keras.config.set_floatx(floatx)
            keras.config.set_dtype_policy(floatx)
