"""One run of dsr for `from_disk.py`, in a process of its own: loads a model as `dsr chat` does, computes, prints JSON.

    python tests/peers/from_disk_run.py '{"model": "FILE", "test": "decode", "tokens": 32, "warm": 32}'

- decode: random tokens one by one, the same as llama-bench draws, behind `warm` ones that are not measured
- prompt: a prompt of `tokens` random tokens
- votes: `votes` samples of a prompt that was read before, `tokens` each, drawn at temperature 1
- text: the greedy text of `tokens` tokens behind a prompt
- disk: slices as large as an expert, read at random places without the page cache, eight at once

`from_disk` "off" loads all weights. `repack` false keeps their order then, as it is with weights on the disk.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models.library import find
from runtime.base.errors import DsrError, UsageError
from runtime.base.events import Event, Notice
from runtime.base.run import Run
from runtime.base.types import SamplingParams
from runtime.engine.backend import Backend, Batch
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.llama import LlamaBackend
from runtime.llama.streamed_model import StreamedModel
from tests.routing.replay import belady
from tests.routing.trace import Trace

PROMPT = 64  # tokens of the prompt of votes and texts
_callback = 0.0  # seconds in the evaluation callback, with the waiting


class Endless:
    """A backend whose samples never end."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def ends(self, token: int) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def draw_tokens(count: int, vocabulary: int) -> list[int]:
    """The next tokens of llama-bench, which calls the C library's rand() and never seeds it."""
    library = ctypes.CDLL(None)
    return [library.rand() % vocabulary for _ in range(count)]


def decode(backend: Any, count: int) -> None:
    for position, token in enumerate(draw_tokens(count, backend.vocab_size)):
        batch = Batch()
        batch.add([token], position, 0, output=True)
        backend.decode(batch)
        backend.synchronize()


def read_prompt(backend: Any, count: int) -> None:
    tokens = draw_tokens(count, backend.vocab_size)
    for start in range(0, count, backend.batch_size):
        batch = Batch()
        part = tokens[start : start + backend.batch_size]
        batch.add(part, start, 0, output=start + len(part) == count)
        backend.decode(batch)
    backend.synchronize()


class Drawing:
    """Samples of one prompt, which the engine reads once and caches."""

    def __init__(self, backend: Any) -> None:
        self._prompt = Prompt(tuple(draw_tokens(PROMPT, backend.vocab_size)))
        self._engine = Engine(cast("Backend", Endless(backend)))

    def draw(self, count: int, votes: int, temperature: float, first: int = 0) -> list[int]:
        """Returns the tokens of all samples, one after the other. `first` is the number of the first one: another
        number draws another text."""
        params = SamplingParams(max_tokens=count, temperature=temperature, statistics=votes > 1)
        drawn = self._engine.generate([Request(self._prompt, params, sample=first + number) for number in range(votes)])
        return [token for each in drawn for token in each.tokens]


def compute(asked: dict[str, Any], backend: Any, drawing: Drawing) -> list[int]:
    match asked["test"]:
        case "decode":
            decode(backend, asked["tokens"])
        case "prompt":
            read_prompt(backend, asked["tokens"])
        case "votes":
            return drawing.draw(asked["tokens"], asked["votes"], 1.0)
        case "text":
            return drawing.draw(asked["tokens"], 1, 0.0)
    return []


def disk_speed(file: Path, seconds: float = 2.0, size: int = 1 << 19, together: int = 8) -> float:
    """Bytes per second."""
    until, most = time.perf_counter() + seconds, os.stat(file).st_size // size
    handle = os.open(file, os.O_RDONLY | os.O_DIRECT)

    def read(seed: int) -> int:
        chance, done = random.Random(seed), 0
        with mmap.mmap(-1, size) as buffer:
            while time.perf_counter() < until:
                done += os.preadv(handle, [buffer], chance.randrange(most) * size)
        return done

    began = time.perf_counter()
    with ThreadPoolExecutor(together) as pool:
        done = sum(pool.map(read, range(together)))
    os.close(handle)
    return done / (time.perf_counter() - began)


def measured(asked: dict[str, Any], model: LoadedModel) -> dict[str, Any]:
    backend: Any = model.backend
    streams = asdict(backend.disk_use) if model.from_disk is not None else {}
    trace = watched(backend) if streams else []
    drawing = Drawing(backend)
    if asked["test"] == "votes":
        drawing.draw(asked["warm"], asked["votes"], 1.0, first=100)
    elif asked.get("warm"):
        decode(backend, asked["warm"])
        backend.trim(0, 0)
    before, read, waited = asdict(backend.disk_use) if streams else {}, bytes_read(), _callback
    began = time.perf_counter()
    drawn = compute(asked, backend, drawing)
    seconds = time.perf_counter() - began
    tokens = asked["tokens"] * asked.get("votes", 1)
    found: dict[str, Any] = {
        "seconds": seconds,
        "tokens": tokens,
        "bytes_read": bytes_read() - read,
        "drawn": drawn,
        "callback": _callback - waited,
        "forecast": predicted(asked, model),
        "context": backend.context,
    }
    if model.from_disk is not None:
        found["use"] = {key: value - before[key] for key, value in asdict(backend.disk_use).items()}
        found["needed"] = found["use"]["chosen"] * model.from_disk.layers[0].size
        found["memory"] = model.from_disk.memory
        if asked["test"] == "decode" and model.from_disk.routed:
            backend.trim(0, 0)
            decode(backend, asked["tokens"])  # without a future, the best policy would have nothing to keep
            found["best"] = best(trace, model, asked["tokens"])
    return found


def watched(backend: Any) -> list[tuple[int, Any]]:
    """What the policy is told from now on: (index of a layer, tokens that chose each of its units)."""
    policy, trace = backend._streamed.weights.policy, []
    used = policy.used

    def note(index: int, counts: Any) -> None:
        trace.append((index, np.array(counts, np.int64)))
        used(index, counts)

    policy.used = note
    return trace


def best(trace: list[tuple[int, Any]], model: LoadedModel, tokens: int) -> int:
    """Bytes that the offline best policy reads on this trace with the same memory, for the `tokens` before the last
    `tokens`. The trace begins with those that fill the memory."""
    plan = model.from_disk
    assert plan is not None
    counts = np.array([each for _, each in trace]).reshape(-1, len(plan.layers), plan.layers[0].experts)
    size = plan.layers[0].size
    replayed = belady(Trace(counts, model.card.experts_used), plan.memory // size)
    return int(replayed.reads[-2 * tokens : -tokens].sum()) * size


def predicted(asked: dict[str, Any], model: LoadedModel) -> float:
    """Tokens per second as foretold; 0 where nothing is."""
    if model.predictor is None:
        return 0.0
    tokens, votes = asked["tokens"], asked.get("votes", 1)
    try:
        if asked["test"] == "prompt":
            return float(tokens / model.predictor.reading(tokens, 0))
        return float(tokens * votes / model.predictor.seconds([tokens] * votes, PROMPT if votes > 1 else 0))
    except UsageError:
        return 0.0


def bytes_read() -> int:
    rows = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(rows["read_bytes"])


def time_callback() -> None:
    original = StreamedModel._called

    def called(self: StreamedModel, address: int, asking: bool, data: object) -> bool:
        global _callback
        began = time.perf_counter()
        try:
            return original(self, address, asking, data)
        finally:
            _callback += time.perf_counter() - began

    StreamedModel._called = called  # type: ignore[method-assign]


def main() -> None:
    asked = json.loads(sys.argv[1])
    if asked["test"] == "disk":
        print(json.dumps({"speed": disk_speed(Path(asked["model"]))}), flush=True)
        return
    notes: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            notes.append(str(event))

    time_callback()
    if not asked.get("repack", True):
        original = LlamaBackend._model_params
        LlamaBackend._model_params = lambda self, **given: original(self, **{**given, "use_extra_bufts": False})  # type: ignore[method-assign]
    votes = asked.get("votes", 1)
    cells = PROMPT + asked["tokens"] * votes
    options = LoadOptions(max(512, cells), template="", from_disk=asked.get("from_disk", "auto"), predict=True)
    options = replace(options.for_samples(votes, PROMPT + asked["tokens"]), measure=asked.get("measure", True))
    try:
        with load(find(asked["model"]), options, Run(threads=1, listen=listen)) as model:
            found = measured(asked, model)
            print(json.dumps({**found, "load": model.load_seconds, "notes": notes}), flush=True)
    except DsrError as error:
        print(json.dumps({"error": error.message, "notes": notes}), flush=True)
        sys.exit(error.exit_code)


main()
