"""The types of the arguments that choose weights, which several functions share."""

from collections.abc import Sequence
from typing import Literal, TypedDict

import keras

# A layer class, or a glob over weight names.
Pattern = str | type[keras.layers.Layer]
Patterns = Pattern | Sequence[Pattern]
Existing = Literal["keep", "replace", "add"]


class Rule(TypedDict, total=False):
    """The keyword arguments of `select_weights`, passed on as they were given."""

    biases: bool
    embeddings: bool
    layers: Patterns | None
    exclude: Patterns | None
    multipliers: dict[str, float] | None
