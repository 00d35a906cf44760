"""Import this before Keras to hide the log messages of TensorFlow at startup.

`TF_CPP_MIN_LOG_LEVEL=3` is not enough: TensorFlow writes its first lines before it
reads that variable, and not to Python's `sys.stderr`. So it is imported here, with the
stderr of the process redirected; if the import fails, the messages are written after
all.
"""

import importlib
import os
import sys
import tempfile


def import_quietly(name):
    """Import a module, and hide what it writes to stderr unless the import fails."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            importlib.import_module(name)
        except BaseException:
            written.seek(0)
            os.write(stderr, written.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# On every backend, Keras imports TensorFlow sooner or later.
import_quietly("tensorflow")
