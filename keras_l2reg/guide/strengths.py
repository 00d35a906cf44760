"""Strengths: the same penalty in Keras, TensorFlow, torch and scikit-learn.

`l2` stands for the strength of `L2AllWeights(model, l2=...)`, `attach(model, l2)` and
`keras.regularizers.L2(l2)`: the penalty `l2 * sum(w**2)` beside a mean over n samples.

| theirs | what it minimizes or does | `l2` |
|---|---|---|
| `beta * tf.nn.l2_loss(w)` | `beta * sum(w**2) / 2` | `beta / 2` |
| torch's `SGD(weight_decay=d)` | adds `d * w` to the gradient | `d / 2` |
| Keras' `SGD(weight_decay=d)` (1) | `w -= learning_rate * d * w` | `d / 2` |
| `Ridge(alpha)` (2) | `sum((xw + b - y)**2) + alpha * sum(w**2)` | `alpha / (n * k)` |
| `LogisticRegression(C)` | `C * sum(crossentropy) + sum(w**2) / 2` | `0.5 / (C * n)` |

(1) Without momentum, which torch's decay goes through, as L2 does, and Keras' does not.

(2) With k outputs.

Ridge goes with Keras' `"mse"`, the mean over samples and outputs; LogisticRegression
with `"binary_crossentropy"` for two classes, else `"sparse_categorical_crossentropy"`.
There n is the number of samples in all, not in a batch. AdamW has no `l2`: see
[coupled-adaptive](coupled_adaptive.html).

A fit of scikit-learn's is where ours comes to rest, so a step from there leads nowhere:

>>> import keras, numpy as np
>>> from sklearn.linear_model import LogisticRegression, Ridge
>>> from keras_l2reg import attach
>>> def distance(theirs, y, activation, loss, l2):
...     layer = keras.layers.Dense(y.shape[1], activation)
...     model = keras.Sequential([keras.Input((4,)), layer])
...     layer.set_weights([theirs.coef_.T, theirs.intercept_])
...     attach(model, l2).compile(keras.optimizers.SGD(1.0), loss)
...     model.train_on_batch(x, y)
...     return round(float(abs(layer.get_weights()[0] - theirs.coef_.T).max()), 4)
>>> rng = np.random.default_rng(0)
>>> x, y, alpha = rng.normal(size=(32, 4)), rng.normal(size=(32, 2)), 3.0
>>> distance(Ridge(alpha).fit(x, y), y, None, "mse", alpha / (32 * 2))
0.0
>>> y, C = (y[:, :1] > 0).astype(int), 0.3
>>> logistic = LogisticRegression(C=C, tol=1e-10).fit(x, y[:, 0])
>>> distance(logistic, y, "sigmoid", "binary_crossentropy", 0.5 / (C * 32))
0.0

With twice the strength it leads away:

>>> distance(logistic, y, "sigmoid", "binary_crossentropy", 1 / (C * 32)) > 0.01
True

The whole way, from random weights, and torch's steps one by one, is in
`tests/test_outsiders.py`.

Source: [Ridge](
https://scikit-learn.org/stable/modules/generated/sklearn.linear_model.Ridge.html),
[LogisticRegression](
https://scikit-learn.org/stable/modules/linear_model.html#logistic-regression),
[torch.optim.SGD](https://docs.pytorch.org/docs/stable/generated/torch.optim.SGD.html).
"""
