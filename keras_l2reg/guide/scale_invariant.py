"""scale-invariant: L2 on a kernel before a normalization does not limit the model.

**In plain Keras** five times the kernel gives the same output, at 25 times the penalty:

>>> import keras
>>> dense = keras.layers.Dense(
...     3, use_bias=False, kernel_regularizer="l2", name="dense")
>>> norm = keras.layers.BatchNormalization(epsilon=0.0)
>>> model = keras.Sequential([keras.Input((4,)), dense, norm])
>>> x = keras.random.normal((16, 4), seed=0)
>>> before = model(x, training=True)
>>> dense.kernel.assign(5 * dense.kernel) is None
False
>>> float(keras.ops.max(keras.ops.abs(model(x, training=True) - before))) < 1e-4
True

**Why.** The three places agree. But the normalization divides the scale out again, so
that the penalty can't make the model simpler. It still acts: the gradient of a kernel
five times as large is a fifth as large, so a shrinking kernel takes larger and larger
steps. L2 is here a part of the learning rate's schedule.

**What `audit` says**, for kernels whose output goes nowhere but into normalizations:

>>> from keras_l2reg import attach, audit
>>> [(finding.code, finding.severity, finding.where) for finding in audit(model)]
[('scale-invariant', 'info', ('dense/kernel',))]

**With keras_l2reg** it is the same: nothing is wrong, and many good recipes have it.
Tune strength and learning rate together; or leave these kernels out:

>>> dense = keras.layers.Dense(3, use_bias=False, name="dense")
>>> norm, head = keras.layers.BatchNormalization(), keras.layers.Dense(1, name="head")
>>> model = keras.Sequential([keras.Input((4,)), dense, norm, head])
>>> len(attach(model, 0.01, multipliers={"dense/*": 0}).losses)
1

Source: van Laarhoven, [L2 Regularization versus Batch and Weight Normalization](
https://arxiv.org/abs/1706.05350), 2017.
"""
