"""Predicted and measured figures of the latest runs, one JSON line each, and the correction of the next prediction."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from runtime.base.files import write_atomically
from runtime.base.lock import lock_path, try_lock
from runtime.base.types import counted

MOST_RUNS = 200

_WAIT_SECONDS = 10.0  # for another process that is writing
_RECENT = 12  # latest runs that are used: the speed of a shared machine changes within minutes
_PRIOR = 2  # with more runs than this, the runs weigh more than the uncorrected prediction
_ALIKE = 2.0  # models whose weights differ by at most this factor are of one size
_LARGEST_FACTOR = 4.0  # a run that was slower or faster than this says nothing about the machine


@dataclass(frozen=True, slots=True)
class Figures:
    """Tokens per second of all samples together, and bytes of memory of the model in total."""

    tokens_per_second: float
    memory: int


@dataclass(frozen=True, slots=True)
class PredictedRun:
    """The predicted and the measured figures of one run.

    `at`: seconds since 1970. `probe`: the digest of the machine's measured speeds (`Machine.probe`). `uncorrected`:
    the tokens per second that follow from these speeds and the threads alone. `weights`: the bytes of the model's
    weights, 0 in old lines. `disturbed`: the other work that makes the measured speed doubtful, as text; "" for none.
    """

    at: float
    model: str
    context: int
    samples: int
    kv_type: str
    predicted: Figures
    measured: Figures
    uncorrected: float
    threads: int
    probe: str
    weights: int = 0
    disturbed: str = ""

    @property
    def speed_error(self) -> float:
        """Returns 0.1 if the prediction was 10 % too fast."""
        return self.predicted.tokens_per_second / self.measured.tokens_per_second - 1

    @property
    def memory_error(self) -> float:
        return self.predicted.memory / self.measured.memory - 1

    @property
    def reached(self) -> float:
        """Returns the measured speed as a share of the uncorrected prediction."""
        return self.measured.tokens_per_second / self.uncorrected


@dataclass(frozen=True, slots=True)
class Correction:
    """The factor for a prediction, from earlier runs.

    The median of the latest `runs` runs reached `ratio` of the uncorrected speed. `alike` of them had the same model
    and number of samples; their median reached `alike_ratio`.
    """

    factor: float = 1.0
    runs: int = 0
    ratio: float = 1.0
    alike: int = 0
    alike_ratio: float = 1.0

    def describe(self) -> str:
        """Returns '12 runs here reached 0.81 of the uncorrected speed; corrected by 0.83'; "" without runs."""
        if not self.runs:
            return ""
        alike = f" ({self.alike_ratio:.2f} in {self.alike} like this one)" if 0 < self.alike < self.runs else ""
        runs = f"{counted(self.runs, 'run')} here reached {self.ratio:.2f} of the uncorrected speed"
        return f"{runs}{alike}; corrected by {self.factor:.2f}"


def correction(
    runs: Sequence[PredictedRun], probe: str, threads: int, model: str = "", samples: int = 1, weights: int = 0
) -> Correction:
    """Returns the correction from the latest comparable `runs`, which come oldest first.

    Comparable runs were not disturbed, and have the same probe and threads. With `weights`, in bytes, they are of the
    same model or of one of this size: a small model is bound by other things than a large one. The factor moves from 1
    towards the median of all of them, then of those of the same model, then of those with as many samples. n runs move
    it n / (n + 2) of the way, in logarithms.
    """
    comparable = [
        run
        for run in runs
        if probe and (run.probe, run.threads) == (probe, threads) and not run.disturbed and _alike(run, model, weights)
    ]
    of_model = [run for run in comparable if run.model == model]
    latest = [each[-_RECENT:] for each in (comparable, of_model, [run for run in of_model if run.samples == samples])]
    moved = 0.0
    for group in latest:
        moved += (math.log(_median(group)) - moved) * len(group) / (len(group) + _PRIOR)
    recent, _, alike = latest
    return Correction(math.exp(moved), len(recent), _median(recent), len(alike), _median(alike))


def _alike(run: PredictedRun, model: str, weights: int) -> bool:
    if not weights or run.model == model:
        return True
    return run.weights > 0 and max(run.weights, weights) <= _ALIKE * min(run.weights, weights)


def _median(runs: Sequence[PredictedRun]) -> float:
    return (
        statistics.median(min(max(run.reached, 1 / _LARGEST_FACTOR), _LARGEST_FACTOR) for run in runs) if runs else 1.0
    )


def add(path: Path, run: PredictedRun) -> None:
    """Adds a run and drops the oldest beyond `MOST_RUNS`. Several processes may add runs.

    If the file cannot be written, or another process holds its lock for too long, the run is lost.
    """
    with suppress(OSError):
        lock = try_lock(lock_path(path), wait=_WAIT_SECONDS)
        if lock is None:
            return
        try:
            lines = [json.dumps(asdict(each)) for each in (*load(path), run)[-MOST_RUNS:]]
            write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
        finally:
            lock.release()


def load(path: Path) -> tuple[PredictedRun, ...]:
    """Returns the saved runs, the oldest first. Skips lines that cannot be read."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return ()
    return tuple(run for run in map(_run, lines) if run is not None)


def describe(runs: Sequence[PredictedRun]) -> str | None:
    """Returns 'speed off by 6%, memory by 2% (median of 23 runs; at most 31% and 8%)'; None without runs.

    Runs that other work disturbed do not count.
    """
    runs = [run for run in runs if not run.disturbed]
    if not runs:
        return None
    speed, memory = ([abs(error) for error in errors] for errors in _errors(runs))
    if len(runs) == 1:
        return f"speed off by {speed[0]:.0%}, memory by {memory[0]:.0%} (1 run)"
    return (
        f"speed off by {statistics.median(speed):.0%}, memory by {statistics.median(memory):.0%} "
        f"(median of {len(runs)} runs; at most {max(speed):.0%} and {max(memory):.0%})"
    )


def _errors(runs: Sequence[PredictedRun]) -> tuple[list[float], list[float]]:
    return [run.speed_error for run in runs], [run.memory_error for run in runs]


def _run(line: str) -> PredictedRun | None:
    try:
        body = json.loads(line)
        predicted, measured = (
            Figures(float(each["tokens_per_second"]), int(each["memory"]))
            for each in (body["predicted"], body["measured"])
        )
        uncorrected = float(body.get("uncorrected", predicted.tokens_per_second))
        speeds = (measured.tokens_per_second, predicted.tokens_per_second, uncorrected)
        if not all(0 < each < math.inf for each in (*speeds, float(measured.memory), float(predicted.memory))):
            return None
        return PredictedRun(
            float(body["at"]),
            str(body["model"]),
            int(body["context"]),
            int(body["samples"]),
            str(body["kv_type"]),
            predicted,
            measured,
            uncorrected,
            int(body.get("threads", 0)),
            str(body.get("probe", "")),
            int(body.get("weights", 0)),
            str(body.get("disturbed", "")),
        )
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
