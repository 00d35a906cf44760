"""`audit`: it does not change the model, and checks its arguments."""

import json
import threading

import keras
import numpy as np
import pytest
from audit_helpers import (
    BACKEND,
    bare_or_wrapped,
    codes,
    compiled,
    data,
    l2,
    mlp,
    needs_compiled_steps,
    regularized,
    wrap_and_replace,
)
from keras import layers, ops

from keras_l2reg import L2AllWeights, attach, audit


def test_regularized_model_has_no_findings():
    x, y = data()
    model = compiled(regularized())
    model.fit(x, y, batch_size=4, verbose=0)
    assert audit(model, x, y) == ()
    assert str(audit(model)) == "No findings."


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_wrapped_model_has_no_errors_or_warnings(optimizer):
    x, y = data()
    model = compiled(L2AllWeights(mlp(), l2=0.001), optimizer)
    model.fit(x, y, batch_size=4, verbose=0)
    model.l2 = 0.0001  # live: no new trace is needed
    assert {f.severity for f in audit(model, x, y)} <= {"info"}


def test_attached_model_has_no_findings():
    assert audit(attach(mlp(), 0.01)) == ()


def test_unbuilt_layers_are_audited_by_their_attributes():
    model = keras.Sequential(
        [layers.Dense(3, name="a"), layers.Dense(2, kernel_regularizer="l2", name="b")]
    )
    assert codes(model) == ["last-layer-only"]
    assert codes(keras.Sequential([layers.Dense(3, kernel_regularizer="l2")])) == []


def state_of(model):
    """All that an audit might change: values, and identities of objects."""
    variables = [*model.variables, *model.optimizer.variables]
    return {
        "values": [ops.convert_to_numpy(v).tolist() for v in variables],
        "objects": [id(v) for v in variables],
        "regularizers": [id(v.regularizer) for v in model.variables],
        "config": json.dumps(model.get_config(), default=str),
        "compile": json.dumps(model.get_compile_config(), default=str),
        "losses": [float(ops.convert_to_numpy(term)) for term in model.losses],
        "steps": [id(model.train_function), id(model.test_function)],
        "metrics": [m.name for m in model.metrics],
        "attributes": sorted(vars(model)),
    }


@bare_or_wrapped
def test_audit_changes_nothing(wrap):
    inner = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, activity_regularizer="l2", name="a"),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(2, kernel_regularizer="l2", name="b"),
        ]
    )
    x, y = data()
    model = compiled(wrap(inner), "adamw")
    model.fit(x, y, batch_size=4, verbose=0)
    model.evaluate(x, y, verbose=0)
    model(x)
    inner.get_layer("a").bias_regularizer = l2(0.1)
    inner.get_layer("b").kernel.regularizer = l2(0.5)
    before = state_of(model)
    assert "never-applied" in codes(model, x, y)
    assert state_of(model) == before


@needs_compiled_steps
def test_audit_does_not_compile_steps():
    x, y = data(6)
    model = compiled(regularized())
    model.evaluate(x, y, batch_size=2, verbose=0)
    audit(model, x, y)
    for layer in model.layers:
        layer.kernel.regularizer = l2(10.0)
    # JAX traces the new batch size now, not in the audit.
    if BACKEND == "jax":
        expected = float(ops.convert_to_numpy(sum(model.losses))) + np.mean(
            (model.predict(x, verbose=0) - y) ** 2
        )
        got = model.evaluate(x, y, batch_size=6, verbose=0)
        np.testing.assert_allclose(got, expected, rtol=1e-5)


class AuditEveryStep(keras.callbacks.Callback):
    """Audits before and after each step; for a wrapper, its inner model as well."""

    def __init__(self, batch):
        super().__init__()
        self.batch, self.found = batch, []

    def audit_model(self, *args, **kwargs):
        self.found.append(codes(self.model, *self.batch))
        audit(getattr(self.model, "wrapped_model", self.model))

    on_train_batch_begin = on_train_batch_end = on_test_batch_end = audit_model
    on_epoch_end = on_train_end = audit_model


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrap", [lambda model: model, wrap_and_replace], ids=["bare", "wrapped"]
)
def test_audit_in_a_callback_does_not_affect_fit(wrap):
    def train(*callbacks):
        keras.utils.set_random_seed(0)
        model = mlp(l2(0.01), l2(0.01), activity_regularizer="l2")
        model = compiled(wrap(model), "adam")
        kwargs = {"batch_size": 4, "epochs": 2, "validation_data": (x, y)}
        logs = model.fit(x, y, verbose=0, callbacks=callbacks, **kwargs).history
        return logs, [w.tolist() for w in model.get_weights()]

    x, y = data()
    audits = AuditEveryStep((x, y))
    assert train(audits) == train()
    assert len(audits.found) == 15
    assert {code for found in audits.found for code in found} == {"coupled-adaptive"}


class WaitInTraining(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.is_running, self.may_end = threading.Event(), threading.Event()

    def on_train_batch_end(self, batch, logs=None):
        self.is_running.set()
        self.may_end.wait(60)


def test_audit_raises_while_another_thread_trains():
    x, y = data()
    inner = regularized()
    outer = compiled(keras.Sequential([keras.Input((4,)), inner]))
    other = regularized()
    waits, errors = WaitInTraining(), []

    def fit():
        try:
            outer.fit(x, y, batch_size=4, verbose=0, callbacks=[waits])
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    try:
        assert waits.is_running.wait(60)
        for model in (outer, inner):
            with pytest.raises(RuntimeError, match="`fit` in another thread"):
                audit(model)
        assert codes(other) == []
    finally:
        waits.may_end.set()
        thread.join()
    assert errors == []
    assert codes(outer, x, y) == []


@pytest.mark.parametrize(
    "call, error, match",
    [
        (lambda: audit("model"), TypeError, "keras.Model"),
        (lambda: audit(mlp(), max_share=0), ValueError, "max_share"),
        (lambda: audit(mlp(), max_share=float("nan")), ValueError, "max_share"),
        (lambda: audit(mlp(), max_share=True), ValueError, "max_share"),
        (lambda: audit(compiled(mlp()), data()[0]), ValueError, "both"),
        (lambda: audit(mlp(), *data()), ValueError, "compiled"),
    ],
)
def test_bad_arguments_raise(call, error, match):
    with pytest.raises(error, match=match):
        call()
