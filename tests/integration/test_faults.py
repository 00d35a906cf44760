"""Faults from outside: damaged files, a full disk."""

import contextlib
import os
import zipfile

import keras
import numpy as np
import pytest

from keras_l2reg import L2AllWeights, PenaltyLogger

X, Y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")


def trained():
    wrapped = L2AllWeights(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), 0.01
    )
    wrapped.compile("sgd", "mse")
    wrapped.fit(X, Y, verbose=0)
    return wrapped


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "good.keras"
    trained().save(path)
    keras.saving.load_model(path)
    return path


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_does_not_load(saved, tmp_path, kept):
    data = saved.read_bytes()
    path = tmp_path / "bad.keras"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(Exception, match=r"\w"):
        keras.saving.load_model(path)


@pytest.mark.parametrize("member", ["config.json", "model.weights.h5", "metadata.json"])
@pytest.mark.parametrize("damage", ["missing", "empty", "scrambled"])
def test_a_damaged_member_does_not_load(saved, tmp_path, member, damage):
    if member == "metadata.json" and damage != "missing":
        pytest.skip("Keras does not read it")
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(saved) as good, zipfile.ZipFile(path, "w") as bad:
        for name in good.namelist():
            data = good.read(name)
            if name == member:
                if damage == "missing":
                    continue
                data = b"" if damage == "empty" else data[::-1]
            bad.writestr(name, data)
    if member == "metadata.json":
        assert keras.saving.load_model(path).l2 == 0.01
        return
    with pytest.raises(Exception, match=r"\w"):
        keras.saving.load_model(path)


@pytest.mark.parametrize(
    ("good", "bad"),
    [('"l2": 0.01', '"l2": -0.01'), ('"existing": null', '"existing": "nonsense"')],
)
def test_a_config_that_was_tampered_with_is_refused(saved, tmp_path, good, bad):
    path = tmp_path / "bad.keras"
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "config.json":
                assert good.encode() in data
                data = data.replace(good.encode(), bad.encode())
            target.writestr(name, data)
    with pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(path)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_raises_and_leaves_the_model_usable():
    wrapped = trained()
    log = keras.callbacks.CSVLogger("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        wrapped.fit(X, Y, epochs=2, verbose=0, callbacks=[PenaltyLogger(), log])
    with contextlib.suppress(OSError):
        log.csv_file.close()  # or its destructor would, in a later test
    assert wrapped.l2 == 0.01
    history = wrapped.fit(X, Y, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    np.testing.assert_allclose(
        np.add(history["data_loss"], history["penalty"]), history["loss"], rtol=1e-6
    )
    assert wrapped.predict(X, verbose=0).shape == (8, 2)


def test_a_save_that_fails_leaves_the_model_as_it_was(tmp_path):
    wrapped = trained()
    before = [w.copy() for w in wrapped.get_weights()]
    with pytest.raises(OSError):
        wrapped.save(tmp_path / "no" / "such" / "folder" / "model.keras")
    for a, b in zip(wrapped.get_weights(), before, strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(wrapped.losses) == 1 and wrapped.l2 == 0.01
