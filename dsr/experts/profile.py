"""`dsr experts profile`: the model answers a task's questions, and its routers are watched while it reads them again.

A prefill of what was drawn routes every token as decoding did, at a fraction of the price.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.chat.conversation import Conversation
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.loading.trial import try_once
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest
from dsr.quantize.imatrix import read_text
from dsr.store import paths
from dsr.suites import suites
from dsr.suites.suites import Problem, Suite
from quant.experts.profiles import Profile, Store, check_task, routed_layers, router_digest
from quant.measure.chunks import LEAST_CHUNK, settle_threads
from quant.measure.routers import RouterCollector, RouterReader, check_tcess, open_router_reader
from runtime.base.errors import Aborted, NotFound, UsageError
from runtime.base.events import Listener, Notice, Progress, SampleFinished, ignore
from runtime.base.run import Run, Stop
from runtime.base.types import Completion, Message
from runtime.base.words import counted
from runtime.engine.engine import Engine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from runtime.gguf.card import ModelCard

EMBEDDED_SUITE = "nano-profile"
QUESTIONS = 40  # of each task, where nothing else is asked
MAX_TOKENS = 2048  # of each answer
_SLOTS = 8
_CHUNK = 512  # tokens of plain text that are read as one, like a conversation
_MOST_TEXT = 4 << 20  # characters


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """What the options of `dsr experts profile` say. `text` is a file that is read instead of questions being asked;
    `task` is one of the suite's tasks, or a name for what has none. `limit` questions of each task are asked."""

    suite: str | None = None
    text: Path | None = None
    task: str | None = None
    limit: int = QUESTIONS
    max_tokens: int = MAX_TOKENS
    seed: int = 0
    top: int = 1
    threshold: float | None = None
    threads: int | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class Profiled:
    """One task that was profiled: where its profile stands, and how long drawing and reading took."""

    profile: Profile
    path: Path
    drawing_seconds: float
    reading_seconds: float

    def json(self) -> dict[str, Any]:
        profile = self.profile
        return {
            "task": profile.task,
            "file": str(self.path),
            "bytes": self.path.stat().st_size,
            "questions": len(profile.keys),
            "tokens": profile.tokens,
            "origin": profile.origin,
            "unreached": {str(layer): list(experts) for layer, experts in profile.unreached.items()},
            "drawing_seconds": round(self.drawing_seconds, 3),
            "reading_seconds": round(self.reading_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class Profiling:
    """What came of it. `kept` are tasks that had a profile before; `interrupted` that some have none yet."""

    model: str
    digest: str
    experts: int
    profiled: tuple[Profiled, ...]
    kept: tuple[str, ...]
    interrupted: bool = False

    def json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "digest": self.digest,
            "experts": self.experts,
            "profiles": [each.json() for each in self.profiled],
            "kept": list(self.kept),
            "interrupted": self.interrupted,
        }


@dataclass(frozen=True, slots=True)
class Transcript:
    """`question` in tokens, as the model would read it alone; what was read and answered, as `tokens` and as `text`."""

    question: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str


def make(local: Model, request: ProfileRequest, *, stop: Stop | None = None, listen: Listener = ignore) -> Profiling:
    """Profile task after task; what is done is kept when it is stopped.

    Raises UsageError, NotFound, Incompatible for a dense model, what opening a model raises, Aborted when it was
    stopped before the first profile.
    """
    card = local.card
    routed_layers(card)
    check_tcess(request.top, request.threshold)
    if request.text is not None:
        suite: Suite | None = None
        tasks: dict[str, tuple[Problem, ...]] = {_name_of_text(request): ()}
    else:
        suite = _suite_of(local, request, listen)
        tasks = tasks_of(suite, request.task, request.limit)
    work = _Work(local, card, request, stop or Stop(), listen)
    digest, store = router_digest(card), store_of_profiles()
    known = () if request.force else tuple(task for task in tasks if task in store.tasks(digest))
    if len(known) == len(tasks):
        which = f"the task {known[0]}" if len(known) == 1 else f"all {len(known)} tasks"
        raise UsageError(f"there is a profile of {which} already", hint="--force makes it anew")
    if known:
        listen(Notice(f"kept from before: {', '.join(known)}"))
    done: list[Profiled] = []
    interrupted = False
    try:
        for task, problems in tasks.items():
            if task not in known:
                profile, drawing, reading = work.of_text(task) if suite is None else work.of(suite, task, problems)
                done.append(Profiled(profile, store.put(digest, profile), drawing, reading))
    except Aborted:
        if not done:
            raise
        interrupted = True
    return Profiling(local.absolute_reference, digest, card.experts, tuple(done), known, interrupted)


def store_of_profiles() -> Store:
    """Where the profiles of all models are kept."""
    return Store(paths.experts_folder())


def tasks_of(suite: Suite, task: str | None, limit: int) -> dict[str, tuple[Problem, ...]]:
    """The first `limit` problems of each task; of the one asked for only, which also names a suite without tasks.

    Raises UsageError, NotFound.
    """
    named: dict[str, list[Problem]] = {}
    for problem in suite.problems:
        if problem.task:
            named.setdefault(problem.task, []).append(problem)
    if not named:
        if task is None:
            raise UsageError(f"the suite {suite.name} has no tasks of its own", hint="name it: --task mathematics")
        named = {task: list(suite.problems)}
    elif task is not None:
        if task not in named:
            raise NotFound(f"the suite {suite.name} has no task {task!r}", hint=f"there is: {', '.join(named)}")
        named = {task: named[task]}
    for each in named:
        check_task(each)
    return {each: tuple(problems[:limit]) for each, problems in named.items()}


def _suite_of(local: Model, request: ProfileRequest, listen: Listener) -> Suite:
    if request.suite is None and not local.embedded:
        raise UsageError(
            "there are no questions for the model to answer",
            hint="--suite gsm8k --task mathematics, or --text FILE --task NAME",
        )
    return suites.find(request.suite or EMBEDDED_SUITE, listen)


def _name_of_text(request: ProfileRequest) -> str:
    if request.suite is not None:
        raise UsageError("a task is profiled from --suite or from --text, not from both")
    if request.task is None:
        raise UsageError("a text does not say what task it is of", hint="name it: --task mathematics")
    check_task(request.task)
    return request.task


@dataclass(frozen=True, slots=True)
class _Work:
    """What every task is profiled with. The seconds are those of drawing and of reading."""

    local: Model
    card: ModelCard
    request: ProfileRequest
    stop: Stop
    listen: Listener

    def of(self, suite: Suite, task: str, problems: Sequence[Problem]) -> tuple[Profile, float, float]:
        """From the model's own answers."""
        import numpy as np

        from quant.experts.retrieval import key

        started = time.perf_counter()
        transcripts, threads = self._drawn(task, suite, problems)
        drawing = time.perf_counter() - started
        texts = [each.tokens for each in transcripts]
        collector = RouterCollector(self.request.top, self.request.threshold)
        run = Run(self.stop, self.listen, threads)
        with open_router_reader(self.local.path, max(map(len, texts)), run) as reader:
            keys = np.stack([key(reader.first_logits(each.question)) for each in transcripts])
            seconds = self._read(reader, texts, collector, task)
        origin = f"{counted(len(problems), 'question')} of {suite.name}, answered by the model itself"
        said = "".join(each.text for each in transcripts)
        return self._profile(task, collector, texts, keys, origin, said), drawing, seconds

    def of_text(self, task: str) -> tuple[Profile, float, float]:
        """From a text as it is."""
        import numpy as np

        from quant.experts.retrieval import key

        assert self.request.text is not None
        text = read_text(self.request.text)
        content = text.content[:_MOST_TEXT]
        if len(content) < len(text.content):
            self.listen(Notice(f"{text.name}: only the first {_MOST_TEXT >> 20} million characters are read"))
        try_once(self.local)
        collector = RouterCollector(self.request.top, self.request.threshold)
        with open_router_reader(self.local.path, _CHUNK, Run(self.stop, self.listen)) as reader:
            settle_threads(reader.model, self.request.threads)
            tokens = reader.model.tokenize(content, add_special=True)
            if len(tokens) < LEAST_CHUNK:
                raise UsageError(f"{text.name} has {counted(len(tokens), 'token')}: too little to tell anything from")
            texts = [tuple(tokens[at : at + _CHUNK]) for at in range(0, len(tokens), _CHUNK)]
            seconds = self._read(reader, texts, collector, task)
        features = key(np.zeros((1, self.card.experts), np.float32)).size
        keys = np.zeros((0, features), np.float32)
        return self._profile(task, collector, texts, keys, f"the text {text.name}", content), 0.0, seconds

    def _drawn(self, task: str, suite: Suite, problems: Sequence[Problem]) -> tuple[list[Transcript], int]:
        """The answers with the recommended sampling, in the order of the problems, and the threads used."""
        request = self.request
        params = SamplingRequest(seed=request.seed, max_tokens=request.max_tokens).applied_to(
            self.local.sampling.params
        )
        options = LoadOptions().for_samples(_SLOTS, request.max_tokens)
        with load(self.local, options, Run(self.stop, self.listen, request.threads)) as model:
            chat = Conversation(model, params)
            turns = [[Message("user", suite.asked(problem))] for problem in problems]
            # In a chat nobody puts a question as a suite's prompt does, so that is not what questions are known by.
            bare = [chat.request([Message("user", problem.question)]).prompt.tokens for problem in problems]
            requests = [replace(chat.request(said), sample=number) for number, said in enumerate(turns)]
            engine = Engine(model.backend)
            found: dict[int, Completion] = {}
            for event in engine.stream(requests):
                if isinstance(event, SampleFinished):
                    found[event.completion.sample] = event.completion
                    self.listen(Progress("answering", task, len(found), len(requests), "steps"))
            if engine.aborted:
                raise Aborted(f"stopped; there is no profile of {task}")
            transcripts = [
                _transcript(model, each.prompt.text, each.prompt.tokens, question, found[each.sample])
                for each, question in zip(requests, bare, strict=True)
            ]
            return transcripts, model.threads

    def _read(
        self, reader: RouterReader, texts: Sequence[Sequence[int]], collector: RouterCollector, task: str
    ) -> float:
        started = time.perf_counter()
        total, done = sum(map(len, texts)), 0
        for count in reader.collect(texts, collector):
            done += count
            self.listen(Progress("watching the routers", task, done, total, "tokens"))
        return time.perf_counter() - started

    def _profile(
        self,
        task: str,
        collector: RouterCollector,
        texts: Sequence[Sequence[int]],
        keys: NDArray[np.float32],
        origin: str,
        said: str,
    ) -> Profile:
        return Profile(
            task=task,
            routing=collector.routing(),
            tokens=sum(map(len, texts)),
            active=self.card.experts_used,
            keys=keys,
            origin=origin,
            text=said,
            top=self.request.top,
            threshold=self.request.threshold,
        )


def _transcript(
    model: LoadedModel, text: str, prompt: tuple[int, ...], question: tuple[int, ...], reply: Completion
) -> Transcript:
    """What was said, token for token, and the token that ends a reply where the model ended it."""
    said = b"".join(map(model.backend.piece, reply.tokens)).decode("utf-8", "replace")
    end = model.card.eos_token if reply.finish_reason == "stop" else None
    tokens = (*prompt, *reply.tokens, *(() if end is None else (end,)))
    return Transcript(question, tokens, text + said + ("\n" if end is None else model.card.token_text(end)))
