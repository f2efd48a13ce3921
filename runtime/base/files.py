"""Writing files so that a kill at any moment leaves the old content or the new, never a part."""

from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where nobody can delete a file that is open
    fcntl = None  # type: ignore[assignment]

_DIGITS = 8


def expanded(name: str) -> Path:
    """The path of a name that a user typed: `~` is the home folder. An unknown `~user` stays as it is.

    `Path.expanduser` raises RuntimeError for such a user.
    """
    return Path(os.path.expanduser(name))


def write_atomically(path: Path, *pieces: bytes | memoryview) -> None:
    """Write the pieces to a temporary file in the same folder, flush it to the disk and rename it.

    Raises OSError and then leaves no temporary file. What a kill left of the same file is removed.

    The file has the permissions of any new file, which the tempfile module would restrict.
    """
    write_stream(path, pieces)


def write_stream(path: Path, pieces: Iterable[bytes | memoryview], *, mode: int = 0o666, flush: bool = True) -> None:
    """`write_atomically` for pieces that are made one by one; if making one raises, no file is left.

    `mode` are the permissions before the umask. Without `flush`, a power failure can leave a part under the final name:
    only for files whose readers check them.
    """
    with _temporary(path, mode) as temporary:
        with temporary.open("wb") as file:
            file.writelines(pieces)
            if flush:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)


def remove_left_behind(folder: Path) -> None:
    """Remove unfinished files of killed processes, in a folder of `write_atomically` and `write_stream` alone."""
    _remove_all(folder, "*")


def check_writable(path: Path) -> None:
    """Raise the OSError that `write_atomically` would end with, before there is anything to write."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    with _temporary(path):
        pass


@contextmanager
def _temporary(path: Path, mode: int = 0o666) -> Iterator[Path]:
    """An empty file next to `path`, deleted at the end of the block if it still has this name. Raises OSError.

    Its process holds a lock on it, so that another one sees that it is in use.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_all(path.parent, glob.escape(path.name))
    temporary, held = _owned(path, mode)
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if held is not None:
            os.close(held)


def _owned(path: Path, mode: int) -> tuple[Path, int | None]:
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(_DIGITS // 2)}")
        file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), mode)
        if fcntl is None:
            os.close(file)
            return temporary, None
        with suppress(OSError):  # some network file systems have no locks, and nothing is removed there
            fcntl.flock(file, fcntl.LOCK_EX)
        # Between creating and locking, another process may take the file for one that was left behind.
        if temporary.exists():
            return temporary, file
        os.close(file)


def _remove_all(folder: Path, names: str) -> None:
    for left in folder.glob(f".{names}.{'[0-9a-f]' * _DIGITS}"):
        with suppress(OSError):
            _remove_unused(left)


def _remove_unused(left: Path) -> None:
    if fcntl is None:
        left.unlink()
        return
    file = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        left.unlink()
    finally:
        os.close(file)
