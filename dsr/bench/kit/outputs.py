"""The files that a bench writes its tables to."""

from __future__ import annotations

from pathlib import Path

from runtime.base.disk_errors import disk_errors
from runtime.base.files import check_writable, write_atomically


def check(*paths: Path | None) -> None:
    """Raises the error that `write` would raise, before anything is measured. None is no file."""
    for path in paths:
        if path is not None:
            with disk_errors(path):
                check_writable(path)


def write(path: Path, text: str) -> None:
    """Writes the complete file, or nothing. Raises DoesNotFit, DsrError."""
    with disk_errors(path):
        write_atomically(path, text.encode())
