"""Whether the output goes to a notebook."""

import sys


def in_notebook() -> bool:
    """Whether standard output goes to a notebook, which can show objects.

    >>> in_notebook()
    False
    """
    # Not whether IPython is running: there, too, output may be redirected to a file.
    return type(sys.stdout).__module__ == "ipykernel.iostream"
