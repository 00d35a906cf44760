"""The loss of a wrapped model, logged in two parts: `data_loss` and `penalty`.

`SplitLossModel` is a window on a model whose loss is split; `LossSplit` is the metric
behind both parts.
"""

import contextlib
import inspect
import types

import keras
from keras import ops

from keras_l2reg import _keras
from keras_l2reg._window import Window
from keras_l2reg.regularizers import total_penalty

KEYS = ("data_loss", "penalty")


@keras.saving.register_keras_serializable(package="keras_l2reg")
class LossSplit(_keras.MetricsList):
    """Means of the data's loss and of the penalty, weighted as Keras weights `loss`.

    `data_loss = sum(n_i * data_i) / sum(n_i)`, `penalty` likewise, over batches `i`
    of `n_i` samples each, whatever the samples' weights.

    Args:
        name: String. Defaults to `"loss_split"`.

    Example:

    >>> split = LossSplit()
    >>> split.update_state(1.0, 0.5, sample_weight=30)
    >>> split.update_state(3.0, 0.5, sample_weight=10)
    >>> {name: float(mean) for name, mean in split.result().items()}
    {'data_loss': 1.5, 'penalty': 0.5}

    Source: the loss tracker of `keras.Model.fit`.
    """

    def __init__(self, name="loss_split"):
        # Where callbacks such as `EarlyStopping` look for what is better, less or more.
        parts = [types.SimpleNamespace(name=key, _direction="down") for key in KEYS]
        super().__init__(parts, name=name)
        # Sums of both and the count of samples, in one: each variable costs a step.
        self.sums = self.add_variable((3,), "zeros", "float32", name="sums")

    def update_state(self, data_loss, penalty, sample_weight=1):
        values = [ops.cast(value, "float32") for value in (data_loss, penalty)]
        row = ops.stack([*values, 1.0])
        self.sums.assign_add(ops.multiply(sample_weight, row))

    def result(self):
        data_loss, penalty, count = ops.unstack(self.sums.value)
        # `divide_no_nan`, for counts of samples, at a third of its price per batch.
        count = ops.maximum(count, keras.config.epsilon())
        return {"data_loss": data_loss / count, "penalty": penalty / count}

    def reset_state(self):
        self.sums.assign(ops.zeros((3,)))

    def get_config(self):
        return {"name": self.name}

    @classmethod
    def from_config(cls, config):
        return cls(config["name"])


class SplitLossModel(Window):
    """A window that logs the data's loss and the penalty apart.

    `loss = data_loss + penalty`, `penalty = sum_k r_k(w_k)` over the trainable weights
    `w_k` with a regularizer `r_k`

    Args:
        model: The inner `keras.Model`.
        name: String. Defaults to `None`.
    """

    def __init__(self, model, name=None):
        super().__init__(model, name=name)
        self.loss_split = LossSplit()
        self._shown = _Shown()

    @property
    def losses(self):
        """One term per penalized trainable weight, after all other losses."""
        shown = self._shown.losses if "_shown" in vars(self) else None
        return super().losses if shown is None else list(shown)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        others = _keras.losses_of_calls(self)
        penalized = [v for v in self.trainable_weights if v.regularizer is not None]
        penalty = total_penalty(penalized) if penalized else ops.zeros(())
        if self.loss is None and not others:
            data_loss = ops.zeros(())
        else:
            with self._shown.only(others):
                data_loss = super().compute_loss(
                    x, y, y_pred, sample_weight, training=training
                )
        if not self._shown.names_are_checked:
            # A subclassed model tells the names of its outputs by its first loss.
            others = [m for m in self.metrics if m is not self.loss_split]
            _check_none_is_ours(metric.name for metric in others)
            self._shown.names_are_checked = True
        replicas, count = _keras.backend.replicas(), _batch_size(x)
        if replicas == 1:
            self.loss_split.update_state(data_loss, penalty, sample_weight=count)
            # Unlike `+`, it adds the float64 of a layer to the float32 of a loss.
            return ops.add(data_loss, penalty)
        # Keras sums the loss over replicas, so each carries its part of the penalty.
        self.loss_split.update_state(data_loss * replicas, penalty, sample_weight=count)
        return ops.add(data_loss, penalty / replicas)

    @property
    def metrics(self):
        """Those of the bare model, and the split of the loss."""
        metrics = super().metrics
        if "loss_split" not in vars(self):
            return metrics
        own = metrics.index(self.loss_split)
        inner = _keras.own_metrics(self.wrapped_model)
        return [*metrics[:own], *inner, *metrics[own + 1 :], self.loss_split]

    @property
    def metrics_names(self):
        """The names of the bare model's metrics, in the order of list results."""
        return [metric.name for metric in self.metrics if metric is not self.loss_split]

    def _flatten_metrics_in_order(self, logs):
        # A list can't name what is in it, so it holds what the bare model's does.
        logs = {name: value for name, value in logs.items() if name not in KEYS}
        return super()._flatten_metrics_in_order(logs)

    def compile(self, *args, **kwargs):
        """Configure the training: `keras.Model.compile`.

        Raises:
            ValueError: an output or a metric would be logged as `data_loss` or
                `penalty`, which the wrapper logs.
        """
        signature = inspect.signature(super().compile)
        check_logged_names(
            self.wrapped_model, **signature.bind(*args, **kwargs).arguments
        )
        super().compile(*args, **kwargs)


class _Shown:
    """Which losses the model shows, out of Keras' sight, which tracks lists."""

    def __init__(self):
        self.losses = None
        self.names_are_checked = False

    @contextlib.contextmanager
    def only(self, losses):
        """Within, `model.losses` is `losses`."""
        self.losses = losses
        try:
            yield
        finally:
            self.losses = None


def check_logged_names(model, loss=None, metrics=None, weighted_metrics=None, **_):
    """Raise if an output or metric would be logged by a name of the wrapper's own."""
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
    _check_none_is_ours(names)


def _check_none_is_ours(names):
    clash = sorted({*KEYS}.intersection(names))
    if clash:
        raise ValueError(
            "Expected outputs and metrics whose logs are not called 'data_loss' or "
            f"'penalty', which `L2AllWeights` logs. Received: {clash}, of a metric of "
            "that name or of an output named 'data'; give it another name, or use "
            "`keras_l2reg.attach`, which logs nothing"
        )


def _batch_size(x):
    leaves = [leaf for leaf in keras.tree.flatten(x) if leaf is not None]
    return ops.shape(leaves[0])[0] if leaves else 1
