"""WeightDecayOptimizer: decoupled weight decay around any optimizer.

It decays before the inner optimizer's step, as Keras and torch do, and only where that
updates the weights: once per accumulated gradient, and not where loss scaling skips a
step.

>>> optimizer = WeightDecayOptimizer(
...     keras.optimizers.Adam(0.1), 0.01, [["dense/kernel", 1.0], ["dense/bias", 0.0]])
>>> optimizer.weight_decay = 0.02
>>> optimizer.weight_decay, optimizer.couple
(0.02, 'lr')
"""

import operator
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._decay_rows import Row
from keras_l2reg._decay_rule import Couple, DecayRule, Groups, check_rate
from keras_l2reg._strengths import strength_value
from keras_l2reg.weights import listed

# Where the learning rate has been 0 so far, its share of the highest one is 0.
_TINY = 1e-30


@keras.saving.register_keras_serializable(package="keras_l2reg")
class WeightDecayOptimizer(_keras.OptimizerWrapper):
    """An optimizer that decays the weights before another one updates them.

    `w -= learning_rate * weight_decay * multiplier * w`, then the inner optimizer's
    step

    `set_weight_decay` makes it, and the config contains it: `load_model` restores it
    once `keras_l2reg` is imported. Everything else is as with the inner optimizer,
    whose hyperparameters are at `inner_optimizer`.

    Args:
        inner_optimizer: The `keras.optimizers.Optimizer` that updates the weights. Its
            own weight decay is set to 0.
        weight_decay: Finite float >= 0.
        multipliers: List of `[path, multiplier]`, with the path of a variable and a
            finite float >= 0; variables that are not in it are not decayed.
        couple: `"lr"`, `"independent"` or `"corrected"`, as in `set_weight_decay`.
            Defaults to `"lr"`.
        max_learning_rate: As in `set_weight_decay`. Defaults to `None`.
        name: String. Defaults to `None`, an automatic name.

    Raises:
        TypeError, ValueError: an invalid argument.

    Example:

    >>> optimizer = WeightDecayOptimizer(
    ...     keras.optimizers.SGD(0.1), 0.5, [["w", 1.0]])
    >>> w = keras.Variable([1.0, 2.0], name="w")
    >>> optimizer.apply([keras.ops.zeros(2)], [w])
    >>> keras.ops.convert_to_numpy(w).round(3).tolist()
    [0.949999988079071, 1.899999976158142]
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        weight_decay: float,
        multipliers: Iterable[Row],
        couple: Couple = "lr",
        max_learning_rate: float | None = None,
        name: str | None = None,
    ):
        _check_inner(inner_optimizer)
        weight_decay = check_rate(weight_decay)
        rule = DecayRule(inner_optimizer, multipliers, couple, max_learning_rate)
        super().__init__(inner_optimizer, name)
        wide = keras.config.floatx() == "float64"
        self._dtype = "float64" if wide else "float32"
        self._rate = self._add_scalar("weight_decay", weight_decay)
        self._rule = rule
        # A tuple, since Keras tracks what is in a list.
        self._replaced = tuple(_keras.stop_decay(inner_optimizer))

    @property
    def weight_decay(self) -> float:
        """The rate, which compiled steps read again at each step."""
        return strength_value(self._rate)

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        # Keras' constructor sets it to `None`, before there is a variable.
        if "_rate" in vars(self):
            self._rate.assign(check_rate(value))

    @property
    def couple(self) -> Couple:
        """How the decay depends on the learning rate."""
        return self._rule.couple

    def set_decay(
        self,
        weight_decay: float,
        multipliers: Iterable[Row],
        couple: Couple = "lr",
        max_learning_rate: float | None = None,
    ) -> None:
        """Replace the rate, which weights are decayed, and how; see the constructor.

        Steps that were compiled before use only the new rate.
        """
        weight_decay = check_rate(weight_decay)
        self._rule = DecayRule(
            self.inner_optimizer, multipliers, couple, max_learning_rate
        )
        self.weight_decay = weight_decay
        if self.built:
            self._find_multipliers()
            for peak, start in zip(self._peaks, self._rule.peaks, strict=False):
                peak.assign(start if max_learning_rate else ops.maximum(peak, start))

    def release(self) -> keras.optimizers.Optimizer:
        """The inner optimizer, with the weight decay that it had before."""
        for optimizer, name, rate in self._replaced:
            setattr(optimizer, name, rate)
        return self.inner_optimizer

    def set_multipliers(self, multipliers: Iterable[Row]) -> None:
        """Replace only the multipliers; allowed while a step is being traced."""
        old = self._rule
        self._rule = DecayRule(
            self.inner_optimizer, multipliers, old.couple, old.max_learning_rate
        )
        if self.built:
            self._find_multipliers()

    def build(self, var_list: Sequence[keras.Variable]) -> None:
        if self.built:
            return
        super().build(var_list)
        # A `MultiOptimizer` may know its optimizers only now.
        self._replaced += tuple(_keras.stop_decay(self.inner_optimizer))
        self._find_multipliers()
        updaters = _keras.updaters(self.inner_optimizer)
        unknown = [0.0] * (len(updaters) - len(self._rule.peaks))
        self._peaks = tuple(
            self._add_scalar("max_learning_rate", start)
            for start in [*self._rule.peaks, *unknown]
        )

    def _add_scalar(self, name: str, value: float) -> keras.Variable:
        initializer: Any = keras.initializers.Constant(value)
        return self.add_variable(
            shape=(),
            initializer=initializer,
            dtype=self._dtype,
            aggregation="only_first_replica",
            name=name,
        )

    def _find_multipliers(self) -> None:
        found = self._rule.multipliers_of(self._trainable_variables)
        unknown = [
            v.path
            for v, multiplier in zip(self._trainable_variables, found, strict=True)
            if multiplier is None
        ]
        if unknown:
            warnings.warn(
                "These variables are not decayed, since the model did not have them "
                f"when `set_weight_decay` was called: {listed(unknown)}. Call it "
                "again: `set_weight_decay(optimizer, model, rate)`",
                stacklevel=2,
            )
        self._multipliers = tuple(multiplier or 0.0 for multiplier in found)

    def before_update(self, variables: Sequence[keras.Variable]) -> None:
        updaters = _keras.updaters(self.inner_optimizer)
        shares = [
            self._share(updater, peak)
            for updater, peak in zip(updaters, self._peaks, strict=True)
        ]
        for (index, multiplier), members in self._groups(variables).items():
            _keras.backend.decay(members, shares[index], multiplier)

    def _groups(self, variables: Sequence[keras.Variable]) -> Groups:
        """The variables to decay, by the index of their updater and their multiplier.

        Those of the last step are kept, since eager steps repeat the same variables.
        """
        known, groups = self._rule.last_groups
        if len(known) == len(variables) and all(map(operator.is_, known, variables)):
            return groups
        updaters = _keras.updaters(self.inner_optimizer)
        index_of = {id(updater): index for index, updater in enumerate(updaters)}
        groups = {}
        for variable in variables:
            multiplier = self._multipliers[self._get_variable_index(variable)]
            if multiplier and self.is_updated(variable):
                updater = _keras.updater_of(self.inner_optimizer, variable)
                key = index_of[id(updater)], multiplier
                groups.setdefault(key, []).append(variable)
        self._rule.last_groups = [*variables], groups
        return groups

    def _share(self, updater: Any, peak: keras.Variable) -> Any:
        """The share of a weight with multiplier 1 that this step takes."""
        share: Any = self._rate
        is_update = _keras.is_update(updater)
        if is_update is not True:
            share = share * ops.cast(is_update, self._dtype)
        if self.couple == "lr":
            return ops.multiply(share, updater.learning_rate)
        learning_rate: Any = ops.cast(updater.learning_rate, self._dtype)
        highest: Any = ops.maximum(peak, learning_rate)
        peak.assign(highest)
        share = share * (learning_rate / ops.maximum(highest, _TINY))
        return share * learning_rate if self.couple == "corrected" else share

    def exclude_from_weight_decay(self, var_list=None, var_names=None):
        raise ValueError(
            "Expected the weights that are not decayed as arguments of "
            "`set_weight_decay`. Received: a call of `exclude_from_weight_decay`; "
            "write set_weight_decay(optimizer, model, rate, exclude=[...])"
        )

    def _use_weight_decay(self, variable: keras.Variable) -> bool:
        index = self.index_of(variable)
        if index is None:
            return bool(self._rule.multipliers_of([variable])[0])
        return bool(self._multipliers[index])

    def get_config(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "inner_optimizer": keras.saving.serialize_keras_object(
                self.inner_optimizer
            ),
            "weight_decay": self.weight_decay,
            "multipliers": [[path, m] for path, m in self._rule.rows],
            "couple": self.couple,
            "max_learning_rate": self._rule.max_learning_rate,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        inner = keras.saving.deserialize_keras_object(
            config["inner_optimizer"], custom_objects=custom_objects
        )
        return cls(**{**config, "inner_optimizer": inner})


def _check_inner(optimizer: Any) -> None:
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "Expected an optimizer without loss scaling, which has to be around the "
            f"decay. Received: {optimizer!r}; write "
            "LossScaleOptimizer(WeightDecayOptimizer(...)), or call `set_weight_decay`"
        )
    if isinstance(optimizer, WeightDecayOptimizer):
        raise ValueError(
            "Expected an optimizer without weight decay around it. "
            f"Received: {optimizer!r}; call `set_weight_decay` to change the decay"
        )
