"""Locks between processes. The operating system releases a lock when its process ends, even after a kill."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


class Lock:
    """A held lock. It ends with `release`, which deletes its file, or when nothing refers to it."""

    def __init__(self, held: BaseFileLock) -> None:
        self._held = held

    def release(self) -> None:
        # POSIX: deleted while it is held, so that no other process's lock is deleted. A process that opened the file
        # before sees that it has no name any more and does not take it. Windows: the release deletes it.
        with suppress(OSError):
            Path(self._held.lock_file).unlink()
        self._held.release()


def try_lock(path: Path, *, wait: float = 0.0) -> Lock | None:
    """Returns the lock on the file `path`, or None when somebody else holds it for longer than `wait` seconds.

    `path` is a file for the lock alone: on Windows nobody else can read a locked file. Its folder is
    created when it is missing. Raises OSError.
    """
    from filelock import FileLock, Timeout

    # The lock belongs to the process, not to a thread. A soft lock would outlive a kill; without flock, OSError.
    lock = FileLock(path, timeout=wait, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        return None
    return Lock(lock)


def lock_path(path: Path) -> Path:
    """Returns the lock file for `path`, in the same folder."""
    return path.with_name(path.name + ".lock")
