"""Runs native code in a child process that may die, grow or hang, within limits on time, memory and files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime.base.errors import Aborted
from runtime.base.events import Progress
from runtime.base.process_memory import data_memory, own_memory
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.llama.native import engine_info

_LOOK = 0.02  # seconds between two looks at the child
_LONGEST_ANSWER = 1 << 16
_THREAD_STACKS = 16 << 20  # bytes of address space per thread


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of a child: bytes of memory of its own, without the pages of the file, and seconds.

    With `repack` the weights are copied into the order that the CPU's kernels want, as in a real opening. Without it
    the trial leaves that out, because these copies have no room. `address_space`: bytes that it may reserve beyond the
    memory that it takes.
    """

    memory: ByteCount
    seconds: float
    repack: bool = True
    address_space: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """How a child ended: its exit code (minus the signal), what it said, and which limit ended it."""

    code: int
    said: bytes
    broke: str | None = None


def run_child(
    command: list[str],
    asked: dict[str, Any],
    path: Path,
    limits: Limits,
    run: Run,
    *,
    job: str,
    given: bytes = b"",
) -> End:
    """Run a child within `limits`; its progress is told as `job` on the file at `path`.

    It gets `asked` as JSON in its last argument, and `given` on its stdin, which it reads at once. Raises Aborted.
    """
    child = subprocess.Popen(
        [*command, json.dumps(asked)],
        cwd=Path(__file__).resolve().parents[2],
        stdin=subprocess.PIPE,  # the child ends when this closes, however this process ends
        stdout=subprocess.PIPE,
        stderr=None if os.environ.get("DSR_DEBUG") == "1" else subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C reaches every process of a terminal's session; this one decides
    )
    assert child.stdin is not None and child.stdout is not None
    broke: str | None = None
    started = time.monotonic()
    run.listen(Progress(job, path.name, 0, 0, "steps"))
    try:
        with suppress(BrokenPipeError):  # it ended before; its code says why
            child.stdin.write(given)
            child.stdin.flush()
        while True:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_LOOK)
                break
            seconds = time.monotonic() - started
            if run.stop.take():
                raise Aborted("stopped while opening")
            if seconds > limits.seconds:
                broke = "time"
            elif own_memory(child.pid) > limits.memory:
                broke = "memory"
            if broke:
                break
    finally:
        run.listen(Progress(job, path.name, 1, 1, "steps"))
        child.kill()
        code = child.wait()
        said = os.read(child.stdout.fileno(), _LONGEST_ANSWER)
        with suppress(BrokenPipeError):  # it did not read everything
            child.stdin.close()
        child.stdout.close()
    return End(code, said, broke)


def answer_of(said: bytes) -> dict[str, Any] | None:
    """The JSON object that a child wrote; None if it wrote none."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def end_with_parent() -> None:
    """In a thread of the child: end it when its stdin closes, because then its parent has ended."""
    os.read(0, 1)
    os._exit(1)


def restrict(memory: int, threads: int) -> None:
    """In the child: forbid files and core dumps, and limit its own memory to `memory` bytes, if the system can."""
    if sys.platform == "win32":
        return
    import resource

    def limit(kind: int, most: int) -> None:
        with suppress(ValueError, OSError):  # a system may have a lower limit, or none of this kind
            resource.setrlimit(kind, (most, most))

    limit(resource.RLIMIT_CORE, 0)
    limit(resource.RLIMIT_FSIZE, 0)
    # A GPU's driver reserves address space without using it.
    on_cpu = all(device.kind in ("cpu", "accelerator") for device in engine_info().devices)
    if on_cpu and (now := data_memory()):
        limit(resource.RLIMIT_DATA, now + memory + threads * _THREAD_STACKS)
