"""lost-on-save: a regularizer that is set on the weight is gone in every copy.

**In plain Keras** the model trains with it, its copy without:

>>> import keras
>>> layer = keras.layers.Dense(1, name="out")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> layer.kernel.regularizer = keras.regularizers.L2(0.01)
>>> len(model.losses), len(keras.models.clone_model(model).losses)
(1, 0)

**Why.** Only the effect was written. `save`, `clone_model` and `from_config` go by
`get_config`, which asks the layer, and its `kernel_regularizer` is still `None`.
Training that is resumed from a file thus goes on without the penalty.

**What `audit` says**

>>> from keras_l2reg import L2AllWeights, attach, audit
>>> [(finding.code, finding.where) for finding in audit(model)]
[('lost-on-save', ('out/kernel',))]

**With keras_l2reg** `attach` writes the layer's attribute as well:

>>> layer.kernel.regularizer = None
>>> len(keras.models.clone_model(attach(model, 0.01)).losses)
1

A layer of your own whose `get_config` carries no regularizer has no such place.
There `attach` warns, and `L2AllWeights`, which saves the rule and the strength
itself, keeps the penalty:

>>> class Plain(keras.layers.Layer):
...     def build(self, shape):
...         self.w = self.add_weight(shape=(shape[-1], 1), name="w")
...     def call(self, x):
...         return keras.ops.matmul(x, self.w)
>>> model = keras.Sequential([keras.Input((4,)), Plain(name="plain")])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> again = L2AllWeights.from_config(wrapped.get_config(), {"Plain": Plain})
>>> len(wrapped.losses), len(again.losses), again.l2
(1, 1, 0.01)

**Exclusions from weight decay** are lost in the same way: an optimizer's config carries
its `weight_decay`, not the weights that it leaves out. `audit` names them before the
save; after the load, those that are biases or scales are
[decays-bias-or-norm](decays_bias_or_norm.html). Say them again on the loaded model:

>>> from keras_l2reg import set_weight_decay
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="out")])
>>> model.compile(keras.optimizers.AdamW(), "mse")
>>> _ = set_weight_decay(model.optimizer, model, 0.01)
>>> [(f.code, f.where) for f in audit(model)]
[('lost-on-save', ('out/bias',))]

Source: [Keras on saving](https://keras.io/guides/serialization_and_saving/).
"""
