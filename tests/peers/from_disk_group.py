"""Runs programs with little memory and a slow disk, one after the other: each in a control group of its own.

Linux only, for root. Version 1 and 2 of control groups. Everything that is changed here is restored at the end of the
block, also after Ctrl-C, SIGTERM and SIGHUP.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_V1, _V2 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/cgroup.controllers")
# exec keeps the number of the process, so the program is in the groups before its first page.
_ENTER = (
    'n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ > "$1/cgroup.procs" || exit 99; shift; n=$((n-1)); done; exec "$@"'
)


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory` in bytes, with the page cache; `disk` in bytes read per second. None: no limit."""

    memory: int | None = None
    disk: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a program ended. `peak` of the group's memory in bytes, 0 without a limit; `at_limit`: how often an
    allocation met the limit; `kills` for lack of memory; `swapped` bytes at the end."""

    code: int
    seconds: float
    peak: int
    at_limit: int
    kills: int
    swapped: int
    bytes_read: int


class Disk:
    """The disk that holds a file."""

    def __init__(self, file: Path) -> None:
        number = os.stat(file).st_dev
        place = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}").resolve()
        if (place / "partition").exists():
            place = place.parent
        self.number = (place / "dev").read_text().strip()
        self._ahead = place / "queue/read_ahead_kb"

    @contextmanager
    def reading_ahead(self, kib: int) -> Iterator[None]:
        """Files that are opened in the block are read ahead by so much (the kernel's read_ahead_kb)."""
        before = self._ahead.read_text()
        try:
            self._ahead.write_text(str(kib))
            yield
        finally:
            self._ahead.write_text(before)


class _Group:
    """A new control group with limits; `with` removes it."""

    def __init__(self, limits: Limits, disk: Disk) -> None:
        self._limits, self._disk = limits, disk
        self._v2 = _V2.exists()
        self._stack = ExitStack()
        self.folders: list[Path] = []
        with ExitStack() as opening:
            opening.callback(self._stack.close)
            self._make()
            opening.pop_all()

    def __enter__(self) -> _Group:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _make(self) -> None:
        memory, disk = self._limits.memory, self._limits.disk
        if self._v2:
            with suppress(OSError):
                (_V2.parent / "cgroup.subtree_control").write_text("+memory +io")
            folder = self._folder(_V2.parent)
            if memory is not None:
                (folder / "memory.max").write_text(str(memory))
                with suppress(OSError):  # a kernel without swap
                    (folder / "memory.swap.max").write_text("0")
            if disk is not None:
                (folder / "io.max").write_text(f"{self._disk.number} rbps={disk}")
            return
        # Also without a limit: the group counts.
        folder = self._folder(_own_group("memory"))
        if memory is not None:
            (folder / "memory.limit_in_bytes").write_text(str(memory))
            with suppress(OSError):
                (folder / "memory.memsw.limit_in_bytes").write_text(str(memory))
        if disk is not None:
            throttle = self._folder(_own_group("blkio")) / "blkio.throttle.read_bps_device"
            throttle.write_text(f"{self._disk.number} {disk}")

    def _folder(self, parent: Path) -> Path:
        folder = parent / f"dsr-from-disk-{os.getpid()}"
        folder.mkdir()
        self._stack.callback(_remove, folder)
        self.folders.append(folder)
        return folder

    def counts(self) -> tuple[int, int, int, int]:
        """Peak, times at the limit, kills, bytes in swap."""
        folder = self.folders[0]
        if self._v2:
            events, peak = _rows(folder / "memory.events"), folder / "memory.peak"
            swapped = folder / "memory.swap.current"
            return (
                int(peak.read_text()) if peak.exists() else 0,
                events.get("max", 0),
                events.get("oom_kill", 0),
                int(swapped.read_text()) if swapped.exists() else 0,
            )
        kills = _rows(folder / "memory.oom_control").get("oom_kill", 0)
        return (
            int((folder / "memory.max_usage_in_bytes").read_text()),
            int((folder / "memory.failcnt").read_text()),
            kills,
            _rows(folder / "memory.stat").get("swap", 0),
        )


def _own_group(controller: str) -> Path:
    """The group of this process, so that limits of a container still hold."""
    root = _V1 / controller
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        if controller in names.split(",") and (root / path.lstrip("/")).is_dir():
            return root / path.lstrip("/")
    return root


def _rows(file: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in file.read_text().splitlines())}


def _remove(folder: Path) -> None:
    with suppress(OSError):
        (folder / "memory.force_empty").write_text("0")
    for _ in range(50):  # a process that was killed leaves the group a little later
        try:
            return folder.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.1)


def forget(file: Path) -> None:
    """Drop the page cache: that of the file, and all of it where that is permitted."""
    handle = os.open(file, os.O_RDONLY)
    try:
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)
    with suppress(OSError):
        Path("/proc/sys/vm/drop_caches").write_text("3")


class Program:
    """A program in its group. `on_line` receives its lines, with "out" or "err" before them, as they come."""

    def __init__(self, command: list[str], folders: list[Path], env: dict[str, str] | None) -> None:
        enter = ["sh", "-c", _ENTER, "sh", str(len(folders)), *map(str, folders)]
        self._process = subprocess.Popen(
            [*enter, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, **(env or {})}, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid

    def bytes_read(self) -> int:
        """Bytes that the process has read from disks so far, also by page faults."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("read_bytes"):
                return int(line.split()[1])
        return 0

    def watch(self, on_line: Callable[[str, str], None], timeout: float) -> tuple[int, int]:
        """Returns the exit code and all bytes read. A program that takes longer than `timeout` seconds is killed."""
        out, err = self._process.stdout, self._process.stderr
        assert out is not None and err is not None

        def follow() -> None:
            for line in err:
                on_line("err", line.rstrip("\n"))

        follower = threading.Thread(target=follow)
        timer = threading.Timer(timeout, self.kill)
        follower.start()
        timer.start()
        try:
            for line in out:
                on_line("out", line.rstrip("\n"))
            follower.join()
            _, status, usage = os.wait4(self.pid, 0)
            self._process.returncode = os.waitstatus_to_exitcode(status)
            return self._process.returncode, usage.ru_inblock * 512
        finally:
            timer.cancel()
            self.kill()

    def kill(self) -> None:
        if self._process.returncode is None:
            with suppress(OSError):
                os.killpg(self.pid, signal.SIGKILL)


def run(
    command: list[str],
    file: Path,
    limits: Limits,
    on_line: Callable[[Program, str, str], None],
    *,
    env: dict[str, str] | None = None,
    timeout: float = 300,
) -> Outcome:
    """Run a program with an empty page cache under `limits`. `file` is the model: its disk is slowed down."""
    forget(file)
    with _Group(limits, Disk(file)) as group:
        began = time.monotonic()
        program = Program(command, group.folders, env)
        try:
            code, read = program.watch(lambda stream, line: on_line(program, stream, line), timeout)
        finally:
            program.kill()
        return Outcome(code, time.monotonic() - began, *group.counts(), read)


@contextmanager
def limited(file: Path, limits: Limits) -> Iterator[tuple[Callable[[list[str]], list[str]], Callable[[], int]]]:
    """In the block there is a group with `limits`: a function that makes a command run in it, and its peak so far."""
    with _Group(limits, Disk(file)) as group:
        enter = ["sh", "-c", _ENTER, "sh", str(len(group.folders)), *map(str, group.folders)]
        yield lambda command: [*enter, *command], lambda: group.counts()[0]


def restore_on_signals() -> None:
    """Make SIGTERM and SIGHUP end the program as Ctrl-C does, so that every block restores its settings."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, end)
