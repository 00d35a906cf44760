"""What kind of file holds no model that Keras 3 can read, told without Keras.

>>> import tempfile
>>> file = pathlib.Path(tempfile.mkdtemp(), "model.keras")
>>> file.write_bytes(b"")
0
>>> fault_of(file)
'it is empty'
"""

import pathlib
import zipfile

_HDF5 = b"\x89HDF\r\n\x1a\n"
_AUDIT_IN_PYTHON = "call `keras_l2reg.audit(model)` in Python"


def fault_of(path):
    """What a file is, if not a model saved by Keras 3, and what to do about it.

    Args:
        path: String or path of a file or folder.

    Returns:
        A string, or `None` for what Keras should be able to load.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return _fault_of_folder(path)
    try:
        with path.open("rb") as file:
            start = file.read(64)
    except OSError as error:
        return error.strerror or str(error)
    if zipfile.is_zipfile(path):
        return _fault_of_zip(path)
    if start.startswith(_HDF5):
        return _fault_of_hdf5(path)
    return _fault_by_start(start)


def _fault_of_folder(path):
    names = {child.name for child in path.iterdir()}
    if {"config.json", "metadata.json"} <= names:
        return None  # a model that Keras saved with `zipped=False`
    if names & {"saved_model.pb", "saved_model.pbtxt"}:
        return (
            "a TensorFlow SavedModel, which computes outputs but has no layers, "
            "regularizers or optimizer. Take the model that it was exported from, and "
            "save that with `model.save('model.keras')`"
        )
    models = sorted(name for name in names if name.endswith(".keras"))
    if models:
        return f"a folder. Give the files in it: {_listed(models)}"
    return f"a folder, but not of a Keras model. It holds: {_listed(sorted(names))}"


def _fault_of_zip(path):
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
            "a PyTorch file, which holds no Keras model. Of a Keras model on the torch "
            "backend, take what `model.save('model.keras')` writes"
        )
    if names and all(name.endswith(".npy") for name in names):
        return "NumPy arrays, without a model. Expected what `model.save` writes"
    return (
        "a zip file, but not one that Keras saved: it has no config.json. It holds: "
        f"{_listed(names)}"
    )


def _fault_of_hdf5(path):
    import h5py  # comes with Keras

    try:
        with h5py.File(path) as file:
            holds_model = "model_config" in file.attrs
    except OSError as error:
        return f"a damaged HDF5 file: {error}"
    if holds_model:
        return (
            "a whole model in HDF5, Keras' older format. Convert it in Python: "
            f"`keras.saving.load_model({str(path)!r}).save('model.keras')`"
        )
    return (
        "weights in HDF5 without their model, so no regularizers. Build the model, "
        f"`model.load_weights(...)`, and {_AUDIT_IN_PYTHON}"
    )


def _fault_by_start(start):
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer in place of the file. Fetch that: `git lfs pull`"
    if start.startswith(b"PK"):
        return "a truncated .keras file. Copy or download it again"
    if start[4:8] == b"TFL3":
        return (
            "a TensorFlow Lite model, which has no regularizers. Take the Keras model "
            "that it was converted from"
        )
    return "not a .keras file. Expected what `model.save('model.keras')` writes"


def _listed(names, shown=3):
    more = len(names) - shown
    listed = ", ".join(names[:shown]) or "nothing"
    return f"{listed} and {more} more" if more > 0 else listed
