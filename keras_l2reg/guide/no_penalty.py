"""no-penalty: no weight has a penalty, and nobody says so.

**In plain Keras** a model is built without any regularizer by default, and its loss
shows no difference until you look:

>>> import keras
>>> layer = keras.layers.Dense(1, name="out")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> model.losses
[]

**Why.** The three places agree: there is nothing in any of them. That is right for many
models. It is a mistake where a penalty was meant and got lost on the way: in a copy
that was made from another config, or with a builder function whose argument for the
strength has a default of `None`.

**What `audit` says**, as an info, for a model may well do without:

>>> from keras_l2reg import attach, audit
>>> [(finding.code, finding.where) for finding in audit(model)]
[('no-penalty', ('out/kernel',))]

It does not say so where the optimizer's `weight_decay` shrinks a weight, or where a
call adds a term to the loss, by `add_loss` or for an activity. A model that is not
built has no weights yet; then `audit` says that.

**With keras_l2reg**

>>> audit(attach(model, 0.01))
No findings.

Source: the default of `kernel_regularizer` in [Keras' layers](
https://keras.io/api/layers/regularizers/).
"""
