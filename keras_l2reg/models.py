"""L2AllWeights: wraps a model, with an L2 penalty on every kernel.

>>> model = keras.Sequential(
...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
>>> wrapped = L2AllWeights(model, l2=0.01)
>>> wrapped.compile("sgd", "mse")
>>> x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 2))
>>> logs = wrapped.fit(x, y, verbose=0).history
>>> sorted(logs)
['data_loss', 'loss', 'penalty']
>>> wrapped.l2 = 0.003  # applies to the next step, without retracing
"""

from collections.abc import Callable
from typing import Any

import keras

from keras_l2reg import _keras, _ledger
from keras_l2reg._builtin import builtin_converter
from keras_l2reg._decay_rule import check_rate
from keras_l2reg._live_strength import DEFAULT_L2, Strengths, regularizer_from
from keras_l2reg._loss_split import check_logged_names
from keras_l2reg._persistence import warn_about_builtin_limits
from keras_l2reg._plan import (
    Plan,
    RegularizerLike,
    check_existing,
    regularizer_for,
    warn_if_kept,
)
from keras_l2reg._rule import Existing, Patterns, Rule
from keras_l2reg._saved_penalty import SavedPenaltyModel
from keras_l2reg._serialization import Saved
from keras_l2reg._stack import Attachment
from keras_l2reg._validation import check_towards_start
from keras_l2reg._wrapper import check_inner_model
from keras_l2reg._wrapper_state import WrapperState
from keras_l2reg.weights import Weight, find_weights


@keras.saving.register_keras_serializable(package="keras_l2reg")
class L2AllWeights(SavedPenaltyModel):
    """Wrap a model to train it with an L2 penalty on every kernel.

    `loss = data_loss + penalty`,
    `penalty = sum_k multiplier_k * (l2 * sum(w_k**2) + l1 * sum(|w_k|))`

    The model is shared, not copied: training the wrapper trains the model. The wrapper
    is used like the model: it has the public attributes and methods of the model, and
    the same weights files. The logs of `fit`, and results as a dict, also contain
    `data_loss` and `penalty`.

    Args:
        model: A `keras.Model`, built or not, compiled or not.
        l2: Finite float >= 0, on the scale of Keras; live, and saved with the weights.
            `beta * tf.nn.l2_loss` is `l2=beta / 2`. Leave it out if you pass a
            `regularizer`. Defaults to `0.01`.
        l1: Finite float >= 0, on the scale of Keras; live, and saved, as `l2`. Use
            `0.0` for one to set later. Gradient steps make no weight exactly zero;
            `print_penalties` shows the share near zero. Defaults to `None`, no L1.
        weight_decay: Finite float >= 0: decoupled weight decay of the same weights, as
            `keras_l2reg.set_weight_decay` does it in the optimizer that the wrapper is
            compiled with; live, and saved. Without `l2`, `l1` or `regularizer`, it
            replaces the penalty. Defaults to `None`, none.
        regularizer: Instead of `l2` and `l1`, any Keras regularizer, its name or
            config. An `L2`, `L2Loss`, `L1L2`, `keras.regularizers.L2` or `L1L2` has
            live strengths as well. A strength that is a `keras.Variable` is used as it
            is, and not trained. Or a dict from globs over weight names, as in
            `keras_l2reg.attach`. Defaults to `None`.
        biases, embeddings, layers, exclude, multipliers, existing: Which weights, as
            in `keras_l2reg.attach`.
        towards_start: A glob over weight names, a layer class, a list of these, or
            `True` for all: the penalty of these weights is on `w - w0`, the distance
            from their values when wrapped, such as pretrained ones. `w0` is saved with
            the wrapper; a clone starts from its own weights. Weights that are created
            later have a penalty on `w`, or none if they are LoRA's. Defaults to
            `False`, none.
        name: String, the wrapper's name. Defaults to `None`.

    Raises:
        TypeError, ValueError: an invalid argument, a model that is or contains a
            wrapper, or one that overrides parts of the Keras trainer, such as
            `train_step`, `compute_loss` or `fit` (use `attach` for these).

    Example:

    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> wrapped = L2AllWeights(model, l2=0.5)
    >>> len(wrapped.losses), wrapped.l2
    (1, 0.5)

    References:
        - Krogh & Hertz, [A Simple Weight Decay Can Improve Generalization](
          https://proceedings.neurips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html),
          NIPS 1991.
        - Li, Grandvalet & Davoine, [Explicit Inductive Bias for Transfer Learning with
          Convolutional Networks](https://proceedings.mlr.press/v80/li18a.html),
          ICML 2018 (`towards_start`).
    """

    _is_keras_l2reg_wrapper = True

    def __init__(
        self,
        model: keras.Model,
        l2: float = DEFAULT_L2,
        *,
        l1: float | None = None,
        weight_decay: float | None = None,
        regularizer: RegularizerLike | None = None,
        biases: bool = False,
        embeddings: bool = False,
        layers: Patterns | None = None,
        exclude: Patterns | None = None,
        multipliers: dict[str, float] | None = None,
        existing: Existing | None = None,
        towards_start: Patterns | bool = False,
        name: str | None = None,
        _saved: Saved | None = None,
    ):
        check_inner_model(model)
        check_existing(existing)
        if model.compiled:
            check_logged_names(model, **_keras.compile_arguments(model))
        rule = Rule(
            biases=biases,
            embeddings=embeddings,
            layers=layers,
            exclude=exclude,
            multipliers=multipliers,
        )
        chosen = regularizer_from(l2, l1, regularizer, weight_decay)
        towards = check_towards_start(towards_start, model)
        state = WrapperState(model, chosen, rule, existing, towards, _saved)
        state.weight_decay = None if weight_decay is None else check_rate(weight_decay)
        if towards and _saved is None and not state.is_complete:
            raise ValueError(
                "Expected a built model: with `towards_start`, weights are penalized "
                "by their distance from their current values. Received: "
                f"model={model.name!r}, which has layers that are not built; call it "
                "on a batch of data, or load its weights, first"
            )
        # Before `super().__init__`, so that an error changes nothing.
        weights = find_weights(model)
        plan = state.plan(weights) if weights or model.built else None
        super().__init__(model, name=name)
        self._strengths = Strengths()
        state.regularizer = self._strengths.live(chosen)
        self._wrapper_state = state
        self._attach(weights, plan)
        if model.compiled:
            self.compile(**_keras.compile_arguments(model))

    def _attach(self, weights: list[Weight], plan: Plan | None) -> None:
        """Put the penalty on weights, in place of the earlier one of this wrapper.

        Args:
            weights: All weights of the inner model.
            plan: From `WrapperState.plan`; `None` if a file contains its outcome.
        """
        state, model = self._wrapper_state, self.wrapped_model
        if state.attachment.is_removed:
            return
        choices, kept = plan or ([], [])
        if plan is None and state.saved is not None:
            choices = state.saved.choices(weights, state.is_complete)
        warn_if_kept(kept, state.existing)
        if state.is_starting:
            self._remember_starts(choices)
        for holder in (model, self, *state.outer_models):
            _ledger.record_model(holder, weights)
        attachment = Attachment(model, by_wrapper=True)
        of_choice = regularizer_for(state.regularizer, state.start_of)
        _ledger.push(attachment, choices, weights, of_choice, [state.attachment])
        state.attachment = attachment
        if state.is_complete:
            state.saved, state.is_starting = None, False

    def _remember_starts(self, choices: list[_ledger.Choice]) -> None:
        starts = self._wrapper_state.starts
        for choice in choices:
            variable = choice.weight.variable
            if variable is None or not choice.towards_start or id(variable) in starts:
                continue
            starts[id(variable)] = variable, self._strengths.add_start(variable)

    def _attach_again(self) -> None:
        """Put the penalty on all weights that exist now."""
        state, model = self._wrapper_state, self.wrapped_model
        weights = find_weights(model)
        plan = None if state.attachment.is_removed else state.plan(weights)
        state.is_complete = _keras.is_built_throughout(model)
        self._attach(weights, plan)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        only_calls = type(self).call is L2AllWeights.call
        may_call_directly = _keras.backend.may_call_directly
        is_complete = self._wrapper_state.is_complete
        if only_calls and is_complete and may_call_directly(self, args, kwargs):
            return self.call(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def call(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().call(*args, **kwargs)
        state = self._wrapper_state
        if not state.is_complete:
            # The first call created the last weights, which need their penalty too.
            self._attach_again()
            state.is_complete = True
            self._update_decay()
        outer = _keras.outermost_layer()
        if outer not in (None, self) and outer not in state.outer_models:
            state.outer_models.add(outer)
            _ledger.record_model(outer, find_weights(self))
        return outputs

    def _call_and_update(self, method: Callable, *args, **kwargs):
        result = super()._call_and_update(method, *args, **kwargs)
        self._attach_again()
        self._update_decay()
        return result

    # ------------------------------------------------------------------- unwrapping

    def unwrap(self, strip: bool = False) -> keras.Model:
        """Return the inner model without the wrapper, compiled with its arguments.

        Args:
            strip: Boolean. `False` replaces the penalty with built-in regularizers of
                the current strength, and leaves weight decay in the optimizer; `True`
                removes both. Defaults to `False`.

        Returns:
            The inner model; the wrapper's `l2` no longer affects it. Penalties by
            `attach`, other models or other wrappers stay.

        Raises:
            ValueError: Keras has no equivalent regularizer; nothing is changed.

        Example:

        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> inner = L2AllWeights(model, l2=0.5).unwrap()
        >>> inner.layers[0].kernel_regularizer.get_config()
        {'l2': 0.5}
        """
        self._sync_state()
        model, weights = self.wrapped_model, find_weights(self)
        attachment = self._wrapper_state.attachment
        if strip:
            _ledger.remove([attachment])
        else:
            _ledger.make_permanent(attachment, weights, builtin_converter())
            warn_about_builtin_limits(model, weights)
        if self.compiled:
            arguments = _keras.compile_arguments(self)
            model.compile(**(self._without_decay(arguments) if strip else arguments))
        return model


# Legacy HDF5 files contain class names without their package.
keras.saving.get_custom_objects()["L2AllWeights"] = L2AllWeights
