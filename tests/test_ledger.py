"""One truth per weight: whoever puts a penalty on, in whatever order it comes off.

The kernels are ones, so that every expected number can be worked out in the head.
"""

import gc
import weakref

import keras
import numpy as np
import pytest
from keras import layers
from small import (
    X,
    Y,
    compiled,
    mlp,
    penalty,
    sharing,
    texts_of_warnings,
    trained_penalty,
)

from keras_l2reg import L2, L2AllWeights, L2Scheduler, attach, audit, detach

BACKEND = keras.backend.backend()
# Of a strength that JAX compiles: a test of its own collects these.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This strength is a variable"),
    pytest.mark.filterwarnings("ignore:The strength '"),
]


# ------------------------------------------------------- several hands on one model


def test_detach_reaches_the_step_of_the_wrapper():
    model = mlp()
    wrapper = L2AllWeights(model, 0.5)
    assert trained_penalty(wrapper) == pytest.approx(9.0)
    detach(model)
    assert wrapper.losses == []
    assert trained_penalty(wrapper) == 0.0


def test_a_second_wrapper_is_what_the_first_trains_with_too():
    model = mlp()
    first = L2AllWeights(model, 0.5)
    assert trained_penalty(first) == pytest.approx(9.0)
    second = L2AllWeights(model, 5.0)
    assert penalty(first) == trained_penalty(first) == pytest.approx(90.0)
    second.l2 = 1.0
    assert penalty(first) == trained_penalty(first) == pytest.approx(18.0)


@pytest.mark.parametrize("first_off", [0, 1])
def test_a_wrapper_takes_off_its_own_penalty_only(first_off):
    model = mlp()
    wrappers = [L2AllWeights(model, 0.1), L2AllWeights(model, 0.2)]
    wrappers[first_off].unwrap(strip=True)
    left = wrappers[1 - first_off]
    assert penalty(model) == pytest.approx(18 * left.l2)
    assert trained_penalty(left) == pytest.approx(18 * left.l2)
    with pytest.raises(ValueError, match="no longer reaches"):
        wrappers[first_off].l2 = 1.0
    left.unwrap(strip=True)
    assert model.losses == []


def test_unwrapping_for_good_leaves_what_others_put_on():
    a, b = sharing()
    attach(a, 0.1)
    wrapper = L2AllWeights(b, 0.2, existing="add")
    wrapper.unwrap()
    assert penalty(b) == pytest.approx(0.1 * 12 + 0.2 * 15)
    detach(a)
    assert penalty(a) == pytest.approx(0.2 * 12)
    assert penalty(b) == pytest.approx(0.2 * 15)
    with pytest.raises(ValueError, match="`attach` was called"):
        detach(b)


def test_attach_over_a_wrapper_and_off_again():
    model = mlp()
    wrapper = L2AllWeights(model, 0.5)
    attach(model, 0.1)
    assert penalty(wrapper) == pytest.approx(1.8)
    with pytest.raises(ValueError, match="no longer reaches"):
        wrapper.l2 = 1.0
    detach(model)
    wrapper.l2 = 1.0
    assert penalty(wrapper) == pytest.approx(18.0)


def test_add_keeps_what_was_attached_before():
    model = attach(mlp(), 0.1)
    attach(model, 0.2, existing="add")
    assert penalty(model) == pytest.approx(0.3 * 18)
    assert detach(model).losses == []


# -------------------------------------------------------------- models that share


@pytest.mark.parametrize("existing", ["keep", "replace", "add"])
@pytest.mark.parametrize("first_off", [0, 1])
def test_models_over_one_layer_detach_in_any_order(existing, first_off):
    models = sharing()
    strengths = {"keep": (0.1, 0), "replace": (0, 0.2), "add": (0.1, 0.2)}[existing]
    attach(models[0], 0.1)
    attach(models[1], 0.2, existing=existing)
    assert penalty(models[1]) == pytest.approx(12 * sum(strengths) + 3 * 0.2)
    detach(models[first_off])
    left = strengths[1 - first_off]
    if first_off == 0 and existing == "replace":
        left = 0.2
    if first_off == 1:
        left = 0.1  # what the second replaced is back
    assert penalty(models[0]) == pytest.approx(
        12 * left + (0.6 if first_off == 1 else 0)
    )
    detach(models[1 - first_off])
    assert [model.losses for model in models] == [[], []]
    assert all(m.get_layer("shared").kernel_regularizer is None for m in models)


def test_the_outer_models_step_follows_what_is_attached_within():
    inner = mlp()
    outer = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)])
    attach(outer, 0.1, layers="dense*")  # so that the package knows it
    head = penalty(outer)
    assert trained_penalty(outer) == pytest.approx(head, rel=1e-5)
    attach(inner, 0.5)
    assert trained_penalty(outer) == pytest.approx(head + 9, rel=1e-5)
    detach(inner)
    assert trained_penalty(outer) == pytest.approx(head, rel=1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="torch is eager")
def test_the_step_of_an_outer_model_that_was_never_seen_is_found_stale():
    inner = mlp()
    outer = compiled(keras.Sequential([keras.Input((4,)), inner]))
    outer.fit(X, Y, verbose=0)
    attach(inner, 0.5)
    assert "stale-trace" in [finding.code for finding in audit(outer, X, Y)]


def test_wrappers_over_one_layer_say_which_weight_is_not_theirs():
    a, b = sharing()
    first = L2AllWeights(a, 0.1)
    with texts_of_warnings() as texts:
        second = L2AllWeights(b, 0.2)
    assert sum("shared/kernel" in text for text in texts) == 1
    second.l2 = 0.0
    assert penalty(second) == pytest.approx(12 * first.l2)
    with texts_of_warnings() as texts:
        both = L2AllWeights(b, 0.2, existing="add")
    assert not any("shared/kernel" in text for text in texts)
    assert penalty(both) == pytest.approx(12 * 0.3 + 3 * 0.2)


# ---------------------------------------------- strengths under models of other kinds


def test_a_live_strength_under_the_inner_model():
    model = compiled(mlp())
    wrapper = L2AllWeights(model, 0.5)
    with texts_of_warnings() as texts:
        assert trained_penalty(model) == pytest.approx(9.0)
    wrapper.l2 = 1.0
    assert trained_penalty(model) == pytest.approx(18.0)
    if BACKEND == "jax":
        assert any("does not track" in text for text in texts)
    else:
        assert not any("does not track" in text for text in texts)


@pytest.mark.parametrize("within", ["alone", "Scaled", "Sum"])
def test_a_strength_that_jax_compiles_is_warned_of_however_deep_it_stands(within):
    strength = keras.Variable(0.5, trainable=False)
    if within == "alone":
        model = attach(mlp(), L2(strength))
    elif within == "Scaled":
        model = attach(mlp(), L2(strength), multipliers={"*": 0.5})
    else:
        model = attach(mlp(kernel_regularizer="l1"), L2(strength), existing="add")
    with texts_of_warnings() as texts:
        trained_penalty(model)
    assert any("does not track" in t for t in texts) == (BACKEND == "jax")


class Assigning(keras.callbacks.Callback):
    def __init__(self, wrapper, strengths):
        super().__init__()
        self.wrapper, self.strengths, self.seen = wrapper, strengths, []

    def on_train_batch_begin(self, batch, logs=None):
        self.seen.append(self.wrapper.l2)
        self.wrapper.l2 = self.strengths[batch]


def test_a_strength_is_live_within_the_fit_of_an_outer_model():
    wrapper = L2AllWeights(mlp(), 0.5)
    outer = compiled(keras.Sequential([keras.Input((4,)), wrapper]))
    y = outer.predict(X, verbose=0)
    outer.fit(X, y, batch_size=4, verbose=0)
    assigning = Assigning(wrapper, [1.0, 3.0])
    logs = outer.fit(X, y, batch_size=4, verbose=0, callbacks=[assigning]).history
    assert logs["loss"] == [pytest.approx(18 * 2.0)]
    assert assigning.seen == [0.5, 1.0]
    assert wrapper.l2 == 3.0


# ----------------------------------------------- a plan that does not reach all weights


def test_a_plan_that_reaches_no_weight_is_an_error():
    model = L2AllWeights(mlp(), 0.01).unwrap()
    for call in (L2AllWeights, attach):
        with pytest.raises(ValueError, match="existing='replace'"):
            call(model, 0.5)
    wrapper = L2AllWeights(model, 0.5, existing="replace")
    wrapper.l2 = 1.0
    assert penalty(model) == pytest.approx(18.0)


@pytest.mark.parametrize("call", [L2AllWeights, attach])
def test_a_plan_that_leaves_out_some_weights_names_them_once(call):
    def output_only():
        model = mlp()
        layer = layers.Dense(1, name="out", kernel_regularizer="l2")
        return keras.Sequential([*model.layers, layer])

    for existing, said in {None: 1, "keep": 0, "replace": 0, "add": 0}.items():
        with texts_of_warnings() as texts:
            call(output_only(), 0.5, existing=existing)
        assert sum("out/kernel" in text for text in texts) == said


def test_a_loaded_model_is_not_covered_in_silence(tmp_path):
    attach(mlp(), 0.1).save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="existing='replace'"):
        attach(loaded, 0.2)


# ----------------------------------------------------------------- all or nothing


class Refusing(layers.Dense):
    """A layer whose regularizer can't be changed once it is built."""

    error = RuntimeError

    @property
    def kernel_regularizer(self):
        return vars(self).get("_own")

    @kernel_regularizer.setter
    def kernel_regularizer(self, value):
        if self.built:
            raise self.error("no")
        object.__setattr__(self, "_own", value)


class Unreadable(layers.Dense):
    """A layer that no longer tells its regularizer once it is built."""

    @property
    def kernel_regularizer(self):
        if self.built:
            raise RuntimeError("no")

    @kernel_regularizer.setter
    def kernel_regularizer(self, value):
        pass


@pytest.mark.parametrize("kind", [Refusing, Unreadable])
def test_an_attribute_that_can_not_be_used_counts_as_none(kind):
    def build():
        return keras.Sequential(
            [keras.Input((4,)), layers.Dense(3), kind(2, name="no"), layers.Dense(1)]
        )

    model = build()
    with pytest.warns(UserWarning, match="no/kernel"):
        attach(model, 0.1)
    assert len(model.losses) == 3
    audit(model)
    assert detach(model).losses == []
    assert len(L2AllWeights(build(), 0.1).losses) == 3


def test_an_error_midway_takes_everything_back(monkeypatch):
    model = attach(mlp(), 0.1)
    wrapper = L2AllWeights(model, 0.3)
    before = [v.regularizer for v in model.variables]
    config = str(model.get_config())
    setter, last = keras.Variable.regularizer, model.layers[-1].kernel

    def fails(self, value):
        if self is last and getattr(value, "l2", None) == 0.7:
            raise KeyboardInterrupt
        setter.fset(self, value)

    monkeypatch.setattr(
        keras.Variable, "regularizer", property(setter.fget, fails), raising=True
    )
    with pytest.raises(KeyboardInterrupt):
        attach(model, 0.7)
    monkeypatch.undo()
    assert [v.regularizer for v in model.variables] == before
    assert str(model.get_config()) == config
    wrapper.l2 = 1.0
    assert penalty(model) == pytest.approx(18.0)
    wrapper.unwrap(strip=True)
    assert penalty(model) == pytest.approx(1.8)
    assert detach(model).losses == []


# ------------------------------------------------------------- what the books hold


class OverLayers(keras.Model):
    """Without the graph by which Keras' own layers keep each other alive."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_the_books_keep_no_model_and_no_weight_alive():
    shared = layers.Dense(3, kernel_initializer="ones")
    model = OverLayers(shared, layers.Dense(2))
    model(X)
    wrapper = L2AllWeights(model, 0.2)
    kernel = model.parts[1].kernel
    gone = [weakref.ref(thing) for thing in (model, wrapper, kernel)]
    del model, wrapper, kernel
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    # What it put on the shared layer stays there, until somebody says otherwise.
    assert penalty(OverLayers(shared)) == pytest.approx(0.2 * 12)


def test_layers_that_left_the_model_are_given_back():
    model = attach(mlp(), 0.1)
    last = model.layers[-1]
    model.pop()
    detach(model)
    assert last.kernel.regularizer is None and last.kernel_regularizer is None


def test_equal_looking_regularizers_of_a_users_own():
    """Neither hashable nor true, but a regularizer."""

    class Own(keras.Regularizer):
        __hash__ = None

        def __eq__(self, other):
            return True

        def __len__(self):
            return 0

        def __call__(self, w):
            return keras.ops.sum(keras.ops.abs(w))

        def get_config(self):
            return {}

    from keras_l2reg import penalties

    model = attach(mlp(kernel_regularizer=Own()), 0.5, existing="add")
    assert penalty(model) == pytest.approx(18 + 9)
    assert penalties(model) == {"a/kernel": 18.0, "b/kernel": 9.0}
    detach(model)
    wrapper = L2AllWeights(mlp(), regularizer=Own())
    assert penalty(wrapper.unwrap()) == pytest.approx(18)
    assert len(penalties(model)) == 2


@pytest.mark.parametrize("call", [L2AllWeights, attach])
def test_a_model_is_walked_twice_once_to_choose_and_once_to_write(call, monkeypatch):
    from keras_l2reg import weights

    walks, inner_model = [], weights.inner_model

    def counted(model):
        walks.append(model)
        return inner_model(model)

    monkeypatch.setattr(weights, "inner_model", counted)
    monkeypatch.setattr("keras_l2reg.attachment.lost_on_save", lambda model: [])
    call(mlp(), 0.5, multipliers={"a/*": 0.5})
    assert len(walks) == 2


def test_a_subclass_of_l2_keeps_its_call():
    class Doubled(L2):
        def __call__(self, *weights):
            return 2 * super().__call__(*weights)

    wrapper = L2AllWeights(mlp(), regularizer=Doubled(0.5))
    assert penalty(wrapper) == pytest.approx(18.0)
    assert trained_penalty(wrapper) == pytest.approx(18.0)
    assert penalty(wrapper.unwrap()) == pytest.approx(18.0)


def test_a_strength_that_is_a_users_variable_stays_that_variable():
    strength = keras.Variable(0.5)
    wrapper = L2AllWeights(mlp(), regularizer=L2(strength))
    wrapper.compile(keras.optimizers.SGD(0.1), "mse")
    wrapper.fit(X, Y, verbose=0)
    assert float(keras.ops.convert_to_numpy(strength)) == 0.5  # it is not trained
    wrapper.compile(keras.optimizers.SGD(0.0), "mse")
    logs = wrapper.fit(X, Y, verbose=0).history
    strength.assign(1.0)
    again = wrapper.fit(X, Y, verbose=0).history
    np.testing.assert_allclose(again["penalty"][0], 2 * logs["penalty"][0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The configuration of")
def test_an_attribute_called_wrapped_model_is_a_users_own():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.wrapped_model = mlp()
            self.head = layers.Dense(2, kernel_initializer="ones")

        def call(self, x):
            return self.head(self.wrapped_model(x))

    model = Own()
    model(X)
    assert penalty(attach(model, 0.5)) == pytest.approx(0.5 * (12 + 6 + 4))
    detach(model)
    assert penalty(L2AllWeights(model, 0.5)) == pytest.approx(0.5 * (12 + 6 + 4))


def test_a_scheduler_of_a_wrapper_within_another_model_is_refused():
    wrapper = L2AllWeights(mlp(), 0.5)
    outer = compiled(keras.Sequential([keras.Input((4,)), wrapper]))
    with pytest.raises(ValueError, match="Expected a model wrapped"):
        outer.fit(X, Y, verbose=0, callbacks=[L2Scheduler(lambda epoch: 0.1)])
