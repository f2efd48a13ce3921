"""Errors of the file system in words for people."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.base.errors import DoesNotFit, DsrError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def disk_errors(out: Path, hint: str = "free some space; the same command continues where it was") -> Iterator[None]:
    """Raises DoesNotFit with `hint` for a full disk, DsrError for any other OSError while `out` is written."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DoesNotFit(f"{out.parent}: the disk is full ({error.strerror})", hint=hint) from error
        hint = "name another file, in a folder that you may change"
        raise DsrError(f"{out}: cannot be written: {error.strerror or error}", hint=hint) from error
