"""print_weights: the choice of weights as a table, for people."""

from keras_l2reg._builtin import strength_text
from keras_l2reg._selection import decide


def print_weights(model, *, title=None, **rule):
    """Print every weight: its role, whether a rule covers it, and why.

    `why` is what decided: the `role`, or a guess of it; the argument that let the
    weight in, left it out, or would cover it; and whether the weight is frozen, so
    that its penalty does not count now. The regularizer is the one in effect.

    Args:
        model: A `keras.Model`, built or not, wrapped or bare.
        title: String above the table. Defaults to `None`.
        **rule: `biases`, `embeddings`, `layers`, `exclude`, `multipliers`, as in
            `keras_l2reg.attach`. Defaults to the rule of a wrapper, or to that of
            `attach` without arguments.

    Raises:
        TypeError, ValueError: a bad argument, or a glob or class that matches nothing.

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

    Source: `rich.table`, https://rich.readthedocs.io/en/stable/tables.html
    """
    # rich comes with Keras, which prints its summaries with it.
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    state = getattr(model, "_wrapper_state", None)
    if not rule and state is not None:
        rule = state.rule
    decisions = decide(model, **rule)
    trainable = {id(v) for v in model.trainable_variables}
    title = None if title is None else Text(title)
    table = Table(title=title, box=box.ASCII2, show_edge=False, pad_edge=False)
    for column in ("weight", "role", "covered"):
        table.add_column(column, overflow="fold")
    table.add_column("multiplier", justify="right")
    for column in ("regularizer", "why"):
        table.add_column(column, overflow="fold")
    for decision in decisions:
        # As Text: the brackets of a name are no markup.
        table.add_row(*map(Text, _row(decision, trainable)))
    console = Console()
    if not console.is_terminal:
        # In a file, whole lines are better to search than folded ones.
        console.width = 10_000
    console.print(table)
    if not decisions:
        print("No weights: build the model, or call it once.")


def _row(decision, trainable):
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
