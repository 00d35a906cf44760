"""The checks that every model should pass, each on a new model.

A check raises an error if it fails, and returns `None`.
"""

import glob
import pickle
from collections.abc import Callable

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._selection import select_weights
from keras_l2reg._testing.case import STRENGTH, Case, batch_size, trains
from keras_l2reg._testing.expect import (
    SILENT,
    compile_without_data_loss,
    expect_close,
    expect_equal,
    expect_same,
    expect_same_outputs,
    expect_saved_penalties,
    expect_step,
    expect_terms,
    fit_one_step,
    float64,
    has_fixed_batch_size,
    loss_terms,
    saved_and_loaded,
    state,
    targets,
    twin_name,
    unmoved_without_penalty,
)
from keras_l2reg.attachment import detach
from keras_l2reg.models import L2AllWeights
from keras_l2reg.weights import find_weights


def check_terms(case: Case) -> None:
    """`attach` adds exactly one term per covered trainable weight."""
    model, _ = case.built()
    covered = case.covered(model)
    others = len(model.losses)
    case.attach(model)
    expect_equal("len(model.losses)", others + len(covered), len(model.losses))
    expect_terms(model, covered)


def check_step(case: Case) -> None:
    """After `attach` to a compiled, fitted model, a step subtracts `2 * l2 * w`."""
    model, x = case.built()
    covered = case.covered(model)
    case.attach(model, 0.0)
    compile_without_data_loss(model, x)
    unmoved = unmoved_without_penalty(model, x, covered)
    case.attach(model)
    expect_step(model, x, unmoved)


def check_wrapper_terms(case: Case) -> None:
    """A wrapper around a new model, built or not, adds one term per covered weight."""
    twin, x = case.built()
    names = {w.name for w, _ in case.covered(twin)}
    wrapped = L2AllWeights(case.build_model(), STRENGTH, **case.rule)
    wrapped(x)
    covered = [
        (weight, multiplier)
        for weight, multiplier in select_weights(wrapped, **case.rule)
        if twin_name(weight, wrapped, twin) in names
    ]
    expect_equal("number of covered weights", len(names), len(covered))
    expect_terms(wrapped, covered)


def check_live_strength(case: Case) -> None:
    """A new `l2` of a wrapper applies to the next step of `fit`, without retracing."""
    traces = []

    class Counting(L2AllWeights):
        def compute_loss(self, *args, **kwargs):
            traces.append(None)
            return super().compute_loss(*args, **kwargs)

    model, x = case.built()
    covered = case.covered(model)
    wrapped = Counting(model, 0.0, **case.rule)
    compile_without_data_loss(wrapped, x)
    unmoved = unmoved_without_penalty(wrapped, x, covered)
    first = len(traces)
    fit_one_step(wrapped, x)
    second = len(traces)
    wrapped.l2 = STRENGTH
    expect_step(wrapped, x, unmoved)
    expect_equal("traces with a new l2", second - first, len(traces) - second)


def check_parts(case: Case) -> None:
    """`attach` with a strength for each weight gives each weight its own."""
    model, _ = case.built()
    covered = case.covered(model)
    strengths = {w.name: 1.0 + number for number, (w, _) in enumerate(covered)}
    parts = {glob.escape(name): STRENGTH * s for name, s in strengths.items()}
    case.attach(model, {"*": 0.0, **parts})
    expect_terms(model, [(w, m * strengths[w.name]) for w, m in covered])


def check_live_l1(case: Case) -> None:
    """A new `l1` subtracts `l1 * sign(w)` in the next step, and is saved."""
    model, x = case.built()
    covered = case.covered(model)
    wrapped = L2AllWeights(model, 0.0, l1=STRENGTH, **case.rule)
    loaded = saved_and_loaded(wrapped, case.safe_mode)
    expect_same(wrapped, loaded, x)
    expect_equal("l1", wrapped.l1, loaded.l1)
    wrapped.l1 = 0.0
    compile_without_data_loss(wrapped, x)
    unmoved = unmoved_without_penalty(wrapped, x, covered)
    wrapped.l1 = STRENGTH
    expect_step(wrapped, x, unmoved, lambda w: np.sign(float64(w.variable)))


def check_towards_start(case: Case) -> None:
    """With `towards_start`, a step leads back to the starting values, which are saved.

    A model with layers that its call does not build can't be wrapped so.
    """
    model, x = case.built()
    if not _keras.is_built_throughout(model):
        return
    covered = case.covered(model)
    start = {w.name: float64(w.variable) for w, _ in covered}
    wrapped = L2AllWeights(model, STRENGTH, towards_start=True, **case.rule)
    for variable in [w.variable for w, _ in covered if w.variable is not None]:
        variable.assign(float64(variable) + 0.5)
    expect_same(wrapped, saved_and_loaded(wrapped, case.safe_mode), x)
    wrapped.l2 = 0.0
    compile_without_data_loss(wrapped, x)
    unmoved = unmoved_without_penalty(wrapped, x, covered)
    wrapped.l2 = STRENGTH
    expect_step(
        wrapped, x, unmoved, lambda w: 2 * (float64(w.variable) - start[w.name])
    )


def check_logs(case: Case) -> None:
    """`data_loss + penalty == loss` in the logs, also with a smaller last batch.

    A model with a fixed batch size, such as a stateful one, gets full batches only.
    """
    model, x = case.built()
    y = targets(model, x)
    wrapped = L2AllWeights(model, 1e-3, **case.rule)
    loss = keras.tree.map_structure(lambda _: "mse", y)
    wrapped.compile("sgd", loss, run_eagerly=True)
    size = batch_size(x) - (not has_fixed_batch_size(model))
    logs = wrapped.evaluate(x, y, batch_size=size, verbose=SILENT, return_dict=True)
    total = logs["data_loss"] + logs["penalty"]
    expect_close("data_loss + penalty", logs["loss"], total)
    penalty = sum(loss_terms(wrapped).values())
    expect_close("penalty", penalty, logs["penalty"])


def check_wrapper_save(case: Case) -> None:
    """A wrapper's `.keras` file keeps predictions, penalties and `l2`."""
    wrapped, x = case.wrapped()
    expect_same(wrapped, saved_and_loaded(wrapped, case.safe_mode), x)


def check_wrapper_pickle(case: Case) -> None:
    """A pickled wrapper keeps predictions, penalties and `l2`."""
    wrapped, x = case.wrapped()
    expect_same(wrapped, pickle.loads(pickle.dumps(wrapped)), x)


def check_save(case: Case) -> None:
    """The `.keras` file of a model keeps every penalty, unless `attach` warned."""
    model, x = case.attached()
    loaded = saved_and_loaded(model, case.safe_mode)
    expect_saved_penalties(model, loaded)
    expect_same_outputs(model, loaded, x)


def check_from_config(case: Case) -> None:
    """`from_config(get_config())` keeps every penalty, unless `attach` warned."""
    model, x = case.attached()
    with _keras.deserializing(case.safe_mode):
        clone = type(model).from_config(model.get_config())
    clone(x)
    expect_saved_penalties(model, clone)


def check_clone(case: Case) -> None:
    """`keras.models.clone_model` keeps every penalty, unless `attach` warned."""
    model, x = case.attached()
    with _keras.deserializing(case.safe_mode):
        clone = keras.models.clone_model(model)
    clone(x)
    # It clones layer by layer, so it may keep what the model's config drops.
    expect_saved_penalties(model, clone, exactly=False)


def check_detach(case: Case) -> None:
    """`detach(attach(model))` leaves configs, penalties and weights as they were."""
    model, _ = case.built()
    before = state(model)
    after = state(detach(case.attach(model)))
    for what, expected in before.items():
        expect_equal(what, expected, after[what])


def check_freeze(case: Case) -> None:
    """Freezing a layer drops its term at once, unfreezing brings it back."""
    model, _ = case.attached()
    covered = {w.name: w for w, _ in select_weights(model, **case.rule)}
    owners = {id(w.layers[-1]): w.layers[-1] for w in covered.values() if w.layers}
    every_other = [
        layer
        for layer in list(owners.values())[::2]
        # `layer.trainable = True` also unfreezes weights that were frozen one by one.
        if layer.trainable and not layer.non_trainable_weights
    ]
    before = len(model.losses)
    dropped = sum(trains(model, w) for w in covered.values())
    for layer in every_other:
        layer.trainable = False
    dropped -= sum(trains(model, w) for w in covered.values())
    expect_equal("len(model.losses) while frozen", before - dropped, len(model.losses))
    for layer in every_other:
        layer.trainable = True
    expect_equal("len(model.losses) once unfrozen", before, len(model.losses))


def check_unwrap(case: Case) -> None:
    """`unwrap()` gives the same penalties, with built-in Keras regularizers."""
    wrapped, _ = case.wrapped()
    expected = loss_terms(wrapped)
    model = wrapped.unwrap()
    received = loss_terms(model)
    expect_equal("penalized weights", sorted(expected), sorted(received))
    for name, value in expected.items():
        expect_close(f"penalty of {name}", value, received[name])
    for weight in find_weights(model):
        for regularizer in (weight.regularizer, weight.configured_regularizer):
            module = type(regularizer).__module__
            if module.startswith("keras_l2reg"):
                expect_equal(f"regularizer of {weight.name}", "built-in", module)


CHECKS: list[Callable[[Case], None]] = [
    check_terms,
    check_step,
    check_wrapper_terms,
    check_live_strength,
    check_parts,
    check_live_l1,
    check_towards_start,
    check_logs,
    check_wrapper_save,
    check_wrapper_pickle,
    check_save,
    check_from_config,
    check_clone,
    check_detach,
    check_freeze,
    check_unwrap,
]
