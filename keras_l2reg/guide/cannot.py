"""What cannot be done, and why.

**A wrapper around a model with its own step.** `L2AllWeights` runs Keras' trainer in
the model's place, so that a `train_step`, `compute_loss` or `fit` of the model's own
would be lost without a word. It refuses; `attach`, which works in place, does it (see
[what differs](differs.html)).

>>> import keras, numpy as np
>>> from keras_l2reg import L2, L2AllWeights, attach, detach, find_weights

A step of your own that leaves `self.losses` out of its loss has no penalty, whoever
attached it. Nor can one wrapper hold another: there would be two strengths.

**Weights that do not exist yet.** An unbuilt layer of Keras' own tells by its
`*_regularizer` what it will make, one of yours does not. `attach` covers what it knows
when it is called; `L2AllWeights` looks again after the first call:

>>> class Plain(keras.layers.Layer):
...     def build(self, shape):
...         self.w = self.add_weight(shape=(shape[-1], 1), name="w")
...     def call(self, x):
...         return keras.ops.matmul(x, self.w)
>>> model = keras.Sequential([keras.layers.Dense(3), Plain()])
>>> _ = attach(model, 0.01)(np.ones((1, 4)))
>>> len(model.losses)
1
>>> wrapped = L2AllWeights(keras.Sequential([keras.layers.Dense(3), Plain()]))
>>> _ = wrapped(np.ones((1, 4)))
>>> len(wrapped.losses)
2

**A penalty in a config without a place for it.** That of `Plain` is lost on save if
`attach` put it there, so `attach` and `unwrap` warn, and the wrapper keeps it (see
[lost-on-save](lost_on_save.html)). A model that was loaded does not know what was on
it before `attach`, so `detach` raises. LoRA's factors are merged into the kernel when
Keras saves, and start anew in what is loaded.

**A live strength without a wrapper, on JAX.** `attach(model, L2(keras.Variable(0.01)))`
is live on TensorFlow and torch. JAX makes a constant of a variable that is not the
model's own; `attach` warns.

**Stock regularizers for everything.** `unwrap` says the penalty with what comes with
Keras, which has no sum or multiple of a regularizer that you wrote; it raises then and
changes nothing.

**Decay by halves.** An optimizer has one decay rate: `set_weight_decay` takes
multipliers of 0 and 1 only, and a `MultiOptimizer` wants a call for each of its own.
Keras saves the rate without the exclusions: call it again after load. What a file's
optimizer excluded before it was saved can't be known any more; `audit` says so before.

**What `audit` does not see.** On JAX without a batch, whether the step is stale; in any
case a step that is traced otherwise each time. `add_loss` terms of a model that was not
called eagerly, without a batch. Two `add_loss` terms that are one and the same only at
these weights. What follows a kernel, in a subclassed model, where
there is no graph to walk. A penalty that a training step of your own adds. While
another thread trains the model, it refuses; in a callback of that `fit` it works.

**What the battery leaves out.** `keras_l2reg.testing.check_model` runs on all kinds of
layers, on `keras.applications` and on KerasHub's backbones (`tests/models.py`,
`tests/test_breadth.py`), but for these:

- Cloning KerasHub's GPT-NeoX, Llama and ViT. `clone_model` fails on them without a
  penalty too: what a layer's `get_config` names is not what its constructor takes.
- A step of `SpectralNormalization` on JAX. In Keras' step the layer assigns the
  normalized kernel, the penalty is taken of that, and the optimizer's update of the old
  kernel overwrites it.

Source: the tests; the limits that `keras_l2reg.audit`, `keras_l2reg.set_weight_decay`
and `keras_l2reg.L2AllWeights` name themselves.
"""
