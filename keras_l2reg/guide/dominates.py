"""dominates: the loss that is minimized is mostly penalty.

**In plain Keras** `fit` shows one number, and it goes down nicely:

>>> import keras
>>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 1))
>>> layer = keras.layers.Dense(1, kernel_initializer="ones", name="out",
...                            kernel_regularizer=keras.regularizers.L2(10.0))
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> model.compile(keras.optimizers.SGD(0.01), "mse")
>>> losses = model.fit(x, y, epochs=3, verbose=0).history["loss"]
>>> losses[0] > losses[1] > losses[2]
True

**Why.** The three places agree, on too much. What went down is the weights: 40 of the
first loss of 49 is the penalty. It is a sum over all entries while the data's loss is a
mean over samples, so a strength from a small network is too large for a wide one.

**What `audit` says**, given a batch:

>>> from keras_l2reg import L2AllWeights, PenaltyLogger, audit
>>> [(finding.code, finding.where) for finding in audit(model, x, y)]
[('dominates', ('out/kernel',))]

**With keras_l2reg** the logs have the two parts; `PenaltyLogger` adds each weight's,
and warns when the penalty is more than a given share of the loss:

>>> model = keras.models.clone_model(model)
>>> wrapped = L2AllWeights(model, l2=0.01, existing="replace")
>>> wrapped.compile("sgd", "mse")
>>> history = wrapped.fit(x, y, verbose=0, callbacks=[PenaltyLogger(warn_share=0.5)])
>>> sorted(history.history)
['data_loss', 'loss', 'penalty', 'penalty/out/kernel']

Source: the bias that ridge regression buys, Hoerl & Kennard, [Ridge Regression](
https://doi.org/10.1080/00401706.1970.10488634), 1970.
"""
