"""The files that a bench is asked to write its tables to."""

from __future__ import annotations

from pathlib import Path

from runtime.base.disk_errors import disk_errors
from runtime.base.files import check_writable, write_atomically


def check(*paths: Path | None) -> None:
    """Raise what `write` would end with, before anything is measured; None is no file."""
    for path in paths:
        if path is not None:
            with disk_errors(path):
                check_writable(path)


def write(path: Path, text: str) -> None:
    """A whole file or none. Raises DoesNotFit, DsrError."""
    with disk_errors(path):
        write_atomically(path, text.encode())
