"""In a notebook, tables, progress bars and plots are shown as HTML and images."""

import base64
import io

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

# A kernel takes its time to start.
pytestmark = pytest.mark.slow

CELLS = {
    "start": """
import keras
import numpy as np
from keras_l2reg import *
from keras_l2reg.plotting import *

model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
                          keras.layers.Dense(2, kernel_regularizer="l2", name="out")])
model.compile("sgd", "mse")
x = np.ones((8, 4), "float32")
y = np.ones((8, 2), "float32")
""",
    "str": "str(audit(model))",
    "print": "print(audit(model))",
    "findings": "audit(model)",
    "no findings": "audit(attach(keras.models.clone_model(model), 0.1))",
    "penalties": "print_penalties(model, title='now')",
    "weights": "print_weights(model, title='now')",
    "redirected": """
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()) as file:
    print_penalties(model)
file.getvalue()
""",
    "fit": "history = model.fit(x, y, epochs=2, callbacks=[PenaltyLogger(verbose=1)])",
    "plot penalties": "plot_penalties(history)",
    "path": """
wrapped = L2AllWeights(keras.models.clone_model(model), existing="replace")
wrapped.compile("sgd", "mse")
path = l2_path(wrapped, x, y, [1.0, 0.1], (x, y), epochs=3)
""",
    "show path": "path",
    "plot path": "path.plot()",
    "plot weights": "plot_weights({'now': weight_norms(model)})",
    "pyplot": """
import matplotlib.pyplot as plt
path.plot()
""",
}


@pytest.fixture(scope="module")
def outputs():
    """For each cell, its outputs: (kind, data by MIME type) or ("stdout", text)."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS.values()]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    return {
        name: [
            (o.name, o.text)
            if o.output_type == "stream"
            else (o.output_type, dict(o.data))
            for o in cell.outputs
            # Warnings and TensorFlow's startup messages.
            if o.get("name") != "stderr"
        ]
        for name, cell in zip(CELLS, notebook.cells, strict=True)
    }


def only(outputs, kind):
    """The data of the only output of a cell."""
    ((found, data),) = outputs
    assert found == kind
    return data


def test_findings_are_shown_as_text_and_html(outputs):
    assert "last-layer-only" in only(outputs["str"], "execute_result")["text/plain"]
    text = "".join(text for _, text in outputs["print"])
    assert {kind for kind, _ in outputs["print"]} == {"stdout"}
    assert "last-layer-only | out/kernel" in text and "\x1b" not in text
    shown = only(outputs["findings"], "execute_result")
    assert "<table" in shown["text/html"] and "last-layer-only" in shown["text/html"]
    assert shown["text/plain"] == text.rstrip("\n")
    nothing = only(outputs["no findings"], "execute_result")
    assert nothing["text/plain"] == "No findings."


def test_weights_are_shown_as_text_and_html(outputs):
    shown = only(outputs["weights"], "display_data")
    assert "out/bias</td>" in shown["text/html"]
    assert shown["text/plain"].startswith("now\nweight")


def test_penalties_are_shown_unless_output_is_redirected(outputs):
    shown = only(outputs["penalties"], "display_data")
    assert "now" in shown["text/html"] and "out/kernel</td>" in shown["text/html"]
    assert shown["text/plain"].startswith("now\nweight")
    assert "out/kernel" in only(outputs["redirected"], "execute_result")["text/plain"]


def test_penalties_of_each_epoch_are_shown(outputs):
    tables = [data for kind, data in outputs["fit"] if kind == "display_data"]
    assert [t["text/plain"].split("\n")[0] for t in tables] == ["Epoch 1", "Epoch 2"]


def test_a_path_is_shown_as_html(outputs):
    shown = only(outputs["show path"], "execute_result")
    assert "val_data_loss</th>" in shown["text/html"]


def test_the_progress_bar_is_shown_without_widgets(outputs):
    shown = only(outputs["path"], "display_data")
    assert shown["text/plain"] == "l2_path, epochs 6/6"
    assert '<progress max="6" value="6">' in shown["text/html"]
    assert set(shown) == {"text/plain", "text/html"}


@pytest.mark.parametrize(
    "cell", ["plot penalties", "plot path", "plot weights", "pyplot"]
)
def test_pictures_are_shown_as_png(outputs, cell):
    shown = only(outputs[cell], "execute_result")
    with Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))) as image:
        assert image.width > 500
        assert len(np.unique(np.asarray(image.convert("L")))) > 10
