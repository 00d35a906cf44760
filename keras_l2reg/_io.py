"""Files that are written whole or not at all."""

import os
import pathlib


def write_whole(file, content):
    """Write bytes to a file; a full disk leaves what was there, no half of a file.

    Raises:
        OSError: the file can't be written.

    >>> import tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "whole.txt")
    >>> write_whole(file, b"all of it")
    >>> file.read_text()
    'all of it'
    """
    target = pathlib.Path(file).resolve()
    new = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        new.write_bytes(content)
        os.replace(new, target)
    finally:
        new.unlink(missing_ok=True)
