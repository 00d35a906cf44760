"""Every model of the table passes every check of the battery.

In a plain run each model passes two checks, and each check has seven models or eight;
`pytest -m slow tests/test_battery.py` runs the rest of the cross product.
"""

import keras
import pytest
from models import MODELS

from keras_l2reg._selection import select_weights
from keras_l2reg.testing import (
    CHECKS,
    Subject,
    check_live_strength,
    check_step,
    run_check,
)

# In a training step on JAX, SpectralNormalization assigns the normalized kernel, the
# penalty is taken of that, and the optimizer's update of the old kernel overwrites it.
CANNOT = {
    "jax": [
        ("spectral_normalization", check_step),
        ("spectral_normalization", check_live_strength),
    ]
}


def pairs():
    """Each model with each check; what is not for a plain run is marked as slow."""
    for row, name in enumerate(MODELS):
        for column, check in enumerate(CHECKS):
            # A Latin square of 13 rows, twice: each check as often as the others.
            is_plain = (column - row) % len(CHECKS) in (0, 6)
            marks = () if is_plain else pytest.mark.slow
            yield pytest.param(name, check, marks=marks, id=f"{name}-{check.__name__}")


@pytest.mark.filterwarnings("ignore:The configuration of")
@pytest.mark.filterwarnings("ignore:These weights have a penalty already")
@pytest.mark.filterwarnings("ignore:Skipping variable loading")
@pytest.mark.parametrize(("name", "check"), list(pairs()))
def test_check(name, check):
    if (name, check) in CANNOT.get(keras.backend.backend(), ()):
        pytest.skip("Keras on JAX forgets what SpectralNormalization assigns")
    entry = MODELS[name]
    run_check(check, Subject(entry.build, entry.inputs, entry.rule))


@pytest.mark.parametrize("name", [n for n, e in MODELS.items() if e.covered])
def test_covered_weights(name):
    entry = MODELS[name]
    model = entry.build()
    model(entry.inputs)
    names = [weight.name for weight, _ in select_weights(model, **entry.rule)]
    assert sorted(names) == sorted(entry.covered)
