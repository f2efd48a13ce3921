"""The caches of conversations on disk, one file for each: found by their tokens, deleted when room is short.

No loss is final: if a file is missing, damaged or too large, its text is read again.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsr.store.disk_room import CachedFile, files_in, files_to_delete
from dsr.store.state_file import Head, head_of, pieces, read_head, read_state, size_of
from runtime.base.errors import VerificationFailed
from runtime.base.events import Listener, Notice, ignore
from runtime.base.files import remove_left_behind, write_stream
from runtime.base.lock import try_lock
from runtime.base.types import ByteCount
from runtime.engine.kept_state import KeptState

# Reading fewer tokens again is faster than looking for a file.
LEAST_TOKENS = 256
# A state is loaded whole, so a small use of a large one is not worth it. Per token, loading takes about a hundredth of
# the time of reading on a CPU, and half of it on a large GPU.
LEAST_SHARE = 1 / 4
# The limit without `cache_limit`: this share of the disk's room, free or taken by these files, and at most this.
DEFAULT_SHARE = 0.1
DEFAULT_MOST = ByteCount(20 << 30)

_WAIT_SECONDS = 10.0  # for another process that is writing
_NAME = re.compile(r"(\d+)\.([0-9a-f]{16})\.state")


class GivenUp(Exception):
    """Writing was stopped, because nobody waits for it any more."""


class Unwritten(Exception):
    """A state was not written; its text is the reason in a few words."""


@dataclass(frozen=True, slots=True)
class Found:
    """A file of `size` bytes, whose state has the first `length` of the wanted tokens."""

    path: Path
    identity: str
    length: int
    size: int


class KeptStates:
    """The files in `folder`. `limit` is the most bytes of all files together; None is `default_limit`.

    `listen` gets a Notice if a file cannot be used and its text is read again.
    """

    def __init__(self, folder: Path, limit: int | None = None, listen: Listener = ignore) -> None:
        self._folder = folder
        self._limit = limit
        self._listen = listen

    def find(self, identity: str, tokens: Sequence[int], most: int, *, cuts_anywhere: bool) -> Found | None:
        """The file with the longest prefix of `tokens` that is worth loading; None if there is none.

        Files with more than `most` tokens, and those of another identity, do not count. Damaged files are deleted.
        """
        best: Found | None = None
        for file in self._of(identity):
            head = self._head(file.path, identity)
            if head is None or len(head.tokens) > most:
                continue
            length = head.reaches(tokens, cuts_anywhere=cuts_anywhere)
            if length >= max(LEAST_TOKENS, len(head.tokens) * LEAST_SHARE) and (best is None or length > best.length):
                best = Found(file.path, identity, length, file.size)
        return best

    def load(self, found: Found) -> KeptState | None:
        """The state, which counts as used now; None if the file cannot be used. A damaged file is deleted."""
        try:
            kept = read_state(found.path, found.identity)
        except VerificationFailed as error:
            self.drop(found, error.message)
            return None
        except (OSError, MemoryError) as error:
            self._listen(Notice(f"a cached conversation is read again: {_reason(error)}"))
            return None
        with suppress(OSError):  # a read-only folder is usable
            os.utime(found.path)
        return kept

    def drop(self, found: Found, why: str) -> None:
        """Delete a file that is of no use. `why` is told."""
        self._drop(found.path, why)

    def is_of_another(self, conversation: int, identity: str) -> bool:
        """Whether the conversation has a file, and none of this identity."""
        files = [each for each in self._files() if _is_of(each.path, conversation)]
        return bool(files) and not any(f".{identity[:16]}." in each.path.name for each in files)

    def save(
        self, conversation: int, identity: str, kept: KeptState, *, cuts_anywhere: bool, wanted: Callable[[], bool]
    ) -> None:
        """Write the state of a conversation in place of its earlier one; delete files that it makes needless.

        Raises GivenUp as soon as `wanted` returns False; Unwritten if the state is larger than the limit, or while
        another process writes; OSError. Files that were deleted to make room stay deleted then.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = try_lock(self._folder / "lock", wait=_WAIT_SECONDS)
        if lock is None:
            raise Unwritten("another dsr is writing there")
        try:
            remove_left_behind(self._folder)
            path = self._folder / f"{conversation}.{identity[:16]}.state"
            others = [each for each in self._files() if not _is_of(each.path, conversation)]
            size, limit = size_of(kept), self._limit_now()
            old = files_to_delete(others, size, limit)
            if old is None:
                raise Unwritten(f"its {ByteCount(size)} are more than the limit of {ByteCount(limit)}")
            for each in old:
                _delete(each)
            write_stream(path, _while_wanted(pieces(kept, identity), wanted), mode=0o600, flush=False)
            self._delete_needless(path, conversation, identity, head_of(kept), cuts_anywhere=cuts_anywhere)
        finally:
            lock.release()

    def delete(self, conversation: int) -> None:
        """Delete the state of a conversation, also one that another process is writing. Raises OSError."""
        if not self._folder.is_dir():
            return
        lock = None
        with suppress(OSError):  # a read-only folder, into which nobody writes
            lock = try_lock(self._folder / "lock", wait=_WAIT_SECONDS)
        try:
            for each in self._files():
                if _is_of(each.path, conversation):
                    each.path.unlink(missing_ok=True)
        finally:
            if lock is not None:
                lock.release()

    def sizes(self) -> dict[int, ByteCount]:
        """The bytes on disk, by the number of the conversation."""
        sizes: dict[int, ByteCount] = {}
        for each in self._files():
            if name := _NAME.fullmatch(each.path.name):
                sizes[int(name[1])] = ByteCount(sizes.get(int(name[1]), 0) + each.size)
        return sizes

    def _limit_now(self) -> int:
        if self._limit is not None:
            return self._limit
        return default_limit(shutil.disk_usage(self._folder).free, sum(each.size for each in self._files()))

    def _files(self) -> list[CachedFile]:
        return files_in(self._folder, "*.state")

    def _of(self, identity: str) -> list[CachedFile]:
        return files_in(self._folder, f"*.{identity[:16]}.state")

    def _head(self, path: Path, identity: str) -> Head | None:
        try:
            return read_head(path, identity)
        except VerificationFailed as error:
            self._drop(path, error.message)
        except (OSError, MemoryError):
            pass
        return None

    def _drop(self, path: Path, why: str) -> None:
        _delete(path)
        self._listen(Notice(f"a cached conversation is read again: {why}"))

    def _delete_needless(
        self, path: Path, conversation: int, identity: str, head: Head, *, cuts_anywhere: bool
    ) -> None:
        """Delete earlier states of the conversation, and states that the new file can replace.

        For example, the second question about a file makes the state after the first question needless.
        """
        for each in self._files():
            if each.path != path and _is_of(each.path, conversation):
                _delete(each.path)
        for each in self._of(identity):
            other = None if each.path == path else self._head(each.path, identity)
            if other is not None and stands_for(head, other, cuts_anywhere=cuts_anywhere):
                _delete(each.path)


def stands_for(new: Head, old: Head, *, cuts_anywhere: bool) -> bool:
    """Whether the new state has nearly all tokens of the old one: all but fewer than `LEAST_TOKENS`."""
    return len(old.tokens) - new.reaches(old.tokens, cuts_anywhere=cuts_anywhere) < LEAST_TOKENS


def default_limit(free: int, taken: int) -> int:
    """The limit in bytes for a disk with `free` bytes, if these files take `taken` bytes."""
    return min(int((free + taken) * DEFAULT_SHARE), DEFAULT_MOST)


def _while_wanted(content: Iterator[bytes | memoryview], wanted: Callable[[], bool]) -> Iterator[bytes | memoryview]:
    for piece in content:
        if not wanted():
            raise GivenUp
        yield piece


def _is_of(path: Path, conversation: int) -> bool:
    return path.name.startswith(f"{conversation}.")


def _reason(error: OSError | MemoryError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "there is not enough memory"


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
