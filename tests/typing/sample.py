"""A user's file, which type checkers read as in any other project; nothing runs it."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from typing import Literal, assert_type

import keras
import numpy as np

import keras_l2reg
from keras_l2reg import (
    L2,
    Finding,
    Findings,
    L2AllWeights,
    L2Path,
    PenaltyLogger,
    StrengthScheduler,
    Weight,
    attach,
    audit,
    detach,
    find_weights,
    l2_path,
    penalties,
    print_penalties,
    print_weights,
    select_weights,
    set_weight_decay,
)

assert_type(keras_l2reg.__version__, str)

x, y = np.ones((64, 4), "float32"), np.ones((64, 2), "float32")
bare = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])

# Wrap, fit, save.
model = L2AllWeights(bare, l2=0.01, exclude=["*/bias"], existing="add")
assert_type(model, L2AllWeights)
assert_type(model.l2, float)
model.l2 = 0.001
model.compile("sgd", "mse")
scheduler = StrengthScheduler(lambda epoch: 0.01 * 0.5**epoch)
model.fit(x, y, callbacks=[PenaltyLogger(every_n_batches=1), scheduler])
model.save("model.keras")
inner = model.unwrap(strip=True)
inner.summary()

# Attach and take off again.
attach(bare, L2(0.01), multipliers={"dense/*": 0.1}, embeddings=True)
print_penalties(bare)
assert_type(penalties(bare), dict[str, float])
detach(bare).summary()

# Which weights.
weights = find_weights(bare)
assert_type(weights, list[Weight])
assert_type(weights[0].name, str)
assert_type(weights[0].role, str)
assert_type(weights[0].is_guess, bool)
select_weights(bare, biases=True)
print_weights(bare)

# Tune.
path = l2_path(bare, x, y, l2=[0.1, 0.01], validation_data=(x, y), epochs=1)
assert_type(path, L2Path)
if path.best is not None:
    print(path.best["l2"])
path.to_csv("path.csv")

# Decay.
optimizer = keras.optimizers.AdamW()
set_weight_decay(optimizer, bare, 0.01)

# Audit.
findings = audit(model, x, y)
assert_type(findings, Findings)
for finding in findings:
    assert_type(finding, Finding)
    assert_type(finding.code, str)
    assert_type(finding.severity, Literal["error", "warning", "info"])
    assert_type(finding.where, tuple[str, ...])
    assert_type(finding.fix, str)

# What a checker must refuse: a comment that suppresses no error is one.
L2AllWeights(bare, existing="merge")  # pyright: ignore[reportArgumentType]
print(audit(model).code)  # pyright: ignore[reportAttributeAccessIssue]
