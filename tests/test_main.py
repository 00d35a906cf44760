"""`python -m keras_l2reg FILE.keras`: what it prints, and the exit code."""

import json
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import pytest
from keras import layers

from keras_l2reg import L2AllWeights
from keras_l2reg.__main__ import main


def mlp(hidden=None):
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


def test_findings(saved, capsys):
    model = mlp()
    model.compile("adamw", "mse")
    assert main([saved(model)]) == 1
    out, err = capsys.readouterr()
    for text in ("last-layer-only", "double-decay", "coupled-adaptive", "out/kernel"):
        assert text in out
    assert err == ""


def test_no_findings(saved, capsys):
    assert main([saved(mlp("l2"))]) == 0
    assert capsys.readouterr().out == "No findings.\n"


def test_wrapped_model(saved):
    assert main([saved(L2AllWeights(mlp(), l2=0.01))]) == 0


def test_json(saved, capsys):
    assert main(["--json", saved(mlp())]) == 1
    (finding,) = json.loads(capsys.readouterr().out)
    assert sorted(finding) == ["code", "mend", "message", "severity", "where"]
    assert (finding["code"], finding["where"]) == ("last-layer-only", ["out/kernel"])
    assert main(["--json", saved(mlp("l2"))]) == 0
    assert json.loads(capsys.readouterr().out) == []


def _truncated(path):
    with open(path, "rb+") as file:
        file.truncate(os.path.getsize(path) // 2)


def _garbled(path):
    # Still a zip file, the middle of which is not what it was.
    with open(path, "rb+") as file:
        file.seek(os.path.getsize(path) // 4)
        file.write(b"\xff" * 400)


def _replaced(path, **members):
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    content.update({name.replace("_json", ".json"): m for name, m in members.items()})
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            if data is not None:
                file.writestr(name, data)


FAULTS = {
    "truncated": _truncated,
    "garbled": _garbled,
    "empty": lambda path: pathlib.Path(path).write_bytes(b""),
    "text": lambda path: pathlib.Path(path).write_text("import keras\n" * 99),
    "other zip": lambda path: zipfile.ZipFile(path, "w").writestr("a.txt", "a"),
    "no config": lambda path: _replaced(path, config_json=None),
    "bad config": lambda path: _replaced(path, config_json=b"{"),
    "another config": lambda path: _replaced(path, config_json=b'{"a": 1}'),
    "unknown class": lambda path: _replaced(
        path,
        config_json=json.dumps(
            {"module": "nowhere", "class_name": "X", "config": {}}
        ).encode(),
    ),
    "missing": os.remove,
    "directory": lambda path: (os.remove(path), os.mkdir(path)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unreadable_file(saved, capsys, fault):
    path = saved(mlp())
    FAULTS[fault](path)
    assert main([path]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and path in err and len(err.strip()) > len(path) + 20


def test_safe_mode_stays_on(saved, capsys):
    path = saved(keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: 2 * x)]))
    assert main([path]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "ambda" in err


def test_as_a_program(saved):
    """Help, a finding, a missing file: by the command line itself."""

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "keras_l2reg", *arguments],
            capture_output=True,
            text=True,
        )

    found = run(saved(mlp()))
    assert found.returncode == 1 and "last-layer-only" in found.stdout
    missing = run("nowhere.keras")
    assert missing.returncode == 2 and missing.stdout == ""
    assert missing.stderr.endswith("keras_l2reg: nowhere.keras: no such file\n")


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "FILE.keras" in out and "--json" in out and "Exit code" in out


def test_unknown_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--jsonn", "a.keras"])
    assert stop.value.code == 2
