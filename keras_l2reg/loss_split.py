"""The metric behind `data_loss` and `penalty` in the logs of `L2AllWeights`."""

import types

import keras
from keras import ops

from keras_l2reg import _keras

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
