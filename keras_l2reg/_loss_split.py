"""The loss of a wrapped model, logged in two parts: `data_loss` and `penalty`.

`SplitLossModel` is a wrapper that logs both parts; `LossSplit` is the metric for them.
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
    """The means of data loss and penalty, with the same weights as the mean of `loss`.

    `data_loss = sum(n_i * data_i) / sum(n_i)`, `penalty` likewise, over batches `i`
    of `n_i` samples each; sample weights do not count.

    Args:
        name: String. Defaults to `"loss_split"`.

    Example:

    >>> split = LossSplit()
    >>> split.update_state(1.0, 0.5, sample_weight=30)
    >>> split.update_state(3.0, 0.5, sample_weight=10)
    >>> {name: float(mean) for name, mean in split.result().items()}
    {'data_loss': 1.5, 'penalty': 0.5}
    """

    def __init__(self, name: str = "loss_split"):
        # Callbacks such as `EarlyStopping` read `_direction`: lower is better.
        parts = [types.SimpleNamespace(name=key, _direction="down") for key in LOG_KEYS]
        super().__init__(parts, name=name)
        # Both sums and the sample count in one, since each variable slows down steps.
        self.sums = self.add_variable((3,), "zeros", "float32", name="sums")

    def update_state(self, data_loss, penalty, sample_weight=1) -> None:  # pyright: ignore
        _keras.backend.add_row(self.sums, (data_loss, penalty), sample_weight)

    def result(self) -> dict[str, Any]:
        means = _keras.backend.means(self.sums.value)
        return dict(zip(LOG_KEYS, means, strict=True))

    def reset_state(self) -> None:
        self.sums.assign(ops.zeros((3,)))

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
        self.loss_split = LossSplit()
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
        replicas, count = _keras.backend.replicas(), _batch_size(x)
        if replicas == 1:
            self.loss_split.update_state(data_loss, penalty, sample_weight=count)
            # Unlike `+`, it can add a float64 penalty to a float32 loss.
            return ops.add(data_loss, penalty)
        # Keras sums the loss over replicas, so each adds its part of the penalty.
        self.loss_split.update_state(data_loss * replicas, penalty, sample_weight=count)
        return ops.add(data_loss, penalty / replicas)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """The metrics of the bare model, and the loss split."""
        metrics = _metrics_of_trainer(self)
        if "loss_split" not in vars(self):
            return metrics
        own = metrics.index(self.loss_split)
        inner = _keras.own_metrics(self._inner.model)
        return [*metrics[:own], *inner, *metrics[own + 1 :], self.loss_split]

    @property
    def metrics_names(self) -> list[str]:
        """The names of the bare model's metrics, in the order of list results."""
        return [metric.name for metric in self.metrics if metric is not self.loss_split]

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


def _batch_size(x: Any) -> Any:
    leaves: list[Any] = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    shape: Any = ops.shape(leaves[0]) if leaves else (1,)
    return shape[0]
