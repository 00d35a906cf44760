"""double-decay: L2 and the optimizer's `weight_decay` both shrink one weight.

**In plain Keras** nothing keeps you from having both. Here the data's gradient is
zero, and a weight of 1 loses 0.05 to each:

>>> import keras, numpy as np
>>> def step(optimizer, regularizer):
...     layer = keras.layers.Dense(
...         1, kernel_initializer="ones", kernel_regularizer=regularizer, name="out")
...     model = keras.Sequential([keras.Input((4,)), layer])
...     model.compile(optimizer, "mse")
...     model.train_on_batch(np.zeros((8, 4)), np.zeros((8, 1)))
...     return model, round(float(layer.get_weights()[0][0, 0]), 4)
>>> L2, SGD = keras.regularizers.L2, keras.optimizers.SGD
>>> step(SGD(0.1), L2(0.25))[1], step(SGD(0.1, weight_decay=0.5), None)[1]
(0.95, 0.95)
>>> model, weight = step(SGD(0.1, weight_decay=0.5), L2(0.25))
>>> weight
0.9

**Why.** The three places agree, and know nothing of the optimizer, which shrinks the
weights by itself. AdamW does so by default, with `weight_decay=0.004`.

**What `audit` says**

>>> from keras_l2reg import audit, set_weight_decay
>>> [(finding.code, finding.where) for finding in audit(model)]
[('double-decay', ('out/kernel',)), ('decays-bias-or-norm', ('out/bias',))]

The second is [a page of its own](decays_bias_or_norm.html).

**With keras_l2reg** choose one. The penalty is part of the loss; for decay, the same
rule picks the same weights, biases and normalizations left out:

>>> optimizer = keras.optimizers.AdamW(0.001)
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
>>> set_weight_decay(optimizer, model, 0.01) is optimizer
True

Source: Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
https://arxiv.org/abs/1711.05101), ICLR 2019.
"""
