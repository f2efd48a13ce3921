"""Errors of the file system, and of a system that has run out of something, in words for people."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.base.errors import DoesNotFit, DsrError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def is_full(error: OSError) -> bool:
    """Whether the disk is full, or the user's quota."""
    return error.errno in _FULL


@contextmanager
def disk_errors(out: Path, hint: str = "free some space; the same command continues where it was") -> Iterator[None]:
    """Raises DoesNotFit with `hint` for a full disk, DsrError for any other OSError while `out` is written."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise DoesNotFit(f"{out.parent}: the disk is full ({error.strerror})", hint=hint) from error
        hint = "name another file, in a folder that you may change"
        raise DsrError(f"{out}: cannot be written: {error.strerror or error}", hint=hint) from error


def shortage(error: Exception) -> DsrError | None:
    """What the system refused or lacks, in our words; None for an error that is a bug.

    Every place that writes has better words. These are for what a library does on its own.
    """
    # CPython says these two only in words (Modules/_threadmodule.c, Python/dynload_shlib.c).
    said = str(error)
    if isinstance(error, MemoryError) or "can't start new thread" in said or "failed to map segment" in said:
        return DoesNotFit("there is not enough memory", hint="close other programs, or raise the limit: ulimit -v")
    if not isinstance(error, OSError) or error.errno is None:
        return None
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return DsrError("too many files are open", hint="raise the limit: ulimit -n 1024")
    place = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, (str, bytes)) else ""
    reason = f"{place}{error.strerror}"
    if error.errno == errno.ENOMEM:
        return DoesNotFit(f"there is not enough memory: {reason}")
    if error.errno in _FULL:
        return DoesNotFit(f"the disk is full: {reason}", hint="free some space and repeat the command")
    return DsrError(reason, hint="check the folder and its permissions, or set DSR_HOME to another folder")
