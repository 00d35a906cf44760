"""Import this before Keras, and TensorFlow starts without a word.

`TF_CPP_MIN_LOG_LEVEL=3` alone does not do it: TensorFlow writes its first lines before
it reads that, and past Python's `sys.stderr`. So it is imported here, with the stderr
of the whole process turned aside; if that fails, what was written comes after all.
"""

import importlib
import os
import sys
import tempfile


def import_quietly(name):
    """Import a module, and keep back what it writes to stderr unless it fails."""
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
# Whatever its backend, Keras imports it sooner or later.
import_quietly("tensorflow")
