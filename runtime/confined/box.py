"""A box for commands: no network, no file of the user, limits on time, memory, files and processes. Linux only.

The box is made of namespaces, by programs of util-linux (`unshare`, `mount`, `prlimit`):

1. New user, mount, network, process, IPC and host name namespaces. The network namespace has no device that is up.
2. A tmpfs as root. The system's programs, Python and the folders that the caller names are there, read-only.
   `/box` is the working folder. Home folders, `/tmp`, `/proc`, `/sys`, sockets and devices of the host are not there.
3. A second user namespace, whose user is not root, inside of that root. The kernel gives such a user no privilege, and
   no further user namespace after chroot (user_namespaces(7)), so mounts cannot be changed.

The first process of the process namespace is the command. When it ends, the kernel ends all that it started.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from runtime.base.errors import Incompatible

HOME = "/box"

# Where programs and their libraries are (Filesystem Hierarchy Standard 3.0; /nix for NixOS), and how they are found.
_SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix", "/etc/alternatives", "/etc/ld.so.cache",
)  # fmt: skip
_PROGRAMS = ("unshare", "mount", "prlimit")
_OUTPUT = 64 * 1024  # bytes of output that are read

# Its arguments: the folder for the root, the folder with the given files, megabytes of the tmpfs, the limits of
# prlimit, the number of folders, the folders, the command.
_SCRIPT = """
set -eu
root=$1 given=$2 size=$3 limits=$4 count=$5
shift 5
mount -t tmpfs -o "size=${size}m,nr_inodes=16384,mode=755,nosuid,nodev" tmpfs "$root"
while [ "$count" -gt 0 ]; do
  from=$1
  shift
  count=$((count - 1))
  if [ -d "$from" ]; then
    mkdir -p "$root$from"
  else
    mkdir -p "$root${from%/*}"
    : > "$root$from"
  fi
  mount --bind "$from" "$root$from"
  mount -o remount,bind,ro,nosuid,nodev "$root$from"
done
mkdir "$root/dev" "$root/box"
for device in null zero random urandom; do
  : > "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
if [ -n "$given" ]; then cp -R "$given/." "$root/box/"; fi
exec prlimit $limits -- unshare --user --map-user=1000 --map-group=1000 --root "$root" --wd /box -- "$@"
"""
_NAMESPACES = (
    "unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child",
    "--propagation", "private", "--", "/bin/sh", "-c", _SCRIPT, "sh",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class BoxLimits:
    """`seconds` on the clock; bytes of `memory` for each process; bytes of all `files` together; processes at once.

    The kernel does not count the processes of root. Files are in memory, so they count there too.
    """

    seconds: float = 10.0
    memory: int = 1 << 30
    files: int = 64 << 20
    processes: int = 64

    def prlimit(self) -> str:
        cpu = int(self.seconds) + 1
        return (
            f"--as={self.memory} --cpu={cpu} --fsize={self.files} --nproc={self.processes} --nofile=256 --core=0 "
            f"--memlock=0"
        )


@dataclass(frozen=True, slots=True)
class BoxEnd:
    """How a command ended. `code`: its exit code, None where the time limit ended it. `said`: its last output."""

    code: int | None
    said: str


def run_boxed(
    command: Sequence[str], files: Mapping[str, str], limits: BoxLimits, folders: Iterable[Path] = ()
) -> BoxEnd:
    """Runs a command in a box whose working folder has these files, by relative path. `folders` can be read.

    Raises ValueError for a path that leaves the folder, Incompatible where the system has no box.
    """
    check_available()
    with tempfile.TemporaryDirectory(prefix="dsr-box-") as made, tempfile.TemporaryFile() as output:
        given, root = Path(made, "given"), Path(made, "root")
        given.mkdir()
        root.mkdir()
        for name, text in files.items():
            place = given / inside(name)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text, encoding="utf-8", errors="replace")
        process = _started(command, root, given, limits, folders, subprocess.DEVNULL, output, subprocess.STDOUT)
        try:
            code: int | None = process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
            process.wait()
        output.seek(max(output.seek(0, 2) - _OUTPUT, 0))
        return BoxEnd(code, output.read().decode("utf-8", "replace"))


class Boxed:
    """A process in a box that is talked to by lines. Ends with its context."""

    def __init__(self, command: Sequence[str], limits: BoxLimits, folders: Iterable[Path] = ()) -> None:
        """Raises Incompatible where the system has no box."""
        check_available()
        self._root = tempfile.mkdtemp(prefix="dsr-box-")
        self.process = _started(
            command, Path(self._root), None, limits, folders, subprocess.PIPE, subprocess.PIPE, subprocess.DEVNULL
        )

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        with suppress(OSError):
            Path(self._root).rmdir()


def python_folders() -> tuple[Path, ...]:
    """Returns the folders that this Python needs to start and to import what is installed."""
    named = [sys.prefix, sys.base_prefix, sys.exec_prefix, str(Path(sys.executable).resolve().parents[1])]
    return tuple(Path(name) for name in dict.fromkeys([*named, *sys.path]) if name and Path(name).is_dir())


@functools.cache
def why_not() -> str | None:
    """Returns why this system has no box, in a few words; None if it has one. Tries it once."""
    if sys.platform != "linux":
        return f"it is made of Linux namespaces, and this is {sys.platform}"
    for program in _PROGRAMS:
        if shutil.which(program) is None:
            return f"{program} (util-linux) is not installed"
    with tempfile.TemporaryDirectory(prefix="dsr-box-") as made, tempfile.TemporaryFile() as output:
        trial = ("/bin/sh", "-c", "true | cat")
        process = _started(trial, Path(made), None, BoxLimits(), (), subprocess.DEVNULL, output, subprocess.STDOUT)
        try:
            code: int | None = process.wait(10)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            process.kill()
            process.wait()
        if code == 0:
            return None
        output.seek(0)
        said = output.read(_OUTPUT).decode("utf-8", "replace").strip().splitlines()
    return f"the system refuses: {said[0]}" if said else "the system refuses, without a reason"


def check_available() -> None:
    """Raises Incompatible where the system has no box."""
    if (why := why_not()) is not None:
        raise Incompatible(
            f"there is no sandbox for untrusted commands: {why}",
            hint="on Linux, allow user namespaces (sysctl user.max_user_namespaces), or leave the container",
        )


def _started(
    command: Sequence[str],
    root: Path,
    given: Path | None,
    limits: BoxLimits,
    folders: Iterable[Path],
    stdin: int,
    stdout: int | IO[bytes],
    stderr: int,
) -> subprocess.Popen[bytes]:
    shown = _outermost([*(Path(name) for name in _SYSTEM), *folders])
    size = str(max(limits.files >> 20, 1))
    arguments = [str(root), str(given or ""), size, limits.prlimit(), str(len(shown)), *map(str, shown), *command]
    return subprocess.Popen(
        [*_NAMESPACES, *arguments],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env={
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": HOME,
            "LANG": "C.UTF-8",
            "PYTHONHASHSEED": "0",
        },
        start_new_session=True,
    )


def _outermost(folders: Iterable[Path]) -> list[Path]:
    """Returns the paths that exist, without those inside of another one."""
    found: list[Path] = []
    for folder in sorted({each.absolute() for each in folders if each.exists()}, key=lambda each: len(each.parts)):
        if folder != Path("/") and not any(folder.is_relative_to(other) for other in found):
            found.append(folder)
    return found


def inside(name: str) -> PurePosixPath:
    """Returns the relative path of a file in the box. Raises ValueError for one that leaves it."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise ValueError(f"{name!r} is not the name of a file in the box")
    return path
