"""partly-covered: a live strength that some kernels do not listen to.

**What happens.** A layer has a regularizer of its own, written by hand long ago. The
model is wrapped, which leaves that one alone. From then on `l2` is the strength of all
kernels but this:

>>> import keras
>>> from keras_l2reg import L2AllWeights, audit, penalties
>>> def network():
...     hidden = keras.layers.Dense(3, kernel_initializer="ones", name="hidden")
...     head = keras.layers.Dense(
...         1, kernel_initializer="ones", name="head",
...         kernel_regularizer=keras.regularizers.L2(1e-4))
...     return keras.Sequential([keras.Input((4,)), hidden, head])
>>> model = L2AllWeights(network(), l2=0.5, existing="keep")
>>> model.l2 = 1.0
>>> {name: round(value, 4) for name, value in penalties(model).items()}
{'hidden/kernel': 12.0, 'head/kernel': 0.0003}

**Why.** The three places agree, on two strengths. That is a choice, which may be meant:
a head with a strength of its own. It is not, where a search over `l2` is to find the
strength of the whole model.

**What `audit` says**

>>> [(f.code, f.where) for f in audit(model) if f.severity == "warning"]
[('partly-covered', ('head/kernel',))]

It says so of `attach(model, L2(variable))` too. Several fixed strengths are no finding:
nobody takes them for one.

**With keras_l2reg** `existing="replace"` puts one strength in the place of the other,
`existing="add"` adds it:

>>> model = L2AllWeights(network(), l2=0.5, existing="replace")
>>> {name: round(value, 4) for name, value in penalties(model).items()}
{'hidden/kernel': 6.0, 'head/kernel': 1.5}
>>> audit(model)
No findings.

Source: the question that this package answers, where the output layer had its
regularizer and the others none.
"""
