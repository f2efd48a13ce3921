"""Writing files so that a kill at any moment leaves the old content or the new, never a part."""

from __future__ import annotations

import errno
import os
import secrets
from pathlib import Path

from runtime.base.errors import NotFound, UsageError


def write_atomically(path: Path, *pieces: bytes | memoryview) -> None:
    """Write the pieces to a temporary file in the same folder, flush it to the disk and rename it.

    Raises OSError and then leaves no temporary file.

    The file has the permissions of any new file, which the tempfile module would restrict.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
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
    temporary = _temporary(path)
    temporary.open("xb").close()
    temporary.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def read_text(path: Path) -> str:
    """The text of a file that the user named. Raises NotFound, and UsageError for a file that is not UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not a text file (UTF-8)") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
