"""half-precision: the penalty of float16 weights is infinite.

**In plain Keras** the square of a few thousand weights is more than float16 can say:

>>> import keras
>>> w = keras.ops.ones((784, 1024), "float16")
>>> float(keras.regularizers.L2(0.01)(w))
inf

**Why.** The three places agree. float16 ends at 65504, and Keras adds the squares up
in the weight's own type, before it multiplies with the strength. The gradient, `2 * l2
* w`, is finite, so the weights do shrink; but a loss of `inf` tells early stopping,
checkpoints and loss scaling nothing. TensorFlow will not even add a float16 term to a
float32 loss. With the policy `mixed_float16` the weights are float32, and all is well.

**What `audit` says**

>>> from keras_l2reg import L2, attach, audit
>>> layer = keras.layers.Dense(
...     1024, kernel_initializer="ones", kernel_regularizer="l2", dtype="float16",
...     name="out")
>>> model = keras.Sequential([keras.Input((784,)), layer])
>>> [(finding.code, finding.where) for finding in audit(model)]
[('half-precision', ('out/kernel',))]

**With keras_l2reg** the sum is kept in float32:

>>> round(float(L2(0.01)(w)), 2)
8028.16
>>> audit(attach(model, 0.01, existing="replace"))
No findings.

Any other regularizer that it puts on such a weight is computed in float32 as well:

>>> attach(model, "l1", existing="replace").layers[-1].kernel_regularizer
<...InFloat32 object at ...>

Source: IEEE 754, binary16; Micikevicius et al., [Mixed Precision Training](
https://arxiv.org/abs/1710.03740), ICLR 2018, on sums in float32.
"""
