"""One conversation: messages, prompt, samples, verdict, reply."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from dsr.chat.options import ChatOptions
from dsr.loading.load import LoadedModel
from dsr.store.predictions import PredictedRun
from runtime.base.errors import Aborted, NodeLost
from runtime.base.events import Event, Interrupted, Notice, Progress, SampleFinished
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.speculation import DraftStatistics
from runtime.engine.template import Prompt
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict

# A strategy numbers its samples from 0 and adds the number to the seed, so the next seeds begin farther away.
_SEEDS_OF_A_STRATEGY = 1 << 16
_NOTHING = Completion(0, "", "", (), 0, "cancelled", 0.0)  # stopped before anything was drawn


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and what it cost. `prefill_seconds` is the time until the prompt was first read.

    `verdict`: how a strategy chose the completion. `stopped`: the user stopped it; `failure`: a node was lost. `run`
    compares speed and memory with the prediction.
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
        """The speed of all samples together."""
        drawn = len(self.completion.tokens) if self.verdict is None else self.verdict.spent
        return drawn / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def drew_something(self) -> bool:
        """False when the answer was stopped before its first token: then there is nothing to keep."""
        return self.completion.finish_reason != "cancelled" or bool(self.completion.tokens)


@dataclass(slots=True)
class Conversation:
    """The state of a chat: the turns, and how to answer. `params` are those of the options, for this model."""

    loaded: LoadedModel
    params: SamplingParams
    options: ChatOptions = field(default_factory=ChatOptions)
    system: str = ""
    reproducible: bool = False
    turns: list[Message] = field(default_factory=list)
    last: Reply | None = None
    _engine: Engine | None = None

    @property
    def reference(self) -> str:
        """What finds the model again."""
        return self.loaded.model.absolute_reference

    def ask(self, question: str) -> Generator[Event, None, None]:
        """Answer `question` and keep both in the conversation, also when the answer was stopped half-way.

        Stopped before its first token, or failed, it leaves the conversation as it was.
        """
        if lacks_answer(self.turns):
            yield Notice("the last question got no answer; the model does not see it")
        yield from self._answer([*self.turns, Message("user", question)])

    def again(self) -> Generator[Event, None, None]:
        """Answer the last question again, with another seed."""
        kept = len(before_last_question(self.turns))
        further = 1 if self.options.strategy is None else _SEEDS_OF_A_STRATEGY
        self.params = replace(self.params, seed=(self.params.seed + further) % 2**32)
        yield from self._answer(self.turns[: kept + 1])

    def _answer(self, turns: list[Message]) -> Generator[Event, None, None]:
        self.last = None
        started = prefilled = time.perf_counter()
        request = self._request(turns)
        engine = self._engine = self._engine or Engine(
            self.loaded.backend,
            reproducible=self.reproducible,
            drafter=self.loaded.drafter,
            reports=self.loaded.reports,
        )
        interrupted: Aborted | None = None
        reading = True
        with closing(self._draw(turns, request, engine)) as drawing:
            while True:
                try:
                    event = next(drawing)
                except StopIteration as ended:
                    completion, verdict = ended.value
                    break
                if isinstance(event, Interrupted):
                    interrupted = event.error
                reading = reading and isinstance(event, Progress)
                if reading:
                    prefilled = time.perf_counter()
                yield event
        reply = Reply(
            completion=completion or _NOTHING,
            prompt_tokens=len(request.prompt.tokens),
            prefill_seconds=prefilled - started,
            decode_seconds=time.perf_counter() - prefilled,
            verdict=verdict,
            stopped=interrupted is not None and not isinstance(interrupted, NodeLost),
            drafts=engine.take_drafts(),
            failure=interrupted if isinstance(interrupted, NodeLost) else None,
        )
        self.last = replace(reply, run=self._compared(reply))
        if self.last.drew_something:
            self.turns = [*turns, Message("assistant", self.last.completion.answer)]

    def _draw(
        self, turns: list[Message], request: Request, engine: Engine
    ) -> Generator[Event, None, tuple[Completion | None, Verdict | None]]:
        """The completion to show, and the verdict that chose it where a strategy draws."""
        if self.options.strategy is not None:
            verdict = yield from self.options.strategy.run(self._task(turns, request, engine))
            return verdict.chosen, verdict
        completion = None
        for event in engine.stream([request]):
            if isinstance(event, SampleFinished):
                completion = event.completion
            yield event
        return completion, None

    def _task(self, turns: list[Message], request: Request, engine: Engine) -> Task:
        """The last of `turns` as the question of a strategy; the turns before it are part of every prompt."""
        *before, asked = [*self._system_prompt, *turns]

        def make_prompt(question: str, thinking: bool | None) -> Prompt:
            thinking = self.options.think if thinking is None else thinking
            return self.loaded.prompt([*before, Message("user", question)], thinking)

        return Task(
            question=asked.content,
            prompt=request.prompt,
            make_prompt=make_prompt,
            params=request.params,
            engine=engine,
            markers=self.loaded.markers,
            family=self.loaded.chat_format.family,
        )

    def _compared(self, reply: Reply) -> PredictedRun | None:
        """The speed of the reply and its prediction; None where anything but ordinary samples was drawn."""
        predictor, strategy = self.loaded.predictor, self.options.strategy
        if predictor is None or reply.stopped or (strategy is not None and not strategy.kind.replayable):
            return None
        drawn = [reply.completion] if reply.verdict is None else [each.completion for each in reply.verdict.samples]
        return predictor.compared(self.reference, drawn, reply.prompt_tokens, reply.decode_seconds)

    def _request(self, turns: list[Message]) -> Request:
        return self.loaded.request([*self._system_prompt, *turns], self.params, self.options.think)

    @property
    def _system_prompt(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []


def before_last_question(turns: Sequence[Message]) -> tuple[Message, ...]:
    """The turns before the last question; none where no question was asked."""
    asked = [number for number, turn in enumerate(turns) if turn.role == "user"]
    return tuple(turns[: asked[-1]]) if asked else ()


def lacks_answer(turns: Sequence[Message]) -> bool:
    """Whether the last question was stopped before its answer. `answered` leaves such a question out of prompts."""
    return bool(turns) and (turns[-1].role == "user" or not turns[-1].content.strip())
