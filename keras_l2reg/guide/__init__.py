"""How it works: a penalty's three places of truth.

![Persistence, effect and trace: who writes and who reads them](places.svg)

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
| [never-applied][] | set on a built layer: shown, saved, not trained |
| [constraint-never-applied][] | the same with a constraint |
| [lost-on-save][] | set on the weight: gone after save, load, clone |
| [stale-trace][] | set after `fit`: the old step goes on |
| [LoRA][] | set on a LoRA layer's kernel: gone at once |

They agree, on something else than you meant:

| page | what happens in plain Keras |
|---|---|
| [last-layer-only][] | one layer has a penalty, the others none |
| [uncovered][] | some kernels were forgotten |
| [partly-covered][] | one live strength, and kernels that have another |
| [no-penalty][] | no weight has a penalty at all |
| [norm-or-bias][] | biases and scales were not meant |
| [duplicated][] | several terms are the last layer's |
| [frozen][] | a frozen weight's penalty leaves the loss |
| [half the sum][] | the tutorial's strength is twice yours |
| [dominates][] | the loss is mostly penalty |
| [half-precision][] | the penalty is infinite |

They agree, and L2 is not what it is taken for:

| page | what happens in plain Keras |
|---|---|
| [double-decay][] | L2 and `weight_decay` on one weight |
| [decays-bias-or-norm][] | `weight_decay` on biases and scales too |
| [coupled-adaptive][] | L2 with Adam is no weight decay |
| [scale-invariant][] | L2 before a normalization |

## Beyond

[Strengths][]: the same penalty in scikit-learn, torch and
TensorFlow. [What differs from the bare model][], method by method.
[What cannot be done][], and why.

Examples, all of them beside the front page: `notmnist`, the question that this package
answers; `tune`, the search for a strength; `pretrained`, a gentler penalty on a
backbone; `custom_loop`, without `fit`; `distributed`, on many devices.

[never-applied]: guide/never_applied.html
[constraint-never-applied]: guide/constraint_never_applied.html
[lost-on-save]: guide/lost_on_save.html
[stale-trace]: guide/stale_trace.html
[LoRA]: guide/lora.html
[last-layer-only]: guide/last_layer_only.html
[uncovered]: guide/uncovered.html
[partly-covered]: guide/partly_covered.html
[no-penalty]: guide/no_penalty.html
[norm-or-bias]: guide/norm_or_bias.html
[duplicated]: guide/duplicated.html
[frozen]: guide/frozen.html
[half the sum]: guide/half_sum.html
[dominates]: guide/dominates.html
[half-precision]: guide/half_precision.html
[double-decay]: guide/double_decay.html
[decays-bias-or-norm]: guide/decays_bias_or_norm.html
[coupled-adaptive]: guide/coupled_adaptive.html
[scale-invariant]: guide/scale_invariant.html
[Strengths]: guide/strengths.html
[What differs from the bare model]: guide/differs.html
[What cannot be done]: guide/cannot.html
"""
