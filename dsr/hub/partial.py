"""The partial file of a download: the bytes that several connections received, and their digest. It survives a kill.

Two files hold it, beside the blob that it becomes. `cache.py` has their names. One has the bytes at their places; the
other says which are missing, in two records of which the older is overwritten. Without the second file, the first one
is complete up to its end. huggingface_hub would resume a file of its own partial name at its end and not verify it. So
a file with holes must not have that name, and a file with that name is taken over.

A digest needs all bytes in order. Another thread computes it: it reads what came, out of the system's cache, as far as
no byte is missing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from io import FileIO
from pathlib import Path

from dsr.hub.cache import PartialPaths, RemoteFile, missing_of
from dsr.hub.ranges import RECORD, Missing, Part, record
from runtime.base.errors import DoesNotFit, DsrError
from runtime.base.types import ByteCount

_BUFFER = 1 << 20
_SECONDS_BETWEEN_RECORDS = 0.02  # a kill loses what came after the last record
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Partial:
    """The partial file, open. Unbuffered, so that a kill loses no received byte. Safe for several threads.

    Raises OSError if the files cannot be opened, DoesNotFit or DsrError if bytes cannot be written.
    """

    def __init__(self, paths: PartialPaths, file: RemoteFile) -> None:
        self.path = paths.data
        self._paths = paths
        self._file = file
        self._lock = threading.Lock()
        self._take_over()
        number, holes = missing_of(paths, file.size)
        self._number = number
        self._missing = Missing(holes)
        self._round = 0  # a new one begins when all bytes are dropped
        self._hashed_round = -1
        self._hashed = 0
        self._recorded_at = 0.0
        self._closed = False
        self._out = FileIO(paths.data, "rb+")
        try:
            self._in = FileIO(paths.data, "rb")
            self._records = _open_records(paths.records)
        except BaseException:
            self._out.close()
            raise
        with self._lock:
            self._record()

    def _take_over(self) -> None:
        """Make the file of bytes exist, from an older partial file where there is one."""
        for path in (self._paths.data, self._paths.plain, self._paths.records):
            if path.is_symlink():
                path.unlink()
        self._paths.data.parent.mkdir(parents=True, exist_ok=True)
        if not self._paths.data.exists() and self._paths.plain.is_file():
            self._paths.records.unlink(missing_ok=True)
            os.replace(self._paths.plain, self._paths.data)
        with FileIO(self._paths.data, "ab") as out:
            if os.fstat(out.fileno()).st_size > self._file.size:
                out.truncate(0)
                self._paths.records.unlink(missing_ok=True)

    @property
    def received(self) -> int:
        """The bytes that are here."""
        with self._lock:
            return self._file.size - self._missing.size

    @property
    def available(self) -> bool:
        """Whether there are bytes that no connection fetches yet."""
        with self._lock:
            return self._missing.available

    @property
    def in_flight(self) -> int:
        """The number of parts that connections fetch now."""
        with self._lock:
            return self._missing.in_flight

    def take(self, most: int, *, steal: bool = False) -> Part | None:
        """Up to `most` bytes for one connection; with `steal` also half of another one's. None without any."""
        with self._lock:
            return self._missing.take(most, steal=steal)

    def extend(self, part: Part, most: int) -> None:
        """Let a connection go on after its part, where no other one fetches the bytes there."""
        with self._lock:
            self._missing.extend(part, most)

    def end(self, part: Part) -> None:
        """The connection is done with the part, or failed."""
        with self._lock:
            self._missing.end(part)
            if not self._closed:
                self._record()

    def append(self, part: Part, data: bytes) -> int:
        """Store the next bytes of a part, as many as it has left, and return their number."""
        with self._lock:
            stored = 0 if self._closed else min(part.left, len(data))
            rest = memoryview(data)[:stored]
            try:
                self._out.seek(part.at)
                while rest:
                    written = self._out.write(rest) or 0
                    part.at += written
                    rest = rest[written:]
                if stored and time.monotonic() - self._recorded_at >= _SECONDS_BETWEEN_RECORDS:
                    self._record()
            except OSError as error:
                raise write_error(self.path, error, self._file.size - self._missing.size, self._file) from error
            return stored

    def seed(self, start: bytes) -> None:
        """Store the first bytes of the file, which came on another way."""
        if start and (part := self.take(len(start))) is not None:
            self.append(part, start)
            self.end(part)

    def restart(self, part: Part | None = None) -> None:
        """Drop all bytes. Connections have nothing left to do, but for the one with this `part`: it is all now."""
        with self._lock:
            self._missing.end_all()
            self._missing = Missing([(0, self._file.size)])
            if part is not None:
                self._missing.give(part)
            self._round += 1
            self._out.truncate(0)
            self._record()

    def verify_more(self) -> bool:
        """Hash up to 1 MiB of the bytes in order. False if there is nothing to hash now. For one thread."""
        with self._lock:
            if self._closed:
                return False
            holes = self._missing.holes
            end = holes[0][0] if holes else self._file.size
            if self._hashed_round != self._round:
                self._start_hash()
                self._hashed_round, self._hashed = self._round, 0
        try:
            self._in.seek(self._hashed)
            data = self._in.read(min(_BUFFER, end - self._hashed)) if end > self._hashed else b""
        except ValueError:  # closed meanwhile
            return False
        self._hash.update(data)
        self._hashed += len(data)
        return bool(data)

    @property
    def verified(self) -> int:
        """The bytes that the digest covers."""
        return self._hashed if self._hashed_round == self._round else 0

    def digest(self) -> str | None:
        """The digest of the whole file; None before all bytes are here and hashed."""
        with self._lock:
            done = self._hashed_round == self._round and self._hashed == self._file.size and not self._missing.size
        return self._hash.hexdigest() if done else None

    def starts_with(self, magic: bytes) -> bool:
        with self._lock:
            self._in.seek(0)
            return self._in.read(len(magic)) == magic

    def finish(self) -> None:
        """Flush and close the complete file, ready for its final name."""
        os.fsync(self._out.fileno())
        self.close()
        self._paths.records.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the files. An empty one is removed, so that a refused pull leaves no file."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._missing.end_all()  # no connection stores more
            try:
                self._record()
            finally:
                for each in (self._out, self._in, self._records):
                    each.close()
            if self._file.size and self._missing.size == self._file.size:
                self._paths.data.unlink(missing_ok=True)
                self._paths.records.unlink(missing_ok=True)

    def _record(self) -> None:
        """Write which bytes are missing."""
        self._recorded_at = time.monotonic()
        self._number += 1
        self._records.seek(self._number % 2 * RECORD)
        self._records.write(record(self._number, self._missing.holes))

    def _start_hash(self) -> None:
        if len(self._file.digest) == 64:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)


def _open_records(path: Path) -> FileIO:
    """The file of records, with room for both: a disk that is full later still takes them."""
    FileIO(path, "ab").close()
    out = FileIO(path, "rb+")
    if os.fstat(out.fileno()).st_size < 2 * RECORD:
        out.write(bytes(2 * RECORD))
    return out


def write_error(path: Path, error: OSError, done: int = 0, file: RemoteFile | None = None) -> DsrError:
    if error.errno in _FULL:
        kept = f" after {ByteCount(done)} of {ByteCount(file.size)} of {file.name}" if file else ""
        return DoesNotFit(
            f"{path.parent}: the disk is full or too small for this file{kept} ({error.strerror})",
            hint="free space with dsr rm, or set HF_HOME to a folder on another disk; then repeat the command",
        )
    return DsrError(
        f"cannot write to the cache at {path.parent}: {error.strerror or error}",
        hint="set HF_HOME to a folder that you can write to",
    )
