"""Tells how fast a disk reads a file, without the page cache, and whether it is a disk of this machine."""

from __future__ import annotations

import mmap
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_PIECE = 1 << 20  # bytes, about one expert
_IN_FLIGHT = 8  # reads at once: an SSD is faster with several, and models that run from the disk read so
_SECONDS = 0.25
_LEAST = 1 << 20  # bytes; a smaller file is too short to measure
# Types of file systems in /proc/self/mountinfo that fetch files from another machine, or from the host of this one (9p,
# virtiofs). Source: the names that the modules under fs/ of Linux register, and those of common FUSE programs.
_NETWORK = (
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "smb3",
    "smbfs", "virtiofs", "fuse.ceph", "fuse.glusterfs", "fuse.gcsfuse", "fuse.rclone", "fuse.s3fs", "fuse.sshfs",
)  # fmt: skip


def read_speed(file: Path) -> float:
    """Bytes per second when reading the end of `file` for a quarter of a second, with several reads in flight; 0 if it
    cannot be measured.

    Direct reads bypass the page cache. Where they are not possible, the cached part of the file is dropped first.
    """
    try:
        size = os.stat(file).st_size
        if size < _LEAST:
            return 0.0
        direct = getattr(os, "O_DIRECT", 0)
        try:
            handle = os.open(file, os.O_RDONLY | direct)
        except OSError:  # a file system without direct reads, such as tmpfs
            handle, direct = os.open(file, os.O_RDONLY), 0
        try:
            return _speed(handle, size, direct=bool(direct))
        finally:
            os.close(handle)
    except OSError:
        return 0.0


def _speed(handle: int, size: int, *, direct: bool) -> float:
    piece = min(_PIECE, size // mmap.PAGESIZE * mmap.PAGESIZE)
    offsets = iter(range(size // piece * piece - piece, -1, -piece))
    if not direct and hasattr(os, "posix_fadvise"):
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    started = time.perf_counter()

    def read() -> int:
        done = 0
        with mmap.mmap(-1, piece) as buffer:  # direct reads need memory at the start of a page
            while time.perf_counter() - started < _SECONDS and (offset := next(offsets, None)) is not None:
                done += os.preadv(handle, [buffer], offset)
        return done

    with ThreadPoolExecutor(_IN_FLIGHT) as threads:
        readers = [threads.submit(read) for _ in range(_IN_FLIGHT)]
        total = sum(reader.result() for reader in readers)
    seconds = time.perf_counter() - started
    return total / seconds if total and seconds > 0 else 0.0


def network_file_system(file: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the network file system that holds `file` ("nfs4"); "" for a local one, or where none is known.

    `mounts` as in Documentation/filesystems/proc.rst of Linux: id, parent, device, root, mount point, options, then
    optional fields, "-", type, source, options. The last of the longest mount points that lead to the file counts.
    """
    try:
        where, lines = file.resolve(), mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = Path(fields[4].replace("\\040", " "))
        if where.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), after.split()[0]
    return kind if kind in _NETWORK else ""
