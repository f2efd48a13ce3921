"""The partial file of a download: received bytes with their digest. It survives a kill.

Its size says how much is done, so it needs no `dsr.store.ledger`."""

from __future__ import annotations

import errno
import hashlib
import os
from io import FileIO
from pathlib import Path

from dsr.hub.cache import RemoteFile
from runtime.base.errors import DoesNotFit, DsrError
from runtime.base.events import Listener, Progress
from runtime.base.types import ByteCount

_BUFFER = 1 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class Partial:
    """The partial file with the digest of its bytes. Unbuffered, so that a kill loses no received byte."""

    def __init__(self, path: Path, file: RemoteFile, listen: Listener) -> None:
        self.path = path
        self._file = file
        self.size = 0
        if path.is_symlink():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._out = FileIO(path, "ab+")
        try:
            self._start_hash()
            self._read(listen)
        except BaseException:
            self._out.close()
            raise

    def _start_hash(self) -> None:
        if len(self._file.digest) == 64:
            self._hash = hashlib.sha256()
        else:
            self._hash = hashlib.sha1(b"blob %d\0" % self._file.size, usedforsecurity=False)

    def _read(self, listen: Listener) -> None:
        """Hash the bytes of an earlier pull. If there are more than the file has, start again."""
        left = os.fstat(self._out.fileno()).st_size
        if left > self._file.size:
            self.restart()
            return
        self._out.seek(0)
        while data := self._out.read(_BUFFER):
            self._hash.update(data)
            self.size += len(data)
            listen(Progress("verifying", self._file.name, self.size, left, "bytes"))

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                written = self._out.write(rest) or 0
            except OSError as error:
                raise write_error(self.path, error, self.size, self._file) from error
            self._hash.update(rest[:written])
            self.size += written
            rest = rest[written:]

    def restart(self) -> None:
        self._out.truncate(0)
        self.size = 0
        self._start_hash()

    def digest(self) -> str:
        return self._hash.hexdigest()

    def starts_with(self, magic: bytes) -> bool:
        self._out.seek(0)
        return self._out.read(len(magic)) == magic

    def flush(self) -> None:
        os.fsync(self._out.fileno())

    def close(self) -> None:
        """Close the file; an empty one is removed, so that a refused pull leaves no file."""
        self._out.close()
        if not self.size and self._file.size:
            self.path.unlink(missing_ok=True)


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
