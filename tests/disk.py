"""A disk that is full, for tests of what a failed write leaves."""

import contextlib
import resource


@contextlib.contextmanager
def full_disk(size):
    """Within, a write of more than `size` bytes to a file fails."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
