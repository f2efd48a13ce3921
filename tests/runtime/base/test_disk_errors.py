"""Errors of the file system in words for people."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from runtime.base.disk_errors import disk_errors
from runtime.base.errors import DoesNotFit, DsrError


def test_a_full_disk_and_a_refused_file() -> None:
    with pytest.raises(DoesNotFit) as full, disk_errors(Path("/models/a.gguf"), "free some space"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert (full.value.message, full.value.hint) == (
        "/models: the disk is full (No space left on device)",
        "free some space",
    )
    with pytest.raises(DsrError) as refused, disk_errors(Path("/models/a.gguf")):
        raise PermissionError(errno.EACCES, "Permission denied")
    assert refused.value.message == "/models/a.gguf: cannot be written: Permission denied"
    assert refused.value.hint == "name another file, in a folder that you may change"
