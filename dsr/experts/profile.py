"""`dsr experts profile`: makes and stores a profile for each task of a suite, or for a text.

The model answers the questions of a task, then reads them again with its answers while dsr records the routers. A
prefill of the generated text routes every token as the decoding did, in a fraction of the time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.loading.tried_files import try_once
from dsr.models.model import Model
from dsr.models.sampling import SamplingRequest
from dsr.quantize.imatrix import read_text
from dsr.store import paths
from dsr.suites import suites
from dsr.suites.problem import Suite, SuiteProblem
from quant.experts.expert_tensors import routed_layers
from quant.experts.profile import Profile, ProfileStore, check_task, router_digest
from quant.measure.chunks import LEAST_CHUNK, settle_threads
from quant.measure.routers import RouterCollector, RouterReader, check_tcess, open_router_reader
from runtime.base.errors import Aborted, Lost, NotFound, UsageError
from runtime.base.events import Listener, Notice, Progress, SampleFinished
from runtime.base.run import Run
from runtime.base.types import Completion, Message, counted
from runtime.engine.engine import Engine
from runtime.engine.template import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EMBEDDED_SUITE = "nano-profile"
QUESTIONS = 40  # of each task
MAX_TOKENS = 2048  # of each answer
_SLOTS = 8
_CHUNK = 512  # tokens of plain text that are read as one conversation
_MAX_TEXT = 4 << 20  # characters


@dataclass(frozen=True, slots=True)
class ProfileRequest:
    """The options of `dsr experts profile`.

    The model answers the first `limit` questions of each task of `suite`, or reads the file `text`. `task` selects one
    task of the suite, or names the text. `top` and `threshold` are settings of TCESS.
    """

    suite: str | None = None
    text: Path | None = None
    task: str | None = None
    limit: int = QUESTIONS
    max_tokens: int = MAX_TOKENS
    seed: int = 0
    top: int = 1
    threshold: float | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class ProfiledTask:
    """A new profile, with the seconds for the model's answers and for reading them again."""

    profile: Profile
    answer_seconds: float
    read_seconds: float


@dataclass(frozen=True, slots=True)
class StoredProfile:
    """A profile that this command made, and its file."""

    made: ProfiledTask
    path: Path

    @property
    def profile(self) -> Profile:
        return self.made.profile

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
            "drawing_seconds": round(self.made.answer_seconds, 3),
            "reading_seconds": round(self.made.read_seconds, 3),
        }


@dataclass(frozen=True, slots=True)
class ProfileResult:
    """The new profiles. `kept` are tasks that had a profile before; `interrupted`: tasks are left without a profile."""

    model: str
    digest: str
    experts: int
    profiled: tuple[StoredProfile, ...]
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


def make_profiles(model: Model, request: ProfileRequest, run: Run) -> ProfileResult:
    """Profiles task after task. When it is stopped, the finished profiles stay.

    Raises UsageError, NotFound, Incompatible for a dense model, what opening a model raises, Aborted when it is
    stopped before the first profile.
    """
    routed_layers(model.card)
    check_tcess(request.top, request.threshold)
    if request.text is not None:
        suite: Suite | None = None
        tasks: dict[str, tuple[SuiteProblem, ...]] = {_task_of_text(request): ()}
    else:
        suite = _suite(model, request, run.listen)
        tasks = tasks_of(suite, request.task, request.limit)
    digest, store = router_digest(model.card), profile_store()
    known = () if request.force else tuple(task for task in tasks if task in store.tasks(digest))
    if len(known) == len(tasks):
        which = f"the task {known[0]} has" if len(known) == 1 else f"all {len(known)} tasks have"
        raise UsageError(f"{which} a profile already", hint="--force makes it again")
    if known:
        run.listen(Notice(f"kept from an earlier run: {', '.join(known)}"))
    profiler, done, interrupted = Profiler(model, request, run), list[StoredProfile](), False
    try:
        for task, problems in tasks.items():
            if task in known:
                continue
            if suite is not None:
                made = profiler.from_answers(suite, task, problems)
            else:
                assert request.text is not None
                made = profiler.from_text(task, request.text)
            done.append(StoredProfile(made, store.put(digest, made.profile)))
    except Aborted:
        if not done:
            raise
        interrupted = True
    return ProfileResult(model.absolute_reference, digest, model.card.experts, tuple(done), known, interrupted)


def profile_store() -> ProfileStore:
    """The store of the profiles of all models."""
    return ProfileStore(paths.experts_folder())


def tasks_of(suite: Suite, task: str | None, limit: int) -> dict[str, tuple[SuiteProblem, ...]]:
    """The first `limit` problems of each task, or of `task` alone. `task` names a suite without tasks.

    Raises UsageError, NotFound.
    """
    found: dict[str, list[SuiteProblem]] = {}
    for problem in suite.problems:
        if problem.task:
            found.setdefault(problem.task, []).append(problem)
    if not found:
        if task is None:
            raise UsageError(f"the suite {suite.name} has no tasks", hint="give it a name: --task mathematics")
        found = {task: list(suite.problems)}
    elif task is not None:
        if task not in found:
            raise NotFound(f"the suite {suite.name} has no task {task!r}", hint=f"it has: {', '.join(found)}")
        found = {task: found[task]}
    for each in found:
        check_task(each)
    return {each: tuple(problems[:limit]) for each, problems in found.items()}


def _suite(model: Model, request: ProfileRequest, listen: Listener) -> Suite:
    if request.suite is None and not model.embedded:
        raise UsageError(
            "no questions are given for the model to answer",
            hint="--suite gsm8k --task mathematics, or --text FILE --task NAME",
        )
    return suites.find(request.suite or EMBEDDED_SUITE, listen)


def _task_of_text(request: ProfileRequest) -> str:
    if request.suite is not None:
        raise UsageError("--suite and --text exclude each other")
    if request.task is None:
        raise UsageError("--text needs the name of its task", hint="for example --task mathematics")
    check_task(request.task)
    return request.task


@dataclass(frozen=True, slots=True)
class _Transcript:
    """`question` has the tokens of the question alone, `tokens` and `text` the question as asked with its answer."""

    question: tuple[int, ...]
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, slots=True)
class Profiler:
    """Profiles tasks of one model."""

    model: Model
    request: ProfileRequest
    run: Run

    def from_answers(self, suite: Suite, task: str, problems: Sequence[SuiteProblem]) -> ProfiledTask:
        """Profiles the model's own answers to the problems."""
        import numpy as np

        from quant.experts.task_match import question_key

        started = time.perf_counter()
        transcripts, threads = self._answers(task, suite, problems)
        answer_seconds = time.perf_counter() - started
        texts = [each.tokens for each in transcripts]
        collector = RouterCollector(self.request.top, self.request.threshold)
        run = replace(self.run, threads=threads)
        with open_router_reader(self.model.path, max(map(len, texts)), run) as reader:
            keys = np.stack([question_key(reader.first_logits(each.question)) for each in transcripts])
            read_seconds = self._read(reader, texts, collector, task)
        origin = f"{counted(len(problems), 'question')} of {suite.name}, answered by the model itself"
        text = "".join(each.text for each in transcripts)
        return ProfiledTask(self._profile(task, collector, texts, keys, origin, text), answer_seconds, read_seconds)

    def from_text(self, task: str, file: Path) -> ProfiledTask:
        """Profiles a text as it is."""
        import numpy as np

        from quant.experts.task_match import question_key

        text = read_text(file)
        content = text.content[:_MAX_TEXT]
        if len(content) < len(text.content):
            self.run.listen(Notice(f"{text.name}: dsr reads only the first {_MAX_TEXT >> 20} million characters"))
        try_once(self.model, self.run)
        collector = RouterCollector(self.request.top, self.request.threshold)
        with open_router_reader(self.model.path, _CHUNK, replace(self.run, threads=None)) as reader:
            settle_threads(reader.model, self.run.threads)
            tokens = reader.model.tokenize(content, add_bos=True)
            if len(tokens) < LEAST_CHUNK:
                raise UsageError(
                    f"{text.name} is too short for a profile: {counted(len(tokens), 'token')}, at least {LEAST_CHUNK} "
                    "are needed"
                )
            texts = [tuple(tokens[at : at + _CHUNK]) for at in range(0, len(tokens), _CHUNK)]
            seconds = self._read(reader, texts, collector, task)
        features = question_key(np.zeros((1, self.model.card.experts), np.float32)).size
        keys = np.zeros((0, features), np.float32)
        return ProfiledTask(self._profile(task, collector, texts, keys, f"the text {text.name}", content), 0.0, seconds)

    def _answers(self, task: str, suite: Suite, problems: Sequence[SuiteProblem]) -> tuple[list[_Transcript], int]:
        """The answers with the model's default sampling, in the order of the problems, and the number of threads."""
        request = self.request
        params = SamplingRequest(seed=request.seed, max_tokens=request.max_tokens).applied_to(
            self.model.sampling.params
        )
        with load(self.model, LoadOptions().for_samples(_SLOTS, request.max_tokens), self.run) as model:
            turns = [[Message("user", suite.message(problem))] for problem in problems]
            # The keys are of the bare questions: nobody adds a suite's instructions to a question in a chat.
            bare = [model.request([Message("user", problem.question)], params).prompt.tokens for problem in problems]
            requests = [replace(model.request(turn, params), sample=number) for number, turn in enumerate(turns)]
            engine = Engine(model.backend)
            answers: dict[int, Completion] = {}
            for event in engine.stream(requests):
                if isinstance(event, SampleFinished):
                    answers[event.completion.sample] = event.completion
                    self.run.listen(Progress("answering", task, len(answers), len(requests), "steps"))
            if isinstance(engine.aborted, Lost):
                raise engine.aborted
            if engine.aborted:
                raise Aborted(f"stopped; there is no profile of {task}")
            transcripts = [
                _transcript(model, each.prompt, question, answers[each.sample])
                for each, question in zip(requests, bare, strict=True)
            ]
            return transcripts, model.threads

    def _read(
        self, reader: RouterReader, texts: Sequence[Sequence[int]], collector: RouterCollector, task: str
    ) -> float:
        """Records the routers; returns the seconds."""
        started = time.perf_counter()
        total, done = sum(map(len, texts)), 0
        for count in reader.collect(texts, collector):
            done += count
            self.run.listen(Progress("watching the routers", task, done, total, "tokens"))
        return time.perf_counter() - started

    def _profile(
        self,
        task: str,
        collector: RouterCollector,
        texts: Sequence[Sequence[int]],
        keys: NDArray[np.float32],
        origin: str,
        text: str,
    ) -> Profile:
        return Profile(
            task=task,
            routing=collector.routing(),
            tokens=sum(map(len, texts)),
            active=self.model.card.experts_used,
            keys=keys,
            origin=origin,
            text=text,
            top=self.request.top,
            threshold=self.request.threshold,
        )


def _transcript(model: LoadedModel, prompt: Prompt, question: tuple[int, ...], answer: Completion) -> _Transcript:
    """The prompt and the answer, token for token, with the end token where the model ended its answer."""
    answer_text = b"".join(map(model.backend.piece, answer.tokens)).decode("utf-8", "replace")
    end = model.card.eos_token if answer.finish_reason == "stop" else None
    tokens = (*prompt.tokens, *answer.tokens, *(() if end is None else (end,)))
    end_text = "\n" if end is None else model.card.token_text(end)
    return _Transcript(question, tokens, prompt.text + answer_text + end_text)
