"""The metric behind `data_loss` and `penalty` in the logs of `L2AllWeights`."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_l2reg")
class LossSplit(keras.metrics.Metric):
    """Means of the data's loss and of the penalty, weighed as Keras weighs `loss`.

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
        super().__init__(name=name, dtype="float32")
        self.totals = self.add_variable((2,), "zeros", name="totals")
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, data_loss, penalty, sample_weight=1):
        count = ops.cast(sample_weight, "float32")
        pair = ops.stack([ops.cast(v, "float32") for v in (data_loss, penalty)])
        self.totals.assign_add(count * pair)
        self.count.assign_add(count)

    def result(self):
        means = self.totals / ops.maximum(self.count, 1.0)
        return {"data_loss": means[0], "penalty": means[1]}
