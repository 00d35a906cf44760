"""The problems that an audit looks for, as one table: `RULES`.

The findings of an audit, the table and the pages in the docs, and the tests are derived
from it. To add a rule, write a function that finds the problem in the module of its
subject, add a row here, and add an example of the problem to
`tests/audit/test_rules.py`. Rules with the same code describe the same problem with
different causes.

>>> rule = next(rule for rule in RULES if rule.code == "frozen")
>>> rule.severity, rule.summary
('info', "a frozen weight's penalty is not part of the loss")
"""

import dataclasses
from collections.abc import Callable, Mapping

from keras_l2reg._audit import consistency, coverage, decay, duplicates, magnitude
from keras_l2reg._audit.facts import ModelFacts
from keras_l2reg._audit.findings import Finding, Severity
from keras_l2reg._audit.scale_invariance import scale_invariant


@dataclasses.dataclass(frozen=True)
class Rule:
    """A problem, how to find it, and what to say about it.

    Args:
        code: Identifies the problem, and names its page in the docs.
        severity: `"error"`, `"warning"` or `"info"`, see `Finding`.
        summary: The problem in a few words, for the table in the docs. Rules with the
            same code have the same severity and summary.
        message: The problem as a finding states it, with `{placeholders}` for the
            values of `details`.
        fix: What to do about it.
        find: Function of `ModelFacts` that returns the names of the weights (or of the
            steps) that have the problem; an empty tuple if there are none.
        details: Function of `ModelFacts` that returns the values for the placeholders.
            Called only if `find` found something. Defaults to no values.
    """

    code: str
    severity: Severity
    summary: str
    message: str
    fix: str
    find: Callable[[ModelFacts], tuple[str, ...]]
    details: Callable[[ModelFacts], Mapping[str, str]] = lambda facts: {}

    def check(self, facts: ModelFacts) -> Finding | None:
        """The finding of this rule, or `None` if there is no problem."""
        where = self.find(facts)
        if not where:
            return None
        message = self.message.format(**self.details(facts))
        return Finding(self.code, self.severity, where, message, self.fix)


RULES = (
    Rule(
        code="never-applied",
        severity="error",
        summary="a regularizer that was set on a built layer has no effect",
        message="The layer's regularizer was set after the weight was created: it is "
        "displayed and saved, but the model trains without it.",
        fix="Call keras_l2reg.attach(model, ...), or pass the regularizer to the "
        "layer's constructor.",
        find=consistency.never_applied,
    ),
    Rule(
        code="constraint-never-applied",
        severity="error",
        summary="a constraint that was set on a built layer has no effect",
        message="The layer's constraint was set after the weight was created: it is "
        "displayed and saved, but the model trains without it.",
        fix="Also set it on the weight, layer.kernel.constraint = ..., and compile "
        "again; or pass the constraint to the layer's constructor.",
        find=consistency.constraint_never_applied,
    ),
    Rule(
        code="stale-trace",
        severity="error",
        summary="the penalties changed after the step was compiled",
        message="The compiled step does not match the model: penalties, or which "
        "weights are trainable, changed after it was traced.",
        fix="Call model.compile(...) again. (attach, detach and L2AllWeights make "
        "Keras retrace automatically.)",
        find=consistency.stale_trace,
    ),
    Rule(
        code="half-precision",
        severity="error",
        summary="the penalty overflows float16",
        message="The penalty overflows float16, whose largest value is 65504, so that "
        "the loss is infinite or NaN.",
        fix="Use keras_l2reg.L2 or L1L2, which sum in float32, or the dtype policy "
        "mixed_float16.",
        find=magnitude.half_precision,
    ),
    Rule(
        code="duplicated",
        severity="error",
        summary="the same penalty is counted more than once",
        message="These regularizers all compute the same penalty, whichever weight "
        "they are given, like lambdas that refer to a loop variable.",
        fix="Use the argument that the regularizer is called with: lambda w: ... w ...",
        find=duplicates.regularizers_with_the_same_penalty,
    ),
    Rule(
        code="duplicated",
        severity="error",
        summary="the same penalty is counted more than once",
        message="{count} terms that add_loss adds to model.losses are identical, "
        "{value}, and remain so when the weights change.",
        fix="Make sure that each term uses its own weight (a function defined in a "
        "loop sees the last value of the loop variable), and that a shared layer adds "
        "its penalty once.",
        find=duplicates.identical_added_losses,
        details=duplicates.count_of_identical_added_losses,
    ),
    Rule(
        code="duplicated",
        severity="error",
        summary="the same penalty is counted more than once",
        message="This penalty is in model.losses twice: from its regularizer and from "
        "add_loss.",
        fix="Remove one of the two.",
        find=duplicates.penalties_added_again,
    ),
    Rule(
        code="lost-on-save",
        severity="warning",
        summary="saving loses the penalty, or exclusions from weight decay",
        message="The model's config does not contain this penalty: it is lost when the "
        "model is saved and loaded, or cloned.",
        fix="Wrap the model with L2AllWeights and save the wrapper, or pass the "
        "regularizer to the layer's constructor.",
        find=consistency.penalty_lost_on_save,
    ),
    Rule(
        code="lost-on-save",
        severity="warning",
        summary="saving loses the penalty, or exclusions from weight decay",
        message="The optimizer excludes these weights from weight decay, but its "
        "config does not say so: a loaded model decays them.",
        fix="Call set_weight_decay(model.optimizer, model, rate), whose choice is "
        "saved, or call exclude_from_weight_decay(...) again after each load.",
        find=decay.exclusions_lost_on_save,
    ),
    Rule(
        code="last-layer-only",
        severity="warning",
        summary="only the last layer's kernel has a penalty",
        message="Only the last layer has a penalty; these kernels have none: {others}.",
        fix="Cover all layers: L2AllWeights(model, l2=...) or attach(model, ...).",
        find=coverage.last_layer_only,
        details=coverage.names_of_other_kernels,
    ),
    Rule(
        code="uncovered",
        severity="warning",
        summary="some kernels have a penalty, others do not",
        message="These kernels have no penalty, while others have one.",
        fix="Cover them with attach(model, ...), unless they were left out on purpose.",
        find=coverage.uncovered,
    ),
    Rule(
        code="partly-covered",
        severity="warning",
        summary="some kernels do not follow the live strength",
        message="The live strength does not apply to these kernels, which already had "
        "a regularizer and keep it, whatever the strength is set to.",
        fix="Wrap or attach with existing='replace' or existing='add', unless they "
        "were left out on purpose.",
        find=coverage.partly_covered,
    ),
    Rule(
        code="double-decay",
        severity="warning",
        summary="a weight has both an L2 penalty and the optimizer's weight decay",
        message="Two things act on these weights: the L2 penalty and the optimizer's "
        "weight_decay.",
        fix="Choose one: set weight_decay to 0, exclude the weights from it with "
        "set_weight_decay(..., exclude=...), or remove the penalty.",
        find=decay.double_decay,
    ),
    Rule(
        code="norm-or-bias",
        severity="warning",
        summary="a bias, or a normalization's scale or shift, has a penalty",
        message="Biases, scales or shifts have a penalty, which makes the fit worse "
        "and hardly reduces overfitting.",
        fix="Remove bias_regularizer, gamma_regularizer and beta_regularizer.",
        find=coverage.norm_or_bias,
    ),
    Rule(
        code="decays-bias-or-norm",
        severity="warning",
        summary="the optimizer decays biases, or a normalization's scale or shift",
        message="The optimizer's weight_decay applies to biases, scales or shifts: "
        "Keras decays every trainable weight, and does not save exclusions.",
        fix="Call set_weight_decay(model.optimizer, model, rate), which decays kernels "
        "only and is saved. To decay biases on purpose, pass biases=True.",
        find=decay.decays_bias_or_norm,
    ),
    Rule(
        code="dominates",
        severity="warning",
        summary="the penalty is larger than the data loss (needs a batch)",
        message="On this batch the penalty, {penalty}, is more than {max_share} of the "
        "data loss, {data_loss}.",
        fix="Try a smaller strength.",
        find=magnitude.dominates,
        details=magnitude.penalty_and_data_loss,
    ),
    Rule(
        code="frozen",
        severity="info",
        summary="a frozen weight's penalty is not part of the loss",
        message="The weight is frozen, so that Keras leaves its penalty out of the "
        "loss.",
        fix="Nothing, if it is meant to be frozen. Otherwise set trainable=True and "
        "compile again.",
        find=coverage.frozen,
    ),
    Rule(
        code="coupled-adaptive",
        severity="info",
        summary="L2 with an adaptive optimizer such as Adam is not weight decay",
        message="An adaptive optimizer rescales the penalty's gradient, so that L2 "
        "does not act as weight decay (Loshchilov & Hutter, 2019).",
        fix="For weight decay, call set_weight_decay(model.optimizer, model, rate) "
        "instead of the penalty.",
        find=decay.coupled_adaptive,
    ),
    Rule(
        code="scale-invariant",
        severity="info",
        summary="a normalization cancels the kernel's scale",
        message="A normalization follows, so L2 changes the effective learning "
        "rate, not what the model can express (van Laarhoven, 2017).",
        fix="Nothing, but tune this strength together with the learning rate.",
        find=scale_invariant,
    ),
    Rule(
        code="no-penalty",
        severity="info",
        summary="no weight has a penalty",
        message="No weight of the model has a penalty or weight decay.",
        fix="Nothing, if none is wanted. Otherwise use L2AllWeights(model, l2=...) or "
        "attach(model, ...).",
        find=coverage.no_penalty,
    ),
    Rule(
        code="no-penalty",
        severity="info",
        summary="no weight has a penalty",
        message="The model is not built, so it has no weights to penalize yet.",
        fix="Call it once, or call model.build(input_shape), and audit it again.",
        find=coverage.not_built,
    ),
)


def as_markdown(pages: str = "") -> str:
    """The table for the docs, with one row per code.

    Args:
        pages: The folder with one page per code, relative to the page with the table,
            such as `"findings/"`. Defaults to `""`, the same folder.

    Example:

    >>> print(as_markdown().splitlines()[2])
    | [never-applied](never-applied.md) | error | a regularizer that was set on a
    built layer has no effect |
    """
    rows = dict.fromkeys(
        f"| [{rule.code}]({pages}{rule.code}.md) | {rule.severity} | {rule.summary} |"
        for rule in RULES
    )
    return "\n".join(["| finding | severity | problem |", "|---|---|---|", *rows])
