"""decays-bias-or-norm: weight decay shrinks biases and normalization scales too.

**In plain Keras** an optimizer with a `weight_decay`, which AdamW has by default,
decays every trainable weight. Here the data's gradient is zero, and `gamma`, which was
1, shrinks:

>>> import keras, numpy as np
>>> norm = keras.layers.LayerNormalization(name="norm")
>>> layers = [keras.Input((4,)), keras.layers.Dense(3, name="dense"), norm]
>>> model = keras.Sequential(layers)
>>> model.compile(keras.optimizers.AdamW(0.1, weight_decay=0.5), "mse")
>>> _ = model.train_on_batch(np.zeros((8, 4)), np.zeros((8, 3)))
>>> norm.get_weights()[0].astype(float).round(3).tolist()
[0.95, 0.95, 0.95]

**Why.** The optimizer knows variables, not what they are for. As with a penalty
([norm-or-bias](norm_or_bias.html)), a bias has little to overfit with, and a scale that
is pulled to 0 takes the layer's output along. Keras' way to leave weights out is
`exclude_from_weight_decay`, by their names, and it does not save that it was called.

**What `audit` says**

>>> from keras_l2reg import audit, set_weight_decay
>>> [f.where for f in audit(model) if f.code == "decays-bias-or-norm"]
[('dense/bias', 'norm/gamma', 'norm/beta')]

**With keras_l2reg** the rule that picks kernels for a penalty picks them for decay:

>>> model.compile(keras.optimizers.AdamW(0.1), "mse")
>>> _ = set_weight_decay(model.optimizer, model, 0.5)
>>> [f.where for f in audit(model) if f.code == "decays-bias-or-norm"]
[]

Call it again on a model that was loaded; `audit` reminds you, before the save and after
the load (see [lost-on-save](lost_on_save.html)).

Source: He et al., [Bag of Tricks for Image Classification](
https://arxiv.org/abs/1812.01187), 2019, section 3.1, "no bias decay".
"""
