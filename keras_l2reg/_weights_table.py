"""print_weights: print which weights a rule covers, as a table."""

from typing import Any

import keras

from keras_l2reg._builtin import strength_text
from keras_l2reg._selection import Decision, decide
from keras_l2reg._tables import Table, is_terminal, show


def print_weights(model: keras.Model, *, title: str | None = None, **rule: Any) -> None:
    """Print every weight: its role, whether a rule covers it, and why.

    The column `why` gives the reason: the role of the weight, or a guess of it; or the
    argument that includes or excludes the weight, or would include it. A weight is
    marked `frozen` if it is not trainable now, so that its penalty is not part of the
    loss. The column `regularizer` shows the one in effect. In a notebook, the table is
    HTML.

    Args:
        model: A `keras.Model`, built or not, wrapped or bare.
        title: String above the table. Defaults to `None`.
        **rule: `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, and a dict
            as `regularizer`, as in `keras_l2reg.attach`. Defaults to the rule of the
            wrapper if `model` is one, else to the defaults of `attach`.

    Raises:
        TypeError, ValueError: an invalid argument, or a glob or class without a match.

    Example:

    >>> import keras
    >>> model = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3, name="hidden"),
    ...      keras.layers.Dense(2, kernel_regularizer="l2", name="head")])
    >>> print_weights(model, exclude="head/*")
    weight        | role   | covered | multiplier | regularizer | why
    --------------+--------+---------+------------+-------------+-----------------
    hidden/kernel | kernel | yes     |          1 | -           | role
    hidden/bias   | bias   | no      |          - | -           | biases=False
    head/kernel   | kernel | no      |          - | l2=0.01     | exclude='head/*'
    head/bias     | bias   | no      |          - | -           | biases=False
    """
    state = getattr(model, "_wrapper_state", None)
    if not rule and state is not None:
        rule = {**state.rule, "regularizer": state.parts}
    trainable = {id(v) for v in model.trainable_variables}
    table = Table(
        columns=["weight", "role", "covered", "multiplier", "regularizer", "why"],
        rows=[_row(decision, trainable) for decision in decide(model, **rule)],
        right=["multiplier"],
        title=title,
        empty="No weights: build the model, or call it once.",
        # In a file, whole lines are easier to search than folded ones.
        folds=is_terminal(),
    )
    show(table)


def _row(decision: Decision, trainable: set[int]) -> tuple[str, ...]:
    weight, factor = decision.weight, decision.multiplier
    variable = weight.variable
    is_frozen = variable is not None and id(variable) not in trainable
    return (
        weight.name,
        weight.role,
        "yes" if factor else "no",
        f"{factor:g}" if factor else "-",
        "-" if weight.regularizer is None else strength_text(weight.regularizer),
        f"{decision.why}, frozen" if is_frozen else decision.why,
    )
