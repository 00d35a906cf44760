"""Whether Keras waits for a callback after each batch."""

import keras


class BatchLogsCallback(keras.callbacks.Callback):
    """A callback that tells Keras whether it adds to the logs of a batch.

    On backends that are safe with threads, Keras runs the batch hooks in the
    background, unless a callback has one. It makes an exception for those whose
    undocumented attribute `async_safe` is true.
    """

    @property
    def adds_to_batch_logs(self) -> bool:
        """Whether later callbacks are to find something new in a batch's logs."""
        raise NotImplementedError

    @property
    def async_safe(self) -> bool:
        return not self.adds_to_batch_logs
