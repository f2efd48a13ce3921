"""What was predicted for past runs and what was measured: a line of JSON each, the latest runs only."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.files import write_atomically

KEPT = 200


@dataclass(frozen=True, slots=True)
class Figures:
    """Tokens per second of all samples together, and bytes of memory that the model took in all."""

    tokens_per_second: float
    memory: int


@dataclass(frozen=True, slots=True)
class Run:
    """`at` in seconds since 1970."""

    at: float
    model: str
    context: int
    samples: int
    kv_type: str
    predicted: Figures
    measured: Figures

    @property
    def speed_error(self) -> float:
        """0.1: predicted a tenth too fast."""
        return self.predicted.tokens_per_second / self.measured.tokens_per_second - 1

    @property
    def memory_error(self) -> float:
        return self.predicted.memory / self.measured.memory - 1


def keep(path: Path, run: Run) -> None:
    """Add a run, and let the oldest go beyond `KEPT`. A file that cannot be written only costs the memory of it."""
    with suppress(OSError):
        lines = [json.dumps(asdict(each)) for each in (*load(path), run)[-KEPT:]]
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def load(path: Path) -> tuple[Run, ...]:
    """The kept runs, the oldest first. A line that makes no sense is passed over."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(run for run in map(_run, lines) if run is not None)


def in_words(runs: Sequence[Run]) -> str | None:
    """'of 23 runs: speed off by 6 %, memory by 2 % (in the middle; at most 31 % and 8 %)'; None without runs."""
    if not runs:
        return None
    speed, memory = ([abs(error) for error in errors] for errors in _errors(runs))
    if len(runs) == 1:
        return f"of one run: speed off by {speed[0]:.0%}, memory by {memory[0]:.0%}"
    return (
        f"of {len(runs)} runs: speed off by {statistics.median(speed):.0%}, memory by {statistics.median(memory):.0%} "
        f"in the middle; at most by {max(speed):.0%} and {max(memory):.0%}"
    )


def _errors(runs: Sequence[Run]) -> tuple[list[float], list[float]]:
    return [run.speed_error for run in runs], [run.memory_error for run in runs]


def _run(line: str) -> Run | None:
    try:
        body = json.loads(line)
        predicted, measured = (
            Figures(float(each["tokens_per_second"]), int(each["memory"]))
            for each in (body["predicted"], body["measured"])
        )
        if min(measured.tokens_per_second, measured.memory, predicted.tokens_per_second, predicted.memory) <= 0:
            return None
        return Run(
            float(body["at"]),
            str(body["model"]),
            int(body["context"]),
            int(body["samples"]),
            str(body["kv_type"]),
            predicted,
            measured,
        )
    except (ValueError, KeyError, TypeError, OverflowError):
        return None
