"""uncovered: some kernels have a penalty, others were forgotten.

**In plain Keras** each kind of layer has its own arguments, and it takes care not to
leave one out. An LSTM has two kernels, a separable convolution too:

>>> import keras
>>> lstm = keras.layers.LSTM(3, kernel_regularizer="l2", name="lstm")
>>> head = keras.layers.Dense(1, kernel_regularizer="l2", name="head")
>>> model = keras.Sequential([keras.Input((5, 2)), lstm, head])
>>> len(model.losses)
2

**Why.** The three places agree, on what was written, not on what was meant:
`recurrent_regularizer` is another argument. `DepthwiseConv2D` takes a
`depthwise_regularizer`, `MultiHeadAttention` hands its one `kernel_regularizer` to
four kernels, and what a layer of your own calls `w` has none.

**What `audit` says**

>>> from keras_l2reg import attach, audit, select_weights
>>> [(finding.code, finding.where) for finding in audit(model)]
[('uncovered', ('lstm/lstm_cell/recurrent_kernel',))]

**With keras_l2reg** one rule finds the kernels, whatever they are called; by default
it leaves alone those that have a regularizer already:

>>> len(attach(model, 0.01).losses), audit(model)
(3, No findings.)

What is left out on purpose is said in the rule:

>>> [weight.name for weight, _ in select_weights(model, layers=keras.layers.Dense)]
['head/kernel']

Source: the arguments of [Keras' layers](https://keras.io/api/layers/).
"""
