"""Measures one job of `dsr bench speed` in this process. The tests are those of llama.cpp's tools.

pp: reads a prompt of random tokens. tg: decodes random tokens one by one and draws none. Before both, the cache is
filled with `depth` tokens (tools/llama-bench). votes: decodes samples of one prompt together and counts the tokens of
all (tools/batched-bench, -pps). For votes, dsr's own engine draws each token and computes its statistics.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, cast

from dsr.bench.kit import energy
from dsr.bench.kit.conditions import Watch, watching
from dsr.bench.speed.bench import SpeedJob, Test, serve
from dsr.loading.load import LoadedModel, load
from dsr.loading.machine import has_gpus
from dsr.loading.predict import past_correction
from dsr.store import paths, predictions
from dsr.store.measurement import PREDICTED, Figure, Measurement, Parameter
from runtime.base.errors import Incompatible, UsageError
from runtime.base.events import Listener, Progress, ignore
from runtime.base.run import Run
from runtime.base.types import SamplingParams
from runtime.engine.backend import Backend, Batch
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.from_disk.use import DiskUse
from runtime.machine.host import Host, peak_memory, probe
from runtime.placement import memory
from runtime.placement.repacked import repacked

if TYPE_CHECKING:
    from runtime.llama import LlamaBackend


def main() -> None:
    """Measures the job that the parent sends. `speed.bench.measure` starts this process."""
    pipe = Connection(int(sys.argv[1]))
    job: SpeedJob = pipe.recv()
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    serve(pipe, measure_job(job, listen=lambda event: pipe.send(("event", event))), job.model.reference)


def _end_with_parent(pipe: Connection) -> None:
    pipe.poll(None)  # the parent sends nothing more, so this is the end of it
    os._exit(1)


def measure_job(job: SpeedJob, *, listen: Listener = ignore) -> Iterator[tuple[int, Measurement]]:
    """Yields (number of the test, its row so far) after each repetition.

    Raises what `load` raises, and Incompatible for a model that cannot be measured here.
    """
    host = probe()
    steps = _Steps(job, listen)
    run = Run(listen=listen, threads=job.threads)
    with load(job.model, replace(job.load, predict=True), run) as model:
        timer = _Timer(job, model)
        for number, test in enumerate(job.tests):
            if test.kind == "memory":
                figures = {"bytes": Figure(int(peak_memory()))}
                if not has_gpus():
                    figures[f"{PREDICTED}bytes"] = Figure(_predicted_memory(job, model, host))
                yield number, _row(job, model, test, _load_parameters(job, model), figures, Watch(host))
            elif test.kind != "load":
                yield from ((number, row) for row in timer.rows(test, host, steps))
        parameters = _load_parameters(job, model)
    for number, test in enumerate(job.tests):
        if test.kind == "load":
            seconds = _Values()
            with watching(host) as watch:
                for _ in range(job.repetitions):
                    steps.begin(test)
                    with load(job.model, job.load, Run(threads=model.threads)) as again:
                        seconds.values.append(again.load_seconds)
                    watch.end()
                    yield number, _row(job, model, test, parameters, {"seconds": seconds.figure()}, watch)


def _row(
    job: SpeedJob,
    model: LoadedModel,
    test: Test,
    parameters: dict[str, Parameter],
    figures: dict[str, Figure],
    watch: Watch,
) -> Measurement:
    return Measurement(
        kind="speed",
        model=job.model.absolute_reference,
        digest=model.card.header_digest,
        size=int(job.model.size),
        test=test.name,
        parameters=parameters,
        figures=figures,
        conditions=watch.conditions,
        at=time.time(),
    )


def _predicted_memory(job: SpeedJob, model: LoadedModel, host: Host) -> int:
    """Returns the predicted bytes of the process when the CPU has all layers."""
    if model.from_disk is not None:
        return int(model.from_disk.whole)
    from runtime.llama.load_model import with_kernels

    need = memory.need(
        model.card, model.backend.context, model.backend.slots, job.load.kv_type, kv_full=job.load.kv_full
    )
    return int(need.total + repacked(model.card, with_kernels(host.features)))


def _load_parameters(job: SpeedJob, model: LoadedModel) -> dict[str, Parameter]:
    return {
        "threads": model.threads,
        **_cache_parameters(job),
        "context": model.backend.context,
        "slots": model.backend.slots,
        **({"from_disk": True} if model.from_disk is not None else {}),
    }


def _cache_parameters(job: SpeedJob) -> dict[str, Parameter]:
    # A parameter that rows of earlier releases lack would make all others incomparable with them.
    return {"kv_type": job.load.kv_type, **({"kv_full": True} if job.load.kv_full else {})}


class _Steps:
    """Reports the repetition that begins."""

    def __init__(self, job: SpeedJob, listen: Listener) -> None:
        self._job, self._listen = job, listen
        self._total = sum(1 if test.kind == "memory" else job.repetitions for test in job.tests)
        self._done = 0

    def begin(self, test: Test) -> None:
        self._listen(
            Progress("measuring", f"{self._job.model.reference} {test.name}", self._done, self._total, "steps")
        )
        self._done += 1


class _Values:
    """The values of all repetitions of one test."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def figure(self) -> Figure:
        count = len(self.values)
        error = statistics.stdev(self.values) / math.sqrt(count) if count > 1 else None
        return Figure(statistics.fmean(self.values), error, count)


@dataclass(frozen=True, slots=True)
class _Timed:
    seconds: float
    tokens: int


class _DiskValues:
    """What a model that runs from the disk read in all repetitions of one test."""

    def __init__(self) -> None:
        self._values = {"disk_bytes_per_token": _Values(), "disk_in_memory": _Values(), "disk_waiting": _Values()}

    def add(self, use: DiskUse, timed: _Timed) -> None:
        shares = use.bytes_read / timed.tokens, use.hit_share, use.waited / timed.seconds
        for values, share in zip(self._values.values(), shares, strict=True):
            values.values.append(share)

    def figures(self) -> dict[str, Figure]:
        return {name: each.figure() for name, each in self._values.items() if each.values}


class _Timer:
    """Measures with one loaded model."""

    def __init__(self, job: SpeedJob, model: LoadedModel) -> None:
        from runtime.llama import LlamaBackend

        if not isinstance(model.backend, LlamaBackend):
            raise Incompatible("dsr can only measure a model that runs on this machine")
        if model.backend.slots < job.load.slots:
            raise Incompatible(
                f"the model has room for {model.backend.slots} samples at once, and the bench needs {job.load.slots}"
            )
        self._job = job
        self._model = model
        self._backend: LlamaBackend = model.backend
        self._meter = energy.meter()
        self._depth = 0

    def rows(self, test: Test, host: Host, steps: _Steps) -> Iterator[Measurement]:
        """Yields the row so far after each repetition."""
        # One engine for all repetitions: it reads the shared prompt once and caches it.
        engine = Engine(cast("Backend", _EndlessBackend(self._backend)))
        self._backend.trim(0, 0)
        self._depth = 0
        self._once(test, engine, warming=True)
        speed, seconds, joules, disk = _Values(), _Values(), _Values(), _DiskValues()
        with watching(host) as watch:
            for _ in range(self._job.repetitions):
                steps.begin(test)
                before = self._meter.read() if self._meter else None
                use = self._disk_use()
                timed = self._once(test, engine)
                if use is not None and (now := self._disk_use()) is not None:
                    disk.add(now.since(use), timed)
                if self._meter is not None and before is not None:
                    joules.values.append(self._meter.joules(before) / timed.tokens)
                speed.values.append(timed.tokens / timed.seconds)
                seconds.values.append(timed.seconds)
                watch.end()
                first = test.kind == "first token"
                figures = {"seconds": seconds.figure()} if first else {"tokens_per_second": speed.figure()}
                if joules.values and not first:
                    figures["joules_per_token"] = joules.figure()
                figures |= {**self._predicted(test), **disk.figures()}
                yield _row(self._job, self._model, test, self._parameters(test), figures, watch)

    def _disk_use(self) -> DiskUse | None:
        return self._model.disk_use().copy() if self._model.disk_use is not None else None

    def _parameters(self, test: Test) -> dict[str, Parameter]:
        return {
            "threads": self._model.threads,
            **_cache_parameters(self._job),
            "batch": self._backend.batch_size,
            "prompt": test.prompt,
            "generated": test.generated,
            "depth": test.depth,
            "votes": test.votes,
        }

    def _once(self, test: Test, engine: Engine, *, warming: bool = False) -> _Timed:
        match test.kind:
            case "prompt":
                return self._prompt(test)
            case "decode":
                return self._decode(test, 1 if warming else test.generated)
            case "votes":
                return self._votes(test, engine, 1 if warming else test.generated)
            case _:
                # A new engine has not cached the prompt.
                return self._first_token(test, Engine(self._backend))

    def _prompt(self, test: Test) -> _Timed:
        self._fill_cache(test.depth)
        tokens = self._tokens(test.prompt, first=test.depth == 0)
        started = time.perf_counter()
        self._read(tokens, test.depth, 0)
        self._backend.synchronize()
        return _Timed(time.perf_counter() - started, test.prompt)

    def _decode(self, test: Test, count: int) -> _Timed:
        self._fill_cache(test.depth)
        tokens = self._tokens(count, first=True)
        started = time.perf_counter()
        for position, token in enumerate(tokens, test.depth):
            batch = Batch()
            batch.add([token], position, 0, output=True)
            self._backend.decode(batch)
            self._backend.synchronize()
        return _Timed(time.perf_counter() - started, count)

    def _votes(self, test: Test, engine: Engine, count: int) -> _Timed:
        params = SamplingParams(max_tokens=count, statistics=True)
        prompt = Prompt(tuple(self._tokens(test.prompt, first=True)))
        requests = [Request(prompt, params, sample=number) for number in range(test.votes)]
        started = time.perf_counter()
        drawn = sum(len(each.tokens) for each in engine.generate(requests))
        return _Timed(time.perf_counter() - started, drawn)

    def _first_token(self, test: Test, engine: Engine) -> _Timed:
        request = Request(Prompt(tuple(self._tokens(test.prompt, first=True))), SamplingParams(max_tokens=1))
        started = time.perf_counter()
        engine.generate([request])
        return _Timed(time.perf_counter() - started, test.prompt)

    def _fill_cache(self, depth: int) -> None:
        """Leaves `depth` tokens in slot 0. Reads them again if the model cannot drop the later tokens."""
        backend = self._backend
        if depth != self._depth or not backend.trim(0, depth):
            backend.trim(0, 0)
            self._read(self._tokens(depth, first=True), 0, 0)
            backend.synchronize()
            self._depth = depth

    def _read(self, tokens: Sequence[int], position: int, slot: int) -> None:
        size = self._backend.batch_size
        for start in range(0, len(tokens), size):
            batch = Batch()
            part = list(tokens[start : start + size])
            batch.add(part, position + start, slot, output=start + size >= len(tokens))
            self._backend.decode(batch)

    def _tokens(self, count: int, *, first: bool) -> list[int]:
        """Returns random tokens, the same every time. `first`: begins with the model's first token, if it has one."""
        generator = random.Random(0)
        found = [generator.randrange(self._backend.vocab_size) for _ in range(count)]
        begins = self._backend.first_token
        return [begins, *found[1:]] if first and found and begins is not None else found

    def _predicted(self, test: Test) -> dict[str, Figure]:
        """Returns the predicted figures of this test, if there are any."""
        predictor = self._model.predictor
        if predictor is None:
            return {}
        past = predictions.load(paths.predictions_file())
        reference, weights = self._job.model.absolute_reference, predictor.card.weights_size
        factor = past_correction(predictor.machine, past, reference, test.votes, weights).factor
        try:
            if test.kind == "first token":
                # The engine reads all tokens of a prompt but the last. It decodes the last like all later tokens.
                read = test.prompt - 1
                seconds = predictor.reading(read, 0) + predictor.seconds([1], read) / factor
                return {f"{PREDICTED}seconds": Figure(seconds)}
            if test.kind == "prompt":
                return {
                    f"{PREDICTED}tokens_per_second": Figure(test.prompt / predictor.reading(test.prompt, test.depth))
                }
            seconds = predictor.seconds([test.generated] * test.votes, test.depth + test.prompt)
            return {f"{PREDICTED}tokens_per_second": Figure(factor * test.generated * test.votes / seconds)}
        except UsageError:
            return {}


class _EndlessBackend:
    """A backend whose samples never end, so that each repetition decodes the same number of tokens."""

    def __init__(self, backend: LlamaBackend) -> None:
        self._backend = backend

    def ends(self, token: int) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)
