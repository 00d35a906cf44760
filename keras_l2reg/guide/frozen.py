"""frozen: the penalty of a frozen weight leaves the loss, and comes back with it.

**In plain Keras** a frozen layer's term is no longer in `model.losses`:

>>> import keras
>>> hidden = keras.layers.Dense(3, kernel_regularizer="l2", name="hidden")
>>> head = keras.layers.Dense(1, kernel_regularizer="l2", name="head")
>>> model = keras.Sequential([keras.Input((4,)), hidden, head])
>>> hidden.trainable = False
>>> len(model.losses)
1

**Why.** The three places agree. Keras takes the penalty of trainable weights only,
since that of the others can't be made smaller. But the loss before and after can't be
compared, and when a backbone is thawed for fine-tuning, its penalty comes in all at
once: the loss jumps, and weights that were never under a penalty begin to shrink.

**What `audit` says**

>>> from keras_l2reg import L2AllWeights, audit
>>> [(finding.code, finding.severity, finding.where) for finding in audit(model)]
[('frozen', 'info', ('hidden/kernel',))]

**With keras_l2reg** it is the same, and `data_loss`, which the logs of `L2AllWeights`
hold apart from `penalty`, can be compared. A multiplier is gentle with the backbone:

>>> model = keras.models.clone_model(model)
>>> wrapped = L2AllWeights(
...     model, l2=0.01, existing="replace", multipliers={"hidden/*": 0.1})
>>> wrapped.get_layer("hidden").trainable = False
>>> frozen = len(wrapped.losses)
>>> wrapped.get_layer("hidden").trainable = True
>>> frozen, len(wrapped.losses)
(1, 2)

Call `compile` after each change of `trainable`, or the trace is stale. `pretrained`
shows it whole.

Source: [Keras on transfer learning](https://keras.io/guides/transfer_learning/).
"""
