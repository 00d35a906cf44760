"""Penalties put on and removed by several models and wrappers, in any order.

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

from keras_l2reg import L2, L2AllWeights, StrengthScheduler, attach, audit, detach

BACKEND = keras.backend.backend()
# A test below is about these warnings of JAX; in the others they are expected.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This strength is a variable"),
    pytest.mark.filterwarnings("ignore:The strength '"),
]


# ------------------------------------------------- several attachments to one model


def test_detach_resets_the_compiled_step_of_the_wrapper():
    model = mlp()
    wrapper = L2AllWeights(model, 0.5)
    assert trained_penalty(wrapper) == pytest.approx(9.0)
    detach(model)
    assert wrapper.losses == []
    assert trained_penalty(wrapper) == 0.0


def test_a_second_wrapper_replaces_the_penalty_of_the_first():
    model = mlp()
    first = L2AllWeights(model, 0.5)
    assert trained_penalty(first) == pytest.approx(9.0)
    second = L2AllWeights(model, 5.0)
    assert penalty(first) == trained_penalty(first) == pytest.approx(90.0)
    second.l2 = 1.0
    assert penalty(first) == trained_penalty(first) == pytest.approx(18.0)


@pytest.mark.parametrize("first_off", [0, 1])
def test_unwrapping_one_of_two_wrappers_leaves_the_penalty_of_the_other(first_off):
    model = mlp()
    wrappers = [L2AllWeights(model, 0.1), L2AllWeights(model, 0.2)]
    wrappers[first_off].unwrap(strip=True)
    left = wrappers[1 - first_off]
    assert penalty(model) == pytest.approx(18 * left.l2)
    assert trained_penalty(left) == pytest.approx(18 * left.l2)
    with pytest.raises(ValueError, match="`l2` has no effect"):
        wrappers[first_off].l2 = 1.0
    left.unwrap(strip=True)
    assert model.losses == []


def test_unwrapping_leaves_what_attach_put_on_a_shared_layer():
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


def test_a_wrapper_is_live_again_once_what_was_attached_over_it_is_detached():
    model = mlp()
    wrapper = L2AllWeights(model, 0.5)
    attach(model, 0.1)
    assert penalty(wrapper) == pytest.approx(1.8)
    with pytest.raises(ValueError, match="`l2` has no effect"):
        wrapper.l2 = 1.0
    detach(model)
    wrapper.l2 = 1.0
    assert penalty(wrapper) == pytest.approx(18.0)


def test_attaching_with_add_keeps_what_was_attached_before():
    model = attach(mlp(), 0.1)
    attach(model, 0.2, existing="add")
    assert penalty(model) == pytest.approx(0.3 * 18)
    assert detach(model).losses == []


# -------------------------------------------------------------- models that share


@pytest.mark.parametrize("existing", ["keep", "replace", "add"])
@pytest.mark.parametrize("first_off", [0, 1])
def test_models_that_share_a_layer_detach_in_any_order(existing, first_off):
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
        left = 0.1  # what the second had replaced is restored
    assert penalty(models[0]) == pytest.approx(
        12 * left + (0.6 if first_off == 1 else 0)
    )
    detach(models[1 - first_off])
    assert [model.losses for model in models] == [[], []]
    assert all(m.get_layer("shared").kernel_regularizer is None for m in models)


def test_attaching_to_an_inner_model_resets_the_step_of_the_outer_model():
    inner = mlp()
    outer = keras.Sequential([keras.Input((4,)), inner, layers.Dense(2)])
    attach(outer, 0.1, layers="dense*")  # so that the package knows the outer model
    head = penalty(outer)
    assert trained_penalty(outer) == pytest.approx(head, rel=1e-5)
    attach(inner, 0.5)
    assert trained_penalty(outer) == pytest.approx(head + 9, rel=1e-5)
    detach(inner)
    assert trained_penalty(outer) == pytest.approx(head, rel=1e-5)


@pytest.mark.skipif(BACKEND == "torch", reason="torch is eager")
def test_audit_finds_the_stale_step_of_an_outer_model_never_attached_to():
    inner = mlp()
    outer = compiled(keras.Sequential([keras.Input((4,)), inner]))
    outer.fit(X, Y, verbose=0)
    attach(inner, 0.5)
    assert "stale-trace" in [finding.code for finding in audit(outer, X, Y)]


def test_a_second_wrapper_names_the_shared_weight_that_it_does_not_reach():
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


# ------------------------------------------------- strengths trained by other models


def test_training_the_inner_model_follows_the_live_strength():
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
def test_jax_warns_of_an_untracked_strength_however_deeply_nested(within):
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


def test_a_strength_is_live_during_the_fit_of_an_outer_model():
    wrapper = L2AllWeights(mlp(), 0.5)
    outer = compiled(keras.Sequential([keras.Input((4,)), wrapper]))
    y = outer.predict(X, verbose=0)
    outer.fit(X, y, batch_size=4, verbose=0)
    assigning = Assigning(wrapper, [1.0, 3.0])
    logs = outer.fit(X, y, batch_size=4, verbose=0, callbacks=[assigning]).history
    assert logs["loss"] == [pytest.approx(18 * 2.0)]
    assert assigning.seen == [0.5, 1.0]
    assert wrapper.l2 == 3.0


# ------------------------------------------------- weights that are not reached


def test_reaching_no_weight_is_an_error():
    model = L2AllWeights(mlp(), 0.01).unwrap()
    for call in (L2AllWeights, attach):
        with pytest.raises(ValueError, match="existing='replace'"):
            call(model, 0.5)
    wrapper = L2AllWeights(model, 0.5, existing="replace")
    wrapper.l2 = 1.0
    assert penalty(model) == pytest.approx(18.0)


@pytest.mark.parametrize("call", [L2AllWeights, attach])
def test_weights_that_are_not_reached_are_named_once(call):
    def output_only():
        model = mlp()
        layer = layers.Dense(1, name="out", kernel_regularizer="l2")
        return keras.Sequential([*model.layers, layer])

    for existing, said in {None: 1, "keep": 0, "replace": 0, "add": 0}.items():
        with texts_of_warnings() as texts:
            call(output_only(), 0.5, existing=existing)
        assert sum("out/kernel" in text for text in texts) == said


def test_attaching_to_a_loaded_model_that_was_attached_to_is_an_error(tmp_path):
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
    """A layer whose regularizer can't be read once it is built."""

    @property
    def kernel_regularizer(self):
        if self.built:
            raise RuntimeError("no")

    @kernel_regularizer.setter
    def kernel_regularizer(self, value):
        pass


@pytest.mark.parametrize("kind", [Refusing, Unreadable])
def test_a_layer_whose_attribute_can_not_be_used_has_its_penalty_all_the_same(kind):
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


def test_after_an_error_midway_everything_is_as_before(monkeypatch):
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


# ------------------------------------------------------------- what is remembered


class OverLayers(keras.Model):
    """A model without a graph, by which layers would keep each other alive."""

    def __init__(self, *parts):
        super().__init__()
        self.parts = list(parts)

    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x


def test_attachments_keep_no_model_and_no_weight_alive():
    shared = layers.Dense(3, kernel_initializer="ones")
    model = OverLayers(shared, layers.Dense(2))
    model(X)
    wrapper = L2AllWeights(model, 0.2)
    kernel = model.parts[1].kernel
    gone = [weakref.ref(thing) for thing in (model, wrapper, kernel)]
    del model, wrapper, kernel
    gc.collect()
    assert [reference() for reference in gone] == [None] * 3
    # What it put on the shared layer stays there.
    assert penalty(OverLayers(shared)) == pytest.approx(0.2 * 12)


def test_detach_also_restores_layers_popped_from_the_model():
    model = attach(mlp(), 0.1)
    last = model.layers[-1]
    model.pop()
    detach(model)
    assert last.kernel.regularizer is None and last.kernel_regularizer is None


def test_a_regularizer_may_be_falsy_unhashable_and_equal_to_everything():

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
def test_a_model_is_walked_only_once(call, monkeypatch):
    from keras_l2reg import weights

    walks, inner_model = [], weights.inner_model

    def counted(model):
        walks.append(model)
        return inner_model(model)

    monkeypatch.setattr(weights, "inner_model", counted)
    monkeypatch.setattr("keras_l2reg.attachment.lost_on_save", lambda *_: [])
    call(mlp(), 0.5, multipliers={"a/*": 0.5})
    assert len(walks) == 1


def test_a_subclass_of_l2_is_called_and_not_replaced():
    class Doubled(L2):
        def __call__(self, *weights):
            return 2 * super().__call__(*weights)

    wrapper = L2AllWeights(mlp(), regularizer=Doubled(0.5))
    assert penalty(wrapper) == pytest.approx(18.0)
    assert trained_penalty(wrapper) == pytest.approx(18.0)
    assert penalty(wrapper.unwrap()) == pytest.approx(18.0)


def test_a_variable_given_as_strength_is_used_and_not_trained():
    strength = keras.Variable(0.5)
    wrapper = L2AllWeights(mlp(), regularizer=L2(strength))
    assert all(variable is not strength for variable in wrapper.trainable_variables)
    wrapper.compile(keras.optimizers.SGD(0.1), "mse")
    wrapper.fit(X, Y, verbose=0)
    assert float(keras.ops.convert_to_numpy(strength)) == 0.5  # it is not trained
    wrapper.compile(keras.optimizers.SGD(0.0), "mse")
    logs = wrapper.fit(X, Y, verbose=0).history
    strength.assign(1.0)
    again = wrapper.fit(X, Y, verbose=0).history
    np.testing.assert_allclose(again["penalty"][0], 2 * logs["penalty"][0], rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The configuration of")
def test_a_model_may_have_an_attribute_called_wrapped_model():
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
        outer.fit(X, Y, verbose=0, callbacks=[StrengthScheduler(lambda epoch: 0.1)])
