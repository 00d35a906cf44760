"""duplicated: several terms of the loss are one and the same penalty.

**In plain Keras** (as of 3.15, which takes a function for a regularizer) one that is
made in a loop sees the loop's last value:

>>> import keras
>>> a = keras.layers.Dense(3, kernel_initializer="ones", name="a")
>>> b = keras.layers.Dense(2, kernel_initializer="ones", name="b")
>>> model = keras.Sequential([keras.Input((4,)), a, b])
>>> for layer in model.layers:
...     layer.kernel.regularizer = lambda w: 0.5 * keras.ops.sum(layer.kernel**2)
>>> [float(keras.ops.convert_to_numpy(term)) for term in model.losses]
[3.0, 3.0]

There are as many terms as layers, but the first ought to be 6.0: the penalty is on the
last layer twice, and on the first not at all.

**Why.** The effect is in its place, and is the wrong function: Python looks `layer` up
when the function is called, after the loop. So do `add_loss(lambda: ...)` in Keras 2,
and a shared layer that adds its penalty in `call`, once for each use.

**What `audit` says**

>>> from keras_l2reg import attach, audit
>>> [f.where for f in audit(model) if f.code == "duplicated"]
[('a/kernel', 'b/kernel')]

Two equal numbers are no proof, so `audit` looks what becomes of the terms at other
weights: the same term stays equal, two that a clamp has made equal do not.

**With keras_l2reg** a regularizer gets its weight as an argument, and each weight is
found once, however often it is shared:

>>> _ = attach(model, 0.5, existing="replace")
>>> [float(keras.ops.convert_to_numpy(term)) for term in model.losses]
[6.0, 3.0]

Source: [Python's FAQ](https://docs.python.org/3/faq/programming.html) on lambdas in a
loop; [tensorflow#42880](https://github.com/tensorflow/tensorflow/issues/42880),
[keras#16316](https://github.com/keras-team/keras/issues/16316).
"""
