"""How fast model files are: each opened in a process of its own, so that its peak of memory is nobody else's.

`timing` measures in that process; here it is decided what to measure, and the rows are gathered.
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
from runtime.base.run import Run, Stop
from runtime.gguf.card import ModelCard
from runtime.gguf.types import kv_type

# What samples that vote have in common, as in the comparisons with llama-batched-bench of docs/log.md.
SHARED_PROMPT = 256

_LOOK = 0.05  # seconds between two looks whether somebody wants to stop

TestKind = Literal["prompt", "decode", "votes", "first token", "load", "memory"]


@dataclass(frozen=True, slots=True)
class Test:
    """`prompt` tokens are read or `generated` ones decoded behind `depth` cached ones; by so many `votes` at once."""

    kind: TestKind
    prompt: int = 0
    generated: int = 0
    depth: int = 0
    votes: int = 1

    @property
    def name(self) -> str:
        """As llama-bench names it, where it has it: 'pp512', 'tg128 @ d2048'."""
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
        """Tokens of its longest sample."""
        return self.depth + self.prompt + self.generated

    @property
    def cells(self) -> int:
        """Tokens in the cache at its end; a sample's last one is never put there, but may be one day."""
        return self.depth + self.prompt + self.generated * self.votes


@dataclass(frozen=True, slots=True)
class SpeedRequest:
    """What to measure: every size with every depth; `votes` draw as many tokens as the largest of `generated`. A 0 in
    `prompts`, `generated` or `votes` leaves these tests out; `threads` None are those that are measured to be best."""

    prompts: tuple[int, ...] = (512,)
    generated: tuple[int, ...] = (128,)
    depths: tuple[int, ...] = (0,)
    votes: tuple[int, ...] = (1, 2, 4, 8)
    threads: tuple[int | None, ...] = (None,)
    kv_types: tuple[str, ...] = ("f16",)
    repetitions: int = 5

    def __post_init__(self) -> None:
        for name in self.kv_types:
            kv_type(name)
        if max(self.votes) >= 256:
            raise UsageError(f"at most 255 samples can be drawn at once, not {max(self.votes)}")

    def tests(self) -> tuple[Test, ...]:
        """In the order in which they are measured."""
        prompts, generated = _wanted(self.prompts), _wanted(self.generated)
        found = [Test("prompt", prompt=size, depth=depth) for depth in self.depths for size in prompts]
        found += [Test("decode", generated=size, depth=depth) for depth in self.depths for size in generated]
        if generated:
            found += [Test("votes", SHARED_PROMPT, max(generated), votes=count) for count in _wanted(self.votes)]
        found += [Test("first token", prompt=size, generated=1) for size in prompts]
        return (*found, Test("memory"), Test("load"))


def _wanted(sizes: Sequence[int]) -> list[int]:
    return [size for size in sizes if size]


@dataclass(frozen=True, slots=True)
class SpeedJob:
    """One model, how it is loaded, and what is measured with it. Its context has room for each test."""

    model: Model
    tests: tuple[Test, ...]
    load: LoadOptions
    threads: int | None
    repetitions: int


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model was not measured to the end."""

    model: str
    why: str
    exit_code: int


@dataclass(frozen=True, slots=True)
class SpeedBench:
    """`rows` of what was measured, `failures` of what was not."""

    rows: tuple[Measurement, ...]
    failures: tuple[Failure, ...]
    interrupted: bool


def jobs(model: Model, card: ModelCard, request: SpeedRequest) -> tuple[SpeedJob, ...]:
    """The openings that the request needs of a model. Raises UsageError for what is longer than the model can see."""
    tests = request.tests()
    longest = max(tests, key=lambda test: test.longest)
    if longest.longest > card.context_length:
        raise UsageError(
            f"{model.reference}: {longest.name} needs {longest.longest} tokens, the model sees {card.context_length}",
            hint="choose a smaller --depth, --pp or --tg",
        )
    slots = max(test.votes for test in tests)
    context = max(slots * MIN_SLOT_TOKENS, *(test.cells for test in tests))
    here = replace(model, path=model.path.absolute(), files=tuple(file.absolute() for file in model.files))
    context = -(-context // MIN_SLOT_TOKENS) * MIN_SLOT_TOKENS
    return tuple(
        # No reply is asked for, so a model without a chat template will do.
        SpeedJob(here, tests, LoadOptions(context, name, slots, template=""), threads, request.repetitions)
        for name in request.kv_types
        for threads in request.threads
    )


def measure(
    work: Sequence[SpeedJob], run: Run, *, keep: Callable[[Sequence[Measurement]], None] = lambda rows: None
) -> SpeedBench:
    """Measures one job after another; `keep` gets the rows of each. A job that fails is in `failures`, others go on;
    `stop` ends it all."""
    rows: list[Measurement] = []
    failures: list[Failure] = []
    for job in work:
        measured: dict[int, Measurement] = {}
        with _Child(job) as child:
            for kind, value in child.said(run.stop):
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
    """The process in which a job is measured, as a context manager."""

    def __init__(self, job: SpeedJob) -> None:
        self._job = job
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the child
        ours, theirs = socket.socketpair()
        root = str(Path(__file__).resolve().parents[3])
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", "from dsr.bench.speed.worker import main; main()", str(theirs.fileno())],
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=self._words,
            pass_fds=[theirs.fileno()],
            start_new_session=True,  # Ctrl-C reaches every process of a terminal's session; the parent decides
        )
        theirs.close()
        self._pipe = Connection(ours.detach())

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *_: object) -> None:
        # It has nothing to save.
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        self._words.close()

    def said(self, stop: Stop) -> Iterator[tuple[str, Any]]:
        """Rows, events and a failure, until it is done, dead, or no longer wanted."""
        try:
            self._pipe.send(self._job)
            while not stop.wanted:
                if self._pipe.poll(_LOOK):
                    kind, value = self._pipe.recv()
                    if kind == "done":
                        return
                    yield kind, value
        except (EOFError, OSError):
            yield "failed", self._death()

    def _death(self) -> Failure:
        code = self._process.wait()
        self._words.seek(0)
        lines = self._words.read().decode("utf-8", "replace").strip().splitlines()
        if code == -signal.SIGKILL:
            why = "killed by the system, which is what happens when memory runs out"
        else:
            why = f"the engine died: {lines[-1] if lines else f'code {code}'}"
        return Failure(self._job.model.reference, why, DsrError.exit_code)


def serve(pipe: Connection, rows: Iterator[tuple[int, Measurement]], model: str) -> None:
    """The child's side of `_Child.said`."""
    with suppress(OSError):  # the parent is gone
        try:
            for each in rows:
                pipe.send(("row", each))
        except DsrError as error:
            pipe.send(("failed", Failure(model, error.message, error.exit_code)))
        pipe.send(("done", None))
