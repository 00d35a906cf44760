"""Hints in the errors of a rule that covers no weight, or a glob that matches none.

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="a")])
>>> hints(model, [], "A/kernel")
". Hint: a glob must match a whole weight name, so write 'a/kernel', in this upper..."
"""

import difflib
import fnmatch
from collections.abc import Iterable

import keras

from keras_l2reg import _keras
from keras_l2reg._roles import ROLES
from keras_l2reg._validation import Pattern
from keras_l2reg.weights import Weight, find_weights, listed


def described(weights: Iterable[Weight]) -> str:
    """The names and roles of weights, for an error."""
    return f"[{listed(f'{w.name} ({w.role})' for w in weights)}]"


def hints(
    model: keras.Model, weights: list[Weight], pattern: Pattern | None = None
) -> str:
    """How to change a rule that covers none of these weights."""
    found = [
        f"pass `{flag}=True` to cover {sorted(roles)} as well"
        for flag in ("embeddings", "biases")
        if (roles := {w.role for w in weights if ROLES[w.role].covered == flag})
    ]
    if isinstance(pattern, str) and not weights:
        names = [weight.name for weight in find_weights(model)]
        found.append(
            "a glob must match a whole weight name, so write "
            f"{_suggested_glob(pattern, names)}"
        )
    quantized = _quantized_layers(model)
    if quantized:
        found.append(
            f"the layers {quantized} are quantized: their kernels are integers, which "
            "cannot be trained or penalized. Attach before `quantize`, or call "
            "`enable_lora` on these layers, whose LoRA kernels can be penalized"
        )
    if not _keras.is_built_throughout(model):
        found.append("build or call the model first: an unbuilt layer may hide weights")
    return "".join(f". Hint: {hint}" for hint in found)


def _suggested_glob(pattern: str, names: list[str]) -> str:
    """What to write instead of a glob that matches none of the names."""
    for glob in (f"{pattern}/*", f"*/{pattern}", f"*/{pattern}/*"):
        if any(fnmatch.fnmatchcase(name, glob) for name in names):
            return repr(glob)
    for glob in (pattern, f"{pattern}/*", f"*/{pattern}", f"*/{pattern}/*"):
        for name in names:
            if fnmatch.fnmatchcase(name.lower(), glob.lower()):
                return f"{name!r}, in this upper and lower case"
    close = difflib.get_close_matches(pattern, names, 1, cutoff=0.5)
    return f"{close[0]!r}?" if close else "one of these, with * for any part of it"


def _quantized_layers(model: keras.Model) -> list[str]:
    # In float8, the kernels are floats and can be trained.
    return [
        layer.name
        for layer in _keras.all_layers(model)
        if not _keras.sublayers(layer)
        and layer.quantization_mode
        and any(
            "int" in keras.backend.standardize_dtype(v.dtype) for v in layer.weights
        )
    ]
