"""Write files atomically."""

import os
import pathlib


def write_atomically(file: str | os.PathLike[str], content: bytes) -> None:
    """Write bytes to a file, atomically: on failure, the old file is kept.

    Args:
        file: The path to write to.
        content: The bytes.

    Raises:
        OSError: the file can't be written.

    >>> import tempfile
    >>> file = pathlib.Path(tempfile.mkdtemp(), "new.txt")
    >>> write_atomically(file, b"all of it")
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
