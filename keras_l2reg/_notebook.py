"""Whether a notebook shows what is printed."""

import sys


def in_notebook():
    """Whether standard output is a notebook's: it shows objects, not only text.

    >>> in_notebook()
    False
    """
    # Not whether IPython runs: output may be redirected to a file even there.
    return type(sys.stdout).__module__ == "ipykernel.iostream"
