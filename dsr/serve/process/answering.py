"""Asks become requests of the engine, and its events what is told of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from dsr.chat.asked import with_usual
from dsr.chat.given_files import parted
from dsr.chat.summary import verdict_json
from dsr.chat.task import task_of
from dsr.loading.load import LoadedModel
from dsr.models.sampling import effective
from dsr.serve.ask import Ask
from dsr.serve.process import queries
from dsr.serve.process.repair import Repairing
from dsr.serve.process.turns import Do, Turn, TurnDrawer
from dsr.serve.told import Begun, Decided, Done, Ended, Failed, Told
from runtime.base.errors import DsrError, Lost, TooLong, UsageError
from runtime.base.events import Event, Interrupted, Notice, SampleFinished
from runtime.base.types import Completion, Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.prompt_options import PromptOptions
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from runtime.from_disk.use import DiskUse
from runtime.strategies.paragraphs import Document
from runtime.strategies.strategy import Strategy, find
from runtime.strategies.task import Task

Tell = Callable[[Told], None]


class BadForm(UsageError):
    """The form of an answer cannot be used. `place`: the field of the request that has it."""

    def __init__(self, message: str, *, hint: str | None, place: str) -> None:
        super().__init__(message, hint=hint)
        self.place = place


@dataclass(slots=True)
class Answering:
    """Answers asks for one loaded model. `engine` belongs to the thread that calls `do`'s actions; those of `prepare`
    are called in the thread of `answer`."""

    loaded: LoadedModel
    engine: Engine
    do: Do
    prepare: Do
    usual: Mapping[str, Any]  # as in `OpenAsk`
    _render: threading.Lock = field(default_factory=threading.Lock)  # a template's sandbox counts one rendering

    def answer(self, ask: Ask, turn: Turn, tell: Tell) -> None:
        """Answer in the background. Called from any thread but the engine's, since rendering may take long."""
        if self.loaded.disk_use is not None:
            tell = partial(_tell_with_use, tell, self.loaded.disk_use, self.loaded.disk_use().copy())
        try:
            self._begin(ask, turn, tell)
        except DsrError as error:
            tell(failed(error))

    def query(self, kind: str, given: Mapping[str, Any]) -> Any:
        """The answer to a query. Raises DsrError."""
        with self._render:
            return queries.answer(self.loaded, kind, given)

    def _begin(self, ask: Ask, turn: Turn, tell: Tell) -> None:
        sampling = ask.sampling.with_usual(self.usual.get("sampling", {}))
        params = sampling.applied_to(self.loaded.model.sampling.params)
        strategy = find(ask.strategy).configured(ask.settings) if ask.strategy else None
        documents: tuple[Document, ...] = ()
        if strategy is not None and strategy.kind.long:
            said, documents = parted(ask.messages)
            ask = replace(ask, messages=tuple(said))
        request = self._request(ask, params)
        begun = Begun(len(request.prompt.tokens), effective(params), params.seed)
        notes = self._notes(ask)
        if strategy is not None:
            tell(begun)
            for note in notes:
                tell(note)
            task = self._task(ask, request, TurnDrawer(turn, self.engine.slots, self.do), documents)
            run = _StrategyRun(strategy, task, params.seed, tell, self.do)
            threading.Thread(target=run.run, daemon=True).start()
            return
        requests = [replace(request, sample=number) for number in range(ask.samples)]
        listener = _Listener(tell, len(requests), lambda: self.engine.aborted is not None)
        listen = listener.listen
        if request.calling is not None:
            listen = Repairing(requests, self.loaded.backend, turn, listener, self.do, self.prepare).listen

        def submit() -> None:
            try:
                turn.submit(requests, listen)
            except Exception as error:  # whatever it is, it ends this ask alone
                listener.over = True
                tell(failed(error) if isinstance(error, DsrError) else broken(error))
            else:
                tell(begun)  # not before: a full queue is an error, and no answer that began
                for note in notes:
                    tell(note)

        self.do(submit)

    def _notes(self, ask: Ask) -> tuple[Notice, ...]:
        """What a client should know of the model and its wishes."""
        chat_format = self.loaded.chat_format
        notes = [self.loaded.files.note()]
        if ask.tools is not None:
            notes.append(chat_format.tools_note(ask.tools.offered))
        if ask.options.effort is not None and not chat_format.facts.efforts:
            notes.append(f"{chat_format.source} knows no levels of effort, so {ask.options.effort} changes nothing")
        return tuple(Notice(note) for note in notes if note is not None)

    def _request(self, ask: Ask, params: SamplingParams) -> Request:
        if ask.grammar is not None:
            # It is kept, so that the engine's thread need not compile it while other answers wait.
            try:
                self.loaded.backend.constraint(ask.grammar)
            except UsageError as error:
                raise BadForm(error.message, hint=error.hint, place=ask.form) from None
        if ask.prompt is not None:
            return replace(self._plain(ask.prompt, params), grammar=ask.grammar)
        with self._render:
            options = self._options(ask)
            request = self.loaded.request(ask.messages, params, options, ask.tools)
        if request.calling is not None and ask.grammar is not None:
            raise UsageError("an answer that may call tools cannot be held to a form", hint="leave out one of the two")
        grammar = ask.grammar or request.grammar
        return replace(request, keep_reply=not ask.strategy and ask.samples == 1, grammar=grammar)

    def _options(self, ask: Ask) -> PromptOptions:
        """What the ask wants of the prompt. Raises UsageError for a wish that the template does not know, except an
        effort where it knows no levels."""
        chat_format = self.loaded.chat_format
        for option, why in chat_format.unknown(ask.options):
            if option == "effort" and not chat_format.facts.efforts:
                continue  # clients send one with every request; the answer says that it changes nothing
            said = f"effort {ask.options.effort}" if option == "effort" else "keeping thoughts"
            raise UsageError(f"{said}: {chat_format.source} {why}")
        if ask.options.thinking and chat_format.markers is None and not chat_format.facts.switch:
            raise UsageError(f"thinking: {chat_format.source} marks no thoughts")
        effort, keep = self.usual.get("effort"), bool(self.usual.get("keep_thoughts"))
        if ask.options.thinking is False:
            effort = None  # how much, for a thought that is not wanted
        return chat_format.known(with_usual(ask.options, PromptOptions(effort=effort, keep_thoughts=keep)))

    def _plain(self, prompt: str | tuple[int, ...], params: SamplingParams) -> Request:
        """Text that goes on: nothing marks a thought, and special tokens act as such, as in llama-server."""
        if isinstance(prompt, str):
            made = Prompt(text=prompt).tokenized(self.loaded.backend.tokenize)
        else:
            queries.check_tokens(self.loaded, prompt)
            made = Prompt(tokens=prompt)
        return Request(made, params, None, plain=True, keep_reply=True)

    def _task(self, ask: Ask, request: Request, drawer: TurnDrawer, documents: tuple[Document, ...]) -> Task:
        def build(said: Sequence[Message], thinking: bool | None) -> Prompt:
            options = ask.options if thinking is None else replace(ask.options, thinking=thinking)
            with self._render:
                return self.loaded.prompt(said, self.loaded.chat_format.known(options))

        return task_of(self.loaded, ask.messages, request, drawer, build, ask.grammar, documents)


@dataclass(slots=True)
class _Listener:
    """Tells the events of `left` samples, then that the ask is answered, or what went away, if the engine `aborted`."""

    tell: Tell
    left: int
    aborted: Callable[[], bool] = lambda: False
    over: bool = False

    def listen(self, event: Event) -> None:
        if self.over:
            return
        self.tell(told_of_event(event))
        self.left -= isinstance(event, SampleFinished)
        self.over = isinstance(event, Interrupted)
        if not self.left and not self.over and not self.aborted():  # else Interrupted follows
            self.over = True
            self.tell(Done())


@dataclass(frozen=True, slots=True)
class _StrategyRun:
    """A strategy that draws and decides in a thread of its own."""

    strategy: Strategy
    task: Task
    seed: int
    tell: Tell
    do: Do

    def run(self) -> None:
        try:
            self._run()
        except DsrError as error:
            self.tell(failed(error))
        except Exception as error:
            self.tell(broken(error))
        self.do(_nothing)  # so that the last words are sent

    def _run(self) -> None:
        running = self.strategy.run(self.task)
        told: list[Completion] = []
        lost: Lost | None = None
        while True:
            try:
                event = next(running)
            except StopIteration as end:
                verdict = end.value
                break
            if isinstance(event, SampleFinished):
                told.append(event.completion)
            if not isinstance(event, Interrupted):
                self.tell(told_of_event(event))
            elif isinstance(event.error, Lost):
                lost = event.error
        if lost is not None:
            raise lost
        chosen = verdict.chosen
        if chosen is not None and not any(each is chosen for each in told):
            self.tell(ended(chosen))
        self.tell(Decided(verdict_json(verdict, self.seed), None if chosen is None else chosen.sample))
        self.tell(Done())


def _nothing() -> None:
    """What makes the engine's thread look up."""


def _tell_with_use(tell: Tell, use: Callable[[], DiskUse], before: DiskUse, told: Told) -> None:
    tell(Done(dict(use().since(before).as_json())) if isinstance(told, Done) else told)


def told_of_event(event: Event) -> Told:
    if isinstance(event, SampleFinished):
        return ended(event.completion)
    return failed(event.error) if isinstance(event, Interrupted) else event


def ended(completion: Completion) -> Ended:
    return Ended(
        sample=completion.sample,
        finish_reason=completion.finish_reason,
        thinking=completion.thinking,
        answer=completion.answer,
        tokens=len(completion.tokens),
        thinking_tokens=completion.thinking_tokens,
        cached=completion.cached,
        seconds=completion.seconds,
        stop_string=completion.stop_string,
        calls=completion.calls,
        first_token_seconds=completion.first_token_seconds,
        latency=completion.latency,
    )


def failed(error: DsrError) -> Failed:
    tokens, longest = (error.tokens, error.longest) if isinstance(error, TooLong) else (0, 0)
    place = error.place if isinstance(error, BadForm) else ""
    return Failed(type(error).__name__, error.message, error.hint, tokens, longest, place)


def broken(error: BaseException) -> Failed:
    """A fault of dsr itself; its traceback goes to the log of the process."""
    import traceback

    traceback.print_exception(error)
    return Failed("Exception", f"dsr failed: {type(error).__name__}", "the log of dsr serve has the traceback")
