"""What differs from the bare model, method by method.

`L2AllWeights` is a window: what you do with the inner model you do with the wrapper,
with the same results and shapes. `tests/test_window.py` calls each method on a bare
model and on its wrapped twin and compares.

>>> import keras, numpy as np
>>> from keras_l2reg import L2AllWeights, attach
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, name="a")])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> wrapped.compile("sgd", "mse", metrics=["mae"])
>>> x, y = np.ones((8, 4)), np.ones((8, 1))
>>> loss, mae = wrapped.evaluate(x, y, verbose=0)
>>> sorted(wrapped.evaluate(x, y, verbose=0, return_dict=True))
['data_loss', 'loss', 'mae', 'penalty']

- `fit`, `evaluate`, `predict`, `train_on_batch`, `test_on_batch`, `predict_on_batch`:
  the same; history, logs and `return_dict=True` also hold `data_loss` and `penalty`,
  lists do not.
- `metrics`, `metrics_names`, `reset_metrics`, `get_metrics_result`: the model's own
  metrics too; `metrics` holds one more, `LossSplit`, behind the two keys.
- an output named `data` among others, a metric called `penalty` or `data_loss`:
  refused by `compile`, as its log would be overwritten.
- `weights`, `get_weights`, `set_weights`, `count_params`, `summary`, `layers`,
  `get_layer`: the model's.
- `variables`, `non_trainable_variables`, `get_state_tree`: the strength, `l2`, comes
  last: JAX must know of it.
- `save_weights`, `load_weights`: the model's own layout, so that files go both ways
  between it and the wrapper; a wrapper's file holds the strength besides.
- `save`, `keras.saving.load_model`, pickle: the wrapper, in `.keras` and legacy `.h5`
  files; loading wants `import keras_l2reg` first.
- `keras.models.clone_model`: clones the wrapper. Its `clone_function`,
  `input_tensors` and `call_function` are for `Sequential` and `Functional` models:
  clone `wrapped.wrapped_model`, then wrap.
- `export`, a TFLite converter, `quantize`: the model's.
- call arguments, masks, `compute_output_shape`, `TimeDistributed`: the model's.
- attributes and methods of your own, `add`, `pop`: read, set and called on the model,
  if public; private names are at `wrapped.wrapped_model`.
- a model that was built: `build` with another shape: is ignored, where `Sequential`
  raises.
- sparse inputs: gradients are dense, as with any penalty on a kernel.
- a model without a kernel: refused, by the constructor or, if it is not built yet, by
  its first call.
- a class that `get_config` can't name for loading (defined within a function, not
  registered): `clone_model` of the wrapper fails as loading does.
- `isinstance(wrapped, keras.Sequential)`: false; a wrapper is a `keras.Model`.

**A class that redefines a part of Keras' trainer is refused**, since the wrapper trains
by Keras' own: `train_step`, `test_step`, `predict_step`, `compute_loss`,
`compute_metrics`, `compile`, `fit`, `evaluate`, `predict`, `train_on_batch`,
`test_on_batch`, `predict_on_batch`, `make_train_function`, `make_test_function`,
`make_predict_function`, `metrics`, `metrics_names`, `reset_metrics`,
`get_metrics_result`, `get_compile_config`, `compile_from_config`,
`stateless_compute_loss`, `stateless_call`, `losses`, `trainable_variables`,
`trainable_weights`, `non_trainable_variables`, `save`, `get_state_tree`, and whatever
else Keras' trainers define. So is one on which such a method was set. KerasHub's task
models preprocess in a `fit` of their own; their backbones do not. `attach` works in
place and takes them all:

>>> class Task(keras.Sequential):
...     def fit(self, x, *args, **kwargs):
...         return super().fit(x / 255, *args, **kwargs)
>>> task = Task([keras.Input((4,)), keras.layers.Dense(1)], name="task")
>>> L2AllWeights(task)
Traceback (most recent call last):
ValueError: Expected a model that trains, evaluates and predicts by Keras' own...
>>> len(attach(task, 0.01).losses)
1

**What a class may redefine**, because Keras or the wrapper calls it on the inner model:
`call`, `build`, `get_config`, `from_config`, `build_from_config`, `get_build_config`,
`add_loss`, `add_weight`, `save_own_variables`, `load_own_variables`, `save_assets`,
`load_assets`, `compute_output_spec`, `compute_output_shape`, `compute_mask`,
`symbolic_call`, `layers`, `get_layer`, `summary`, `export`, `save_weights`,
`load_weights`, `weights`, `variables`, `trainable`, `quantize`, `count_params`,
`get_quantization_layer_structure`, and its dtypes.

**On JAX, under a model that does not track the strength** (`model.fit` of the inner
model, or of a second wrapper), the step compiles the strength's present value and
warns.
Assigning `wrapped.l2` has the models that the package knows of compile it again.
"""
