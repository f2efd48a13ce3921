"""One conversation: messages -> prompt -> samples -> verdict -> answer."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from dsr.loading.load import LEAST_ROOM, LoadedModel
from dsr.models.sampling import SamplingRequest
from dsr.store.predictions import PredictedRun
from dsr.store.settings import Thinking
from runtime.base.errors import DoesNotFit, NodeLost
from runtime.base.events import Event, Notice, Progress
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.backend import Backend
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.speculation import DraftStatistics
from runtime.engine.template import PromptText
from runtime.strategies.strategy import Strategy
from runtime.strategies.task import Prompt, Task
from runtime.strategies.verdict import Verdict

# A strategy numbers its samples from 0 and adds the number to the seed, so the next seeds begin farther away.
_SEEDS_OF_A_STRATEGY = 1 << 16
_NOTHING = Completion(0, "", "", (), 0, "cancelled", 0.0)  # stopped before anything was drawn


@dataclass(slots=True)
class Manner:
    """How the user wants to be answered; kept when the model changes."""

    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    think: bool | None = None
    shown: Thinking = "show"
    stats: bool = False
    strategy: Strategy | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer with what it cost. `prefill_seconds` is the time until the prompt was first read.

    `verdict` tells how the completion was chosen, where a strategy chose; `stopped` that the user had enough, unless
    `failure` says which node was lost; `run` compares speed and memory with what was expected.
    """

    completion: Completion
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float
    verdict: Verdict | None = None
    stopped: bool = False
    drafts: DraftStatistics | None = None
    run: PredictedRun | None = None
    failure: NodeLost | None = None

    @property
    def tokens_per_second(self) -> float:
        """Of all samples together."""
        drawn = len(self.completion.tokens) if self.verdict is None else self.verdict.spent
        return drawn / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def drew_something(self) -> bool:
        """False when it was stopped before its first token: then there is nothing to keep."""
        return self.completion.finish_reason != "cancelled" or bool(self.completion.tokens)


@dataclass(slots=True)
class Conversation:
    """The state of a chat: what was said, and how to answer. `thinking` None leaves it to the model's template."""

    model: LoadedModel
    params: SamplingParams
    thinking: bool | None = None
    system: str = ""
    reproducible: bool = False
    turns: list[Message] = field(default_factory=list)
    strategy: Strategy | None = None
    last: Reply | None = None
    _engine: Engine | None = None

    @property
    def reference(self) -> str:
        """What finds the model again."""
        return self.model.model.absolute_reference

    def ask(self, question: str) -> Generator[Event, None, None]:
        """Answer `question` and keep both in the conversation, also when the answer was stopped half-way.

        Stopped before its first token, or failed, it leaves the conversation as it was.
        """
        yield from self._answer([*self.turns, Message("user", question)])

    def again(self) -> Generator[Event, None, None]:
        """Answer the last question anew, with another seed."""
        kept = len(before_last_question(self.turns))
        further = 1 if self.strategy is None else _SEEDS_OF_A_STRATEGY
        self.params = replace(self.params, seed=(self.params.seed + further) % 2**32)
        yield from self._answer(self.turns[: kept + 1])

    def _answer(self, turns: list[Message]) -> Generator[Event, None, None]:
        self.last = None
        started = prefilled = time.perf_counter()
        engine = self._engine = self._engine or Engine(
            self.model.backend, reproducible=self.reproducible, drafter=self.model.drafter
        )
        request = self.request(turns)
        task = self._task(turns, request, engine)
        reading = True
        with closing(self._drawn(task, request)) as drawing:
            while True:
                try:
                    event = next(drawing)
                except StopIteration as ended:
                    completion, verdict = ended.value
                    break
                if not isinstance(event, Progress):
                    reading = False
                elif reading:
                    prefilled = time.perf_counter()
                yield event
                for notice in self.model.take_notices():
                    yield Notice(notice)
        failure = self.model.take_failure()
        reply = Reply(
            completion=completion or _NOTHING,
            prompt_tokens=len(request.prompt),
            prefill_seconds=prefilled - started,
            decode_seconds=time.perf_counter() - prefilled,
            verdict=verdict,
            stopped=engine.aborted and failure is None,
            drafts=engine.take_drafts(),
            failure=failure,
        )
        self.last = replace(reply, run=self._compared(reply))
        if self.last.drew_something:
            self.turns = [*turns, Message("assistant", self.last.completion.answer)]

    def _compared(self, reply: Reply) -> PredictedRun | None:
        """The reply beside its forecast, where ordinary samples were drawn and nothing else was done."""
        forecast, strategy = self.model.forecast, self.strategy
        if forecast is None or reply.stopped or (strategy is not None and not strategy.kind.replayable):
            return None
        drawn = [reply.completion] if reply.verdict is None else [each.completion for each in reply.verdict.samples]
        return forecast.compared(self.reference, drawn, reply.prompt_tokens, reply.decode_seconds)

    def _drawn(self, task: Task, request: Request) -> Generator[Event, None, tuple[Completion | None, Verdict | None]]:
        if self.strategy is None:
            [sample] = yield from task.draw([request])
            return sample.completion, None
        verdict = yield from self.strategy.run(task)
        return verdict.chosen, verdict

    def _task(self, turns: list[Message], request: Request, engine: Engine) -> Task:
        """The last of `turns` as a question for a strategy; what was said before it stands in every prompt."""
        *before, asked = turns
        return Task(
            question=asked.content,
            make_prompt=lambda question, thinking: self._prompt([*before, Message("user", question)], thinking),
            params=request.params,
            engine=engine,
            markers=self.model.markers,
            family=self.model.chat_format.family,
        )

    def request(self, turns: list[Message]) -> Request:
        """What to draw for the conversation `turns`. Raises Incompatible when the template fails, DoesNotFit."""
        prompt = self._prompt(turns, None)
        room = None if self.model.reach is None else self.model.reach - len(prompt.tokens)
        if room is not None and room < 1:
            raise DoesNotFit(
                f"the prompt is {len(prompt.tokens)} tokens long, the model was trained for {self.model.reach}",
                hint=f"shorten the prompt, or insist with --ctx-size {len(prompt.tokens) + 1024} or more",
            )
        limits = [limit for limit in (self.params.max_tokens, room) if limit is not None]
        params = replace(self.params, max_tokens=min(limits, default=None))
        return Request(prompt.tokens, params, self.model.markers, prompt.starts_in_thought)

    def _prompt(self, turns: list[Message], thinking: bool | None) -> Prompt:
        prompt = self.prompt_text(turns, thinking)
        tokens = self.model.backend.tokenize(prompt.text, add_special=not prompt.begins_with_bos)
        return Prompt(tuple(tokens), prompt.starts_in_thought)

    def prompt_text(self, turns: list[Message], thinking: bool | None = None) -> PromptText:
        """`turns` as the model reads them; `thinking` None leaves that to the user, and then to the model."""
        model = self.model
        system = [Message("system", self.system)] if self.system else []
        wanted = self.thinking if thinking is None else thinking
        return model.chat_format.prompt([*system, *turns], wanted)


def before_last_question(turns: Sequence[Message]) -> tuple[Message, ...]:
    """What was said before the last question; nothing when nobody asked."""
    asked = [number for number, turn in enumerate(turns) if turn.role == "user"]
    return tuple(turns[: asked[-1]]) if asked else ()


def strategy_notes(strategy: Strategy | None, backend: Backend, params: SamplingParams) -> list[str]:
    """What a person should know before samples are drawn."""
    if strategy is None or strategy.voters < 2:
        return []
    notes = []
    if backend.slots < strategy.voters:
        full = backend.context // LEAST_ROOM <= backend.slots
        why = f": memory for {backend.context} tokens of context" if full else ""
        notes.append(f"{strategy.voters} samples in waves of {backend.slots}{why}")
    if params.temperature == 0:
        notes.append("at temperature 0 all samples are the same; try --temp 0.6")
    return notes
