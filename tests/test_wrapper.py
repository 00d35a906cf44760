"""A wrapper is used as its inner model is, with the same results: Keras is the oracle.

Each method is called on a bare model and on its wrapped twin, at strength 0; results
and shapes must be the same.
"""

import inspect
import io
import itertools
import pathlib
import re

import keras
import numpy as np
import pytest
from keras import layers, ops
from small import X, Y, compiled, mlp, penalty, texts_of_warnings

from keras_l2reg import L2AllWeights, L2Loss, attach, l2_path
from keras_l2reg._keras import overridden, trainer_members
from keras_l2reg._wrapper import MAY_BE_OVERRIDDEN

BACKEND = keras.backend.backend()
OWN_KEYS = {"data_loss", "penalty", "val_data_loss", "val_penalty"}


def functional():
    x = keras.Input((4,), name="x")
    hidden = layers.Dense(3, name="a", kernel_initializer="ones")(x)
    return keras.Model(x, layers.Dense(2, name="b", kernel_initializer="ones")(hidden))


@keras.saving.register_keras_serializable(__name__)
class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.a = layers.Dense(3, name="a", kernel_initializer="ones")
        self.drop = layers.Dropout(0.5, seed=1, name="drop")
        self.b = layers.Dense(2, name="b", kernel_initializer="ones")

    def call(self, x, training=False):
        return self.b(self.drop(self.a(x), training=training))


def subclassed():
    model = Subclassed()
    model(X)
    return model


BUILDS = [mlp, functional, subclassed]


def twins(build, **compile_arguments):
    """A bare model, and the wrapper around its twin."""
    bare, wrapped = build(), L2AllWeights(build(), 0.0)
    for model in (bare, wrapped):
        keras.utils.set_random_seed(0)
        compiled(model, **compile_arguments)
    return bare, wrapped


def assert_same(expected, received):
    """Both have the same structure and values; a dict may have our two keys as well."""
    if isinstance(expected, dict):
        assert set(received) - OWN_KEYS == set(expected)
        for key in expected:
            assert_same(expected[key], received[key])
        return
    assert type(expected) is type(received)
    if isinstance(expected, (list, tuple)):
        assert len(expected) == len(received)
        for one, other in zip(expected, received, strict=True):
            assert_same(one, other)
    elif isinstance(expected, (str, type(None), bool)):
        assert expected == received
    else:
        one, other = map(ops.convert_to_numpy, (expected, received))
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)


# ------------------------------------------------------------ methods side by side

METRICS = {
    "none": {},
    "one": {"metrics": ["mae"]},
    "two": {"metrics": ["mae"], "weighted_metrics": ["mse"]},
}
METHODS = {
    "fit": lambda m: m.fit(X, Y, verbose=0, epochs=2).history,
    "fit_validated": lambda m: (
        m.fit(X, Y, verbose=0, validation_data=(X, Y), shuffle=False).history
    ),
    "evaluate": lambda m: m.evaluate(X, Y, verbose=0),
    "evaluate_dict": lambda m: m.evaluate(X, Y, verbose=0, return_dict=True),
    "train_on_batch": lambda m: m.train_on_batch(X, Y),
    "train_on_batch_dict": lambda m: m.train_on_batch(X, Y, return_dict=True),
    "test_on_batch": lambda m: m.test_on_batch(X, Y),
    "test_on_batch_dict": lambda m: m.test_on_batch(X, Y, return_dict=True),
    "metrics_names": lambda m: [m.evaluate(X, Y, verbose=0), m.metrics_names][1],
    "get_metrics_result": lambda m: [
        m.evaluate(X, Y, verbose=0),
        m.get_metrics_result(),
    ][1],
    "reset_metrics": lambda m: [
        m.evaluate(X, Y, verbose=0),
        m.reset_metrics(),
        m.get_metrics_result(),
    ][2],
}
WITHOUT_LOSS = {
    "predict": lambda m: m.predict(X, verbose=0),
    "predict_on_batch": lambda m: m.predict_on_batch(X),
    "call": lambda m: m(X),
    "call_in_training": lambda m: [keras.utils.set_random_seed(0), m(X, training=True)][
        1
    ],
    "compute_loss": lambda m: m.compute_loss(X, Y, m(X)),
    "losses": lambda m: [loss for loss in m.losses if float(loss)],
    "get_weights": lambda m: m.get_weights(),
    "weights": lambda m: [v.name for v in m.weights],
    "trainable_weights": lambda m: [v.name for v in m.trainable_weights],
    "trainable_variables": lambda m: [v.name for v in m.trainable_variables],
    "non_trainable_weights": lambda m: [v.name for v in m.non_trainable_weights],
    "set_weights": lambda m: [
        m.set_weights([2 * w for w in m.get_weights()]),
        m.predict(X, verbose=0),
    ][1],
    "count_params": lambda m: m.count_params(),
    "layers": lambda m: [layer.name for layer in m.layers],
    "get_layer": lambda m: m.get_layer("a").units,
    "get_layer_by_index": lambda m: m.get_layer(index=-1).units,
    "compute_output_shape": lambda m: (
        list(m.compute_output_shape((None, 4)))
        if not isinstance(getattr(m, "wrapped_model", m), Subclassed)
        else None
    ),
    "compute_output_spec": lambda m: list(
        m.compute_output_spec(keras.KerasTensor((5, 4))).shape
    ),
    "symbolic_call": lambda m: list(m(keras.Input((4,))).shape),
    "summary": lambda m: summary(m),
    "supports_masking": lambda m: m.supports_masking,
    "dtype": lambda m: [m.dtype, m.compute_dtype, m.variable_dtype],
    "trainable": lambda m: m.trainable,
    "built": lambda m: m.built,
    "compiled": lambda m: [m.compiled, m.run_eagerly, m.steps_per_execution],
    "state_tree": lambda m: sorted(flatten(m.get_state_tree()["trainable_variables"])),
}


def summary(model):
    text = io.StringIO()
    model.summary(print_fn=lambda line, **_: text.write(line))
    return text.getvalue().split("Total params")[0].split("\n", 1)[1:]


def flatten(tree, prefix=""):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}/{key}")
        else:
            # Without the name that Keras made up for the model.
            yield f"{prefix}/{key}".split("/", 2)[-1]


def methods_on_models():
    """Every method with all metrics and models; a plain run takes one of three."""
    combinations = itertools.product(METHODS, METRICS, BUILDS)
    for number, (method, metrics, build) in enumerate(combinations):
        # 9 a method: another third of them for the next.
        is_plain = (number + number // 9) % 3 == 0
        marks = () if is_plain else pytest.mark.slow
        name = f"{method}-{metrics}-{build.__name__}"
        yield pytest.param(method, metrics, build, marks=marks, id=name)


@pytest.mark.parametrize(("method", "metrics", "build"), [*methods_on_models()])
def test_a_method_gives_what_the_bare_model_gives(method, metrics, build):
    if build is not mlp and metrics != "two":
        pytest.skip("the same code")
    results = []
    for model in twins(build, **METRICS[metrics]):
        keras.utils.set_random_seed(0)
        results.append(METHODS[method](model))
    assert_same(*results)
    if isinstance(results[1], dict):
        is_validated = "val_loss" in results[0]
        expected = OWN_KEYS if is_validated else {"data_loss", "penalty"}
        assert set(results[1]) - set(results[0]) == expected


@pytest.mark.parametrize("build", BUILDS)
def test_a_method_without_a_loss_gives_what_the_bare_model_gives(build):
    for method, call in WITHOUT_LOSS.items():
        bare, wrapped = twins(build)
        try:
            assert_same(call(bare), call(wrapped))
        except Exception as error:
            raise AssertionError(method) from error


def test_several_outputs_by_name():
    def build():
        x = keras.Input((4,), name="x")
        ends = {n: layers.Dense(1, name=n)(x) for n in ("left", "right")}
        return keras.Model(x, ends)

    bare, wrapped = twins(build, metrics={"left": ["mae"]})
    wrapped.set_weights(bare.get_weights())
    y = {"left": Y[:, :1], "right": Y[:, :1]}
    for return_dict in (False, True):
        results = [
            m.evaluate(X, y, verbose=0, return_dict=return_dict)
            for m in (bare, wrapped)
        ]
        assert_same(*results)
    assert wrapped.output_names == bare.output_names
    assert wrapped.metrics_names == bare.metrics_names


# -------------------------------------------------- what a user's class may override


def overriding(name):
    """A model whose class overrides one member, by the same as Keras has."""
    original = inspect.getattr_static(keras.Model, name)
    if isinstance(original, property):
        return type("Own", (keras.Sequential,), {name: property(original.fget)})

    def own(self, *args, **kwargs):
        return getattr(super(cls, self), name)(*args, **kwargs)

    cls = type("Own", (keras.Sequential,), {name: own})
    return cls


# Those that a wrapper would silently ignore.
REFUSED = [
    *("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics"),
    *("compile", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch"),
    *("predict_on_batch", "make_train_function", "make_test_function"),
    *("make_predict_function", "metrics", "metrics_names", "reset_metrics"),
    *("get_metrics_result", "get_compile_config", "compile_from_config"),
    *("stateless_compute_loss", "stateless_call", "losses", "trainable_variables"),
    *("trainable_weights", "non_trainable_variables", "save", "get_state_tree"),
]


@pytest.mark.parametrize("name", REFUSED)
def test_an_override_that_would_be_ignored_is_refused_and_attach_accepts_it(name):
    model = overriding(name)(mlp().layers)
    before = vars(model).keys()
    with pytest.raises(ValueError, match=rf"'{name}'.*attach"):
        L2AllWeights(model, 0.5)
    assert vars(model).keys() == before
    assert penalty(attach(model, 0.5)) == pytest.approx(9.0)


def test_overrides_of_all_trainer_members_are_refused():
    """New members of Keras' trainers are refused until somebody has a look."""
    public = {name for name in dir(keras.Model) if name[0] != "_"}
    assert set(REFUSED) <= public | trainer_members()
    assert not MAY_BE_OVERRIDDEN & trainer_members()


def test_the_docs_name_all_overrides_that_are_refused_or_accepted():
    page = pathlib.Path(__file__).parent.parent / "docs" / "differs.md"
    named = set(re.findall(r"`(\w+)`", page.read_text()))
    assert set(REFUSED) <= named
    public = {name for name in trainer_members() if name[0] != "_"}
    state = {"loss", "run_eagerly", "jit_compile"}
    of_backend = {"distribute_strategy", "distribute_reduction_method"}
    of_backend |= {"compiled_loss", "compiled_metrics", "jax_state_sync"}
    of_backend |= {"compute_loss_and_updates"}
    assert public - state - of_backend <= named
    kinds = {"dtype", "dtype_policy", "compute_dtype", "variable_dtype", "input_dtype"}
    inner = {"quantized_build", "quantized_call", "rematerialized_call", "path"}
    inner |= {"built", "supports_masking", "input", "output", "input_spec"}
    inner |= {"quantization_mode", "add_variable"}
    assert MAY_BE_OVERRIDDEN - kinds - inner <= named


def test_a_method_set_on_the_model_itself_counts_as_an_override():
    model = mlp()
    model.predict_step = lambda *args: 0
    with pytest.raises(ValueError, match="predict_step"):
        L2AllWeights(model)


@pytest.mark.parametrize("build", BUILDS)
def test_models_of_keras_itself_override_nothing(build):
    model = build()
    model.compile("sgd", loss=keras.losses.mean_squared_error)
    model.fit(X, Y, verbose=0)
    assert overridden(model) - MAY_BE_OVERRIDDEN == set()
    assert overridden(keras.applications.MobileNet(weights=None)) == set()


class Preprocessing(keras.Sequential):
    """Like the task models of a library: takes raw data and scales it itself."""

    def fit(self, x=None, *args, **kwargs):
        return super().fit(x / 255, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        return super().predict(x / 255, *args, **kwargs)


def test_l2_path_refuses_a_model_whose_fit_preprocesses_the_data():
    task = Preprocessing(mlp().layers)
    task.compile("sgd", "mse")
    with pytest.raises(ValueError, match="'fit'"):
        l2_path(task, X * 255, Y, [0.1, 0.2], (X, Y), verbose=0)
    assert penalty(attach(task, 0.5)) == pytest.approx(9.0)


class PlainTask(keras.Model):
    """A task model that does not override them."""

    def __init__(self):
        super().__init__()
        self.backbone = mlp()
        self.head = layers.Dense(2)

    def call(self, x):
        return self.head(self.backbone(x))

    def generate(self, n):
        return [n] * n


def test_a_task_model_with_keras_own_trainer_is_accepted():
    wrapped = compiled(L2AllWeights(PlainTask(), 0.1))
    wrapped.fit(X, Y, verbose=0)
    assert len(wrapped.losses) == 3
    assert wrapped.generate(2) == [2, 2]


ACCEPTED = {
    "get_config": lambda self: {**keras.Model.get_config(self), "extra": 1},
    "count_params": lambda self: 42,
    "weights": property(lambda self: self.layers[0].weights),
    "compute_output_shape": lambda self, shape: (None, 99),
    "get_layer": lambda self, *args, **kwargs: "mine",
    "summary": lambda self, *args, **kwargs: "mine",
    "export": lambda self, *args, **kwargs: "mine",
    "quantize": lambda self, *args, **kwargs: "mine",
    "get_quantization_layer_structure": lambda self, mode=None: "mine",
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_an_accepted_override_is_called(name):
    model = type("Own", (Subclassed,), {name: ACCEPTED[name]})()
    model(X)
    wrapped = L2AllWeights(model, 0.5)
    calls = {
        "get_config": lambda m: m.get_config().get("model", m.get_config()),
        "weights": lambda m: [v.path for v in m.weights],
        "compute_output_shape": lambda m: m.compute_output_shape((None, 4)),
        "get_layer": lambda m: m.get_layer("a"),
        "get_quantization_layer_structure": lambda m: (
            m.get_quantization_layer_structure("gptq")
        ),
        "quantize": lambda m: m.quantize("int8"),
    }
    call = calls.get(name, lambda m: getattr(m, name)())
    if name == "get_config":
        assert call(wrapped)["config"]["extra"] == 1
    elif name == "quantize":
        call(wrapped)
        assert len(wrapped.losses) == 2  # Keras' own would have taken both kernels
    else:
        assert call(wrapped) == call(model)


# ----------------------------------------------------------------- metrics and names


@pytest.mark.skipif(BACKEND == "jax", reason="Keras on JAX fails on the bare model")
def test_a_metric_created_by_the_model_is_logged_and_reset():
    @keras.saving.register_keras_serializable(__name__)
    class Seeing(keras.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.dense = layers.Dense(2)
            self.seen = keras.metrics.Sum(name="seen")

        def call(self, x):
            self.seen.update_state(ops.ones(()))
            return self.dense(x)

    bare, wrapped = twins(Seeing, metrics=["mae"])
    for model in (bare, wrapped):
        keras.utils.set_random_seed(0)
        model.dense.build((None, 4))
        model.set_weights([np.ones((4, 2)), np.zeros(2)])
    results = [m.fit(X, Y, epochs=3, verbose=0).history for m in (bare, wrapped)]
    assert_same(*results)
    assert_same(*(m.evaluate(X, Y, verbose=0) for m in (bare, wrapped)))
    assert wrapped.metrics_names == bare.metrics_names


CLASHES = {
    "a metric": (mlp, {"metrics": [keras.metrics.MeanSquaredError(name="penalty")]}),
    "a weighted metric": (
        mlp,
        {"weighted_metrics": [keras.metrics.MeanSquaredError(name="data_loss")]},
    ),
    "metrics by output": (
        mlp,
        {"metrics": {"b": [keras.metrics.MeanSquaredError(name="penalty")]}},
    ),
}


@pytest.mark.parametrize("kind", CLASHES)
def test_a_metric_named_like_a_part_of_the_loss_is_refused_by_compile(kind):
    build, arguments = CLASHES[kind]
    wrapped = L2AllWeights(build(), 0.5)
    with pytest.raises(ValueError, match=r"'(penalty|data_loss)'"):
        compiled(wrapped, **arguments)
    assert not wrapped.compiled
    model = compiled(build(), **arguments)
    with pytest.raises(ValueError, match=r"'(penalty|data_loss)'"):
        L2AllWeights(model, 0.5)
    assert model.losses == []


def test_an_output_that_would_be_logged_as_data_loss_is_refused():
    x = keras.Input((4,))
    ends = {"data": layers.Dense(1, name="data")(x), "b": layers.Dense(1)(x)}
    wrapped = L2AllWeights(keras.Model(x, ends), 0.5)
    with pytest.raises(ValueError, match="'data_loss'"):
        wrapped.compile("sgd", "mse")
    # A single output is not logged by its name.
    single = keras.Model(x, layers.Dense(2, name="data")(x))
    compiled(L2AllWeights(single, 0.5)).fit(X, Y, verbose=0)


def test_an_output_whose_name_is_known_by_the_first_call_is_refused_then():
    class Telling(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2)

        def call(self, x):
            return {"data": self.dense(x), "other": self.dense(x)}

    wrapped = L2AllWeights(Telling(), 0.5)
    with pytest.raises(ValueError, match="'data_loss'"):
        wrapped.compile("sgd", {"data": "mse", "other": "mse"})
    wrapped.compile("sgd", "mse")
    with pytest.raises(ValueError, match="Expected"):
        wrapped.fit(X, {"data": Y, "other": Y}, verbose=0)


@pytest.mark.parametrize("monitor", ["val_data_loss", "val_penalty", "data_loss"])
def test_callbacks_know_that_lower_parts_of_the_loss_are_better(monitor, tmp_path):
    wrapped = L2AllWeights(mlp(), 0.5)
    wrapped.compile(keras.optimizers.SGD(0.01), "mse")
    stop = keras.callbacks.EarlyStopping(monitor)
    plateau = keras.callbacks.ReduceLROnPlateau(monitor)
    best = keras.callbacks.ModelCheckpoint(
        tmp_path / "best.keras", monitor=monitor, save_best_only=True
    )
    wrapped.fit(
        X,
        Y,
        epochs=2,
        verbose=0,
        validation_data=(X, Y),
        callbacks=[stop, plateau, best],
    )
    assert stop.monitor_op(1.0, 2.0) and not stop.monitor_op(2.0, 1.0)
    assert (tmp_path / "best.keras").exists()


# --------------------------------------------------- attributes of the inner model


@keras.saving.register_keras_serializable(__name__)
class Tempered(Subclassed):
    """A model with an attribute, a property and a method."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.temperature = 2.0
        self._secret = 1

    @property
    def sharpness(self):
        return 1 / self.temperature

    @sharpness.setter
    def sharpness(self, value):
        self.temperature = 1 / value

    def heated(self, by):
        return self.temperature + by


def test_public_attributes_are_read_and_set_on_the_inner_model():
    model = Tempered()
    wrapped = L2AllWeights(model, 0.5)
    assert (wrapped.temperature, wrapped.sharpness, wrapped.heated(1.0)) == (2, 0.5, 3)
    wrapped.temperature = 4.0
    assert model.temperature == 4.0 and "temperature" not in vars(wrapped)
    wrapped.sharpness = 0.5
    assert model.temperature == 2.0
    wrapped.note = "mine"
    assert not hasattr(model, "note")
    assert wrapped.a is model.a
    for name in ("nothing", "_secret"):
        with pytest.raises(AttributeError, match="wrapped_model"):
            getattr(wrapped, name)


def test_training_a_wrapper_sets_no_attributes_of_the_inner_model():
    """Fails if Keras sets other attributes one day, which `_TRAINING_STATE` lacks."""
    model = mlp()
    model.compile("sgd", "mse")
    model.fit(X, Y, verbose=0, validation_data=(X, Y))
    model.predict(X, verbose=0)
    before = dict(vars(model))
    wrapped = L2AllWeights(model, 0.5)
    wrapped.fit(X, Y, verbose=0, validation_data=(X, Y))
    wrapped.predict(X, verbose=0)
    public = {name for name in before if name[0] != "_"}
    changed = {name for name in public if vars(model)[name] is not before[name]}
    assert changed <= {"train_function", "test_function"}  # compiled again
    assert wrapped.history is not model.history


def test_layers_added_and_popped_by_the_wrapper_gain_and_lose_the_penalty(tmp_path):
    wrapped = compiled(L2AllWeights(mlp(), 0.5))
    wrapped.fit(X, Y, verbose=0)
    popped = wrapped.pop()
    assert popped.kernel.regularizer is None
    assert penalty(wrapped) == pytest.approx(6.0)
    wrapped.add(layers.Dense(2, kernel_initializer="ones", name="c"))
    assert penalty(wrapped) == pytest.approx(9.0)
    compiled(wrapped)
    y = wrapped.predict(X, verbose=0)
    logs = wrapped.fit(X, y, verbose=0).history
    assert logs["penalty"] == [pytest.approx(9.0)]
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert penalty(loaded) == pytest.approx(9.0)
    wrapped.l2 = 1.0
    assert penalty(wrapped) == pytest.approx(18.0)


# ------------------------------------------------------------- calls of all kinds


def test_time_distributed_around_a_wrapper():
    stacked = keras.Sequential(
        [keras.Input((3, 4)), layers.TimeDistributed(L2AllWeights(mlp(), 0.5))]
    )
    assert stacked.output_shape == (None, 3, 2)
    assert penalty(stacked) == pytest.approx(9.0)


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_further_arguments_of_a_call_reach_the_inner_model():
    class Several(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(2, kernel_initializer="ones")

        def call(self, x, scale, shift=0.0, mask=None, training=None):
            scaled = self.dense(x) * scale + shift
            return scaled if mask is None else scaled * 0

    model = Several()
    expected = model(X, 2.0 * np.ones(()), shift=1.0, training=True)
    wrapped = L2AllWeights(model, 0.5)
    assert_same(expected, wrapped(X, 2.0 * np.ones(()), shift=1.0, training=True))
    assert_same(
        model(X, np.ones(()), mask=np.ones(8)), wrapped(X, np.ones(()), mask=np.ones(8))
    )
    with pytest.raises(TypeError):
        wrapped(X)


def test_masks_reach_and_leave_the_inner_model():
    def build():
        tokens = keras.Input((5,), dtype="int32")
        embedded = layers.Embedding(7, 4, mask_zero=True)(tokens)
        return keras.Model(tokens, layers.LSTM(3, return_sequences=True)(embedded))

    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    bare, wrapped = build(), L2AllWeights(build(), 0.0)
    wrapped.set_weights(bare.get_weights())
    assert_same(bare(tokens), wrapped(tokens))
    assert_same(bare(tokens)._keras_mask, wrapped(tokens)._keras_mask)
    with texts_of_warnings() as texts:
        keras.Sequential([keras.Input((5,)), wrapped, layers.LSTM(2)])
    assert not any("mask" in text for text in texts)


def test_clone_model_with_a_clone_function_works_on_the_inner_model_only():
    wrapped = L2AllWeights(mlp(), 0.5)
    assert penalty(keras.models.clone_model(wrapped)) > 0
    with pytest.raises(ValueError, match="Sequential models or Functional models"):
        keras.models.clone_model(wrapped, clone_function=lambda layer: layer)
    inner = keras.models.clone_model(
        wrapped.wrapped_model, clone_function=lambda layer: layer
    )
    assert inner.layers[0] is wrapped.layers[0]


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter")
@pytest.mark.skipif(BACKEND != "tensorflow", reason="TFLite converts TensorFlow")
def test_tflite_converts_the_wrapper():
    import tensorflow as tf

    wrapped = L2AllWeights(mlp(), 0.5)
    wrapped.predict(X, verbose=0)
    content = tf.lite.TFLiteConverter.from_keras_model(wrapped).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    assert list(interpreter.get_output_details()[0]["shape"])[-1] == 2


@pytest.mark.parametrize("regularizer", [L2Loss(0.5), "l1"])
def test_a_model_wrapped_during_its_training_keeps_its_optimizer(regularizer):
    model = mlp()
    model.compile(keras.optimizers.Adam(0.1), "mse")
    model.fit(X, Y, verbose=0)
    wrapped = L2AllWeights(model, regularizer=regularizer)
    wrapped.fit(X, Y, verbose=0)
    assert int(ops.convert_to_numpy(wrapped.optimizer.iterations)) == 2
    inner = wrapped.unwrap(strip=True)
    inner.fit(X, Y, verbose=0)
    assert int(ops.convert_to_numpy(inner.optimizer.iterations)) == 3
    assert isinstance(inner.optimizer, keras.optimizers.Adam)
