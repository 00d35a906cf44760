"""norm-or-bias: biases and normalizations have a penalty that was meant for kernels.

**In plain Keras** the loop over all weights finds all weights:

>>> import keras
>>> dense = keras.layers.Dense(3, name="dense")
>>> norm = keras.layers.BatchNormalization(name="norm")
>>> model = keras.Sequential([keras.Input((4,)), dense, norm])
>>> for weight in model.trainable_variables:
...     weight.regularizer = keras.regularizers.L2(0.01)
>>> len(model.losses)
4

**Why.** The three places may well agree. But a bias shifts a whole unit, has few
numbers to overfit with and needs to be as large as the data's mean is; `gamma`, which
starts at 1, is pulled to 0, and the layer's whole output with it.

**What `audit` says**

>>> from keras_l2reg import attach, audit, find_weights
>>> [f.where for f in audit(model) if f.code == "norm-or-bias"]
[('dense/bias', 'norm/gamma', 'norm/beta')]

**With keras_l2reg** each weight has a role, and the rule is for the kernels' roles:

>>> [(weight.name, weight.role) for weight in find_weights(model)]
[('dense/kernel', 'kernel'), ('dense/bias', 'bias'),
 ('norm/gamma', 'scale'), ('norm/beta', 'shift')]
>>> for weight in model.trainable_variables:
...     weight.regularizer = None
>>> len(attach(model, 0.01).losses)
1

`biases=True` and `embeddings=True` widen it; scales and shifts stay out.

Source: Goodfellow, Bengio & Courville, [Deep Learning](
https://www.deeplearningbook.org/contents/regularization.html), 2016, section 7.1.
"""
