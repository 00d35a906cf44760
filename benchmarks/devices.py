"""The device that Keras computes on: its name, and the memory that a call takes."""

import pathlib

import keras


def device_name():
    """The first accelerator, or "CPU"."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        for device in tf.config.list_physical_devices("GPU"):
            return tf.config.experimental.get_device_details(device)["device_name"]
    elif backend == "jax":
        import jax

        if jax.devices()[0].platform != "cpu":
            return jax.devices()[0].device_kind
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            return torch.cuda.get_device_name()
    return "CPU"


def peak_memory(call):
    """Bytes that are allocated at most during `call`, on the device."""
    call()  # compiles, which also takes memory
    if device_name() == "CPU":
        # Resets the peak of this process; on Linux.
        pathlib.Path("/proc/self/clear_refs").write_text("5")
        before = memory_of("VmRSS")
        call()
        return max(memory_of("VmHWM") - before, 0)
    return peak_on_accelerator(call)


def memory_of(key):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith(key))
    return int(line.split()[1]) * 1024


def peak_on_accelerator(call):
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.reset_memory_stats("GPU:0")
        before = tf.config.experimental.get_memory_info("GPU:0")["current"]
        call()
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] - before
    if backend == "jax":
        import jax

        # JAX can't reset the peak: the call is the largest of this process.
        before = jax.devices()[0].memory_stats()["bytes_in_use"]
        call()
        return jax.devices()[0].memory_stats()["peak_bytes_in_use"] - before
    import torch

    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before
