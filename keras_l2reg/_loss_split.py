"""The loss of a wrapped model, logged as a whole and in two parts.

`SplitLossModel` is a wrapper that logs `data_loss` and `penalty`; `LossSplit` is the
metric for them and for the loss.
"""

import contextlib
import inspect
import types
from collections.abc import Iterable, Iterator
from typing import Any

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._total_penalty import total_penalty
from keras_l2reg._wrapper import ModelWrapper

LOG_KEYS = ("data_loss", "penalty")
# A function, since a graph of `torch.compile` ends at `super().metrics`, a property.
_metrics_of_trainer: Any = keras.Model.metrics.fget


@keras.saving.register_keras_serializable(package="keras_l2reg")
class LossSplit(_keras.MetricsList):
    """The means of the loss and of its two parts, data loss and penalty.

    `loss = sum(n_i * loss_i) / sum(n_i)`, the parts likewise, over batches `i` of `n_i`
    samples each; sample weights do not count. Replaces Keras' own mean of the loss,
    since one metric for all three takes less time than two metrics.

    Args:
        name: String. Defaults to `"loss"`.

    Example:

    >>> split = LossSplit()
    >>> for data, penalty, size in (1.0, 0.5, 30), (3.0, 0.5, 10):
    ...     split.set_parts(data, penalty)
    ...     split.update_state(data + penalty, sample_weight=size)
    >>> {name: float(mean) for name, mean in split.result().items()}
    {'loss': 2.0, 'data_loss': 1.5, 'penalty': 0.5}
    """

    def __init__(self, name: str = "loss"):
        self._keys = name, *LOG_KEYS
        # Callbacks such as `EarlyStopping` read `_direction`: lower is better.
        means = [types.SimpleNamespace(name=k, _direction="down") for k in self._keys]
        super().__init__(means, name=name)
        # Half precision can't count the samples.
        dtype = "float64" if keras.config.floatx() == "float64" else "float32"
        # On JAX, only a variable can leave the gradient, in which the parts are known.
        self.parts = self.add_variable((2,), "zeros", dtype, name="parts")
        # All sums and the sample count in one, since each variable slows down steps.
        self.sums = self.add_variable((4,), "zeros", dtype, name="sums")

    def set_parts(self, data_loss, penalty) -> None:
        """Set the parts of the loss that `update_state` adds next."""
        _keras.backend.assign_row(self.parts, (data_loss, penalty))

    def update_state(self, values, sample_weight=None) -> None:  # pyright: ignore
        """Add a loss and its parts; the arguments are those of `keras.metrics.Mean`."""
        loss, weight = _mean_and_weight(values, sample_weight)
        _keras.backend.add_row(self.sums, loss, self.parts, weight)

    def result(self) -> dict[str, Any]:
        means = _keras.backend.means(self.sums.value)
        return dict(zip(self._keys, means, strict=True))

    def reset_state(self) -> None:
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(config["name"])


class SplitLossModel(ModelWrapper):
    """A wrapper that logs the data loss and the penalty separately.

    `loss = data_loss + penalty`, `penalty = sum_k r_k(w_k)` over the trainable weights
    `w_k` with a regularizer `r_k`

    Args:
        model: The inner `keras.Model`.
        name: String. Defaults to `None`.
    """

    def __init__(self, model: keras.Model, name: str | None = None):
        super().__init__(model, name=name)
        self._override = _LossesOverride()

    @property
    def losses(self) -> list:
        """One term per penalized trainable weight, after all other losses."""
        override = self._override.losses if "_override" in vars(self) else None
        return super().losses if override is None else list(override)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        others = _keras.losses_of_calls(self)
        penalized = _keras.penalized_variables(self)
        penalty: Any = total_penalty(penalized) if penalized else ops.zeros(())
        if self.loss is not None or others:
            with self._override.replaced_by(others):
                data_loss = super().compute_loss(
                    x, y, y_pred, sample_weight, training=training
                )
        else:
            data_loss = ops.zeros(())
        if not self._override.names_are_checked:
            # The outputs of a subclassed model have names only after the first loss.
            _check_names(self.metrics_names)
            self._override.names_are_checked = True
        replicas, split = _keras.backend.replicas(), _keras.loss_tracker(self)
        logged, added = data_loss, penalty
        if replicas > 1:
            # Keras sums the loss over replicas, so each adds its part of the penalty.
            logged, added = data_loss * replicas, penalty / replicas
        # Without `compile`, nothing is logged.
        if isinstance(split, LossSplit):
            split.set_parts(logged, penalty)
        # Unlike `+`, it can add a float64 penalty to a float32 loss.
        return ops.add(data_loss, added)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the bare model, where that of the loss is a `LossSplit`."""
        metrics = _metrics_of_trainer(self)
        if "_inner" not in vars(self):
            return metrics
        # Keras skips those of a model in a model.
        end = len(_keras.compiled_metrics(self))
        return [
            *metrics[:end],
            *_keras.own_metrics(self._inner.model),
            *metrics[end:],
        ]

    def _flatten_metrics_in_order(self, logs):
        # Lists of results have no names, so they are the same as for the bare model.
        logs = {name: value for name, value in logs.items() if name not in LOG_KEYS}
        return super()._flatten_metrics_in_order(logs)

    def compile(self, *args, **kwargs) -> None:
        """Configure the model for training: `keras.Model.compile`.

        Raises:
            ValueError: an output or a metric would be logged as `data_loss` or
                `penalty`, the keys that the wrapper uses.
        """
        signature = inspect.signature(super().compile)
        check_logged_names(
            self.wrapped_model, **signature.bind(*args, **kwargs).arguments
        )
        super().compile(*args, **kwargs)
        _keras.set_loss_tracker(self, LossSplit())


class _LossesOverride:
    """Replaces `model.losses`, in an object whose list Keras does not track."""

    def __init__(self):
        self.losses: list | None = None
        self.names_are_checked = False

    @contextlib.contextmanager
    def replaced_by(self, losses: list) -> Iterator[None]:
        """In this context, `model.losses` is `losses`."""
        self.losses = losses
        try:
            yield
        finally:
            self.losses = None


def check_logged_names(
    model: keras.Model,
    loss: Any = None,
    metrics: Any = None,
    weighted_metrics: Any = None,
    **_: Any,
) -> None:
    """Raise a ValueError if an output or metric has a log key of the wrapper.

    Args:
        model: The inner model.
        loss, metrics, weighted_metrics: As for `keras.Model.compile`, whose other
            arguments are ignored.
    """
    outputs = getattr(model, "output_names", None)
    if outputs is None and isinstance(loss, dict):
        outputs = list(loss)
    names = {
        metric if isinstance(metric, str) else getattr(metric, "name", None)
        for metric in keras.tree.flatten([metrics, weighted_metrics])
    }
    names |= {getattr(m, "__name__", None) for m in keras.tree.flatten([metrics])}
    if outputs and len(outputs) > 1:
        names |= {f"{output}_{name}" for output in outputs for name in {*names, "loss"}}
    names |= {metric.name for metric in _keras.own_metrics(model)}
    _check_names(names)


def _check_names(names: Iterable[str | None]) -> None:
    clash = sorted({*LOG_KEYS}.intersection(names))
    if clash:
        raise ValueError(
            "Expected outputs and metrics that are not logged as 'data_loss' or "
            f"'penalty', which `L2AllWeights` logs. Received: {clash}, for a metric of "
            "that name or an output named 'data'; rename it, or use "
            "`keras_l2reg.attach`, which logs nothing"
        )


def _mean_and_weight(values: Any, weights: Any) -> tuple[Any, Any]:
    """The weighted mean of values, and the sum of their weights."""
    weights = 1 if weights is None else weights
    if len(getattr(values, "shape", ())) == 0:
        return values, weights
    weights = ops.broadcast_to(ops.cast(weights, values.dtype), ops.shape(values))
    total = ops.sum(weights)
    return ops.divide_no_nan(ops.sum(values * weights), total), total
