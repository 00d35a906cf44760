"""Train, save and compare models: the helpers of the checks."""

import json
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from keras_l2reg import _keras
from keras_l2reg._persistence import lost_on_save, same_regularizer
from keras_l2reg._testing.case import STRENGTH, batch_size
from keras_l2reg.models import L2AllWeights
from keras_l2reg.weights import Weight, find_weights

Covered = Sequence[tuple[Weight, float]]
SILENT: Any = 0  # for `verbose`, whose type is inferred from its default, a string
_RTOL = 1e-5


def targets(model: keras.Model, x: Any) -> Any:
    """Zeros in the shape of the model's outputs."""
    return keras.tree.map_structure(lambda p: np.zeros(p.shape, "float32"), model(x))


def compile_without_data_loss(model: keras.Model, x: Any) -> None:
    """Compile with SGD(1.0) and a loss of 0, so that only penalties change weights."""

    # Without a loss, a model that was compiled before would keep its old one.
    def zero(y_true: Any, y_pred: Any) -> Any:
        mean: Any = keras.ops.mean(y_pred, axis=-1)
        return 0.0 * mean

    loss = keras.tree.map_structure(lambda _: zero, targets(model, x))
    model.compile(keras.optimizers.SGD(1.0), loss)


def fit_one_step(model: keras.Model, x: Any) -> None:
    """Fit one batch that holds all of `x`."""
    with warnings.catch_warnings():
        # Weights that do not affect the loss have no gradient.
        warnings.filterwarnings("ignore", "Gradients do not exist")
        model.fit(x, targets(model, x), batch_size=batch_size(x), verbose=SILENT)


def has_fixed_batch_size(model: keras.Model) -> bool:
    """Whether the model requires a fixed batch size."""
    inputs = keras.tree.flatten(getattr(model, "inputs", None) or [])
    return bool(_stateful_layers(model)) or any(spec.shape[0] for spec in inputs)


def _stateful_layers(model: keras.Model) -> list[Any]:
    return [
        layer for layer in _keras.all_layers(model) if getattr(layer, "stateful", False)
    ]


def _outputs_after_reset(model: keras.Model, x: Any) -> list[Any]:
    """The outputs of a call after the states of stateful layers were reset."""
    for layer in _stateful_layers(model):
        if isinstance(layer, keras.layers.RNN):
            # `RNN.reset_state` fails on the nested states of several cells.
            for state in keras.tree.flatten(layer.states or []):
                state.assign(keras.ops.zeros(state.shape, state.dtype))
        elif hasattr(layer, "reset_state") and not _keras.sublayers(layer):
            layer.reset_state()
    return keras.tree.flatten(model(x))


def saved_and_loaded(model: keras.Model, safe_mode: bool) -> Any:
    """The model after a round trip through a `.keras` file."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        return keras.models.load_model(path, safe_mode=safe_mode)


def float64(variable: Any) -> np.ndarray:
    """The values of a variable or tensor in float64."""
    array: Any = keras.ops.convert_to_numpy(variable)
    return array.astype("float64")


def loss_terms(model: keras.Model) -> dict[str, float]:
    """Each penalty in `model.losses`, by the name of its weight."""
    names = {id(w.variable): w.name for w in find_weights(model)}
    penalized = [v for v in model.trainable_variables if v.regularizer is not None]
    # Keras lists the penalties of weights after all other losses.
    values = model.losses[len(model.losses) - len(penalized) :]
    return {
        names[id(v)]: float(float64(value))
        for v, value in zip(penalized, values, strict=True)
    }


def twin_name(weight: Weight, model: keras.Model, twin: keras.Model) -> str:
    """The name in `twin` of a weight of `model`: automatic layer names may differ."""
    position = [w.name for w in find_weights(model)].index(weight.name)
    return find_weights(twin)[position].name


def state(model: keras.Model) -> dict[str, Any]:
    """Everything that `attach` and `detach` together should leave unchanged."""
    try:
        config = json.dumps(keras.saving.serialize_keras_object(model), default=str)
    except NotImplementedError:
        config = None  # a subclassed model that can't be saved at all
    weights = find_weights(model)
    return {
        "config": config,
        "losses": loss_terms(model),
        "regularizers in effect": [w.regularizer for w in weights],
        "regularizers of the layers": [w.configured_regularizer for w in weights],
        "weights": [float64(v).tolist() for v in model.weights],
    }


def expect_equal(what: str, expected: Any, received: Any) -> None:
    if expected != received:
        raise AssertionError(f"{what}: expected {expected!r}, received {received!r}")


def expect_close(what: str, expected: Any, received: Any) -> None:
    if not np.allclose(expected, received, rtol=_RTOL, atol=1e-6, equal_nan=True):
        raise AssertionError(f"{what}: expected {expected}, received {received}")


def expect_terms(model: keras.Model, covered: Covered) -> None:
    """The loss has the L2 term of each covered weight."""
    terms = loss_terms(model)
    for weight, multiplier in covered:
        expected = STRENGTH * multiplier * np.sum(float64(weight.variable) ** 2)
        if weight.name not in terms:
            raise AssertionError(
                f"penalty of {weight.name}: expected {expected}, received no term"
            )
        expect_close(f"penalty of {weight.name}", expected, terms[weight.name])


def unmoved_without_penalty(
    model: keras.Model, x: Any, covered: Covered
) -> list[tuple[Weight, float]]:
    """The weights that a step without penalty and data loss does not change.

    Constraints, activity regularizers and spectral normalization change the others.
    """
    before = [float64(weight.variable) for weight, _ in covered]
    fit_one_step(model, x)
    return [
        (weight, multiplier)
        for (weight, multiplier), start in zip(covered, before, strict=True)
        if np.array_equal(start, float64(weight.variable))
    ]


def expect_step(
    model: keras.Model,
    x: Any,
    covered: Covered,
    gradient: Callable[[Weight], Any] = lambda weight: 2 * float64(weight.variable),
) -> None:
    """One step of SGD(1.0) without a data loss subtracts the gradient of the penalty.

    Args:
        model: A compiled `keras.Model`.
        x: Its inputs.
        covered: The weights to compare, each with its multiplier.
        gradient: Function from a weight to the gradient of its penalty of strength 1.
            Defaults to that of L2, `2 * w`.
    """
    expected = [
        float64(w.variable) - STRENGTH * m * np.asarray(gradient(w)) for w, m in covered
    ]
    fit_one_step(model, x)
    for (weight, _), value in zip(covered, expected, strict=True):
        expect_close(f"{weight.name} after a step", value, float64(weight.variable))


def expect_same_outputs(model: keras.Model, other: keras.Model, x: Any) -> None:
    outputs = _outputs_after_reset(model, x), _outputs_after_reset(other, x)
    for expected, received in zip(*outputs, strict=True):
        expect_close("predictions", float64(expected), float64(received))


def expect_same(wrapped: L2AllWeights, other: L2AllWeights, x: Any) -> None:
    """Both wrappers have the same strength, outputs and penalties."""
    expect_equal("l2", wrapped.l2, other.l2)
    expect_same_outputs(wrapped, other, x)
    expected, received = loss_terms(wrapped), loss_terms(other)
    expect_equal("number of penalties", len(expected), len(received))
    for (name, value), again in zip(expected.items(), received.values(), strict=True):
        # On saving, Keras merges LoRA factors into their base and resets them.
        if "lora_" not in name:
            expect_close(f"penalty of {name}", value, again)


def expect_saved_penalties(
    model: keras.Model, other: keras.Model, exactly: bool = True
) -> None:
    """The other model has the penalties that the config contains, and no others."""
    lost = lost_on_save(model)
    pairs = zip(find_weights(model), find_weights(other), strict=True)
    for weight, again in pairs:
        expected = None if weight.name in lost else weight.regularizer
        if again.is_frozen_lora_base or (expected is None and not exactly):
            continue
        if not same_regularizer(expected, again.regularizer):
            raise AssertionError(
                f"regularizer of {weight.name}: expected {expected}, "
                f"received {again.regularizer}"
            )
