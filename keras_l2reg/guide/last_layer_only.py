"""last-layer-only: the penalty is on the output's weights, and on no others.

**In plain Keras** a regularizer belongs to a layer, and the other layers know nothing
of it. So it is in many tutorials, which add the penalty where the loss is:

>>> import keras
>>> def network(**kwargs):
...     hidden = keras.layers.Dense(1024, "relu", name="hidden")
...     output = keras.layers.Dense(10, name="output", **kwargs)
...     return keras.Sequential([keras.Input((784,)), hidden, output])
>>> model = network(kernel_regularizer=keras.regularizers.L2(0.01))
>>> len(model.losses)
1

**Why.** The three places agree, on too little. The output layer above has 10240 of
813056 kernel entries. The others are held by nothing: with ReLU the network can even
make the penalty as small as it likes and compute the same, by dividing the output's
weights by a number and multiplying the hidden ones with it.

**What `audit` says**

>>> from keras_l2reg import L2AllWeights, audit
>>> [(finding.code, finding.where) for finding in audit(model)]
[('last-layer-only', ('output/kernel',))]

**With keras_l2reg** it is on all of them. What that does, `notmnist` shows.

>>> len(L2AllWeights(network(), l2=0.01).losses)
2

Source: the question that this package began with, [How to apply to all weights, not
just last one?](https://stackoverflow.com/questions/38286717), 2016.
"""
