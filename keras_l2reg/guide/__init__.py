"""How it works: a penalty's three places of truth.

![persistence, effect and trace; who copies them, who writes them, who reads
them](places.svg)

Keras holds the truth about a weight's penalty in three places:

| place | where | read by |
|---|---|---|
| persistence | the layer's `kernel_regularizer` | `build`; save, load, clone |
| effect | the weight's own `regularizer` | `model.losses` |
| trace | the compiled step | `fit`, `evaluate` |

Each is made from the one before, once: `build` hands the layer's regularizer to the
weight, the first `fit` compiles what the weights have then. A regularizer that the
layer is given when it is constructed is therefore the same in all three. What is
changed later stays where it was changed, and Keras says nothing.

>>> import keras
>>> def network():
...     hidden = keras.layers.Dense(3, "relu", name="hidden")
...     head = keras.layers.Dense(1, name="head")
...     return keras.Sequential([keras.Input((4,)), hidden, head])

`keras_l2reg.attach` checks everything first, then writes persistence and effect of
every kernel, and drops the trace, so that the next step is compiled anew.
`keras_l2reg.detach` puts back exactly what was there.

>>> from keras_l2reg import L2AllWeights, attach, audit, detach
>>> model = attach(network(), 0.01)
>>> len(model.losses), len(keras.models.clone_model(model).losses)
(2, 2)
>>> len(detach(model).losses)
0

`keras_l2reg.L2AllWeights` attaches one regularizer whose strength is a variable, a
non-trainable weight of the wrapper. So the step reads it anew each time, and it is
saved with the weights: a new strength needs no new trace.

>>> model = L2AllWeights(network(), l2=0.01)
>>> model.l2 = 0.001

`keras_l2reg.audit` looks for the places where a model's penalties are not what they
seem, whoever put them there; `python -m keras_l2reg FILE.keras` does it for a file.

>>> model = network()
>>> model.get_layer("head").kernel_regularizer = keras.regularizers.L2(0.01)
>>> [finding.code for finding in audit(model)]
['never-applied']

## Pitfalls

The places disagree:

| page | what happens in plain Keras |
|---|---|
| [never-applied](guide/never_applied.html) | set on a built layer: shown, saved, not trained |
| [lost-on-save](guide/lost_on_save.html) | set on the weight: gone after save, load, clone |
| [stale-trace](guide/stale_trace.html) | set after `fit`: the old step goes on |
| [LoRA](guide/lora.html) | set on a LoRA layer's kernel: gone at once |

They agree, on something else than you meant:

| page | what happens in plain Keras |
|---|---|
| [last-layer-only](guide/last_layer_only.html) | one layer has a penalty, the others none |
| [uncovered](guide/uncovered.html) | some kernels were forgotten |
| [norm-or-bias](guide/norm_or_bias.html) | biases and scales were not meant |
| [duplicated](guide/duplicated.html) | several terms are the last layer's |
| [frozen](guide/frozen.html) | a frozen weight's penalty leaves the loss |
| [half the sum](guide/half_sum.html) | the tutorial's strength is twice yours |
| [dominates](guide/dominates.html) | the loss is mostly penalty |
| [half-precision](guide/half_precision.html) | the penalty is infinite |

They agree, and L2 is not what it is taken for:

| page | what happens in plain Keras |
|---|---|
| [double-decay](guide/double_decay.html) | L2 and `weight_decay` on one weight |
| [coupled-adaptive](guide/coupled_adaptive.html) | L2 with Adam is no weight decay |
| [scale-invariant](guide/scale_invariant.html) | L2 before a normalization |

## Beyond

[Strengths](guide/strengths.html): the same penalty in scikit-learn, torch and
TensorFlow. [What cannot be done](guide/cannot.html), and why.

Examples: `notmnist`, the question that this package answers; `pretrained`, a gentler
penalty on a backbone; `custom_loop`, without `fit`; `distributed`, on many devices;
`glyphs`, their letters.
"""
