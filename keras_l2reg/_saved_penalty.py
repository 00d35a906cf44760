"""A wrapper whose penalty is saved with it, and in effect again once it is loaded.

>>> from keras_l2reg import L2AllWeights
>>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
>>> wrapped = L2AllWeights(model, l2=0.5)
>>> L2AllWeights.from_config(wrapped.get_config()).l2
0.5
"""

import os
from collections.abc import Mapping
from typing import Any, Self

import keras

from keras_l2reg import _keras
from keras_l2reg._decaying_model import DecayingModel
from keras_l2reg._persistence import temporary_regularizers, warn_about_lost_lora
from keras_l2reg._rule import Rule
from keras_l2reg._serialization import (
    FORMAT,
    Saved,
    configs_without,
    outcome_of,
    penalized_names,
    rule_from_config,
    rule_to_config,
    starts_of,
)
from keras_l2reg._strengths import strength_value
from keras_l2reg.weights import find_weights


class SavedPenaltyModel(DecayingModel):
    """A wrapper whose config contains its penalty, as it is in effect."""

    def save(self, filepath: str | os.PathLike, *args: Any, **kwargs: Any) -> None:
        """Save the wrapper, with its penalty: `keras.Model.save`."""
        # Before Keras opens the file, so that an earlier one is kept.
        if str(filepath).endswith((".h5", ".hdf5")):
            self._check_fits_h5()
        super().save(filepath, *args, **kwargs)

    def _check_fits_h5(self) -> None:
        state = self._wrapper_state
        if starts_of(state.attachment, find_weights(self)):
            raise ValueError(
                "Expected a wrapper without `towards_start`, as a legacy `.h5` file "
                "can't contain the starting values. Received: the wrapper "
                f"{self.name!r} with towards_start={state.towards_start}; "
                "save it as a `.keras` file"
            )

    def get_config(self) -> dict[str, Any]:
        if _keras.is_saving_h5():
            self._check_fits_h5()
        state, weights = self._wrapper_state, find_weights(self)
        with temporary_regularizers(configs_without(state.attachment, weights)):
            model: Any = keras.saving.serialize_keras_object(self.wrapped_model)
        # Only the wrapper's compile config is used; the inner model's may not load.
        model.pop("compile_config", None)
        outcome = outcome_of(state.attachment, weights) if state.is_complete else None
        warn_about_lost_lora(
            self.wrapped_model, penalized_names(outcome or []), weights
        )
        rule = {**state.rule, "existing": state.existing}
        if state.towards_start:
            rule["towards_start"] = state.towards_start
        if state.parts is not None:
            rule["regularizer"] = _parts_config(state.parts)
        return {
            "name": self.name,
            "model": model,
            **self._strength_config(),
            **self._decay_config(),
            "format": FORMAT,
            "rule": rule_to_config(self.wrapped_model, rule),
            "outcome": outcome,
            "lifted": state.attachment.is_removed,
        }

    def _strength_config(self) -> dict[str, Any]:
        if strengths := self._live_strengths():
            return {name: strength_value(v) for name, v in strengths.items()}
        regularizer: Any = self._wrapper_state.regularizer
        if regularizer is None or self._wrapper_state.parts is not None:
            return {}
        return {"regularizer": keras.regularizers.serialize(regularizer)}

    def _decay_config(self) -> dict[str, Any]:
        is_off = self._wrapper_state.weight_decay is None
        return {} if is_off else {"weight_decay": self.weight_decay}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        config = dict(config)
        model = keras.saving.deserialize_keras_object(
            config.pop("model"), custom_objects=custom_objects
        )
        saved = Saved(config.pop("outcome", None), config.pop("lifted", False))
        # In format 1, the arguments of the rule were among the others.
        names = (*Rule.__annotations__, "existing", "weight_names")
        old_rule = {name: config.pop(name) for name in names if name in config}
        # A rule without `existing` is from a version that did not warn.
        rule = {"existing": "keep", **old_rule, **config.pop("rule", {})}
        config.pop("format", None)
        rule = rule_from_config(model, rule, custom_objects)
        of_config: Any = cls
        return of_config(model, **config, **rule, _saved=saved)


def _parts_config(parts: Mapping[str, Any]) -> dict[str, Any]:
    """The configs of regularizers by globs, which are part of the rule."""
    return {
        glob: None if part is None else keras.regularizers.serialize(part)
        for glob, part in parts.items()
    }
