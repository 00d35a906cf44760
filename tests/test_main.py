"""`python -m keras_l2reg FILE.keras`: what it prints and its exit codes."""

import importlib
import json
import os
import pathlib
import re
import subprocess
import sys
import warnings
import zipfile

import keras
import numpy as np
import pytest
from keras import layers

import keras_l2reg.__main__
from keras_l2reg import L2AllWeights
from keras_l2reg.__main__ import main


def mlp(hidden: str | None = None) -> keras.Sequential:
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, kernel_regularizer=hidden, name="hidden"),
            layers.Dense(2, kernel_regularizer="l2", name="out"),
        ]
    )


@pytest.fixture
def saved(tmp_path):
    def save(model, name="model.keras"):
        path = tmp_path / name
        model.save(path)
        return str(path)

    return save


def test_findings_are_printed(saved, capsys):
    model = mlp()
    model.compile("adamw", "mse")
    assert main([saved(model)]) == 1
    out, err = capsys.readouterr()
    for text in ("last-layer-only", "double-decay", "coupled-adaptive", "out/kernel"):
        assert text in out
    assert err == ""


def test_model_without_findings(saved, capsys):
    assert main([saved(mlp("l2"))]) == 0
    assert capsys.readouterr().out == "No findings.\n"


@pytest.mark.filterwarnings("ignore:These weights already have a penalty")
def test_wrapped_model_loads_without_imports(saved):
    assert main([saved(L2AllWeights(mlp("l2"), l2=0.01, existing="replace"))]) == 0


def test_findings_as_json(saved, capsys):
    assert main(["--json", saved(mlp())]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert sorted(finding) == ["code", "file", "fix", "message", "severity", "where"]
    assert (finding["code"], finding["where"]) == ("last-layer-only", ["out/kernel"])
    assert main(["--json", saved(mlp("l2"))]) == 0
    assert json.loads(capsys.readouterr().out) == []


def truncate(path: str) -> None:
    with open(path, "rb+") as file:
        file.truncate(os.path.getsize(path) // 2)


def overwrite_the_middle(path: str) -> None:
    # It is still a zip file, but its middle is overwritten.
    with open(path, "rb+") as file:
        file.seek(os.path.getsize(path) // 4)
        file.write(b"\xff" * 400)


def replace(path: str, members: dict[str, bytes | None]) -> None:
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content |= members
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            if data is not None:
                file.writestr(name, data)


UNKNOWN_CLASS = b'{"module": "nowhere", "class_name": "X", "config": {}}'
DAMAGES = {
    "truncated": truncate,
    "overwritten": overwrite_the_middle,
    "empty": lambda path: pathlib.Path(path).write_bytes(b""),
    "text": lambda path: pathlib.Path(path).write_text("import keras\n" * 99),
    "other zip": lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "a"),
    "no config": lambda path: replace(path, {"config.json": None}),
    "bad config": lambda path: replace(path, {"config.json": b"{"}),
    "another config": lambda path: replace(path, {"config.json": b'{"a": 1}'}),
    "unknown class": lambda path: replace(path, {"config.json": UNKNOWN_CLASS}),
    "missing": os.remove,
    "directory": lambda path: (os.remove(path), os.mkdir(path)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_reported_in_one_line(saved, capsys, damage):
    path = saved(mlp())
    DAMAGES[damage](path)
    assert main([path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and path in err and len(err.strip()) > len(path) + 20


def test_files_with_code_are_not_loaded(saved, capsys):
    path = saved(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)]))
    assert main([path]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert "Lambda" in err and err.endswith("`keras_l2reg.audit(model)` there.\n")


def save_other_files(folder: pathlib.Path) -> dict[str, str]:
    """Save files that are not Keras 3 models; return a pattern for each message."""
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "old.h5")
    model.save_weights(folder / "a.weights.h5")
    (folder / "saved").mkdir()
    (folder / "saved" / "saved_model.pb").touch()
    (folder / "empty").mkdir()
    model.save(folder / "inside.keras")
    os.rename(folder / "inside.keras", folder / "model.zip")
    (folder / "models").mkdir()
    model.save(folder / "models" / "inside.keras")
    np.savez(folder / "arrays.npz", a=np.zeros(3))
    for name, member in {"t.pt": "t/data.pkl", "some.zip": "letter.txt"}.items():
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr(member, "")
    (folder / "cut.keras").write_bytes(b"PK\x03\x04")
    (folder / "cut.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    (folder / "pointer.keras").write_text("version https://git-lfs.github.com/spec/v1")
    (folder / "lite").write_bytes(b"\x1c\0\0\0TFL3")
    return {
        "nowhere.keras": "no such file",
        "old.h5": r"whole model in HDF5.*keras\.saving\.load_model\(.*\)\.save",
        "a.weights.h5": r"weights in HDF5.*`model\.load_weights",
        "saved": r"SavedModel.*exported from.*model\.save",
        "empty": "folder.*nothing",
        "models": r"folder.*inside\.keras",
        "model.zip": r"Rename it: model\.keras",
        "arrays.npz": "NumPy",
        "t.pt": "PyTorch",
        "some.zip": r"not one that Keras saved.*letter\.txt",
        "cut.keras": "truncated",
        "cut.h5": "damaged HDF5",
        "pointer.keras": "git lfs pull",
        "lite": "TensorFlow Lite",
    }


def test_other_files_are_recognized_without_keras(tmp_path, capsys, monkeypatch):
    expected = save_other_files(tmp_path)
    monkeypatch.setattr(keras_l2reg.__main__, "_start_keras", None)
    assert main([str(tmp_path / name) for name in expected]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == len(expected)
    for line, (name, pattern) in zip(lines, expected.items(), strict=True):
        assert line.startswith(f"keras_l2reg: {tmp_path / name}: ")
        assert re.search(pattern, line), line


def test_model_saved_as_a_folder(tmp_path, capsys):
    keras.saving.save_model(mlp(), tmp_path / "model", zipped=False)
    assert main([str(tmp_path / "model")]) == 1
    assert "last-layer-only" in capsys.readouterr().out


def test_several_files_are_audited_in_turn(saved, capsys):
    found, sound = saved(mlp(), "found.keras"), saved(mlp("l2"), "sound.keras")
    missing = sound.replace("sound", "missing")
    assert main([sound, sound]) == 0
    assert capsys.readouterr().out == "No findings.\n"
    assert main([sound, found]) == 1
    out = capsys.readouterr().out
    assert out.startswith(f"{sound}\nNo findings.\n\n{found}\nfinding ")
    assert main([missing, found, "--json"]) == 2
    out, err = capsys.readouterr()
    assert [finding["file"] for finding in json.loads(out)] == [found]
    assert err == f"keras_l2reg: {missing}: no such file\n"


def test_saved_layer_is_not_a_model(tmp_path, capsys):
    layer = layers.Dense(2)
    layer.build((None, 3))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    assert main([str(tmp_path / "layer.keras")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "contains a Dense, not a model" in err


MODULE = """
import keras
from keras_l2reg import L2

class Plain(keras.layers.Dense):
    pass

@keras.saving.register_keras_serializable("mine")
class Registered(keras.layers.Dense):
    pass

def shifted(x):
    return x + 1
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module of custom layers; unregistered after the test."""
    name = "layers_of_test_main"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    registered = dict(keras.saving.get_custom_objects())
    yield name
    sys.modules.pop(name, None)
    keras.saving.get_custom_objects().clear()
    keras.saving.get_custom_objects().update(registered)


def save_with_custom_layer(name, saved, layer):
    """Save a model with a custom layer, then unload the layer's module."""
    module = importlib.import_module(name)
    activation = module.shifted if layer == "Plain" else None
    out = layers.Dense(2, activation=activation, kernel_regularizer="l2")
    path = saved(
        keras.Sequential([keras.Input((4,)), getattr(module, layer)(3), out]),
        f"{layer}.keras",
    )
    del sys.modules[name]
    keras.saving.get_custom_objects().pop("mine>Registered", None)
    return path


@pytest.mark.parametrize("layer", ["Plain", "Registered"])
def test_custom_layers_need_their_module(module, saved, capsys, layer):
    path = save_with_custom_layer(module, saved, layer)
    assert main([path]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.endswith(
        f"Could not locate class '{layer}'. Import the module that defines it: "
        f"--import {module}\n"
    )
    assert main(["--import", module, path]) == 1
    assert "last-layer-only" in capsys.readouterr().out


def test_module_that_cannot_be_imported(saved, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)")
    path = saved(mlp("l2"))
    for name, message in {
        "nowhere_to_be_found": "No module named 'nowhere_to_be_found'",
        "no_layers.py": "Pass the name of the module: no_layers",
        "leaving": "SystemExit",
    }.items():
        assert main([path, "--import", name]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1 and message in err


def run(*arguments, python=(), **options):
    """Run a module as a program, with TensorFlow's default log level."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TF_")}
    environment |= options.pop("environment", {})
    return subprocess.run(
        [sys.executable, *python, "-m", *arguments],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        text=True,
        env=environment,
    )


def with_path(folder: pathlib.Path) -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(folder), *([path] if path else [])])}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:These weights already have a penalty")
def test_program_prints_only_findings(saved, module, tmp_path):
    named = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, name="é"), *mlp("l2").layers[1:]]
    )
    files = [
        saved(mlp(), "found.keras"),
        saved(L2AllWeights(mlp("l2"), l2=0.01, existing="replace"), "wrapped.keras"),
        save_with_custom_layer(module, saved, "Registered"),
        saved(named, "named.keras"),
    ]
    done = run(
        "keras_l2reg",
        *("--import", module, *files),
        environment={**with_path(tmp_path), "PYTHONIOENCODING": "ascii"},
    )
    assert (done.returncode, done.stderr) == (1, "")
    parts = re.split(r"^/.*\.keras$", done.stdout, flags=re.MULTILINE)[1:]
    assert ["last-layer-only" in part for part in parts] == [True, False, True, True]
    assert r"\xe9/kernel" in parts[3]


@pytest.mark.parametrize(
    "arguments, code", [(["--help"], 0), (["nowhere.keras"], 2), (["--jsonn"], 2)]
)
def test_help_and_usage_errors_do_not_import_keras(arguments, code):
    done = run("keras_l2reg", *arguments, python=["-X", "importtime"])
    assert done.returncode == code
    lines = [line.split("|") for line in done.stderr.splitlines()]
    modules = {line[-1].strip() for line in lines}
    assert "keras_l2reg" in modules
    assert not modules & {"keras", "tensorflow", "numpy", "rich"}


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_failure_to_write_is_an_error(saved):
    with open("/dev/full", "w") as full:
        done = run("keras_l2reg", saved(mlp()), stdout=full)
    assert done.returncode == 2 and "No space left" in done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:These weights already have a penalty")
def test_programs_that_import_the_package_get_all_of_it(saved, tmp_path):
    # Python imports `theirs`, and with it this package, before it sets `sys.argv`.
    path = saved(L2AllWeights(mlp("l2"), l2=0.01, existing="replace"))
    package = tmp_path / "theirs"
    package.mkdir()
    (package / "__init__.py").write_text("import keras_l2reg\n")
    (package / "__main__.py").write_text(
        f"import keras\nprint(keras.saving.load_model({path!r}).l2)\n"
    )
    done = run("theirs", "keras_l2reg", environment=with_path(tmp_path))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(0.01)


def test_help_describes_options_and_exit_codes(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "FILE.keras" in out and "--json" in out and "Exit code" in out


def test_unknown_option_is_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--jsonn", "a.keras"])
    assert stop.value.code == 2


def test_the_optimizer_and_its_decay_are_printed(saved, capsys):
    model = mlp()
    model.compile("adam", "mse")
    keras_l2reg.set_weight_decay(model.optimizer, model, 0.01, layers="hidden/*")
    assert main([saved(model)]) == 1
    first, _, _ = capsys.readouterr().out.partition("\n")
    assert first == (
        "Optimizer: Adam, weight_decay=0.01, couple='lr', on 1 of 4 trained weights."
    )
