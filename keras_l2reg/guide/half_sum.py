"""half the sum: the strength that you saw in a tutorial is twice or half of yours.

**In plain Keras** and TensorFlow, two functions by the name of L2 differ by two:

>>> import keras, tensorflow as tf
>>> w = [3.0, 4.0]
>>> float(tf.nn.l2_loss(w)), float(keras.regularizers.L2(1.0)(keras.ops.array(w)))
(12.5, 25.0)

**Why.** `tf.nn.l2_loss` is `sum(w**2) / 2`, whose gradient is `w`; Keras' `L2(1.0)` is
`sum(w**2)`, whose gradient is `2 * w`. Neither is a norm: there is no square root. Both
are sums, not means, so that a larger layer pays more; while the data's loss is a mean
over the batch.

**What `audit` says.** Nothing: both are sound. A strength that is far too large it
finds, see [dominates](dominates.html).

**With keras_l2reg** both scales have a name, and `L2AllWeights` takes either:

>>> from keras_l2reg import L2, L2AllWeights, L2Loss
>>> float(L2Loss(1.0)(keras.ops.array(w))), float(L2(1.0)(keras.ops.array(w)))
(12.5, 25.0)
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
>>> L2AllWeights(model, regularizer=L2Loss(0.01)).l2
0.005

All other scales, those of torch and scikit-learn: [strengths](strengths.html).

Source: [tf.nn.l2_loss](https://www.tensorflow.org/api_docs/python/tf/nn/l2_loss),
[keras.regularizers](https://keras.io/api/layers/regularizers/).
"""
