"""constraint-never-applied: a constraint that is set on a built layer does nothing.

**In plain Keras** the kernel goes below zero, whatever the layer says:

>>> import keras, numpy as np
>>> layer = keras.layers.Dense(1, kernel_initializer="ones", name="out")
>>> model = keras.Sequential([keras.Input((4,)), layer])
>>> layer.kernel_constraint = keras.constraints.NonNeg()
>>> x, y = np.ones((8, 4)), -np.ones((8, 1))
>>> model.compile(keras.optimizers.SGD(1.0), "mse")
>>> _ = model.train_on_batch(x, y)
>>> bool(layer.get_weights()[0].min() < 0)
True

**Why.** It is the trap of [never-applied](never_applied.html) once more. `build` hands
the layer's constraint to the weight, and the optimizer asks the weight. What the layer
is given later is shown and saved, and reaches no weight before the model is loaded.

**What `audit` says**

>>> from keras_l2reg import audit
>>> [f.where for f in audit(model) if f.code == "constraint-never-applied"]
[('out/kernel',)]

**The way.** `keras_l2reg` puts on penalties, not constraints. Give the layer its
constraint when it is constructed, or set that of the weight as well:

>>> layer.kernel.constraint = layer.kernel_constraint
>>> model.compile(keras.optimizers.SGD(1.0), "mse")
>>> _ = model.train_on_batch(x, y)
>>> bool(layer.get_weights()[0].min() < 0)
False
>>> [f.where for f in audit(model) if f.code == "constraint-never-applied"]
[]

Source: [Keras on constraints](https://keras.io/api/layers/constraints/).
"""
