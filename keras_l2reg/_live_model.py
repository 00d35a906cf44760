"""A wrapped model whose strengths, `l2` and `l1`, can be read and set at any time.

>>> from keras_l2reg import L2AllWeights
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> wrapped = L2AllWeights(model, l2=0.01, l1=0.001)
>>> wrapped.l1 = 0.002
>>> wrapped.l2, wrapped.l1
(0.01, 0.002)
"""

from typing import Any

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._live_strength import check_representable
from keras_l2reg._loss_split import SplitLossModel
from keras_l2reg._serialization import starts_of
from keras_l2reg._strengths import check_strength, strength_value
from keras_l2reg._validation import check_number
from keras_l2reg._wrapper_state import WrapperState
from keras_l2reg.regularizers import L1L2, L2
from keras_l2reg.weights import find_weights

# The names of the strengths, by the class of the regularizer that reads them.
_NAMES = {L2: ("l2",), L1L2: ("l2", "l1")}
# The names of the strengths in a file.
_KEYS = {"l2": "0", "l1": "l1"}


class LiveStrengthModel(SplitLossModel):
    """A wrapper with live strengths, which are saved with the weights."""

    _wrapper_state: WrapperState

    @property
    def l2(self) -> float:
        """The strength of L2, on the scale of Keras; assign to change it."""
        return self._read_strength("l2")

    @l2.setter
    def l2(self, value: float) -> None:
        self._assign_strength("l2", value)

    @property
    def l1(self) -> float:
        """The strength of L1, on the scale of Keras; assign to change it."""
        return self._read_strength("l1")

    @l1.setter
    def l1(self, value: float) -> None:
        self._assign_strength("l1", value)

    def _read_strength(self, name: str) -> float:
        strength = self._require_strength(name)
        self._sync_state()
        return strength_value(strength)

    def _assign_strength(self, name: str, value: float) -> None:
        number = self._checked_strength(name, value)
        self._sync_state()
        self._require_strength(name).assign(number)
        if _keras.backend.traces_constants:
            self._reset_models_with_constant()

    def _checked_strength(self, name: str, value: Any) -> float:
        """A value for a strength as a float; an error if it can't be assigned."""
        strength = self._require_strength(name)
        number = strength_value(check_strength(value, name))
        # The value of a variable was not checked yet.
        return check_representable(check_number(number, name), name, strength.dtype)

    def _live_strengths(self) -> dict[str, keras.Variable]:
        """The variables of the live strengths by name; empty if there are none."""
        regularizer = self._wrapper_state.regularizer
        names = _NAMES.get(type(regularizer), ())
        return {name: getattr(regularizer, name) for name in names}

    def _require_strength(self, name: str = "l2") -> keras.Variable:
        """The variable of a strength; an error if it is missing or has no effect."""
        strengths = self._live_strengths()
        if not strengths:
            state = self._wrapper_state
            raise ValueError(
                f"Expected a wrapper with an {name.upper()} strength. Received: a "
                f"wrapper with regularizer={state.parts or state.regularizer!r}; "
                "assign to the variable of its strength, if it has one, or wrap with "
                f"`{name}=0.01`"
            )
        if name not in strengths:
            raise ValueError(
                f"Expected a wrapper with an {name.upper()} strength. Received: a "
                f"wrapper with {' and '.join(strengths)} only; wrap the model again: "
                f"`L2AllWeights(model, l2={strength_value(strengths['l2'])}, "
                f"{name}=0.0)`"
            )
        if not self._wrapper_state.attachment.reaches_a_weight():
            raise ValueError(
                "Expected a wrapper whose penalty is in effect. Received: one whose "
                "penalty was removed or replaced, by `unwrap`, `detach`, `attach` or "
                f"another wrapper, so its `{name}` has no effect. Use the "
                "wrapper that replaced it, or wrap the model again: "
                "`L2AllWeights(model, l2)`"
            )
        return strengths[name]

    def _sync_state(self) -> None:
        for model in (self, *self._wrapper_state.outer_models):
            _keras.backend.sync_state(model)

    def _reset_models_with_constant(self) -> None:
        """Make models that do not track the wrapper's state compile its new values."""
        state = self._wrapper_state
        for model in state.attachment.models - {self, *state.outer_models}:
            _keras.reset_compiled_steps(model)

    def save_own_variables(self, store: Any) -> None:
        for key, variable in self._own_state().items():
            store[key] = ops.convert_to_numpy(variable)

    def load_own_variables(self, store: Any) -> None:
        # The file of a bare model has none of these; then the current ones stay.
        for key, variable in self._own_state().items():
            if key in store.keys():  # noqa: SIM118
                variable.assign(store[key])
        if _keras.backend.traces_constants:
            self._reset_models_with_constant()

    def _own_state(self) -> dict[str, keras.Variable]:
        """The variables of the penalty by their names in a file."""
        strengths = {_KEYS[name]: v for name, v in self._live_strengths().items()}
        starts = starts_of(self._wrapper_state.attachment, find_weights(self))
        return strengths | {f"start_{n}": start for n, start in starts.items()}
