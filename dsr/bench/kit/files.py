"""The files of a bench: the folder of its samples, and the files that it writes its tables to."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from dsr.store import paths as store_paths
from dsr.ui.console import printable
from runtime.base.disk_errors import disk_errors
from runtime.base.files import check_writable, write_atomically


def results_folder(bench: str, *names: str) -> Path:
    """Returns the folder in the cache for the results of `dsr bench BENCH`, so that the same command resumes."""
    return store_paths.cache_folder() / f"bench-{bench}" / file_name("-".join(names))


_FULL = "free some space, or write to another disk"


def short_digest(conditions: Any) -> str:
    """Returns 8 hexadecimal digits of the hash of conditions, which are JSON."""
    return hashlib.sha256(json.dumps(conditions, sort_keys=True).encode()).hexdigest()[:8]


def file_name(text: str) -> str:
    """Returns the text as a file name that is valid on every system."""
    return re.sub(r"[^\w.=-]+", "-", text).strip("-.") or "model"


def check(*paths: Path | None) -> None:
    """Raises the error that `write` would raise. Call it before measuring. None is no file."""
    for path in paths:
        if path is not None:
            with disk_errors(path, _FULL):
                check_writable(path)


def write(path: Path, text: str) -> None:
    """Writes the complete file, or nothing, without control characters of names. Raises DoesNotFit, DsrError."""
    with disk_errors(path, _FULL):
        write_atomically(path, printable(text).encode())
