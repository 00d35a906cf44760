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
        # Sums of both and the count of samples, in one: each variable costs a step.
        self.sums = self.add_variable((3,), "zeros", name="sums")

    def update_state(self, data_loss, penalty, sample_weight=1):
        values = [ops.cast(value, "float32") for value in (data_loss, penalty)]
        row = ops.stack([*values, 1.0])
        self.sums.assign_add(ops.multiply(sample_weight, row))

    def result(self):
        data_loss, penalty, count = ops.unstack(self.sums.value)
        # `divide_no_nan`, for counts of samples, at a third of its price per batch.
        count = ops.maximum(count, keras.config.epsilon())
        return {"data_loss": data_loss / count, "penalty": penalty / count}
