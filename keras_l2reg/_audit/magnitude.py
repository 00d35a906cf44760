"""Rules about penalties that are too large, for float16 or relative to the data."""

import math
from typing import Any

from keras import ops

from keras_l2reg._audit.experiment import penalty_of
from keras_l2reg._audit.facts import ModelFacts, names_of


def half_precision(facts: ModelFacts) -> tuple[str, ...]:
    """Weights in float16 whose penalty is finite only in float32."""
    return names_of(
        w for w in facts.penalized if _overflows_float16(w.regularizer, w.variable)
    )


def _overflows_float16(regularizer: Any, variable: Any) -> bool:
    return (
        variable.dtype == "float16"
        and not _is_finite(regularizer, variable)
        and _is_finite(regularizer, ops.cast(variable, "float32"))
    )


def _is_finite(regularizer: Any, weight: Any) -> bool:
    penalty = penalty_of(regularizer, weight)
    return penalty is not None and math.isfinite(penalty)


def dominates(facts: ModelFacts) -> tuple[str, ...]:
    """The penalized weights, largest penalty first, if their sum is too large."""
    if facts.data_loss is None:
        return ()
    if not sum(facts.penalties.values()) > facts.max_share * abs(facts.data_loss):
        return ()
    return tuple(sorted(facts.penalties, key=facts.penalties.__getitem__, reverse=True))


def penalty_and_data_loss(facts: ModelFacts) -> dict[str, str]:
    """The values that `dominates` compares, for its message."""
    return {
        "penalty": f"{sum(facts.penalties.values()):.4g}",
        "max_share": f"{facts.max_share:.0%}",
        "data_loss": f"{facts.data_loss:.4g}",
    }
