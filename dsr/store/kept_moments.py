"""The cache of second moments, within a share of the disk: the least recently used moments are deleted first."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from dsr.store.disk_room import CachedFile, files_in, files_to_delete
from dsr.store.paths import cache_folder
from runtime.base.lock import Lock, try_lock
from runtime.base.types import ByteCount

# The largest share of the disk for other models' moments, of the room that is free or taken by the cache.
MAX_DISK_SHARE = 0.5
_USED = "moments.json"  # its time is that of the last use
_LOCK = ".lock"


def folder() -> Path:
    """The folder of the cache, with a folder for each set of moments."""
    return cache_folder() / "moments"


def place(source: str, text: str, tokens: int) -> Path:
    """The folder for moments of weights and of a text, given their digests, from so many tokens."""
    return folder() / hashlib.sha256(f"{source} {text} {tokens}".encode()).hexdigest()[:32]


def take(entry: Path) -> Lock | None:
    """Note that an entry is used now. Nobody deletes it while the lock is held; None if another process has it."""
    lock = None
    with suppress(OSError):  # a read-only cache is usable
        lock = try_lock(entry / _LOCK)
        os.utime(entry / _USED)
    return lock


def size() -> ByteCount:
    """The bytes of all moments."""
    return ByteCount(sum(each.size for each in _entries()))


def make_room(entry: Path, needed: int) -> None:
    """Delete other entries that are not in use, until `needed` more bytes of `entry` keep to the share. An entry may be
    larger than the share by itself."""
    others = [each for each in _entries() if each.path != entry]
    taken = sum(each.size for each in others)
    allowed = int((shutil.disk_usage(folder()).free + taken) * MAX_DISK_SHARE)
    everything = tuple(each.path for each in others)
    old = files_to_delete(others, needed, allowed)
    for path in everything if old is None else old:
        with suppress(OSError):
            if lock := try_lock(path / _LOCK):
                shutil.rmtree(path, ignore_errors=True)
                lock.release()
                shutil.rmtree(path, ignore_errors=True)  # Windows cannot delete the lock file while it is held


def _entries() -> Iterator[CachedFile]:
    for path in sorted(folder().glob("[0-9a-f]*")):
        with suppress(OSError):  # another process deletes too
            if path.is_dir():
                used = (path / _USED).stat().st_mtime if (path / _USED).exists() else 0.0
                yield CachedFile(path, sum(each.size for each in files_in(path)), used)
