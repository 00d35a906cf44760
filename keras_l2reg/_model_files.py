"""Recognize files that are not models saved by Keras 3, without importing Keras.

>>> import tempfile
>>> file = pathlib.Path(tempfile.mkdtemp(), "model.keras")
>>> file.write_bytes(b"")
0
>>> problem_with(file)
'it is empty'
"""

import os
import pathlib
import zipfile
from collections.abc import Sequence

_HDF5 = b"\x89HDF\r\n\x1a\n"


def problem_with(path: str | os.PathLike[str]) -> str | None:
    """Why a file is not a model saved by Keras 3, and what to do about it.

    Args:
        path: Path of a file or folder.

    Returns:
        A string, or `None` if Keras should be able to load the file.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return _problem_with_folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        return error.strerror or str(error)
    if zipfile.is_zipfile(path):
        return _problem_with_zip(path)
    if start.startswith(_HDF5):
        return _problem_with_hdf5(path)
    return _problem_with_other_file(start)


def _problem_with_folder(path: pathlib.Path) -> str | None:
    names = {child.name for child in path.iterdir()}
    if {"config.json", "metadata.json"} <= names:
        return None  # a model that Keras saved with `zipped=False`
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return (
            "a TensorFlow SavedModel, which computes outputs but has no layers, "
            "regularizers or optimizer. Save the model that it was exported from with "
            "`model.save('model.keras')`"
        )
    models = sorted(name for name in names if name.endswith(".keras"))
    if models:
        return f"a folder. Give the files in it: {_listed(models)}"
    return (
        f"a folder, but not one of a Keras model. It contains: {_listed(sorted(names))}"
    )


def _problem_with_zip(path: pathlib.Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as file:
            names = sorted(file.namelist())
    except (zipfile.BadZipFile, OSError) as error:
        return f"a damaged zip file: {error}"
    if "config.json" in names:
        if path.suffix == ".keras":
            return None
        return (
            "a Keras model, but Keras loads it only if its name ends in .keras. "
            f"Rename it: {path.stem}.keras"
        )
    if any(name.endswith("data.pkl") for name in names):
        return (
            "a PyTorch file, which does not contain a Keras model. Save a Keras model "
            "on the torch backend with `model.save('model.keras')`"
        )
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays without a model. Expected a file written by `model.save`"
    return (
        "a zip file, but not one that Keras saved: it has no config.json. It contains: "
        f"{_listed(names)}"
    )


def _problem_with_hdf5(path: pathlib.Path) -> str:
    import h5py  # comes with Keras

    try:
        with h5py.File(path) as file:
            has_model = "model_config" in file.attrs
    except OSError as error:
        return f"a damaged HDF5 file: {error}"
    if has_model:
        return (
            "a whole model in HDF5, Keras' older format. Convert it in Python: "
            f"`keras.saving.load_model({str(path)!r}).save('model.keras')`"
        )
    return (
        "weights in HDF5 without their model, so there are no regularizers. Build the "
        "model, `model.load_weights(...)`, and call `keras_l2reg.audit(model)` in "
        "Python"
    )


def _problem_with_other_file(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer instead of the file. Fetch the file: `git lfs pull`"
    if start.startswith(b"PK"):
        return "a truncated .keras file. Copy or download it again"
    if start[4:8] == b"TFL3":
        return (
            "a TensorFlow Lite model, which has no regularizers. Audit the Keras model "
            "that it was converted from"
        )
    return "not a .keras file. Expected a file written by `model.save('model.keras')`"


def _listed(names: Sequence[str], shown: int = 3) -> str:
    more = len(names) - shown
    listed = ", ".join(names[:shown]) or "nothing"
    return f"{listed} and {more} more" if more > 0 else listed
