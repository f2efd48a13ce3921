"""Files that can be made again, within a limit: the least recently used go first."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of a cache; `used` is the time of its last use, in seconds since the epoch."""

    path: Path
    size: int
    used: float


def files_to_delete(cached: Sequence[CachedFile], needed: int, allowed: int) -> tuple[Path, ...] | None:
    """The files to delete so that `needed` more bytes stay within `allowed`, the least recently used first.

    None when deleting all of them is not enough.
    """
    if needed > allowed:
        return None
    taken = sum(each.size for each in cached)
    deleted = []
    for each in sorted(cached, key=lambda each: each.used):
        if taken + needed <= allowed:
            break
        deleted.append(each.path)
        taken -= each.size
    return tuple(deleted)


def files_in(folder: Path, pattern: str = "*") -> list[CachedFile]:
    """The files of a folder whose names match the pattern; none if the folder is missing or unreadable.

    Only regular files count: opening a named pipe would block until somebody writes to it.
    """
    found = []
    for path in folder.glob(pattern):
        with suppress(OSError):  # another process deletes too
            facts = path.stat()
            if stat.S_ISREG(facts.st_mode):
                found.append(CachedFile(path, facts.st_size, facts.st_mtime))
    return found
