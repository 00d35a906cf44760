"""coupled-adaptive: L2 with Adam is no weight decay.

**In plain Keras** a penalty's pull should grow with the weight. With Adam, a weight of
1 and one of 100 take the same step (the data's gradient is zero here):

>>> import keras, numpy as np
>>> def step(optimizer, l2):
...     layer = keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(l2))
...     model = keras.Sequential([keras.Input((2,)), layer])
...     layer.set_weights([np.array([[1.0], [100.0]]), np.zeros(1)])
...     model.compile(optimizer, "mse")
...     model.train_on_batch(np.zeros((8, 2)), np.zeros((8, 1)))
...     return model, layer.get_weights()[0].ravel().astype(float).round(3).tolist()
>>> step(keras.optimizers.SGD(1.0), 0.01)[1]
[0.98, 98.0]
>>> model, weights = step(keras.optimizers.Adam(0.1), 0.01)
>>> weights
[0.9, 99.9]

**Why.** The three places agree. The penalty is part of the loss, so its gradient goes
through the optimizer like any other, and Adam divides each gradient by the root of its
running square. So weights with large gradients of the data shrink less. AdamW takes
the decay out of this, and shrinks all weights by one share:

>>> step(keras.optimizers.AdamW(0.1, weight_decay=0.2), 0.0)[1]
[0.98, 98.0]

**What `audit` says**

>>> from keras_l2reg import audit, set_weight_decay
>>> [(finding.code, finding.severity) for finding in audit(model)]
[('coupled-adaptive', 'info')]

**With keras_l2reg** L2 with Adam stays what it is, a sound penalty. For decay of the
same weights (biases and normalizations left out):

>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
>>> set_weight_decay(keras.optimizers.AdamW(0.001), model, 0.01).weight_decay
0.01

Source: Loshchilov & Hutter, [Decoupled Weight Decay Regularization](
https://arxiv.org/abs/1711.05101), ICLR 2019.
"""
