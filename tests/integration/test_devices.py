"""Several devices: the penalty counts once, the numbers are those of one device.

The example does the comparing (1e-5) and fails by itself; each way needs a process
of its own, since devices are set up before the backend starts.
"""

import pathlib
import runpy
import subprocess
import sys

import keras
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "distributed.py"
WAYS = runpy.run_path(str(SCRIPT))["WAYS"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [way for way, (b, _) in WAYS.items() if b == keras.backend.backend()]
)
def test_numbers_are_those_of_one_device(way):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--way", way],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "relative distance from one device: data_loss" in done.stdout


DECAY = SCRIPT.parents[1] / "tests" / "integration" / "decay_on_devices.py"
DECAY_WAYS = runpy.run_path(str(DECAY))["WAYS"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "way", [way for way, b in DECAY_WAYS.items() if b == keras.backend.backend()]
)
def test_weight_decay_is_that_of_one_device(way):
    done = subprocess.run(
        [sys.executable, DECAY, way], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert float(done.stdout.split()[-1]) <= 1e-5
