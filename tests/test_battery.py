"""Every model of the table passes every check of the battery."""

import pytest
from models import MODELS

from keras_l2reg.selection import select
from keras_l2reg.testing import CHECKS, Subject, run_check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", MODELS)
def test_check(name, check):
    entry = MODELS[name]
    run_check(check, Subject(entry.build, entry.inputs, entry.rule))


@pytest.mark.parametrize("name", [n for n, e in MODELS.items() if e.covered])
def test_covered_weights(name):
    entry = MODELS[name]
    model = entry.build()
    model(entry.inputs)
    names = [weight.name for weight, _ in select(model, **entry.rule)]
    assert sorted(names) == sorted(entry.covered)
