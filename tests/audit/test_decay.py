"""The optimizer's weight decay, and how it treats a penalty."""

import keras
import pytest
from audit_helpers import codes, compiled, data, mlp, regularized, where
from keras import layers

from keras_l2reg import L2AllWeights, set_weight_decay
from keras_l2reg._audit.decay import describe_optimizer

# double-decay


def test_penalty_and_weight_decay_on_the_same_weights():
    decaying = keras.optimizers.SGD(weight_decay=0.01)
    assert where(compiled(regularized(), decaying), "double-decay") == [
        "hidden/kernel",
        "out/kernel",
    ]
    assert where(compiled(regularized(), "sgd"), "double-decay") == []
    assert where(compiled(mlp(), "adamw"), "double-decay") == []
    assert where(compiled(mlp("l1", "l1"), "adamw"), "double-decay") == []


def test_weights_excluded_from_weight_decay_are_not_decayed_twice():
    model = regularized()
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_list=[model.get_layer("out").kernel])
    assert where(compiled(model, optimizer), "double-decay") == ["hidden/kernel"]
    optimizer = keras.optimizers.AdamW()
    optimizer.exclude_from_weight_decay(var_names=["kernel"])
    assert where(compiled(model, optimizer), "double-decay") == []


def test_double_decay_with_loss_scaling():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW())
    assert "double-decay" in codes(compiled(regularized(), scaled))


def test_penalty_of_strength_zero_is_not_double_decay():
    wrapped = compiled(L2AllWeights(mlp(), l2=0.0), "adamw")
    assert where(wrapped, "double-decay") == []
    wrapped.l2 = 0.1
    assert where(wrapped, "double-decay") == ["hidden/kernel", "out/kernel"]


# decays-bias-or-norm, and exclusions that saving loses


def normalized():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="d"),
            layers.BatchNormalization(name="bn"),
            layers.Dense(2, name="out"),
        ]
    )


BIASES_AND_NORMS = ["d/bias", "bn/gamma", "bn/beta", "out/bias"]
DECAYING = {
    "adamw": keras.optimizers.AdamW,
    "sgd": lambda: keras.optimizers.SGD(weight_decay=0.1),
    "lion": lambda: keras.optimizers.Lion(weight_decay=0.1),
    "scaled": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW()),
    # Muon passes biases and scales on to an Adam that has its own decay.
    "muon": lambda: keras.optimizers.Muon(weight_decay=None, adam_weight_decay=0.1),
}


@pytest.mark.parametrize("optimizer", DECAYING)
def test_weight_decay_of_biases_and_normalizations(optimizer, tmp_path):
    model = compiled(normalized(), DECAYING[optimizer]())
    assert where(model, "decays-bias-or-norm") == BIASES_AND_NORMS
    set_weight_decay(model.optimizer, model, 0.1)
    model.fit(*data(), verbose=0)
    model.save(tmp_path / "model.keras")
    for sound in (model, keras.saving.load_model(tmp_path / "model.keras")):
        assert where(sound, "decays-bias-or-norm") == []
        assert where(sound, "lost-on-save") == []


def test_biases_that_are_decayed_on_purpose_are_no_finding():
    model = compiled(normalized(), keras.optimizers.AdamW())
    set_weight_decay(model.optimizer, model, 0.1, biases=True)
    assert where(model, "decays-bias-or-norm") == []
    # The inner optimizer does not know what was chosen.
    model.optimizer.inner_optimizer.weight_decay = 0.1
    assert where(model, "decays-bias-or-norm") == BIASES_AND_NORMS


def test_penalty_and_the_decay_of_set_weight_decay():
    model = compiled(regularized(), "adam")
    optimizer = set_weight_decay(model.optimizer, model, 0.1, exclude="out/*")
    assert where(model, "double-decay") == ["hidden/kernel"]
    optimizer.weight_decay = 0.0
    assert where(model, "double-decay") == []
    assert where(model, "coupled-adaptive") == ["hidden/kernel", "out/kernel"]


def test_decay_instead_of_a_penalty_is_regularization():
    model = compiled(mlp(), "adam")
    assert "no-penalty" in codes(model)
    set_weight_decay(model.optimizer, model, 0.1)
    assert codes(model) == []


def test_the_optimizer_in_a_line():
    model = compiled(normalized(), "sgd")
    assert describe_optimizer(normalized()) is None
    assert describe_optimizer(model) == "Optimizer: SGD, no weight decay."
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.AdamW())
    compiled(model, scaled)
    of_all = "Optimizer: AdamW, weight_decay=0.004 on 6 of 6 trained weights."
    assert describe_optimizer(model) == of_all
    set_weight_decay(scaled, model, 0.1, couple="independent")
    assert describe_optimizer(model) == (
        "Optimizer: AdamW, weight_decay=0.1, couple='independent', on 2 of 6 trained "
        "weights."
    )


def test_optimizers_without_weight_decay_are_not_reported():
    for optimizer in ("sgd", "adam", keras.optimizers.SGD(weight_decay=0.0)):
        model = compiled(normalized(), optimizer)
        assert where(model, "decays-bias-or-norm") == where(model, "lost-on-save") == []
    muon = keras.optimizers.Muon(adam_weight_decay=None)
    assert where(compiled(normalized(), muon), "decays-bias-or-norm") == []
    frozen = normalized()
    frozen.trainable = False
    assert where(compiled(frozen, "adamw"), "decays-bias-or-norm") == []


def test_saving_loses_exclusions_from_weight_decay(tmp_path):
    x, y = data()
    model = compiled(normalized(), keras.optimizers.AdamW())
    model.optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    model.fit(x, y, verbose=0)
    assert where(model, "lost-on-save") == BIASES_AND_NORMS
    assert where(model, "decays-bias-or-norm") == []
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert where(loaded, "lost-on-save") == []
    assert where(loaded, "decays-bias-or-norm") == BIASES_AND_NORMS


@keras.saving.register_keras_serializable("test_audit")
class KernelsOnly(keras.optimizers.AdamW):
    """An optimizer that excludes biases in its constructor, so in every copy."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])


def test_exclusions_made_by_the_optimizers_constructor_are_not_lost():
    model = compiled(normalized(), KernelsOnly())
    assert where(model, "decays-bias-or-norm") == where(model, "lost-on-save") == []


# coupled-adaptive


@pytest.mark.parametrize("optimizer", ["adam", "nadam", "rmsprop", "adagrad", "lion"])
def test_l2_penalty_with_an_adaptive_optimizer(optimizer):
    model = compiled(L2AllWeights(mlp()), optimizer)
    assert where(model, "coupled-adaptive") == ["hidden/kernel", "out/kernel"]


def test_sgd_or_l1_or_no_optimizer_is_not_coupled_adaptive():
    momentum = keras.optimizers.SGD(momentum=0.9, nesterov=True)
    assert where(compiled(regularized(), momentum), "coupled-adaptive") == []
    assert where(compiled(mlp("l1", "l1"), "adam"), "coupled-adaptive") == []
    assert where(regularized(), "coupled-adaptive") == []
