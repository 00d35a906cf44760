"""Fails if Keras changes anything private that `keras_l2reg._keras` uses."""

import contextlib
import inspect
import itertools
import random
import threading

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.callbacks import callback_list
from keras.src.random import seed_generator
from models import SEQUENCES, VECTORS, around

from keras_l2reg import _keras
from keras_l2reg._keras.optimizers import decay_of_zero_skipped

TARGETS = np.ones((4, 2), "float32")
BACKEND = keras.backend.backend()
QUIET = {
    "evaluate": {"verbose": 0, "return_dict": True},
    "train_on_batch": {"return_dict": True},
}
never_stale_on_torch = pytest.mark.skipif(BACKEND == "torch", reason="torch is eager")


def network():
    inner = keras.Sequential([layers.Dense(4, name="a")], name="inner")
    return around(inner, layers.Dense(2, name="b"), shape=(6,))


def test_sublayers_are_direct_and_in_order():
    model = network()
    names = [layer.name for layer in _keras.sublayers(model)]
    assert [n for n in names if "input" not in n] == ["inner", "b"]


def test_all_layers_are_the_model_and_its_layers_at_any_depth_once():
    model = network()
    found = list(_keras.all_layers(model))
    assert model in found
    assert {"inner", "a", "b"} <= {layer.name for layer in found}
    assert len({id(layer) for layer in found}) == len(found)


def test_graphs_of_layers_and_keras_own_classes_are_told_from_others():
    class Own(keras.Sequential):
        pass

    class Layer(layers.Dense):
        pass

    inputs = keras.Input((2,))
    functional = keras.Model(inputs, layers.Dense(2)(inputs))
    own = Own([keras.Input((2,)), Layer(2)])
    assert _keras.is_graph(network()) and _keras.is_graph(functional)
    assert not _keras.is_graph(own) and not _keras.is_graph(layers.Dense(2))
    assert _keras.is_own(layers.Dense(2)) and _keras.is_own(functional)
    assert not _keras.is_own(own) and not _keras.is_own(own.layers[0])


def test_is_built_throughout_tells_whether_all_layers_are_built():
    assert _keras.is_built_throughout(network())
    assert not _keras.is_built_throughout(keras.Sequential([layers.Dense(2)]))


def test_losses_of_calls_are_all_but_the_penalties_of_weights():
    activity = layers.ActivityRegularization(l2=0.5)
    penalized = layers.Dense(2, kernel_regularizer="l2")
    model = around(network(), activity, penalized, shape=(6,))
    model(VECTORS)
    assert len(model.losses) == 2
    (only,) = _keras.losses_of_calls(model)
    np.testing.assert_array_equal(
        ops.convert_to_numpy(only), ops.convert_to_numpy(model.losses[0])
    )


def test_own_variables_keep_frozen_weights_and_leave_statistics_out():
    layer = layers.BatchNormalization()
    layer.build((None, 3))
    layer.trainable = False
    assert [v.name for v in _keras.own_variables(layer)] == ["gamma", "beta"]


def test_compile_arguments_are_the_live_ones():
    model, optimizer = network(), keras.optimizers.SGD(0.1)
    loss = keras.losses.MeanSquaredError()
    model.compile(optimizer, loss, metrics=["mae"], steps_per_execution=2)
    arguments = _keras.compile_arguments(model)
    assert arguments["optimizer"] is optimizer
    assert arguments["loss"] is loss
    twin = network()
    twin.compile(**arguments)
    assert twin.optimizer is optimizer
    assert twin.steps_per_execution == 2


def test_traced_functions_are_those_that_ran():
    model = network()
    assert _keras.traced_functions(model) == []
    model.compile("sgd", "mse")
    assert _keras.traced_functions(model) == []
    model.fit(VECTORS, TARGETS, verbose=0)
    assert _keras.traced_functions(model) == ["train"]
    model.evaluate(VECTORS, TARGETS, verbose=0)
    assert _keras.traced_functions(model) == ["train", "test"]
    before = model.train_function
    model.make_train_function(force=True)
    assert model.train_function is not before


def test_the_seed_outside_tensorflow_is_that_of_keras():
    if keras.backend.backend() != "tensorflow":
        pytest.skip("for TensorFlow")
    from keras_l2reg._keras.backends import tensorflow_epochs

    is_reset = hasattr(seed_generator, "GLOBAL_SEED_GENERATOR")

    def draws():
        of_keras = keras.random.normal((3,)) if is_reset else np.zeros(3)
        of_keras = keras.ops.convert_to_numpy(of_keras).tolist()
        shuffled = [*keras.utils.split_dataset(np.arange(9), 0.9, shuffle=True)[0]]
        return random.random(), np.random.random(), of_keras, list(map(int, shuffled))

    keras.utils.set_random_seed(3)
    expected = draws()
    assert draws() != expected
    tensorflow_epochs.set_seed_outside_tensorflow(3)
    assert draws() == expected


def test_epochs_on_arrays_take_the_steps_of_fit_and_evaluate():
    x, y = np.tile(VECTORS, (4, 1)), np.tile(TARGETS, (4, 1))
    model = network()
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    model.evaluate(x, y, verbose=0)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    start = [ops.convert_to_numpy(v).copy() for v in variables]
    keras.utils.set_random_seed(1)
    model.fit(x, y, batch_size=3, epochs=2, verbose=0)
    expected = model.evaluate(x, y, verbose=0, return_dict=True)
    for variable, value in zip(variables, start, strict=True):
        variable.assign(value)
    keras.utils.set_random_seed(1)
    epochs = _keras.backend.epochs(model)
    epochs.fit((x, y, None), 2, keras.callbacks.Callback(), {"batch_size": 3})
    assert epochs.evaluate((x, y, None)) == pytest.approx(expected, rel=1e-6)


def test_sync_state_updates_variables_during_an_epoch():
    seen = []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            _keras.backend.sync_state(self.model)
            kernel = self.model.get_layer("b").kernel
            seen.append(ops.convert_to_numpy(kernel).copy())

    model = network()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.fit(VECTORS, TARGETS, batch_size=2, verbose=0, callbacks=[Reader()])
    assert len(seen) == 2
    assert not np.array_equal(*seen)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA is a choice there alone")
def test_in_xla_is_true_only_in_functions_compiled_by_xla():
    import tensorflow as tf

    from keras_l2reg._keras.backends.tensorflow import in_xla

    seen = []

    def look():
        seen.append(in_xla())

    look()
    tf.function(look)()
    assert seen == [False, False]
    tf.function(look, jit_compile=True)()
    tf.function(tf.function(look), jit_compile=True)()
    assert seen[2:] == [True, True]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_in_xla_is_true_in_a_step_of_fit_compiled_by_xla(jit_compile):
    if BACKEND != "tensorflow":
        pytest.skip("XLA is a choice on TensorFlow alone")
    from keras_l2reg._keras.backends.tensorflow import in_xla

    seen = []

    class Looking(keras.Regularizer):
        def __call__(self, w):
            seen.append(in_xla())
            return ops.sum(w)

    model = network()
    model.get_layer("b").kernel.regularizer = Looking()
    model.compile("sgd", "mse", jit_compile=jit_compile)
    model.fit(VECTORS, TARGETS, verbose=0)
    assert set(seen) == {jit_compile}


def test_in_transform_is_true_in_transforms_of_torch():
    assert not _keras.backend.in_transform()
    if BACKEND != "torch":
        return
    import torch

    seen = []

    def look(w):
        seen.append(_keras.backend.in_transform())
        return w.sum()

    w = torch.ones((2, 3))
    torch.func.grad(look)(w)
    torch.func.vmap(look)(w)
    torch.func.jvp(look, (w,), (w,))
    assert seen == [True, True, True]
    look(w.requires_grad_(True)).backward()
    assert seen[3:] == [False]

    def as_seen(w):
        return w + 1.0 if _keras.backend.in_transform() else w

    compiled = torch.compile(as_seen, backend="eager", fullgraph=True)
    np.testing.assert_array_equal(compiled(torch.zeros(2)), np.ones(2))


@pytest.mark.parametrize("is_eager", [False, True], ids=["compiled", "eager"])
def test_compiled_in_fit_sees_each_steps_weights(is_eager):
    ours, theirs = [], []

    class Reader(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            ours.append(number(total()))
            _keras.backend.sync_state(self.model)
            theirs.append(number(ops.sum(kernel)))
            # In the same step, after a callback has changed a weight.
            kernel.assign(2.0 * kernel)
            ours.append(number(total()))
            theirs.append(number(ops.sum(kernel)))

    def number(tensor):
        return float(ops.convert_to_numpy(tensor))

    model = network()
    kernel = model.get_layer("b").kernel
    model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=is_eager)
    calls = []
    total = _keras.backend.compiled_in_fit(
        model, lambda: calls.append(0) or ops.sum(kernel)
    )
    model.fit(VECTORS, TARGETS, batch_size=1, verbose=0, callbacks=[Reader()])
    assert len(set(theirs)) == 2 * len(VECTORS)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    is_compiled = BACKEND != "torch" and not is_eager
    assert len(calls) == (1 if is_compiled else len(ours))


def test_only_jax_traces_constants_and_there_is_one_replica():
    assert _keras.backend.traces_constants == (keras.backend.backend() == "jax")
    assert _keras.backend.replicas() == 1


def test_decay_and_its_exclusions_are_found_within_loss_scaling():
    model = network()
    kernel = model.get_layer("b").kernel
    assert _keras.optimizer_for(model, kernel) is None
    optimizer = keras.optimizers.AdamW()
    model.compile(keras.optimizers.LossScaleOptimizer(optimizer))
    assert _keras.optimizer_for(model, kernel) is optimizer
    assert _keras.decays(optimizer, kernel)
    assert not _keras.decays(keras.optimizers.SGD(), kernel)
    optimizer.exclude_from_weight_decay([kernel])
    assert not _keras.decays(optimizer, kernel)


@pytest.mark.skipif(not hasattr(keras.optimizers, "Muon"), reason="as of Keras 3.12")
def test_decays_where_an_optimizer_has_two_rates():
    if "adam_weight_decay" not in inspect.signature(keras.optimizers.Muon).parameters:
        pytest.skip("Muon has one rate before Keras 3.13")
    model = network()
    kernel, bias = model.get_layer("b").kernel, model.get_layer("b").bias
    for matrices, others in ((0.1, None), (None, 0.1)):
        muon = keras.optimizers.Muon(weight_decay=matrices, adam_weight_decay=others)
        assert _keras.decays(muon, kernel) == (matrices is not None)
        assert _keras.decays(muon, bias) == (others is not None)


def test_exclusions_from_decay_are_not_in_the_config():
    model = network()
    kernel, bias = model.get_layer("b").kernel, model.get_layer("b").bias
    optimizer = keras.optimizers.AdamW()
    model.compile(optimizer)
    assert _keras.decays_in(model, kernel)
    assert _keras.decayed_after_loading(model, [kernel, bias]) == []
    optimizer.exclude_from_weight_decay([bias])
    assert _keras.decayed_after_loading(model, [kernel, bias]) == [bias]
    model.compile(keras.optimizers.SGD())
    assert _keras.decayed_after_loading(model, [kernel, bias]) == []


def test_adds_losses_counts_activity_regularizers_but_not_penalties():
    assert not _keras.adds_losses(network())
    activity = layers.Dense(2, activity_regularizer="l2")
    assert _keras.adds_losses(keras.Sequential([activity]))
    penalized = around(layers.Dense(2, kernel_regularizer="l2"), shape=(6,))
    assert not _keras.adds_losses(penalized)


@pytest.mark.parametrize("method", ["fit", "evaluate", "predict"])
def test_runs_with_finds_running_methods_by_name_with_their_model(method):

    class Looks(keras.callbacks.Callback):
        def look(self, *args, **kwargs):
            seen.extend(_keras.runs_with(inner))
            assert _keras.runs_with(network()) == []

        on_train_batch_end = on_test_batch_end = on_predict_batch_end = look

    seen, inner = [], network()
    outer = keras.Sequential([keras.Input((6,)), inner])
    outer.compile("sgd", "mse")
    targets = () if method == "predict" else (TARGETS,)
    getattr(outer, method)(VECTORS, *targets, verbose=0, callbacks=[Looks()])
    assert (method, outer, threading.get_ident()) in seen
    assert _keras.runs_with(inner) == []


@pytest.mark.parametrize(
    "method", ["train_on_batch", "test_on_batch", "predict_on_batch"]
)
def test_runs_with_finds_methods_for_one_batch(method):
    class Looks(layers.Layer):
        def call(self, x):
            seen.extend(_keras.runs_with(self))
            return x * self.w

        def build(self, shape):
            self.w = self.add_weight(shape=())

    seen = []
    model = keras.Sequential([keras.Input((6,)), Looks()])
    model.compile("sgd", "mse", run_eagerly=True)
    arguments = (VECTORS,) if method == "predict_on_batch" else (VECTORS, VECTORS)
    getattr(model, method)(*arguments)
    assert method in [found for found, _, _ in seen]


def test_added_losses_at_other_values_assign_nothing():
    layer = layers.Dense(
        2,
        use_bias=False,
        kernel_initializer="ones",
        kernel_regularizer="l2",
        activity_regularizer=keras.regularizers.L2(1.0),
    )
    model = around(layer, layers.Dropout(0.5), shape=(6,))
    model(VECTORS)
    before = [float(ops.convert_to_numpy(term)) for term in model.losses]
    x = ops.ones((1, 6))
    for value in (1.0, 3.0):
        changed = [(layer.kernel, value * ops.ones((6, 2)))]
        outputs, [term] = _keras.added_losses_at(model, x, changed)
        np.testing.assert_allclose(ops.convert_to_numpy(outputs), 6 * value, rtol=1e-6)
        # The sum over two units, over the one sample.
        expected = 2 * (6 * value) ** 2
        assert float(ops.convert_to_numpy(term)) == pytest.approx(expected)
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.kernel), 1.0)
    assert [float(ops.convert_to_numpy(term)) for term in model.losses] == before


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_example_inputs_have_the_shapes_and_dtypes_of_the_model():
    def shapes(model):
        return keras.tree.map_structure(
            lambda x: (x.shape, str(x.dtype)), _keras.example_inputs(model)
        )

    inputs = {"a": keras.Input((3, None)), "b": keras.Input((2,), dtype="int32")}
    outputs = {name: layers.Identity()(tensor) for name, tensor in inputs.items()}
    graph = keras.Model(inputs, outputs)
    expected = {"a": ((2, 3, 2), "float32"), "b": ((2, 2), "int32")}
    assert shapes(graph) == [expected]
    assert shapes(keras.Sequential([keras.Input((3,)), layers.ReLU()])) == [
        ((2, 3), "float32")
    ]

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    model = Own()
    assert _keras.example_inputs(model) == []
    model(VECTORS)
    assert shapes(model) == [((4, 6), "float32"), ((4, 6), "int32")]


@pytest.mark.skipif(
    not hasattr(keras.optimizers, "MultiOptimizer"), reason="as of Keras 3.15"
)
def test_optimizer_for_finds_the_one_of_several():
    model = network()
    a = model.get_layer("inner").get_layer("a").kernel
    b = model.get_layer("b").kernel
    chosen = keras.optimizers.OptimizerMap(keras.optimizers.SGD())
    chosen[a.path] = keras.optimizers.Adam()
    several = keras.optimizers.MultiOptimizer(chosen)
    for optimizer in (several, keras.optimizers.LossScaleOptimizer(several)):
        model.compile(optimizer)
        assert _keras.optimizer_for(model, a) is chosen[a.path]
        assert _keras.optimizer_for(model, b) is chosen.default_optimizer
    assert _keras.updaters(several) == several.optimizers
    sgd, adam = chosen.default_optimizer, chosen[a.path]
    made_anew = keras.optimizers.MultiOptimizer(
        lambda variable: keras.optimizers.Adam() if variable is a else sgd
    )
    made_anew.build([a, b])
    assert _keras.updater_of(made_anew, a) is _keras.updater_of(made_anew, a)
    assert _keras.updater_of(made_anew, b) is sgd
    assert _keras.updater_of(adam, b) is adam


def test_what_a_learning_rate_comes_from():
    schedule = keras.optimizers.schedules.CosineDecay(0.1, 10)
    assert _keras.learning_rate_of(keras.optimizers.SGD(schedule)) is schedule
    assert isinstance(
        _keras.learning_rate_of(keras.optimizers.SGD(0.1)), keras.Variable
    )


def test_is_update_tells_when_the_weights_change():
    assert _keras.is_update(keras.optimizers.SGD()) == 1.0
    w = keras.Variable([1.0])
    sgd = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    for _ in range(6):
        before = float(ops.convert_to_numpy(w)[0])
        expected = float(ops.convert_to_numpy(_keras.is_update(sgd)))
        sgd.apply([ops.ones(1)], [w])
        assert (float(ops.convert_to_numpy(w)[0]) != before) == bool(expected)


def test_a_decay_of_zero_is_none_while_it_is_skipped():
    adamw = keras.optimizers.AdamW(weight_decay=0.0)
    decaying = keras.optimizers.AdamW(weight_decay=0.1)
    for optimizer, within in ((adamw, None), (decaying, 0.1)):
        before = optimizer.weight_decay
        with decay_of_zero_skipped(optimizer):
            assert optimizer.weight_decay == within
        assert optimizer.weight_decay == before


def test_stop_decay_leaves_none_as_it_is():
    sgd, adamw = keras.optimizers.SGD(), keras.optimizers.AdamW()
    for optimizer in (sgd, adamw):
        _keras.stop_decay(optimizer)
    assert (sgd.weight_decay, adamw.weight_decay) == (None, 0.0)
    # `AdamW` does not accept `None`.
    type(adamw).from_config(adamw.get_config())


@pytest.mark.parametrize("is_scaled", [False, True])
def test_an_optimizer_is_exchanged_where_it_trains_and_where_it_is_saved(is_scaled):
    old, new = keras.optimizers.SGD(), keras.optimizers.Adam()
    model = network()
    model.compile(old, "mse")
    if is_scaled:  # as `compile` does for mixed precision
        model.optimizer = keras.optimizers.LossScaleOptimizer(old)
    _keras.exchange_optimizer(model, old, new)
    assert list(_keras.optimizers_within(model.optimizer))[-1] is new
    config = model.get_compile_config()
    assert config["optimizer"]["class_name"] == "Adam"
    _keras.exchange_optimizer(model, old, keras.optimizers.RMSprop())
    assert list(_keras.optimizers_within(model.optimizer))[-1] is new
    _keras.exchange_optimizer(network(), old, new)


def test_an_optimizer_around_an_optimizer_acts_before_it():
    seen = []

    class Around(_keras.OptimizerWrapper):
        def before_update(self, variables):
            seen.extend(ops.convert_to_numpy(v).tolist() for v in variables)

    w = keras.Variable([1.0])
    adam = keras.optimizers.Adam(0.1)
    around = Around(adam)
    around.apply([ops.ones(1)], [w])
    assert seen == [[1.0]] and int(adam.iterations) == int(around.iterations) == 1
    assert ops.convert_to_numpy(w) == pytest.approx([0.9], abs=1e-5)
    ids = {id(v) for v in around.variables}
    assert {id(v) for v in adam.variables} < ids


# JAX has float64 only if it is enabled.
@pytest.mark.filterwarnings("ignore:Explicitly requested dtype float64")
@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_decay_takes_the_share_of_each_variable(dtype):
    values = [np.array([1.0, -2.0]), np.array([[0.5]])]
    variables = [keras.Variable(v, dtype=dtype) for v in values]
    _keras.backend.decay(variables, ops.convert_to_tensor(0.25, "float32"))
    for variable, value in zip(variables, values, strict=True):
        found = ops.convert_to_numpy(ops.cast(variable, "float32"))
        np.testing.assert_array_equal(found, 0.75 * value)
        assert variable.dtype == dtype


def test_decay_takes_a_multiple_of_the_share():
    variable = keras.Variable([1.0, -2.0])
    _keras.backend.decay([variable], ops.convert_to_tensor(0.5), 0.25)
    assert ops.convert_to_numpy(variable).tolist() == [0.875, -1.75]


@pytest.mark.skipif(BACKEND != "torch", reason="torch's own autograd")
def test_torch_tells_how_many_tensors_have_a_memory():
    import torch

    from keras_l2reg._keras.backends.torch import _is_owned

    gradient = torch.ones(4)
    assert _is_owned(gradient)
    view = gradient.view(2, 2)
    assert not _is_owned(gradient) and not _is_owned(view)
    del view
    assert _is_owned(gradient)
    assert not _is_owned(None) and not _is_owned(gradient.to_sparse())


@pytest.mark.skipif(BACKEND != "torch", reason="torch's own autograd")
def test_torch_tells_what_becomes_of_a_gradient_and_calls_back_at_the_end():
    import torch

    w = torch.nn.Parameter(torch.ones(2))
    node = w.expand_as(w).grad_fn.next_functions[0][0]
    assert node.variable is w
    seen = []

    class Middle(torch.autograd.Function):
        @staticmethod
        def forward(context, value):
            return value.clone()

        @staticmethod
        def backward(context, upstream):
            try:
                seen.append(torch._C._will_engine_execute_node(node))
            except RuntimeError:
                seen.append("raises")
            torch.autograd.Variable._execution_engine.queue_callback(
                lambda: seen.append(None if w.grad is None else w.grad.tolist())
            )
            return upstream

    torch.autograd.grad(Middle.apply(w).sum(), w)
    Middle.apply(w).sum().backward()
    assert seen == ["raises", None, True, [1.0, 1.0]]


def test_consumers_are_operations_or_none_for_an_output():
    inputs = keras.Input((4,))
    a, b = layers.Dense(3, name="a"), layers.Dense(3, name="b")
    hidden = a(inputs)
    found = _keras.consumers(keras.Model(inputs, [b(hidden), hidden]))
    assert found[id(a)] == [b, None]
    assert found[id(b)] == [None]
    first, last = layers.Dense(3), layers.Dense(2)
    sequence = keras.Sequential([keras.Input((4,)), first, last])
    assert _keras.consumers(sequence)[id(first)] == [last]


def test_the_trainer_updates_the_loss_tracker():
    class Seen(keras.metrics.Mean):
        def update_state(self, values, sample_weight=None):
            weights.append(int(sample_weight))
            super().update_state(values, sample_weight)

    weights, model = [], network()
    model.compile("sgd", "mse", run_eagerly=BACKEND != "jax")
    model.optimizer.learning_rate = 0.0
    assert isinstance(_keras.loss_tracker(model), keras.metrics.Mean)
    expected = model.evaluate(VECTORS, TARGETS, verbose=0)
    variables = len(model.variables)
    seen = Seen(name="seen")
    _keras.set_loss_tracker(model, seen)
    model.make_test_function(force=True)
    assert _keras.loss_tracker(model) is seen and len(model.variables) == variables
    for run in (model.evaluate, model.train_on_batch):
        logs = run(VECTORS, TARGETS, **QUIET[run.__name__])
        assert logs["seen"] == pytest.approx(expected, rel=1e-5)
    assert {*weights} == {len(VECTORS)}


def test_compiled_metrics_come_first():
    model = network()
    assert _keras.compiled_metrics(model) == []
    model.own = keras.metrics.Mean(name="own")
    model.compile("sgd", "mse", metrics=["mae"])
    assert _keras.compiled_metrics(model) == model.metrics[:-1]
    assert model.metrics[-1] is model.own


def test_fresh_data_loss_leaves_the_models_own_unbuilt():
    model = network()
    model.compile("sgd", "mse")
    loss = _keras.fresh_data_loss(model)(TARGETS, model(VECTORS))
    expected = np.mean((model.predict(VECTORS, verbose=0) - TARGETS) ** 2)
    assert float(ops.convert_to_numpy(loss)) == pytest.approx(expected, rel=1e-5)
    assert not model._compile_loss.built


def test_losses_kept_restores_the_losses_of_the_last_call():
    model = around(layers.Dense(2, activity_regularizer="l2"), shape=(6,))
    model(VECTORS)
    before = [float(ops.convert_to_numpy(term)) for term in model.losses]
    with _keras.losses_kept(model):
        model(VECTORS * 2)
        assert [float(ops.convert_to_numpy(term)) for term in model.losses] != before
    assert [float(ops.convert_to_numpy(term)) for term in model.losses] == before


@never_stale_on_torch
def test_programs_finds_the_compiled_step_and_traces_it_again():
    model = network()
    model.compile("sgd", "mse")
    model.fit(VECTORS, TARGETS, batch_size=2, verbose=0)
    pairs = list(_keras.backend.programs(model, "train", (VECTORS, TARGETS)))
    assert len(pairs) == 1
    old, new = pairs[0]
    assert old and old == new()


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_a_first_trace_that_created_variables_is_not_in_use():
    import tensorflow as tf

    from keras_l2reg._keras.backends.tensorflow import _traces_in_use

    made = []

    def step(x):
        made[:] = made or [tf.Variable(2.0)]
        return x * made[0]

    makes, plain = tf.function(step), tf.function(lambda x: x * 2.0)
    for function in (makes, plain):
        function(tf.ones(()))
    assert len(makes._list_all_concrete_functions()) == 2
    [used] = _traces_in_use(makes)
    assert used is not makes._concrete_variable_creation_fn
    assert len(_traces_in_use(plain)) == 1


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.function")
def test_different_programs_of_tensorflow_are_not_equal():
    import tensorflow as tf

    from keras_l2reg._keras.backends.tensorflow import _program

    def program(function):
        step = tf.function(function).get_concrete_function(tf.ones((2,)))
        return _program(step.graph)

    a, b = tf.Variable([1.0, 2.0]), tf.Variable([1.0, 2.0])
    big = [tf.constant(np.full(10_000, value, "float32")) for value in (1.0, 2.0)]

    def loop(limit):
        def step(i, x):
            return i + 1, x * a

        return lambda x: tf.while_loop(lambda i, x: i < limit, step, (0, x))

    programs = {
        "of a": lambda x: x + a,
        "of b": lambda x: x + b,
        "of a and b": lambda x: (x * a) + b,
        "of b and a": lambda x: (x * b) + a,
        "a constant": lambda x: x * (0.1 * a),
        "another": lambda x: x * (0.2 * a),
        "the same elsewhere": lambda x: (0.1 * x) * a,
        "a captured tensor": lambda x: x + a * tf.reduce_sum(big[0]),
        "another tensor": lambda x: x + a * tf.reduce_sum(big[1]),
        "within a loop": loop(3),
        "within another": loop(4),
    }
    found = {name: program(function) for name, function in programs.items()}
    for name, function in programs.items():
        same = [other for other in found if found[other] == program(function)]
        assert same == [name]


@never_stale_on_torch
def test_stale_steps_finds_a_step_compiled_before_a_change():
    model = network()
    model.compile("sgd", "mse")
    model.fit(VECTORS, TARGETS, verbose=0)
    batch = VECTORS, TARGETS
    assert _keras.stale_steps(model, batch) == []
    model.get_layer("b").kernel.regularizer = keras.regularizers.L2(1.0)
    assert _keras.stale_steps(model, batch) == ["train"]


def test_loss_gradients_include_the_penalty():
    model = around(
        layers.Dense(2, use_bias=False, kernel_regularizer=keras.regularizers.L2(0.5)),
        shape=(6,),
    )
    model.compile("sgd", "mse")
    kernel = ops.convert_to_numpy(model.layers[-1].kernel)
    residual = VECTORS @ kernel - TARGETS
    [gradient] = _keras.loss_gradients(model, VECTORS, TARGETS)
    expected = 2 * VECTORS.T @ residual / residual.size + kernel
    np.testing.assert_allclose(gradient, expected, rtol=1e-5)


def test_penalties_of_weights_come_last_in_losses():
    # compute_loss of the wrapper splits `losses` there.
    model = around(
        layers.Dense(2, kernel_initializer="ones", kernel_regularizer="l1"),
        layers.ActivityRegularization(l2=1.0),
        shape=(6,),
    )
    model(VECTORS)
    assert len(model.losses) == 2
    assert float(ops.convert_to_numpy(model.losses[-1])) == pytest.approx(0.12)


def test_a_changed_regularizer_of_a_variable_is_in_losses():
    model = network()
    model.get_layer("b").kernel.regularizer = keras.regularizers.L2(1.0)
    assert len(model.losses) == 1
    model.get_layer("b").kernel.regularizer = None
    assert not model.losses


@pytest.mark.parametrize("kind", ["regularizer", "function"])
def test_the_check_of_a_regularizer_agrees_with_what_a_variable_accepts(kind):
    chosen = keras.regularizers.L2(1.0) if kind == "regularizer" else ops.sum
    variable = keras.Variable([1.0])
    try:
        variable.regularizer = chosen
    except ValueError:
        with pytest.raises(ValueError, match="move it into the `__call__`"):
            _keras.check_variables_accept(chosen)
    else:
        _keras.check_variables_accept(chosen)


def test_callbacks_before_one_are_known_while_keras_calls_it():
    class Nosy(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.before = _keras.callbacks_before(self)

    first, nosy, last = keras.callbacks.Callback(), Nosy(), Nosy()
    model = network()
    model.compile("sgd", "mse")
    model.fit(VECTORS, TARGETS, verbose=0, callbacks=[first, nosy, last])
    assert nosy.before == [first] and last.before == [first, nosy]
    nosy.on_train_begin()
    assert nosy.before == []


@pytest.mark.parametrize("adds", [True, False])
def test_keras_waits_after_a_batch_for_callbacks_that_add_to_its_logs(
    adds, monkeypatch
):
    class Adding(_keras.BatchLogsCallback):
        adds_to_batch_logs = adds

        def on_train_batch_end(self, batch, logs=None):
            pass

    # As on JAX; TensorFlow always waits.
    monkeypatch.setattr(callback_list.backend, "IS_THREAD_SAFE", True)
    assert keras.callbacks.CallbackList([Adding()])._async_train is not adds


@pytest.mark.parametrize(
    "attention",
    [layers.MultiHeadAttention(2, 3), layers.GroupQueryAttention(4, 2, 1)],
    ids=lambda layer: type(layer).__name__,
)
def test_attention_saves_the_regularizer_of_its_projections(attention):
    attention(SEQUENCES, SEQUENCES)
    is_private = isinstance(attention, layers.MultiHeadAttention)
    attribute = "_kernel_regularizer" if is_private else "kernel_regularizer"
    for projection in _keras.sublayers(attention)[:3]:
        kernel = _keras.regularizer_attribute("kernel", projection, attention)
        assert kernel == (attention, attribute)
    setattr(attention, attribute, keras.regularizers.L2(0.5))
    config = attention.get_config()["kernel_regularizer"]
    assert config["config"] == {"l2": 0.5}


def test_a_weight_without_an_attribute_for_its_regularizer():
    class Raising(layers.Layer):
        @property
        def kernel_regularizer(self):
            raise OSError("no file")

    assert _keras.regularizer_attribute("kernel", Raising()) == (None, None)
    dense = layers.Dense(2)
    assert _keras.regularizer_attribute("scale", dense) == (None, None)
    assert _keras.regularizer_attribute("bias", dense) == (dense, "bias_regularizer")


@pytest.mark.parametrize(
    "layer", [layers.Dense(2), layers.DepthwiseConv1D(2), layers.SeparableConv1D(2, 2)]
)
def test_the_names_of_weights_to_come_are_those_of_the_built_layer(layer):
    expected = _keras.unbuilt_names(layer, [])
    layer.build((None, 5, 6))
    assert sorted(expected) == sorted(v.name for v in layer.weights)
    assert _keras.unbuilt_names(layer, expected) == []


def test_lambdas_are_restored_on_request_only():
    config = layers.Lambda(lambda x: 2 * x).get_config()
    with _keras.deserializing(safe_mode=False):
        assert layers.Lambda.from_config({**config})(ops.ones(())) == 2
    if keras.__version__.startswith("3.12."):
        pytest.skip("Keras 3.12 restores lambdas outside of `load_model` anyway")
    with pytest.raises(ValueError, match="lambda"), _keras.deserializing(True):
        layers.Lambda.from_config({**config})


@pytest.mark.parametrize(("file", "expected"), [("m.h5", True), ("m.keras", False)])
def test_whether_keras_saves_the_legacy_format(file, expected, tmp_path):
    seen = []

    @keras.saving.register_keras_serializable(__name__)
    class Looking(keras.layers.Dense):
        def get_config(self):
            seen.append(_keras.is_saving_h5())
            return super().get_config()

    model = keras.Sequential([keras.Input((4,)), Looking(2)])
    model.save(tmp_path / file)
    assert seen and set(seen) == {expected}
    assert not _keras.is_saving_h5()


# ------------------------------------------------------ what fit does with arrays


def test_arrays_become_one_batch_as_fit_converts_them():
    x, y = np.arange(6.0).reshape(3, 2), np.array([0, 1, 1])
    batch = _keras.as_one_batch({"a": x}, y, class_weight={1: 3.0})
    inputs, targets, weights = batch
    assert inputs["a"].dtype == "float32"
    np.testing.assert_array_equal(inputs["a"], x)
    np.testing.assert_array_equal(targets, y)
    np.testing.assert_array_equal(weights, [1.0, 3.0, 3.0])
    assert _keras.are_arrays(x, None, {"a": y})
    assert not _keras.are_arrays(iter([x]))
    sparse = pytest.importorskip("scipy.sparse")
    assert not _keras.are_arrays(sparse.csr_matrix(x))


@pytest.mark.skipif(BACKEND != "jax", reason="used on JAX only")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize("steps", [None, 2])
def test_batches_are_those_of_fit(shuffle, steps):
    seen = []

    class Seen(layers.Layer):
        def call(self, x):
            # Keras also calls it symbolically.
            with contextlib.suppress(AttributeError, TypeError):
                seen.append(np.asarray(x)[:, 0].tolist())
            return x

    model = keras.Sequential([keras.Input((1,)), Seen(), layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.arange(7.0)[:, None]
    model.evaluate(x, x, verbose=0)
    seen.clear()
    keras.utils.set_random_seed(5)
    model.fit(x, x, 3, 3, shuffle=shuffle, steps_per_epoch=steps, verbose=0)
    keras.utils.set_random_seed(5)
    epochs = itertools.islice(_keras.batches(7, 3, steps, shuffle), 3)
    assert [batch.tolist() for epoch in epochs for batch in epoch] == seen


def test_a_model_is_built_for_its_metrics_without_a_compiled_step():
    model = keras.Sequential([layers.Dense(2)])
    model.compile("sgd", "mse", metrics=["mae"])
    names = _keras.build_for_metrics(model, VECTORS, TARGETS, None, 3)
    assert model.built
    assert model.test_function is None
    logs = model.evaluate(VECTORS, TARGETS, return_dict=True, verbose=0)
    assert sorted(names) == sorted(logs)


@pytest.mark.parametrize("limit", [keras.config.set_max_epochs])
def test_limits_of_fit_are_seen(limit):
    assert not _keras.is_limited_or_distributed()
    limit(1)
    try:
        assert _keras.is_limited_or_distributed()
    finally:
        limit(None)
