"""never-applied: a regularizer that is set on a built layer does nothing.

**In plain Keras** the model trains without it, though its copy would train with it:

>>> import keras
>>> layer = keras.layers.Dense(1, name="out")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> layer.kernel_regularizer = keras.regularizers.L2(0.01)
>>> len(model.losses), len(keras.models.clone_model(model).losses)
(0, 1)

**Why.** Only persistence was written. `build` reads the layer's attribute when it
makes the weight; that was over, so the effect stayed empty. A model with an `Input`,
like every pretrained one, is built from the start. `add_loss` from outside is no way
out, since the next call of the model drops the term:

>>> model.add_loss(0.01 * keras.ops.sum(layer.kernel**2))
>>> before = len(model.losses)
>>> _ = model(keras.ops.ones((1, 4)))
>>> before, len(model.losses)
(1, 0)

**What `audit` says**

>>> from keras_l2reg import attach, audit
>>> [(finding.code, finding.where) for finding in audit(model)]
[('never-applied', ('out/kernel',))]

**With keras_l2reg** effect, persistence and trace are written together:

>>> attach(model, 0.01) is model
True
>>> len(model.losses), audit(model)
(1, No findings.)

Source: [keras#8413](https://github.com/keras-team/keras/issues/8413) (2017) and
[tensorflow#33635](https://github.com/tensorflow/tensorflow/issues/33635) (2019).
"""
