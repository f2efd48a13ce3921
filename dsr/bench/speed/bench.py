"""Measures the speed and memory of model files for `dsr bench speed`.

Each file is loaded in a process of its own, so that the peak memory of one file does not include another. `worker`
measures in that process; this module decides what to measure and collects the rows.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from dsr.loading.context import MIN_SLOT_TOKENS
from dsr.loading.options import LoadOptions
from dsr.models.model import Model
from dsr.store.measurement import Measurement
from runtime.base.errors import DsrError, UsageError
from runtime.base.quoted import quoted
from runtime.base.run import Run, Stop
from runtime.gguf.card import ModelCard
from runtime.gguf.kv_types import kv_types

# Tokens of the prompt that the samples of a vote share, as in docs/log.md's comparison with llama-batched-bench.
SHARED_PROMPT = 256

_POLL_SECONDS = 0.05  # between two checks whether the user wants to stop

TestKind = Literal["prompt", "decode", "votes", "first token", "load", "memory"]


@dataclass(frozen=True, slots=True)
class Test:
    """One test of a model.

    The engine reads `prompt` tokens or decodes `generated` tokens; `depth` tokens are in the cache before. `votes`
    samples run at once.
    """

    kind: TestKind
    prompt: int = 0
    generated: int = 0
    depth: int = 0
    votes: int = 1

    @property
    def name(self) -> str:
        """Returns llama-bench's name where there is one: 'pp512', 'tg128 @ d2048'."""
        behind = f" @ d{self.depth}" if self.depth else ""
        match self.kind:
            case "prompt":
                return f"pp{self.prompt}{behind}"
            case "decode":
                return f"tg{self.generated}{behind}"
            case "votes":
                return f"votes {self.votes}"
            case "first token":
                return f"ttft{self.prompt}"
        return self.kind

    @property
    def longest(self) -> int:
        """Returns the tokens of the longest sample."""
        return self.depth + self.prompt + self.generated

    @property
    def cells(self) -> int:
        """Returns the most tokens in the cache. It counts the last token of a sample, which never gets there."""
        return self.depth + self.prompt + self.generated * self.votes


@dataclass(frozen=True, slots=True)
class SpeedRequest:
    """The options of `dsr bench speed`: each size is measured with each depth.

    Each of `votes` draws as many tokens as the largest of `generated`. A 0 in `prompts`, `generated` or `votes` leaves
    these tests out. Threads None: the fastest number is measured.
    """

    prompts: tuple[int, ...] = (512,)
    generated: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)
    votes: tuple[int, ...] = (1, 2, 4, 8)
    threads: tuple[int | None, ...] = (None,)
    kv_types: tuple[str, ...] = ("f16",)
    kv_full: bool = False
    from_disk: str = "auto"
    repetitions: int = 5

    def __post_init__(self) -> None:
        for name in self.kv_types:
            kv_types(name)
        if max(self.votes) >= 256:
            raise UsageError(f"at most 255 samples can be drawn at once, not {max(self.votes)}")

    def tests(self) -> tuple[Test, ...]:
        """Returns the tests in the order in which they are measured."""
        prompts, generated = _nonzero(self.prompts), _nonzero(self.generated)
        found = [Test("prompt", prompt=size, depth=depth) for depth in self.depths for size in prompts]
        found += [Test("decode", generated=size, depth=depth) for depth in self.depths for size in generated]
        if generated:
            found += [Test("votes", SHARED_PROMPT, max(generated), votes=count) for count in _nonzero(self.votes)]
        found += [Test("first token", prompt=size, generated=1) for size in prompts]
        return (*found, Test("memory"), Test("load"))


def _nonzero(sizes: Sequence[int]) -> list[int]:
    return [size for size in sizes if size]


@dataclass(frozen=True, slots=True)
class SpeedJob:
    """The tests of one model with one set of load options. Its context has room for each test."""

    model: Model
    tests: tuple[Test, ...]
    load: LoadOptions
    threads: int | None
    repetitions: int


@dataclass(frozen=True, slots=True)
class SpeedFailure:
    """The reason why a model was not measured to the end."""

    model: str
    why: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class SpeedBench:
    """The result: the rows, and the models that were not measured to the end."""

    rows: tuple[Measurement, ...]
    failures: tuple[SpeedFailure, ...]
    interrupted: bool


def jobs(model: Model, card: ModelCard, request: SpeedRequest) -> tuple[SpeedJob, ...]:
    """Returns the jobs for a model, one for each KV type and number of threads.

    Raises UsageError for a test that is longer than the model's context.
    """
    tests = request.tests()
    longest = max(tests, key=lambda test: test.longest)
    if longest.longest > card.context_length:
        raise UsageError(
            f"{model.reference}: {longest.name} needs {longest.longest} tokens, "
            f"but the model's context has {card.context_length}",
            hint="choose a smaller --depth, --pp or --tg",
        )
    slots = max(test.votes for test in tests)
    context = max(slots * MIN_SLOT_TOKENS, *(test.cells for test in tests))
    here = replace(model, path=model.path.absolute(), files=tuple(file.absolute() for file in model.files))
    context = -(-context // MIN_SLOT_TOKENS) * MIN_SLOT_TOKENS
    # A model without a chat template is fine, since no test formats a conversation. All samples share the context.
    load = LoadOptions(context, template="", kv_full=request.kv_full, from_disk=request.from_disk)
    load = load.for_samples(slots, longest.longest)
    return tuple(
        SpeedJob(here, tests, replace(load, kv_type=name), threads, request.repetitions)
        for name in request.kv_types
        for threads in request.threads
    )


def measure(
    work: Sequence[SpeedJob], run: Run, *, keep: Callable[[Sequence[Measurement]], None] = lambda rows: None
) -> SpeedBench:
    """Measures one job after another; `keep` gets the rows of each job at once.

    If a job fails, it is in `failures` and the next one begins. `run.stop` ends the bench.
    """
    rows: list[Measurement] = []
    failures: list[SpeedFailure] = []
    for job in work:
        measured: dict[int, Measurement] = {}
        with _Child(job) as child:
            for kind, value in child.messages(run.stop):
                if kind == "row":
                    number, measured[number] = value
                elif kind == "event":
                    run.listen(value)
                elif kind == "failed":
                    failures.append(value)
        done = [measured[number] for number in sorted(measured)]
        keep(done)
        rows += done
        if run.stop.take():
            return SpeedBench(tuple(rows), tuple(failures), interrupted=True)
    return SpeedBench(tuple(rows), tuple(failures), interrupted=False)


class _Child:
    """A context manager: the process that measures one job."""

    def __init__(self, job: SpeedJob) -> None:
        self._job = job
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from dsr.bench.speed.worker import main; main()", str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C reaches every process of a terminal's session; the parent decides
        )
        theirs.close()
        self._pipe = Connection(ours.detach())

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        # The child has nothing to save, so it can be killed.
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._stderr.close()

    def messages(self, stop: Stop) -> Iterator[tuple[str, Any]]:
        """Yields rows, events and a failure until the child is done, has crashed, or the user stops the bench."""
        try:
            self._pipe.send(self._job)
            while not stop.wanted:
                if self._pipe.poll(_POLL_SECONDS):
                    kind, value = self._pipe.recv()
                    if kind == "done":
                        return
                    yield kind, value
        except (EOFError, OSError):
            yield "failed", self._crash()

    def _crash(self) -> SpeedFailure:
        code = self._process.wait()
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        if code == -signal.SIGKILL:
            why = "the system killed the process, probably because memory ran out"
        else:
            why = f"the engine crashed: {quoted(lines[-1]) if lines else f'code {code}'}"
        return SpeedFailure(self._job.model.reference, why, DsrError.exit_code)


def serve(pipe: Connection, rows: Iterator[tuple[int, Measurement]], model: str) -> None:
    """Sends the rows of a job to the parent, then a failure if there was one. Runs in the child."""
    with suppress(OSError):  # the parent has ended
        try:
            for each in rows:
                pipe.send(("row", each))
        except DsrError as error:
            pipe.send(("failed", SpeedFailure(model, error.message, error.exit_code)))
        pipe.send(("done", None))
