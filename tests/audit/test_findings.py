"""`Findings`: a tuple that prints as a table."""

import pytest
from audit_helpers import compiled, l2, mlp

from keras_l2reg import Finding, Findings, audit


def test_findings_print_as_a_table():
    model = compiled(mlp(None, l2(0.01)), "adamw")
    found = audit(model)
    text = str(found)
    assert isinstance(found, Findings) and all(isinstance(f, Finding) for f in found)
    for finding in found:
        assert finding.code in text and finding.severity in text
    assert [f.severity for f in found] == ["warning", "warning", "warning", "info"]
    with pytest.raises(AttributeError):
        found[0].code = "other"


def test_table_shortens_long_lists_and_does_not_interpret_names():
    names = ("[bold]/kernel", "b/kernel", "c/kernel", "d/kernel", "e/kernel")
    text = str(Findings([Finding("frozen", "info", names, "m", "n")]))
    assert "[bold]/kernel" in text and "and 2 more" in text and "e/kernel" not in text
