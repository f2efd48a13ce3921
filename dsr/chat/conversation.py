"""One conversation: messages, prompt, samples, verdict, reply."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cache

from dsr.chat.disk_cache import CachedModel, DiskCache
from dsr.chat.forgetting import NOTHING, Forgotten, exchanges, forget, prompt_limit, remaining
from dsr.chat.given_files import newest_in_place, parted, unseen_files
from dsr.chat.logprobs import TokensDrawn
from dsr.chat.options import ChatOptions
from dsr.chat.recap import longest_summary, sum_up
from dsr.chat.task import task_of
from dsr.chat.turns import before_last_question, finished, lacks_answer
from dsr.loading.load import LoadedModel
from dsr.store.predictions import PredictedRun
from dsr.ui.console import one_line
from dsr.ui.text import truncate
from runtime.base.common_prefix import common_length
from runtime.base.errors import Aborted, DoesNotFit, DsrError, Lost
from runtime.base.events import Event, Interrupted, Listener, Notice, Progress, SampleFinished, TokenDrawn, ignore
from runtime.base.types import Completion, Message, SamplingParams, Tool, listed
from runtime.engine.call_repair import drawn_with_repair
from runtime.engine.engine import Engine
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.routing import RouteStatistics
from runtime.engine.sequence import Request
from runtime.engine.speculation import DraftStatistics
from runtime.engine.template import Prompt
from runtime.engine.tool_use import ToolUse
from runtime.from_disk.use import DiskUse
from runtime.machine.other_work import OtherWork, WorkClock
from runtime.strategies.paragraphs import Document
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict

# A strategy numbers its samples from 0 and adds the number to the seed, so the next seeds begin farther away.
_SEEDS_OF_A_STRATEGY = 1 << 16
_SHOWN_OF_SUMMARY = 200  # columns; /show has the whole
_NOT_BEGUN = Completion(0, "", "", (), 0, "cancelled", 0.0)  # stopped before anything was drawn


@dataclass(frozen=True, slots=True)
class ReplyFromDisk:
    """What was read for the prompt, and while the answer was drawn. `what` was read: "experts" or "layers"."""

    prompt: DiskUse
    answer: DiskUse
    what: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer and what it cost. `prefill_seconds` is the time until the prompt was first read.

    `verdict`: how a strategy chose the completion. `stopped`: the user stopped it; `failure`: what was lost. `run`
    compares speed and memory with the prediction. `forgotten`: the exchanges that the prompt left out. `asked`: how the
    prompt asked for the answer. `disk`: for a model that runs from the disk. `seed`: of the first sample. `tokens`:
    those of the completion, with `--logprobs`.
    """

    completion: Completion
    prompt_tokens: int
    prefill_seconds: float
    decode_seconds: float
    verdict: Verdict | None = None
    stopped: bool = False
    drafts: DraftStatistics | None = None
    routes: RouteStatistics | None = None
    run: PredictedRun | None = None
    failure: Lost | None = None
    forgotten: Forgotten = NOTHING
    asked: PromptOptions = field(default_factory=PromptOptions)
    disk: ReplyFromDisk | None = None
    seed: int = 0
    tokens: tuple[TokenDrawn, ...] = ()

    @property
    def drawn(self) -> int:
        """Tokens of all samples."""
        return len(self.completion.tokens) if self.verdict is None else self.verdict.spent

    @property
    def cached(self) -> int:
        """Tokens of the prompt that were in the cache, so not decoded; of several samples, for the first one."""
        return (self.completion if self.verdict is None else self.verdict.samples[0].completion).cached

    @property
    def tokens_per_second(self) -> float:
        """The speed of all samples together."""
        return self.drawn / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def drew_something(self) -> bool:
        """False when the answer was stopped before its first token: then there is nothing to keep."""
        return self.completion.finish_reason != "cancelled" or bool(self.completion.tokens)


@dataclass(slots=True)
class Conversation:
    """The state of a chat: the turns, and how to answer. `params` are those of the options, for this model.

    `turns` are the whole conversation; `forgotten` are the exchanges that prompts leave out. `disk` has the caches of
    earlier processes; None reads and writes none. `tools`: the model may call them; no strategy does.
    `meanwhile` hears how far a prompt is read while the engine computes.
    """

    loaded: LoadedModel
    params: SamplingParams
    options: ChatOptions = field(default_factory=ChatOptions)
    system: str = ""
    reproducible: bool = False
    turns: list[Message] = field(default_factory=list)
    forgotten: Forgotten = NOTHING
    last: Reply | None = None
    disk: DiskCache | None = None
    tools: tuple[Tool, ...] = ()
    meanwhile: Listener = ignore
    _engine: Engine | None = None
    _read: tuple[int, ...] = ()  # the last prompt

    @property
    def reference(self) -> str:
        """What finds the model again."""
        return self.loaded.model.absolute_reference

    @property
    def asked(self) -> PromptOptions:
        """The prompt options that this model knows; the others are left out."""
        return self.loaded.chat_format.known(self.options.asked)

    def restart(self, turns: Sequence[Message] = ()) -> None:
        """Continue with other turns, or with none; nothing is forgotten."""
        self.turns, self.forgotten = finished(turns), NOTHING

    def ask(self, question: str) -> Generator[Event, None, None]:
        """Answer `question` and keep both in the conversation, also when the answer was stopped half-way.

        Stopped before its first token, or failed, it leaves the conversation as it was. An answer with calls of tools
        goes on with `go_on`.
        """
        if lacks_answer(self.turns):
            files = unseen_files(self.turns, question)
            also = f", nor {listed(files)}: give it again" if files else ""
            yield Notice(f"the last question got no answer; the model does not see it{also}")
        yield from self._answer([*finished(self.turns), Message("user", question)])

    def go_on(self, results: Sequence[Message]) -> Generator[Event, None, None]:
        """Let the model go on after its calls, with their results: one for each. They stay if it draws nothing."""
        self.turns = [*self.turns, *results]
        yield from self._answer(self.turns)

    def again(self) -> Generator[Event, None, None]:
        """Answer the last question again, with another seed."""
        kept = len(before_last_question(self.turns))
        further = 1 if self.options.strategy is None else _SEEDS_OF_A_STRATEGY
        self.params = replace(self.params, seed=(self.params.seed + further) % 2**32)
        yield from self._answer(self.turns[: kept + 1])

    def go_on_without(self, forgotten: Forgotten) -> None:
        """Leave the same exchanges out as an earlier process did, unless the whole conversation fits now."""
        if len(self._beginning(self._edited(self.turns)[0])) > self._prompt_limit(self.loaded.backend.longest):
            self.forgotten = forgotten

    def begin_from_disk(self, number: int | None) -> None:
        """Give the engine the cache of these turns from an earlier process, before there is a question.

        `number` is the number of the conversation in the history, if it has one.
        """
        if self.disk is not None:
            # With the files as they were first read: that text is exact on the disk, and can be moved.
            self.disk.adopt(self._open_engine(), CachedModel.of(self.loaded), self._beginning(self.turns), number)

    def keep_on_disk(self, number: int | None, *, ends: bool) -> None:
        """Write the cache of conversation `number` to the disk, if that is worth it; `ends`: nothing will follow."""
        if self.disk is None or self._engine is None or number is None:
            return
        drawn = len(self.last.completion.tokens) if self.last is not None else 0
        if ends or self.disk.grew(len(self._read) + drawn):
            # A question without an answer is not in the next prompt, but perhaps it is asked again.
            tokens = max(self._read, self._beginning(self._edited(self.turns)[0]), key=len)
            self.disk.keep(self._engine, CachedModel.of(self.loaded), tokens, number, ends=ends)

    def _beginning(self, turns: list[Message]) -> tuple[int, ...]:
        """The tokens with which any prompt after these turns begins; none if the template refuses the turns."""
        asked = (remaining([*turns, Message("user", each)], self.forgotten) for each in ("a", "1"))
        try:
            one, other = (self._prompt(turns).tokens for turns in asked)
        except DsrError:
            return ()
        return one[: common_length(one, other)]

    def _open_engine(self) -> Engine:
        self._engine = self._engine or Engine(
            self.loaded.backend,
            reproducible=self.reproducible,
            drafter=self.loaded.drafter,
            reports=self.loaded.reports,
            pass_progress=self.loaded.pass_progress,
            meanwhile=lambda event: self.meanwhile(event),
        )
        return self._engine

    def _answer(self, turns: list[Message]) -> Generator[Event, None, None]:
        self.last = None
        if (note := self.loaded.files.note()) is not None:
            yield Notice(note)
        engine = self._open_engine()
        strategy = self.options.strategy
        asked, documents = parted(turns) if strategy is not None and strategy.kind.long else (turns, ())
        seen = yield from self._make_room(asked, engine)
        started = prefilled = time.perf_counter()
        request = self._request(seen)
        self._read = request.prompt.tokens
        if self.disk is not None:
            self.disk.adopt(engine, CachedModel.of(self.loaded), request.prompt.tokens)
        interrupted: Aborted | None = None
        reading, clock = True, WorkClock.now()
        before = in_prompt = self._disk_use()
        tokens = TokensDrawn()
        with closing(self._draw(seen, request, engine, documents)) as drawing:
            while True:
                try:
                    event = next(drawing)
                except StopIteration as ended:
                    completion, verdict = ended.value
                    break
                if isinstance(event, Interrupted):
                    interrupted = event.error
                tokens.hear(event)
                reading = reading and isinstance(event, Progress)
                if reading:
                    prefilled, in_prompt = time.perf_counter(), self._disk_use()
                yield event
        reply = Reply(
            completion=completion or _NOT_BEGUN,
            prompt_tokens=len(request.prompt.tokens),
            prefill_seconds=prefilled - started,
            decode_seconds=time.perf_counter() - prefilled,
            verdict=verdict,
            stopped=interrupted is not None and not isinstance(interrupted, Lost),
            drafts=engine.take_drafts(),
            routes=self.loaded.routes() if self.loaded.routes is not None else None,
            failure=interrupted if isinstance(interrupted, Lost) else None,
            forgotten=self.forgotten,
            asked=self.asked,
            disk=self._from_disk(before, in_prompt),
            seed=self.params.seed,
            tokens=tokens.of(completion.sample) if completion is not None else (),
        )
        self.last = replace(reply, run=self._compared(reply, clock.until_now()))
        if self.last.drew_something:
            done = self.last.completion
            self.turns = [*turns, Message("assistant", done.answer, done.thinking, done.calls)]

    def _disk_use(self) -> DiskUse | None:
        """What was read from the disk until now."""
        return self.loaded.disk_use().copy() if self.loaded.disk_use is not None else None

    def _from_disk(self, before: DiskUse | None, in_prompt: DiskUse | None) -> ReplyFromDisk | None:
        now, plan = self._disk_use(), self.loaded.from_disk
        if now is None or before is None or in_prompt is None:
            return None
        what = "experts" if plan is None or plan.routed else "layers"
        return ReplyFromDisk(in_prompt.since(before), now.since(in_prompt), what)

    def _make_room(self, turns: list[Message], engine: Engine) -> Generator[Event, None, list[Message]]:
        """The turns that the model reads. If an answer would not have room, the oldest exchanges are forgotten.

        With `edit` "fast", a file that is given again takes the place of its earlier version. Raises DoesNotFit for
        files that leave no room. If the question alone is too long, returns only the question.
        """
        turns, changed = self._edited(turns)
        if changed:
            yield Notice(self._edit_note(changed))
        count, before = exchanges(turns), self.forgotten
        if before.exchanges > count:  # the last answer was forgotten, and is now drawn again
            before = self.forgotten = NOTHING
        if self.options.on_full == "stop" or not count:
            return remaining(turns, before)

        @cache
        def length(gone: int) -> int:
            return len(self._prompt(remaining(turns, replace(before, exchanges=gone))).tokens)

        longest = self.loaded.backend.longest
        for_summary = longest_summary(longest) if self.options.on_full == "summary" else 0
        limit = self._prompt_limit(longest) - for_summary
        if length(before.exchanges) > limit and length(count) >= longest:
            asked = turns[len(before_last_question(turns)) :]
            if len(self._prompt(asked).tokens) >= longest:
                return asked
            raise DoesNotFit(
                f"the files of this conversation and the question take {length(count)} tokens, the context holds "
                f"{longest} including the answer",
                hint="begin a new conversation (/clear, or without --resume), or shorten the question",
            )
        now = forget(length, before, count, limit)
        if now != before:
            yield from self._forget(turns, now, for_summary, longest, engine)
        return remaining(turns, self.forgotten)

    def _edited(self, turns: list[Message]) -> tuple[list[Message], tuple[str, ...]]:
        """The turns as the model reads them, and the files that the last one changed."""
        return newest_in_place(turns) if self.options.edit == "fast" else (turns, ())

    def _edit_note(self, changed: tuple[str, ...]) -> str:
        if self._moves:
            return f"{listed(changed)} changed: dsr moves what follows the change, which is approximate"
        return f"{listed(changed)} changed: dsr reads again what follows the change, because it cannot move it here"

    def _prompt_limit(self, longest: int) -> int:
        strategy, backend = self.options.strategy, self.loaded.backend
        together = min(strategy.samples, backend.slots) if strategy else 1
        return prompt_limit(longest, backend.context, self.params.max_tokens, together)

    def _forget(
        self, turns: list[Message], now: Forgotten, for_summary: int, longest: int, engine: Engine
    ) -> Generator[Event, None, None]:
        """Forget as planned, after a summary of at most `for_summary` tokens; 0 for none. A Notice says so."""
        went = now.since(self.forgotten)
        if not for_summary:
            self.forgotten = now
            moved = "; dsr moves what follows, which is approximate" if self._moves else ""
            yield Notice(f"forgot {went} to make room{moved}")
            return
        params = replace(self.params, max_tokens=for_summary, think_budget=None, stop=())

        def make_request(said: list[Message]) -> Request:
            return Request(self._prompt(said, thinking=False), params, self.loaded.markers, approximate=self._moves)

        recap = yield from sum_up(turns, self.forgotten, now.exchanges, make_request, longest - for_summary, engine)
        # The statistics of an answer leave those of the summary out.
        engine.take_drafts()
        if self.loaded.routes is not None:
            self.loaded.routes()
        self.forgotten = replace(now, summary=recap.summary)
        if recap.missing:
            without = "without all of them in it" if recap.summary else "without one"
            yield Notice(f"{recap.missing}: forgot {went} {without} to make room")
        else:
            yield Notice(f"summed up {went} to make room: {truncate(one_line(recap.summary), _SHOWN_OF_SUMMARY)}")

    def _draw(
        self, turns: list[Message], request: Request, engine: Engine, documents: tuple[Document, ...]
    ) -> Generator[Event, None, tuple[Completion | None, Verdict | None]]:
        """The completion to show, and the verdict that chose it where a strategy draws."""
        if self.options.strategy is not None:
            verdict = yield from self.options.strategy.run(self._task(turns, request, engine, documents))
            return verdict.chosen, verdict
        completion = None
        for event in drawn_with_repair(request, engine.stream, self.loaded.backend):
            if isinstance(event, SampleFinished):
                completion = event.completion
            yield event
        return completion, None

    def _task(self, turns: list[Message], request: Request, engine: Engine, documents: tuple[Document, ...]) -> Task:
        def build(said: Sequence[Message], thinking: bool | None) -> Prompt:
            return self.loaded.prompt(said, self._asked(thinking))

        said = [*self._system_prompt, *turns]
        return task_of(self.loaded, said, request, engine, build, self.options.grammar, documents)

    def _compared(self, reply: Reply, others: OtherWork) -> PredictedRun | None:
        """The speed of the reply and its prediction; None where anything but ordinary samples was drawn."""
        predictor, strategy = self.loaded.predictor, self.options.strategy
        if predictor is None or reply.stopped or (strategy is not None and not strategy.replayable):
            return None
        drawn = [reply.completion] if reply.verdict is None else [each.completion for each in reply.verdict.samples]
        run = predictor.compared(self.reference, drawn, reply.prompt_tokens, reply.decode_seconds)
        return run and replace(run, disturbed=others.disturbance)

    def _prompt(self, turns: list[Message], thinking: bool | None = None) -> Prompt:
        return self.loaded.prompt([*self._system_prompt, *turns], self._asked(thinking), self._offered)

    @property
    def _offered(self) -> tuple[Tool, ...]:
        """The tools that the next answer may call. A strategy draws many samples, and a call has effects."""
        return self.tools if self.options.strategy is None or self.options.strategy.plain else ()

    def _asked(self, thinking: bool | None = None) -> PromptOptions:
        """What the user asks for, so far as the model knows it; `thinking` overrides."""
        asked = self.asked
        return asked if thinking is None else replace(asked, thinking=thinking)

    def _request(self, turns: list[Message]) -> Request:
        try:
            use = ToolUse(self._offered) if self._offered else None
            asked = self.loaded.request([*self._system_prompt, *turns], self.params, self.asked, use)
        except DoesNotFit as error:
            taken = len(self.loaded.backend.tokenize(self.system, add_bos=False))
            if taken <= self.loaded.backend.longest // 2:
                raise
            way = f"shorten the system prompt, which takes {taken} of them"
            raise DoesNotFit(error.message, hint=f"{way}; or {error.hint}") from None
        grammar = asked.grammar or self.options.grammar
        return replace(asked, keep_reply=True, approximate=self._moves, grammar=grammar)

    @property
    def _moves(self) -> bool:
        """Whether the part of a prompt that stands behind a change is moved, and not read again."""
        exact = self.reproducible or self.options.strategy is not None  # the samples of a strategy read again
        return self.options.edit == "fast" and self.loaded.backend.can_graft and not exact

    @property
    def _system_prompt(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []
