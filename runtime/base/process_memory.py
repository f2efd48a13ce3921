"""The memory of a process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def status_bytes(*names: str, process: int | None = None) -> int:
    """The sum of these fields of /proc/PID/status (proc(5)) in bytes, of this process without `process`.

    0 where the system does not tell.
    """
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return sum(int(fields[name].split()[0]) << 10 for name in names if name in fields)


def data_memory() -> int:
    """The bytes of this process that RLIMIT_DATA counts; 0 where the system does not tell."""
    return status_bytes("VmData")


def own_memory(process: int) -> int:
    """The bytes of memory of a process that are not pages of a file; 0 where the system does not tell."""
    return status_bytes("RssAnon", "VmSwap", process=process)
