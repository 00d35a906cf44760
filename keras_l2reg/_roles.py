"""The role of a weight, inferred from its name and shape by one table.

Keras does not record what a variable is for, so the role is inferred from its name.
`ROLES` lists the words for each role; `role_of` applies the table:

1. A name is split into whole words, at underscores, digits and capital letters:
   `debiased_kernel` does not contain `bias`.
2. The last word that is in the table decides, as the last noun of an English compound
   does: a `token_kernel` is a kernel, a `kernel_scale` is a scale.
3. A kernel needs two dimensions of size above 1. If the name ends in a word for a
   kernel, two dimensions of any size are enough (`Dense(1)` has a kernel of shape
   `(units, 1)`); if it ends in `kernel`, any shape is.
4. Without a known word the shape decides: two dimensions above 1 make a kernel.

A role is a guess if it follows from the shape alone, or from a word that is not the
last of the name (`rel_pos_h`).

>>> role_of("embedding_projection_kernel", (8, 4)), role_of("cls_token", (1, 1, 8))
(('kernel', False), ('embeddings', False))
>>> role_of("gate", (8, 4)), role_of("gate", (1, 8))  # the shape alone
(('kernel', True), ('other', True))
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True)
class Role:
    """A row of the table.

    Args:
        meaning: What a weight of this role does.
        covered: `True` if a penalty covers it by default, `False` if never, or the
            name of the argument that covers it.
        words: The words that indicate the role, also with a plural `s`.
        names: Whole names that indicate the role although their words do not.
            Defaults to none.
    """

    meaning: str
    covered: bool | str
    words: tuple[str, ...]
    names: tuple[str, ...] = ()


ROLES = {
    "kernel": Role(
        "multiplies the inputs: dense, convolution, attention, LoRA",
        True,
        ("kernel", "weight", "projection", "proj", "dense", "linear", "matrix"),
        ("w", "lora_kernel_a", "lora_kernel_b"),
    ),
    "recurrent": Role("multiplies the last state", True, ("recurrent",)),
    "depthwise": Role("filters each channel by itself", True, ("depthwise",)),
    "pointwise": Role("mixes the channels of one place", True, ("pointwise",)),
    "embeddings": Role(
        "vectors that are looked up, added or attended to: tables, positions, tokens, "
        "queries, codebooks",
        "embeddings",
        (
            *("embedding", "embed", "emb", "encoding", "table", "lookup", "codebook"),
            *("position", "positional", "pos", "token", "cls", "register", "prompt"),
            *("query", "queries", "latent", "probe", "seed", "slot", "memory"),
            *("inducing", "prototype", "centroid", "center", "anchor"),
        ),
    ),
    "bias": Role("is added", "biases", ("bias", "biases", "intercept"), ("b",)),
    "scale": Role(
        "multiplies element by element",
        False,
        ("gamma", "scale", "scalar", "gain", "lambda", "temperature"),
    ),
    "shift": Role("a normalization adds it", False, ("beta", "shift", "offset")),
    "slope": Role("the slope of an activation", False, ("alpha", "slope")),
    "other": Role(
        "anything else: vectors without a telling name, masks, states, statistics, "
        "bit widths",
        False,
        (
            *("mask", "state", "history", "threshold", "frequency", "freq", "bit"),
            *("bitwidth", "log", "logvar", "variance", "std", "sigma"),
        ),
    ),
}
KERNEL_ROLES = tuple(name for name, role in ROLES.items() if role.covered is True)

_ROLE_OF_WORD = {word: name for name, role in ROLES.items() for word in role.words}
_ROLE_OF_NAME = {whole: name for name, role in ROLES.items() for whole in role.names}
# A query in a layer that also has a key is the kernel that projects to queries.
_KEY_OF = {"query": "key", "queries": "keys"}


def as_markdown() -> str:
    """The table of roles for the docs.

    >>> print(as_markdown().splitlines()[2])
    | kernel | multiplies the inputs: dense, convolution, attention, LoRA | yes |
    """
    covered: dict[bool | str, str] = {True: "yes", False: "never"}
    rows = [
        f"| {name} | {role.meaning} | "
        f"{covered.get(role.covered, f'`{role.covered}=True`')} |"
        for name, role in ROLES.items()
    ]
    return "\n".join(["| role | what it is | covered |", "|---|---|---|", *rows])


def role_of(
    name: str, shape: Sequence[int] | None = None, siblings: Iterable[str] = ()
) -> tuple[str, bool]:
    """The role of a weight, and whether it is a guess.

    Args:
        name: Name of the weight without that of its layer: `"kernel"`.
        shape: Shape of the weight. Defaults to `None`, not known yet.
        siblings: Names of the weights of the same layer. Defaults to none.

    Returns:
        A tuple of a key of `ROLES` and a boolean.

    Example:

    >>> role_of("query", (8, 8)), role_of("query", (8, 8), ["query", "key", "value"])
    (('embeddings', False), ('kernel', True))
    """
    # In a nested structure, the last part with a letter is the name: `tokens/0`.
    words = next(filter(None, map(_words, reversed(name.split("/")))), [])
    if "_".join(words) in _ROLE_OF_NAME:
        return _by_whole_name(_ROLE_OF_NAME["_".join(words)], shape)
    known = [(word, role) for word in words if (role := _role_of_word(word))]
    if not known or _projects(known[-1][0], name, siblings):
        return _by_shape(shape)
    word, role = known[-1]
    is_last = word == words[-1]
    if role not in KERNEL_ROLES:
        return role, not is_last
    kinds = [r for _, r in known if r in KERNEL_ROLES and r != "kernel"]
    return _by_kernel_word([*kinds, "kernel"][0], word, is_last, shape)


def _by_whole_name(role: str, shape: Sequence[int] | None) -> tuple[str, bool]:
    # Custom layers call them `w` and `b`; but a matrix `B` is not a bias.
    if role in KERNEL_ROLES:
        fits = shape is None or len(shape) >= 2
    else:
        fits = shape is None or not _is_matrix(shape)
    return (role, False) if fits else _by_shape(shape)


def _by_kernel_word(
    role: str, word: str, is_last: bool, shape: Sequence[int] | None
) -> tuple[str, bool]:
    if shape is None or _is_matrix(shape):
        return role, not is_last
    if not is_last:
        return "other", True
    if word.removesuffix("s") == "kernel":
        return role, False
    # A vector called `weight` is a scale, as in many normalization layers.
    return (role if len(shape) >= 2 else "scale"), True


def _words(name: str) -> list[str]:
    return [w.lower() for w in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _role_of_word(word: str) -> str | None:
    return _ROLE_OF_WORD.get(word) or _ROLE_OF_WORD.get(word.removesuffix("s"))


def _by_shape(shape: Sequence[int] | None) -> tuple[str, bool]:
    if shape is None:
        return "other", True
    return ("kernel" if _is_matrix(shape) else "other"), len(shape) >= 2


def _is_matrix(shape: Sequence[int]) -> bool:
    """Whether two dimensions are above 1."""
    return sum(size > 1 for size in shape) >= 2


def _projects(word: str, name: str, siblings: Iterable[str]) -> bool:
    """Whether a weight named `query` is a kernel, since the layer also has a key."""
    key = name.lower().replace(word, _KEY_OF.get(word, word))
    return word in _KEY_OF and key in [sibling.lower() for sibling in siblings]
