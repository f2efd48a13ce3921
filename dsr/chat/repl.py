"""The conversation at the terminal: a table of slash commands, and the loop that reads and answers."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Callable, Generator
from pathlib import Path

from dsr.chat.asked import effort_line, kept_line
from dsr.chat.controls import SETTABLE, Controls
from dsr.chat.conversation import Conversation
from dsr.chat.conversation_file import read_conversation, write_conversation
from dsr.chat.experts import Experts
from dsr.chat.given_files import with_files
from dsr.chat.line_editor import BLOCK, is_command, line_editor, read_message
from dsr.chat.options import NAME_WIDTH, on_full_of, strategy_notes, table
from dsr.chat.record import Record
from dsr.chat.summary import stats_line, why_lines
from dsr.chat.tools.calls import Toolbox
from dsr.chat.tools.command import tools_command
from dsr.chat.tools.rounds import Round, answer_in_rounds
from dsr.chat.turns import before_last_question
from dsr.loading.options import OFF, experts_request
from dsr.models import library
from dsr.models.model import Model
from dsr.models.thinking_facts import switch_text, system_text
from dsr.ui.console import Console, one_line, show_error
from dsr.ui.interrupts import is_ending
from runtime.base.errors import DoesNotFit, DsrError, UsageError, WeightsLost
from runtime.base.events import Event
from runtime.base.run import Stop
from runtime.base.texts import read_text
from runtime.base.types import listed
from runtime.strategies.strategy import Strategy, find


class Repl:
    """Reads and answers until the user leaves. `run` returns the next model, or None."""

    def __init__(
        self,
        conversation: Conversation,
        console: Console,
        record: Record,
        stop: Stop,
        experts: Experts | None = None,
        toolbox: Toolbox | None = None,
    ) -> None:
        self.unanswered: str | None = None  # a question that another file has to be opened for
        self._experts = experts or Experts(None, console, stop)
        self._base = self._experts.base or conversation.loaded.model
        self._conversation = conversation
        self._console = console
        self._record = record
        self._stop = stop
        self._toolbox = toolbox
        self._options = conversation.options
        self._next_model: Model | None = None
        self._leaving = False
        self._controls = Controls(conversation, console, self._ask_with_files)
        self._files: list[Path] = []  # of the next question
        self._commands: dict[str, tuple[str, Callable[[str], None]]] = {
            "/help": ("this list", self._help),
            "/bye": ("leave (or Ctrl-D)", self._bye),
            "/clear": ("forget the conversation so far", self._clear),
            "/think": ("on, off, or a budget of N tokens", self._controls.think),
            "/effort": (
                "LEVEL or default: how much to think; LEVEL QUESTION: for one question; alone: show it",
                self._controls.effort,
            ),
            "/keep-thoughts": (
                "on or off: earlier thoughts stay in the prompt; alone: show it",
                self._controls.keep_thoughts,
            ),
            "/system": ("set the system prompt; alone: remove it", self._system),
            "/file": ("FILE: add a text file to the next question; off removes all", self._file),
            "/set": (f"NAME VALUE, or NAME default: {', '.join(SETTABLE)}, thinking", self._controls.set),
            "/show": ("the model and the settings in force", self._show),
            "/stats": ("tokens and speed of the last answer; on or off to see them always", self._show_stats),
            "/vote": ("N: draw N samples and answer with what most agree on; or off", self._vote),
            "/strategy": ("NAME [KEY=VALUE ...]: how to think longer, or off; alone: list them", self._strategy),
            "/tools": ("the tools, and which run without a question; forget NAME: ask again", self._tools),
            "/why": ("how the last answer was chosen", self._why),
            "/regen": ("answer the last question again, with another seed", self._regen),
            "/save": ("FILE: write the conversation to a JSON file", self._save),
            "/load": ("FILE: continue a conversation written by /save", self._load),
            "/on-full": ("stop, forget or summary, when the context is full; alone: show it", self._set_on_full),
            "/model": ("NAME: go on with another model", self._model),
            "/experts": ("auto, TASK or off: load only the needed experts; alone: show it", self._choose_experts),
        }

    def run(self, read: Callable[[str], str] | None = None, *, first: str | None = None) -> Model | None:
        """Read from the terminal, or from `read`, which gets the prompt to show and raises EOFError at the end.

        `first` was typed before.
        """
        read = read or line_editor(self._record, list(self._commands)).prompt
        while not (self._leaving or is_ending()) and self._next_model is None:
            try:
                said, first = read_message(read) if first is None else first, None
                self._take(said)
            except KeyboardInterrupt:
                continue
            except EOFError:
                break
            except DsrError as error:
                show_error(error)
        return self._next_model

    def _take(self, text: str) -> None:
        if not text.strip():
            return
        if is_command(text):
            word, *others = text.split(maxsplit=1)
            rest = others[0] if others else ""
            aliases = {"/?": "/help", "/exit": "/bye", "/quit": "/bye", "/retry": "/regen"}
            name = aliases.get(word, word)
            if name not in self._commands:
                near = difflib.get_close_matches(word, self._commands, n=1)
                like = f"did you mean {near[0]}? " if near else ""
                raise UsageError(
                    f"no command {word}", hint=f"{like}/help lists them; begin with a space to say it to the model"
                )
            self._commands[name][1](rest.strip())
            return
        self._ask_with_files(text.strip())

    def _ask_with_files(self, question: str) -> None:
        self._ask(with_files(tuple(self._files), question) or "")

    def _ask(self, question: str) -> None:
        if self._experts.before_question(question):
            # With a space before it nothing is taken for a command.
            self._next_model, self.unanswered = self._base, f" {question}"
            return
        if self._weights_are_lost:
            # The file may be whole again. If it is not, the error says so, and the conversation stays.
            again = library.find(self._conversation.reference)
            _ = again.card
            self._next_model, self.unanswered = again, f" {question}"
            return
        try:
            rounds = self._shown(self._conversation.ask(question))
        except DoesNotFit as error:
            answered = any(turn.role == "assistant" and turn.content.strip() for turn in self._conversation.turns)
            ways = []
            if answered and self._options.on_full == "stop":
                ways += ["/on-full forget makes room", "/clear begins a new conversation"]
            if self._files:
                ways.append(f"/file off leaves out {listed([each.name for each in self._files])}")
            if not ways:
                raise
            raise DoesNotFit(error.message, hint="; ".join([*ways, f"or {error.hint}"])) from None
        if rounds[0].reply.drew_something:
            self._files.clear()
            self._record.keep(question, rounds)
            self._keep_on_disk()
        if self._weights_are_lost:
            self._console.say("your next message opens the model again")

    @property
    def _weights_are_lost(self) -> bool:
        """Whether the model's file changed or its disk failed, so that the open model cannot answer any more."""
        last = self._conversation.last
        return last is not None and isinstance(last.failure, WeightsLost)

    def _keep_on_disk(self) -> None:
        self._conversation.keep_on_disk(self._record.number, ends=False)

    def _shown(self, events: Generator[Event, None, None]) -> tuple[Round, ...]:
        return answer_in_rounds(self._conversation, events, self._console, self._stop, self._toolbox)

    def _help(self, _: str) -> None:
        width = max(map(len, self._commands))
        for name, (what, _do) in self._commands.items():
            self._console.say(f"{name:{width}} {what}", style="plain", hang=width + 1)
        self._console.say(f"{BLOCK} begins and ends a message of several lines", style="plain")

    def _bye(self, _: str) -> None:
        self._leaving = True

    def _clear(self, _: str) -> None:
        self._conversation.restart()
        self._files.clear()
        self._experts.reset()
        self._begin_record()
        self._console.say("forgotten; the next message begins a new conversation")

    def _begin_record(self) -> None:
        """Start a new record, which begins with the turns so far."""
        conversation = self._conversation
        self._record.begin(conversation.reference, conversation.system, conversation.turns)

    def _file(self, name: str) -> None:
        if not name:
            raise UsageError("/file needs a file name, or off")
        if name == "off":
            self._files.clear()
            self._console.say("the next question is about no file")
            return
        path = Path(name).expanduser()
        read_text(path)  # refuses an unreadable file now
        self._files.append(path)
        self._console.say(f"the next question is about {listed([each.name for each in self._files])}")

    def _system(self, text: str) -> None:
        self._conversation.system = text
        self._begin_record()
        self._console.say(f"system prompt: {text}" if text else "no system prompt")
        if note := self._conversation.loaded.chat_format.system_note(text):
            self._console.say(note)

    def _show(self, _: str) -> None:
        conversation = self._conversation
        loaded, params = conversation.loaded, conversation.params
        think = {None: "the model's default", True: "on", False: "off"}[self._options.asked.thinking]
        budget = f", at most {params.think_budget} tokens" if params.think_budget is not None else ""
        rows = (
            ("model", loaded.model.name),
            ("file", str(loaded.model.path)),
            *(("lora", f"{each.path}, scale {each.scale:g}") for each in loaded.adapters),
            ("context", f"{loaded.backend.context} tokens"),
            ("threads", str(loaded.threads)),
            ("thinking", f"{think}{budget}; {self._options.shown}" if loaded.markers else "not marked by this model"),
            (
                "template",
                f"{switch_text(loaded.chat_format.facts)}; system prompt {system_text(loaded.chat_format.facts)}",
            ),
            ("effort", effort_line(loaded.chat_format, self._options.asked)),
            ("thoughts", f"earlier ones are {kept_line(loaded.chat_format, self._options.asked)}"),
            ("sampling", self._controls.sampling()),
            ("system", conversation.system or "none"),
            ("turns", str(len(conversation.turns))),
            ("on-full", self._on_full()),
        )
        for label, value in rows:
            self._console.say(f"{label:9} {value}", style="plain", hang=10)

    def _on_full(self) -> str:
        """The choice for a full context, and the exchanges that were forgotten so far."""
        forgotten = self._conversation.forgotten
        if not forgotten.exchanges:
            return self._options.on_full
        instead = f"; their summary: {one_line(forgotten.summary)}" if forgotten.summary else ""
        return f"{self._options.on_full}; the model does not see {forgotten}{instead}"

    def _set_on_full(self, value: str) -> None:
        if value:
            self._options.on_full = on_full_of("/on-full", value)
        self._console.say(f"on-full   {self._on_full()}", style="plain", hang=10)

    def _show_stats(self, value: str) -> None:
        if value in ("on", "off"):
            self._options.stats = value == "on"
            self._console.say(f"stats are {value}")
        elif value:
            raise UsageError("/stats takes on, off, or nothing")
        elif self._conversation.last is None:
            self._console.say("no answer yet")
        else:
            self._console.say(stats_line(self._conversation.last), style="plain")

    def _vote(self, value: str) -> None:
        if value != "off" and not (value.isdecimal() and len(value) < 10):
            raise UsageError("/vote takes a number of samples, or off")
        self._choose(None if value == "off" else find("vote").configured(n=int(value)))

    def _strategy(self, text: str) -> None:
        try:
            name, *settings = shlex.split(text) or [""]
        except ValueError:
            raise UsageError("a quotation mark is missing") from None
        if name:
            self._choose(None if name == "off" else find(name).configured(settings))
            return
        self._console.say(f"now: {self._options.strategy or 'direct'}", style="plain")
        for name, summary, known in table():
            self._console.say(f"{name:{NAME_WIDTH}} {summary}", style="plain", hang=NAME_WIDTH + 1)
            if known:
                self._console.say(f"{'':{NAME_WIDTH}} {known}", hang=NAME_WIDTH + 1)

    def _tools(self, text: str) -> None:
        tools_command(text, self._toolbox, self._console)

    def _choose(self, strategy: Strategy | None) -> None:
        if self._toolbox is not None and strategy is not None and not strategy.plain:
            raise UsageError("a vote never runs tools", hint="start dsr without --tools to draw several samples")
        conversation = self._conversation
        self._options.strategy = strategy
        self._console.say(f"strategy: {strategy or 'direct'}")
        for note in strategy_notes(strategy, conversation.loaded.backend, conversation.params):
            self._console.say(note)

    def _why(self, _: str) -> None:
        last = self._conversation.last
        if last is None:
            self._console.say("no answer yet")
        elif last.verdict is None:
            self._console.say("it was the only sample; /vote 8 lets several agree")
        else:
            for line in why_lines(last.verdict):
                self._console.say(line, style="plain", hang=2)

    def _regen(self, _: str) -> None:
        turns = self._conversation.turns
        before = len(before_last_question(turns))
        if not turns:
            raise UsageError("there is no question to answer again")
        question = turns[before].content
        rounds = self._shown(self._conversation.again())
        if rounds[0].reply.drew_something:
            self._record.replace_last(question, rounds)
            self._keep_on_disk()

    def _save(self, name: str) -> None:
        if not name:
            raise UsageError("/save needs a file name")
        conversation, path = self._conversation, Path(name).expanduser()
        write_conversation(path, conversation.reference, conversation.system, conversation.turns)
        self._console.say(f"saved {len(conversation.turns)} messages to {path}")

    def _load(self, name: str) -> None:
        if not name:
            raise UsageError("/load needs a file name")
        system, turns = read_conversation(Path(name).expanduser())
        self._conversation.system = system
        self._conversation.restart(turns)
        self._experts.reset()
        self._begin_record()
        self._console.say(f"continuing with {len(turns)} messages")

    def _model(self, name: str) -> None:
        if not name:
            raise UsageError("/model needs a name", hint="dsr list shows what is here")
        self._next_model = library.find(name)

    def _choose_experts(self, text: str) -> None:
        if text:
            now = self._experts.request
            self._experts.change(self._base, experts_request(text, now.keep if now and text != OFF else None))
            if self._experts.needs_question(self._base):
                self._console.say("the next question decides")
            else:
                self._next_model = self._base
        elif self._experts.selection is None:
            self._console.say("all experts")
        else:
            self._console.say(self._experts.selection.line(), style="plain")
