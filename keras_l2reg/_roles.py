"""What a weight is for, told by its name and shape: one table.

Keras does not say what a variable is for, so its name has to. `ROLES` lists, for each
role, the words that speak for it; `role_of` applies the table:

1. A name is split into whole words, at underscores, digits and capital letters:
   `debiased_kernel` holds no `bias`.
2. The last word that the table knows decides, as the last noun of a compound does in
   English: a `token_kernel` is a kernel, a `kernel_scale` is a scale.
3. A kernel needs two dimensions above 1. Only if its name ends in a kernel word are two
   dimensions of any size enough (`Dense(1)` has a kernel of shape `(units, 1)`), and
   only `kernel` itself needs none.
4. Without a known word the shape decides: two dimensions above 1 make a kernel.

What is told from the shape alone, or from a word that something unknown follows
(`rel_pos_h`), is a guess.

>>> role_of("embedding_projection_kernel", (8, 4)), role_of("cls_token", (1, 1, 8))
(('kernel', False), ('embeddings', False))
>>> role_of("gate", (8, 4)), role_of("gate", (1, 8))  # the shape alone
(('kernel', True), ('other', True))
"""

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Role:
    """A row of the table.

    Args:
        meaning: What a weight of this role does.
        covered: `True` if a penalty covers it by default, `False` if never, or the
            name of the argument that covers it.
        words: The words that speak for it; plurals in `s` are understood.
        names: Whole names that do, where the words within them say nothing, or the
            wrong thing.
    """

    meaning: str
    covered: bool | str
    words: tuple
    names: tuple = ()


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

_OF_WORD = {word: name for name, role in ROLES.items() for word in role.words}
_OF_NAME = {whole: name for name, role in ROLES.items() for whole in role.names}
# Beside a key, a query is what multiplies the inputs to make one: a kernel.
_KEY_OF = {"query": "key", "queries": "keys"}


def as_markdown():
    """The table for the docs.

    >>> print(as_markdown().splitlines()[2])
    | kernel | multiplies the inputs: dense, convolution, attention, LoRA | yes |
    """
    covered = {True: "yes", False: "never"}
    rows = [
        f"| {name} | {role.meaning} | "
        f"{covered.get(role.covered, f'`{role.covered}=True`')} |"
        for name, role in ROLES.items()
    ]
    return "\n".join(["| role | what it is | covered |", "|---|---|---|", *rows])


def role_of(name, shape=None, siblings=()):
    """The role of a weight, by the table, and whether it is a guess.

    Args:
        name: The weight's own name, without its layer's: `"kernel"`.
        shape: Its shape. Defaults to `None`, not known yet.
        siblings: Names of the weights of the same layer. Defaults to none.

    Returns:
        A tuple of a key of `ROLES` and a boolean.

    Example:

    >>> role_of("query", (8, 8)), role_of("query", (8, 8), ["query", "key", "value"])
    (('embeddings', False), ('kernel', True))
    """
    # In a nested structure, the last part with a letter is the name: `tokens/0`.
    words = next(filter(None, map(_words, reversed(name.split("/")))), [])
    if "_".join(words) in _OF_NAME:
        return _by_whole_name(_OF_NAME["_".join(words)], shape)
    known = [word for word in words if _role_of_word(word)]
    if not known or _projects(known[-1], name, siblings):
        return _by_shape(shape)
    roles = [_role_of_word(word) for word in known]
    is_last = known[-1] == words[-1]
    if roles[-1] not in KERNEL_ROLES:
        return roles[-1], not is_last
    kinds = [role for role in roles if role in KERNEL_ROLES and role != "kernel"]
    return _by_kernel_word([*kinds, "kernel"][0], known[-1], is_last, shape)


def _by_whole_name(role, shape):
    # Of hand-written layers: `w` and `b`; a matrix `B` is no bias.
    if role in KERNEL_ROLES:
        fits = shape is None or len(shape) >= 2
    else:
        fits = shape is None or not _is_matrix(shape)
    return (role, False) if fits else _by_shape(shape)


def _by_kernel_word(role, word, is_last, shape):
    if _is_matrix(shape):
        return role, not is_last
    if not is_last:
        return "other", True
    if word.removesuffix("s") == "kernel":
        return role, False
    # A vector of `weight` multiplies element by element, as in many a normalization.
    return (role if len(shape) >= 2 else "scale"), True


def _words(name):
    return [w.lower() for w in re.findall("[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def _role_of_word(word):
    return _OF_WORD.get(word) or _OF_WORD.get(word.removesuffix("s"))


def _by_shape(shape):
    if shape is None:
        return "other", True
    return ("kernel" if _is_matrix(shape) else "other"), len(shape) >= 2


def _is_matrix(shape):
    """Whether two dimensions are above 1; a shape not known yet may have them."""
    return shape is None or sum(size > 1 for size in shape) >= 2


def _projects(word, name, siblings):
    key = name.lower().replace(word, _KEY_OF.get(word, word))
    return word in _KEY_OF and key in [sibling.lower() for sibling in siblings]
