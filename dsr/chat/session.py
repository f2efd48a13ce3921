"""`dsr chat` in steps: find the model, read the question, open the record, then one answer or a conversation."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from dsr.chat.asked import check_known, unknown_notes, with_usual
from dsr.chat.conversation import Conversation
from dsr.chat.disk_cache import DiskCache
from dsr.chat.experts import Experts
from dsr.chat.forgetting import NOTHING, Forgotten
from dsr.chat.given_files import with_files
from dsr.chat.options import ChatOptions, edit_of, on_full_of, strategy_notes
from dsr.chat.prompt_length import check_length
from dsr.chat.record import Earlier, Record, kept_conversation, resumed_line
from dsr.chat.summary import as_json
from dsr.chat.tools.calls import Toolbox
from dsr.chat.tools.config import ToolsRequest, check_alone
from dsr.chat.tools.rounds import answer_in_rounds
from dsr.loading.load import load
from dsr.loading.options import ExpertsRequest, LoadOptions
from dsr.models import library
from dsr.models.model import Model
from dsr.models.references import is_known, sizes
from dsr.models.sampling import ENGINE_DEFAULTS, SamplingRequest
from dsr.plan.recommended import kept, measured
from dsr.store import paths
from dsr.store.kept_states import KeptStates
from dsr.store.settings import OnFull, Thinking
from dsr.ui.console import Console, show_error
from dsr.ui.interrupts import stopping
from dsr.ui.progress import showing
from runtime.base.errors import DoesNotFit, DsrError, NotFound, UsageError
from runtime.base.events import Event, Notice, Progress
from runtime.base.run import Run, Stop
from runtime.base.types import Message
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.strategies.strategy import USUAL_SAMPLES, Strategy

if TYPE_CHECKING:
    from dsr.experts.selection import Selection

EMBEDDED = "nano"
EMBEDDED_IS = "nano, a 12 M demonstration model: arithmetic, words, dates, simple logic"
INTERRUPTED = 130
_HELP = "/help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves"
_MOST_SLOTS = 64  # a CPU draws no faster with more


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """The options of `dsr chat`, with the settings where an option is not given. `prompt` None asks for a conversation.

    `asked` are options; `usual` are settings, which have no effect if a model does not know them.

    `default_model` is loaded where neither `model` nor a resumed conversation names one; without it, the embedded one.
    `on_full` None means "forget" in a conversation, also a resumed one, and "stop" for one question. `cache_limit`: the
    most bytes on disk for caches of all kept conversations; None is the default. `resume_id`: the conversation to
    `resume`; None is the latest.
    """

    model: str | None = None
    default_model: str | None = None
    prompt: str | None = None
    files: tuple[Path, ...] = ()
    system: str | None = None
    asked: PromptOptions = field(default_factory=PromptOptions)
    usual: PromptOptions = field(default_factory=PromptOptions)
    thinking: str = "show"
    sampling: SamplingRequest = field(default_factory=SamplingRequest)
    load: LoadOptions = field(default_factory=LoadOptions)
    threads: int | None = None
    reproducible: bool = False
    resume: bool = False
    resume_id: int | None = None
    keep: bool = True
    cache_limit: int | None = None
    stats: bool = False
    strategy: Strategy | None = None
    experts: ExpertsRequest | None = None
    on_full: str | None = None
    edit: str = "exact"
    grammar: Grammar | None = None
    tools: ToolsRequest | None = None
    raw: bool = False


def run(request: ChatRequest, console: Console, *, interactive: bool) -> int:
    """Carry out `dsr chat`; returns the exit code."""
    thinking = _thinking_shown(request.thinking)
    on_full, edit = _on_full(request), edit_of(request.edit)
    if request.reproducible and request.load.drafted:
        raise UsageError("--reproducible and --draft exclude each other: how much is drafted depends on the clock")
    if request.experts is not None and request.load.lora:
        raise UsageError("--lora and --experts exclude each other: an adapter is made for all experts")
    if request.tools is not None:
        check_alone(request.strategy, request.grammar)
    # What is wrong should be refused before a large model is loaded, not after.
    request.sampling.applied_to(ENGINE_DEFAULTS)
    if request.grammar is not None:
        from runtime.llama.constraint import check_grammar

        check_grammar(request.grammar)
    earlier = kept_conversation(paths.conversations_file(), request.resume_id) if request.resume else None
    name = request.model or (earlier.model if earlier else None) or request.default_model
    model = _find(name, request, earlier)
    prompt = with_files(request.files, request.prompt)
    if prompt is None and not (interactive and console.human):
        raise UsageError("there is no question", hint='ask one: dsr chat "What is 347 + 586?"')
    if name is None:
        console.say(f"{EMBEDDED_IS}. For a real model: {kept() or 'dsr list --fits'}")
    elif prompt is None:
        console.say(model.name)
    turns = list(earlier.messages) if earlier else []
    system = request.system if request.system is not None else earlier.system if earlier else ""
    if request.asked.effort or request.asked.keep_thoughts:
        check_known(model.chat_format(request.load.template), request.asked)
    asked = with_usual(request.asked, request.usual)
    options = ChatOptions(
        request.sampling, asked, thinking, request.stats, request.strategy, on_full, edit, request.grammar, request.raw
    )
    with ExitStack() as stack:
        record = stack.enter_context(Record.open(paths.conversations_file() if request.keep else None, console))
        _begin_record(record, earlier, model, system, console)
        disk = None
        # A reproducible answer reads its whole prompt in the same batches each time.
        if request.cache_limit != 0 and not request.reproducible:
            disk = stack.enter_context(_disk_cache(request.cache_limit, options, console))
        stop, toolbox = Stop(), None
        if request.tools is not None:
            from dsr.chat.tools.open_tools import open_tools

            toolbox = stack.enter_context(open_tools(request.tools, console, stop))
        forgotten = earlier.forgotten if earlier else NOTHING
        session = _Session(request, console, record, options, disk, forgotten, toolbox, stop)
        if prompt is not None:
            code = session.answer(model, turns, system, prompt)
            if name is None:
                _recommend(console)
            return code
        session.converse(model, turns, system)
        return 0


def _recommend(console: Console) -> None:
    """The model for this machine, after nano's first answer: to measure takes seconds, so only a person waits."""
    if not console.live or kept() is not None:
        return
    with showing(console) as listen:
        found = measured(listen)
    if found is not None:
        console.say(f"for this machine: {found}", style="plain")


def _disk_cache(limit: int | None, options: ChatOptions, console: Console) -> DiskCache:
    def listen(event: Event) -> None:
        if options.stats and isinstance(event, Notice):
            console.say(event.text)

    return DiskCache(KeptStates(paths.kept_states_folder(), limit, listen), console, listen)


def _begin_record(record: Record, earlier: Earlier | None, model: Model, system: str, console: Console) -> None:
    if earlier is None:
        record.begin(model.absolute_reference, system)
        return
    record.resume(earlier, model.absolute_reference, system)
    console.say(resumed_line(earlier))


@dataclass(slots=True)
class _Session:
    """The parts of a session that stay when the model changes. `forgotten`: exchanges that a resumed one left out."""

    request: ChatRequest
    console: Console
    record: Record
    options: ChatOptions
    disk: DiskCache | None = None
    forgotten: Forgotten = NOTHING
    toolbox: Toolbox | None = None
    stop: Stop = field(default_factory=Stop)

    def open(self, stack: ExitStack, model: Model, turns: list[Message], system: str) -> Conversation:
        """Load a model for as long as `stack` lives."""
        with showing(self.console) as listen, stopping(self.stop):
            run = Run(self.stop, listen, self.request.threads)
            loaded = stack.enter_context(load(model, self._load_options(), run))
        notes = unknown_notes(loaded.chat_format, self.options.asked)
        if self.options.asked == with_usual(self.request.asked, self.request.usual):
            notes = unknown_notes(loaded.chat_format, self.request.asked)  # settings: nobody asked now
        for line in notes:
            self.console.say(line)
        if note := loaded.chat_format.thinking_note(self.options.asked.thinking, self.options.sampling.think_budget):
            self.console.say(note)
        if note := loaded.chat_format.system_note(system):
            self.console.say(note)
        tools = self.toolbox.tools if self.toolbox is not None else ()
        if note := loaded.chat_format.tools_note(tools):
            self.console.say(note)
        params = self.options.sampling.applied_to(loaded.model.sampling.params)
        for note in strategy_notes(self.options.strategy, loaded.backend, params):
            self.console.say(note)
        conversation = Conversation(
            loaded=loaded,
            params=params,
            options=self.options,
            system=system,
            turns=turns,
            reproducible=self.request.reproducible,
            disk=self.disk,
            tools=tools,
        )
        if turns:
            if self.forgotten.exchanges:
                conversation.go_on_without(self.forgotten)
            with showing(self.console) as listen:
                listen(Progress("loading the cache of the conversation", "", 0, 0, "bytes"))
                conversation.begin_from_disk(self.record.number)
        self.forgotten = NOTHING  # another model begins with the whole conversation
        return conversation

    def _load_options(self) -> LoadOptions:
        strategy = self.options.strategy
        # A conversation may vote later. Unused slots cost an attention model little: 8 instead of 1 took 2 MiB more for
        # SmolLM2. A window model has a window for each: 53 MiB more for Gemma 3 270M.
        slots = min(strategy.samples, _MOST_SLOTS) if strategy else 1
        options = self.request.load.for_samples(slots, self.options.sampling.max_tokens)
        if self.request.prompt is None:
            slots = max(slots, USUAL_SAMPLES)
        return replace(options, slots=slots, measure=self.options.stats)

    def answer(self, model: Model, turns: list[Message], system: str, prompt: str) -> int:
        """One question, one answer; returns the exit code."""
        self._check_length(model, turns, system, prompt)
        selection = self._select_experts(model, prompt) if self.request.experts is not None else None
        with ExitStack() as stack:
            conversation = self.open(stack, selection.model if selection else model, turns, system)
            asking = conversation.ask(prompt)
            try:
                rounds = answer_in_rounds(conversation, asking, self.console, self.stop, self.toolbox)
            except DoesNotFit as error:
                raise self._with_way_out(error, turns) from None
            self.record.keep(prompt, rounds)
            reply = rounds[-1].reply
            experts = {"experts": selection.json()} if selection else {}
            self.console.json("dsr.chat/1", {**as_json(conversation, rounds), **experts})
            conversation.keep_on_disk(self.record.number, ends=True)
            if reply.failure is not None:
                return reply.failure.exit_code
            if rounds[-1].calls:  # and no answer behind them
                return INTERRUPTED if any(each.state == "cancelled" for each in rounds[-1].calls) else 1
            if reply.stopped:
                return INTERRUPTED
            return 0 if reply.completion.answer.strip() else 1

    def _check_length(self, model: Model, turns: list[Message], system: str, prompt: str) -> None:
        """Refuse a prompt that is too long before loading. A conversation may forget everything but the question."""
        if self.options.strategy is not None and self.options.strategy.kind.long:
            return
        said = [*(turns if self.options.on_full == "stop" else ()), Message("user", prompt)]
        if system:
            said.insert(0, Message("system", system))
        with showing(self.console) as listen, stopping(self.stop):
            run = Run(self.stop, listen, self.request.threads)
            try:
                check_length(model, self._load_options(), said, self.options.asked, run)
            except DoesNotFit as error:
                raise self._with_way_out(error, turns) from None

    def _with_way_out(self, error: DoesNotFit, turns: list[Message]) -> DoesNotFit:
        if not turns or self.options.on_full != "stop":
            return error
        return DoesNotFit(error.message, hint=f"leave out --on-full stop; or {error.hint}")

    def _select_experts(self, model: Model, prompt: str) -> Selection | None:
        with self._experts() as experts:
            experts.model_for(model, prompt)
            return experts.selection

    def _experts(self) -> Experts:
        return Experts(self.request.experts, self.console, self.stop, self.request.threads)

    def converse(self, model: Model, turns: list[Message], system: str) -> None:
        """Talk until the user leaves. When the next model cannot be opened, go on with the one before."""
        with self._experts() as experts:
            self._converse(model, turns, system, experts)

    def _converse(self, model: Model, turns: list[Message], system: str, experts: Experts) -> None:
        from dsr.chat.line_editor import first_message, is_command
        from dsr.chat.repl import Repl

        present: Model | None = None
        resumed: Earlier | None = None
        before = turns, system
        said: str | None = None
        if experts.needs_question(model):
            self.console.say(f"{_HELP}; what you ask first decides which experts are loaded")
            said = first_message(self.record)
            if said is None:
                return
        while True:
            with ExitStack() as stack:
                try:
                    question = None if said is None or is_command(said) else said
                    file = experts.model_for(model, question)
                    conversation = self.open(stack, file, turns, system)
                except DsrError as error:
                    if present is None or present == model:
                        raise
                    show_error(error)
                    self.console.say(f"going on with {present.name}")
                    model, (turns, system), resumed = present, before, None
                    continue
                if present is None and said is None:
                    self.console.say(_HELP)
                elif present not in (None, model):
                    self.console.say(f"now with {model.name}")
                    if resumed is not None:
                        self.record.resume(resumed, model.absolute_reference, system)
                        self.console.say(resumed_line(resumed))
                    else:
                        self.record.begin(model.absolute_reference, system, turns)
                present = model
                repl = Repl(conversation, self.console, self.record, self.stop, experts, self.toolbox)
                wanted = repl.run(first=said)
                conversation.keep_on_disk(self.record.number, ends=True)
            if wanted is None:
                return
            before = conversation.turns, conversation.system
            model, (turns, system), said, resumed = wanted, before, repl.unanswered, repl.resumed
            if resumed is not None:
                turns, system, self.forgotten = [*resumed.messages], resumed.system, resumed.forgotten


def _thinking_shown(value: str) -> Thinking:
    if value in get_args(Thinking):
        return cast(Thinking, value)
    raise UsageError(f"--thinking must be show, hide or summary, not {value!r}")


def _on_full(request: ChatRequest) -> OnFull:
    if request.on_full is None:
        return "forget" if request.prompt is None or request.resume else "stop"
    return on_full_of("--on-full", request.on_full)


def _find(name: str | None, request: ChatRequest, earlier: Earlier | None) -> Model:
    try:
        return library.find(name or EMBEDDED)
    except NotFound as error:
        ways = [error.hint] if error.hint else []
        if request.model is None and earlier is not None:
            ways.append("or go on with another model: dsr chat MODEL --resume")
        elif name and request.prompt is None and "/" not in name and not sizes(name) and not is_known(name):
            # Somebody who typed one word may have meant it as a question.
            ways.append(f"to ask the default model: dsr chat -p {shlex.quote(name)}")
        raise NotFound(error.message, hint="; ".join(ways) or None) from None
