"""LoRA: a regularizer that is set on a LoRA layer's `kernel` is gone at once.

**In plain Keras** `enable_lora` turns `layer.kernel` into a sum, made anew each time
that it is looked at. What is set on it is thrown away with it:

>>> import keras
>>> layer = keras.layers.Dense(1, name="out")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> layer.enable_lora(2)
>>> isinstance(layer.kernel, keras.Variable)
False
>>> layer.kernel.regularizer = keras.regularizers.L2(0.01)
>>> len(model.losses)
0

**Why.** The effect was written on a tensor that nobody keeps. The weights are now the
kernel as it was, frozen, and two small factors `a` and `b`, which are trained; the
layer computes with `kernel + lora_alpha / lora_rank * a @ b`. The factors have a
penalty if the layer had a `kernel_regularizer` before `enable_lora`, and only then.

**What `audit` says.** That there is no penalty; of the attempt there is no trace.

>>> from keras_l2reg import attach, audit, find_weights
>>> [(finding.code, finding.where) for finding in audit(model)]
[('no-penalty', ('out/lora_kernel_a', 'out/lora_kernel_b'))]

**With keras_l2reg** the two factors are covered, and the frozen base is left out:

>>> len(attach(model, 0.01).losses)
2
>>> [weight.name for weight in find_weights(model) if weight.regularizer]
['out/lora_kernel_a', 'out/lora_kernel_b']

The penalty is `l2 * (sum(a**2) + sum(b**2))`, that of the factors, not that of their
product or of the whole kernel: it pulls the layer towards what it was pretrained to.

Source: Hu et al., [LoRA](https://arxiv.org/abs/2106.09685), ICLR 2022; on `kernel`,
[keras#19516](https://github.com/keras-team/keras/pull/19516).
"""
