"""stale-trace: a penalty that changes after the first `fit` does not reach the step.

**In plain Keras**, on TensorFlow and JAX, the loss does not move:

>>> import keras
>>> x, y = keras.ops.ones((8, 4)), keras.ops.zeros((8, 1))
>>> layer = keras.layers.Dense(1, kernel_initializer="ones", name="out")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> model.compile("sgd", "mse")
>>> before = model.evaluate(x, y, verbose=0)
>>> layer.kernel.regularizer = keras.regularizers.L2(0.01)
>>> is_eager = keras.backend.backend() == "torch"
>>> model.evaluate(x, y, verbose=0) == before or is_eager
True

**Why.** The trace disagrees with the effect. `model.losses` shows the penalty, but the
step was compiled from what `model.losses` was then. The same holds for a strength: a
float is a constant of the compiled step. torch compiles nothing, so it follows.

**What `audit` says** (JAX does not tell what it traced, so give it a batch):

>>> from keras_l2reg import L2AllWeights, attach, audit
>>> "stale-trace" in [finding.code for finding in audit(model, x, y)] or is_eager
True

**With keras_l2reg** `attach` has the step compiled anew. Four weights of 1 cost 0.04:

>>> _ = attach(model, 0.01, existing="replace")
>>> round(model.evaluate(x, y, verbose=0) - before, 4)
0.04

The strength of `L2AllWeights` is read by the step each time, without a new trace:

>>> wrapped = L2AllWeights(keras.models.clone_model(model), l2=0.0, existing="replace")
>>> wrapped.compile("sgd", "mse")
>>> before = wrapped.evaluate(x, y, verbose=0, return_dict=True)
>>> wrapped.l2 = 0.01
>>> after = wrapped.evaluate(x, y, verbose=0, return_dict=True)
>>> round(after["penalty"] - before["penalty"], 4)
0.04

Source: [Keras on transfer learning](https://keras.io/guides/transfer_learning/), on
`compile` and `trainable`; it is true of all that a step is made from.
"""
