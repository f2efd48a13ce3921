"""Folders for large files that are needed only meanwhile: gone at the end, and after a kill with the next call."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from quant.write.journal import lock


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder in `parent`, which is made as well. Others of the same `prefix` that no living process owns are
    removed first.

    The owner holds a lock on the folder, which ends with its process however that ends; a process number would be
    somebody else's one day, or another's in a container. Raises OSError."""
    parent.mkdir(parents=True, exist_ok=True)
    _clear(parent, prefix)
    folder, handle = _owned(parent, prefix)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def _owned(parent: Path, prefix: str) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        handle = _locked(folder)
        # Between making and locking another call may have taken it for one that was left behind.
        if os.name != "posix" or (handle is not None and folder.is_dir()):
            return folder, handle
        if handle is not None:
            os.close(handle)


def _clear(parent: Path, prefix: str) -> None:
    for folder in parent.glob(f"{prefix}*"):
        handle = _locked(folder)
        if handle is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(handle)


def _locked(folder: Path) -> int | None:
    """The folder opened and locked; None where it is another's, is gone, or cannot be locked (Windows)."""
    if os.name != "posix":
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with suppress(OSError):
            if lock(handle):
                return handle
        os.close(handle)
    return None
