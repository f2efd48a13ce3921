"""Folders for large temporary files: removed at the end, and after a kill by the next call."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from runtime.base.lock import Lock, try_lock

_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, which is created too. First removes the folders of the same `prefix` that killed
    processes left behind.

    The owner holds a lock on a file in the folder until its process ends. A process number would not do: the system
    gives it to another process later, or it belongs to another container. Raises OSError.
    """
    parent.mkdir(parents=True, exist_ok=True)
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError):
            if lock := _locked(folder):
                _remove(folder, lock)
    folder, lock = _owned(parent, prefix)
    try:
        yield folder
    finally:
        _remove(folder, lock)


def _owned(parent: Path, prefix: str) -> tuple[Path, Lock]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        # Between creating and locking, another call may take the folder for one that was left behind.
        if lock := _locked(folder):
            return folder, lock


def _locked(folder: Path) -> Lock | None:
    """Returns the lock of a folder; None for a link, a file, and a folder of a living process."""
    return try_lock(folder / _LOCK) if folder.is_dir() and not folder.is_symlink() else None


def _remove(folder: Path, lock: Lock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)  # Windows cannot delete the lock file while it is held
