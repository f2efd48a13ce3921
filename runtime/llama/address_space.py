"""Refuses to load the engine into a process whose address space is limited too tightly: there it aborts.

Imported before everything native.
"""

from __future__ import annotations

from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount

# With nano, 300 MB were enough for every command on a machine with two cores, and 250 MB were not.
LEAST = ByteCount(512 << 20)


def check(limit: int | None) -> None:
    """Raises DoesNotFit if the limit of bytes is below `LEAST`; None is no limit."""
    if limit is not None and limit < LEAST:
        raise DoesNotFit(
            f"this process may use {ByteCount(limit)} of address space, and the engine needs at least {LEAST}",
            hint="raise the limit: ulimit -v unlimited",
            missing=LEAST - limit,
        )


def limit() -> int | None:
    """The most bytes of address space that this process may use; None without a limit, and on Windows."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


check(limit())
