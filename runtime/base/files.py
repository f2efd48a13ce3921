"""Writing files so that a kill at any moment leaves the old content or the new, never a part."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path


def write_atomically(path: Path, *pieces: bytes | memoryview) -> None:
    """Write the pieces one after the other beside the target, flush to the disk, rename. Raises OSError; leaves nothing
    behind when it does.

    Others may read it as any new file: a module for temporary files would keep it from them.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)
    try:
        with temporary.open("xb") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(path: Path) -> None:
    """Raise the OSError that `write_atomically` would end with, before there is anything to write."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    temporary = _beside(path)
    temporary.open("xb").close()
    temporary.unlink()


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")
