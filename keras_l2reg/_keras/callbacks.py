"""Whether Keras waits for a callback after each batch."""

import keras


class BatchLogsCallback(keras.callbacks.Callback):
    """A callback that tells Keras whether it adds to the logs of a batch.

    On thread-safe backends, Keras calls the batch hooks in a background thread, unless
    a callback overrides one. It makes an exception for callbacks whose undocumented
    attribute `async_safe` is true.
    """

    @property
    def adds_to_batch_logs(self) -> bool:
        """Whether the callback adds keys to the logs of a batch."""
        raise NotImplementedError

    @property
    def async_safe(self) -> bool:
        return not self.adds_to_batch_logs
