"""A wrapper whose optimizer also decays the weights that its rule covers.

>>> from keras_l2reg import L2AllWeights
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> wrapped = L2AllWeights(model, weight_decay=0.05)
>>> wrapped.compile("adam", "mse")
>>> wrapped.weight_decay = 0.1
>>> wrapped.optimizer.weight_decay, wrapped.losses
(0.1, [])
"""

from typing import Any

import keras

from keras_l2reg import _keras
from keras_l2reg._decay import WeightDecayOptimizer
from keras_l2reg._decay_rule import check_rate
from keras_l2reg._live_model import LiveStrengthModel
from keras_l2reg.optimizers import decay_rows, rows_for


class DecayingModel(LiveStrengthModel):
    """A wrapper with a live weight decay, which acts in its optimizer.

    The wrapper remembers the rate; once it is compiled, the optimizer has it.
    """

    # While it is loaded, its optimizer has the decay already.
    _is_decay_loaded = False

    @property
    def weight_decay(self) -> float:
        """The rate of the decoupled weight decay; assign to change it."""
        remembered = self._require_strength("weight_decay")
        optimizer = self._decaying_optimizer()
        if optimizer is None:
            return remembered
        self._sync_state()
        return optimizer.weight_decay

    @weight_decay.setter
    def weight_decay(self, value: float) -> None:
        rate = self._checked_strength("weight_decay", value)
        optimizer = self._decaying_optimizer()
        if optimizer is not None:
            self._sync_state()
            optimizer.weight_decay = rate
        self._wrapper_state.weight_decay = rate

    def _require_strength(self, name: str = "l2") -> Any:
        if name != "weight_decay":
            return super()._require_strength(name)
        if self._wrapper_state.weight_decay is None:
            raise ValueError(
                "Expected a wrapper with weight decay. Received: one without; wrap the "
                "model again: `L2AllWeights(model, weight_decay=0.01)`, or set the "
                "rate of its optimizer"
            )
        return self._wrapper_state.weight_decay

    def _checked_strength(self, name: str, value: Any) -> float:
        if name != "weight_decay":
            return super()._checked_strength(name, value)
        self._require_strength(name)
        return check_rate(value)

    def _strength_variables(self) -> list[keras.Variable]:
        """The variables of all live strengths."""
        decaying = self._decaying_optimizer()
        rates = [] if decaying is None else [decaying._rate]
        return [*self._live_strengths().values(), *rates]

    def _decaying_optimizer(self) -> WeightDecayOptimizer | None:
        """The part of the optimizer that decays; `None` if it is not compiled."""
        for optimizer in _keras.optimizers_within(getattr(self, "optimizer", None)):
            if isinstance(optimizer, WeightDecayOptimizer):
                return optimizer
        return None

    def compile(self, *args: Any, **kwargs: Any) -> None:
        super().compile(*args, **kwargs)
        rate, decaying = self._wrapper_state.weight_decay, self._decaying_optimizer()
        if rate is not None and decaying is not None and not self._is_decay_loaded:
            decaying.weight_decay = rate
        self._update_decay()

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile from a saved config, whose optimizer has the decay already."""
        self._is_decay_loaded = True
        try:
            super().compile_from_config(config)
        finally:
            self._is_decay_loaded = False

    def _update_decay(self) -> None:
        """Let the optimizer decay the weights that exist now, as the rule says.

        Within a step, in which the last weights are created, the optimizer can't be
        exchanged, but told which weights to decay.
        """
        state = self._wrapper_state
        optimizer: Any = getattr(self, "optimizer", None)
        is_loaded = self._is_decay_loaded and self._decaying_optimizer() is not None
        if state.weight_decay is None or optimizer is None or is_loaded:
            return
        rows = rows_for(self, **state.rule) if state.is_complete else []
        decaying = self._decaying_optimizer()
        if decaying is None:
            decay_rows(optimizer, self, state.weight_decay, rows)
        else:
            decaying.set_multipliers(rows)

    def _without_decay(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Arguments for `compile` with the optimizer as it was before."""
        optimizer: Any = arguments.get("optimizer")
        if self._wrapper_state.weight_decay is None:
            return arguments
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            within = optimizer.inner_optimizer
            if isinstance(within, WeightDecayOptimizer):
                optimizer.inner_optimizer = within.release()
        elif isinstance(optimizer, WeightDecayOptimizer):
            optimizer = optimizer.release()
        return {**arguments, "optimizer": optimizer}
