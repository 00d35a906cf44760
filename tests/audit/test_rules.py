"""`RULES`: the table that the findings, the docs and this test derive from."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import pytest
from audit_helpers import (
    BACKEND,
    AddsLosses,
    FunctionRegularizer,
    LayerWithoutRegularizer,
    compiled,
    data,
    l2,
    mlp,
    penalty_of_each_kernel,
    penalty_of_the_loop_variable,
    regularized,
)
from keras import layers, ops

from keras_l2reg import L2, Finding, L2AllWeights, audit
from keras_l2reg._audit.facts import ModelFacts
from keras_l2reg._audit.rules import RULES, Rule, as_markdown

KERNELS = ("hidden/kernel", "out/kernel")


def set_on_built_layer() -> keras.Model:
    model = mlp(None, l2(0.01))
    model.get_layer("hidden").kernel_regularizer = l2(0.01)
    return model


def constraint_set_on_built_layer() -> keras.Model:
    model = regularized()
    model.get_layer("hidden").kernel_constraint = keras.constraints.NonNeg()
    return model


def changed_after_fit() -> keras.Model:
    model = compiled(regularized())
    model.fit(*data(), verbose=0)
    model.get_layer("out").kernel.regularizer = None
    return model


def overflowing_float16() -> keras.Model:
    model = mlp(l2(1.0), L2(1.0), dtype="float16")
    model.get_layer("hidden").kernel.assign(ops.full((4, 3), 300.0))
    return model


def functions_of_one_kernel() -> keras.Model:
    model = mlp()
    kernel = model.get_layer("out").kernel
    for layer in model.layers:
        layer.kernel.regularizer = FunctionRegularizer(lambda w: ops.sum(kernel**2))
    return model


def called(model: keras.Model) -> keras.Model:
    model(data()[0])
    return model


def set_on_the_weight() -> keras.Model:
    model = regularized()
    model.get_layer("out").kernel_regularizer = None
    return model


def excluded_from_weight_decay() -> keras.Model:
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return compiled(mlp(), optimizer)


def frozen() -> keras.Model:
    model = regularized()
    model.get_layer("hidden").trainable = False
    return model


def normalized() -> keras.Model:
    hidden = layers.Dense(3, kernel_regularizer="l2", name="hidden")
    norm = layers.BatchNormalization()
    return keras.Sequential([keras.Input((4,)), hidden, norm])


class Example(NamedTuple):
    """A model with a problem, and the finding to expect."""

    code: str
    severity: str
    where: tuple[str, ...]
    build: Callable[[], keras.Model]


# By the name of the function that finds the problem.
EXAMPLES = {
    "never_applied": Example(
        "never-applied", "error", ("hidden/kernel",), set_on_built_layer
    ),
    "constraint_never_applied": Example(
        "constraint-never-applied",
        "error",
        ("hidden/kernel",),
        constraint_set_on_built_layer,
    ),
    "stale_trace": Example("stale-trace", "error", ("fit",), changed_after_fit),
    "half_precision": Example(
        "half-precision", "error", ("hidden/kernel",), overflowing_float16
    ),
    "regularizers_with_the_same_penalty": Example(
        "duplicated", "error", KERNELS, functions_of_one_kernel
    ),
    "identical_added_losses": Example(
        "duplicated",
        "error",
        ("add_loss",),
        lambda: called(AddsLosses(penalty_of_the_loop_variable)),
    ),
    "penalties_added_again": Example(
        "duplicated",
        "error",
        ("a/kernel",),
        lambda: called(AddsLosses(penalty_of_each_kernel, l2(0.01))),
    ),
    "penalty_lost_on_save": Example(
        "lost-on-save", "warning", ("out/kernel",), set_on_the_weight
    ),
    "exclusions_lost_on_save": Example(
        "lost-on-save",
        "warning",
        ("hidden/bias", "out/bias"),
        excluded_from_weight_decay,
    ),
    "last_layer_only": Example(
        "last-layer-only", "warning", ("out/kernel",), lambda: mlp(None, "l2")
    ),
    "uncovered": Example(
        "uncovered", "warning", ("out/kernel",), lambda: mlp("l2", None)
    ),
    "partly_covered": Example(
        "partly-covered",
        "warning",
        ("out/kernel",),
        lambda: L2AllWeights(mlp(None, "l2"), existing="keep"),
    ),
    "double_decay": Example(
        "double-decay", "warning", KERNELS, lambda: compiled(regularized(), "adamw")
    ),
    "norm_or_bias": Example(
        "norm-or-bias",
        "warning",
        ("hidden/bias",),
        lambda: mlp("l2", "l2", bias_regularizer="l2"),
    ),
    "decays_bias_or_norm": Example(
        "decays-bias-or-norm",
        "warning",
        ("hidden/bias", "out/bias"),
        lambda: compiled(mlp(), "adamw"),
    ),
    "dominates": Example(
        "dominates",
        "warning",
        ("out/kernel", "hidden/kernel"),
        lambda: compiled(mlp(l2(1e3), l2(1e6))),
    ),
    "frozen": Example("frozen", "info", ("hidden/kernel",), frozen),
    "coupled_adaptive": Example(
        "coupled-adaptive", "info", KERNELS, lambda: compiled(regularized(), "adam")
    ),
    "scale_invariant": Example(
        "scale-invariant", "info", ("hidden/kernel",), normalized
    ),
    "no_penalty": Example("no-penalty", "info", KERNELS, mlp),
    "not_built": Example(
        "no-penalty",
        "info",
        ("later",),
        lambda: keras.Sequential([LayerWithoutRegularizer()], name="later"),
    ),
}


def name_of(rule: Rule) -> str:
    return rule.find.__name__


def test_every_rule_has_an_example():
    assert sorted(map(name_of, RULES)) == sorted(EXAMPLES)


def finding_in_example(rule: Rule) -> Finding | None:
    model = EXAMPLES[name_of(rule)].build()
    return rule.check(ModelFacts(model, batch_for(model), max_share=1.0))


def batch_for(model: keras.Model) -> tuple[Any, Any] | None:
    return data() if model.compiled else None


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_rule_finds_the_problem_of_its_example(rule):
    if rule.code == "stale-trace" and BACKEND == "torch":
        pytest.skip("torch is eager")
    expected = EXAMPLES[name_of(rule)]
    finding = finding_in_example(rule)
    assert (finding.code, finding.severity) == (expected.code, expected.severity)
    assert finding.where == expected.where
    model = expected.build()
    assert expected.code in [f.code for f in audit(model, *batch_for(model) or ())]


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_rule_finds_nothing_in_a_regularized_model(rule):
    model = compiled(regularized())
    model.fit(*data(), verbose=0)
    assert rule.check(ModelFacts(model, data(), max_share=1.0)) is None


def test_messages_contain_details_of_the_model():
    message = {
        name_of(rule): finding_in_example(rule).message
        for rule in RULES
        if "{" in rule.message
    }
    assert "none: hidden/kernel." in message["last_layer_only"]
    assert re.match(
        r"2 terms .* identical, 0\.\d+, ", message["identical_added_losses"]
    )
    penalty, data_loss = re.fullmatch(
        r".*penalty, (\S+), is more than 100% of the data loss, (\S+)\.",
        message["dominates"],
    ).groups()
    assert float(penalty) > float(data_loss) > 0


def test_findings_are_sorted_from_error_to_info():
    found = audit(compiled(set_on_built_layer(), "adamw"))
    severities = [finding.severity for finding in found]
    assert severities == ["error", "warning", "warning", "info"]


def test_rules_with_the_same_code_have_the_same_severity_and_summary():
    kinds = {(rule.code, rule.severity, rule.summary) for rule in RULES}
    assert len(kinds) == len({rule.code for rule in RULES})


@pytest.mark.parametrize("rule", RULES, ids=name_of)
def test_texts_of_a_rule_are_complete(rule):
    assert re.fullmatch("[a-z]+(-[a-z]+)*", rule.code)
    assert rule.severity in ("error", "warning", "info")
    assert rule.summary and not rule.summary.endswith(".")
    for text in (rule.message, rule.fix):
        assert text.endswith((".", ".)", "...")) and "  " not in text


def test_markdown_table_has_a_row_per_code_with_a_link_to_its_page():
    head, line, *rows = as_markdown("findings/").splitlines()
    assert head.count("|") == line.count("|") == 4
    codes = list(dict.fromkeys(rule.code for rule in RULES))
    assert [row.split("](")[0] for row in rows] == [f"| [{code}" for code in codes]
    assert [row.split("](")[1].split(")")[0] for row in rows] == [
        f"findings/{code}.md" for code in codes
    ]
