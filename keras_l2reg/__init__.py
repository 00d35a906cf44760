"""L2 weight regularization for Keras 3: every kernel, every layer, one line.

>>> import keras
>>> from keras_l2reg import L2AllWeights
>>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(1024, "relu"),
...                           keras.layers.Dense(10)])
>>> len(model.losses), len(L2AllWeights(model, l2=0.001).losses)
(0, 2)
"""

import sys

from keras_l2reg._version import __version__


def _is_imported_by_dash_m():
    # `python -m keras_l2reg` imports this package before `__main__`, which imports the
    # rest itself, so that `--help` does not wait for Keras. While Python looks up the
    # module to run, argv[0] is "-m", and the name of the module precedes the arguments.
    name = sys.orig_argv[-len(sys.argv) :][:1]
    return sys.argv[:1] == ["-m"] and name == [__name__]


if not _is_imported_by_dash_m():
    from keras_l2reg._audit.audit import Finding, Findings, audit
    from keras_l2reg._path.grid import L2Grid
    from keras_l2reg._path.l2_path import l2_path
    from keras_l2reg._path.result import L2Path
    from keras_l2reg._penalties import penalties, print_penalties
    from keras_l2reg._selection import select_weights
    from keras_l2reg._weights_table import print_weights
    from keras_l2reg.attachment import attach, detach
    from keras_l2reg.callbacks import PenaltyLogger
    from keras_l2reg.models import L2AllWeights
    from keras_l2reg.optimizers import set_weight_decay
    from keras_l2reg.regularizers import L1L2, L2, InFloat32, L2Loss, Scaled, Sum
    from keras_l2reg.schedulers import StrengthScheduler
    from keras_l2reg.weights import Weight, find_weights

__all__ = [
    "L1L2",
    "L2",
    "Finding",
    "Findings",
    "InFloat32",
    "L2AllWeights",
    "L2Grid",
    "L2Loss",
    "L2Path",
    "PenaltyLogger",
    "Scaled",
    "StrengthScheduler",
    "Sum",
    "Weight",
    "__version__",
    "attach",
    "audit",
    "detach",
    "find_weights",
    "l2_path",
    "penalties",
    "print_penalties",
    "print_weights",
    "select_weights",
    "set_weight_decay",
]
