"""The conversation at the terminal: a table of slash commands, and the loop that reads and answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Generator
from pathlib import Path
from typing import get_args

from dsr.chat.choices import Choices
from dsr.chat.completion import FILES, Command
from dsr.chat.controls import Controls
from dsr.chat.conversation import Conversation
from dsr.chat.experts import Experts
from dsr.chat.facts import Facts
from dsr.chat.given_files import with_files
from dsr.chat.keeping import Keeping
from dsr.chat.line_editor import BLOCK, is_command, line_editor, read_message
from dsr.chat.mentioned_files import mentions
from dsr.chat.record import Earlier, Record, resumed_line
from dsr.chat.tools.calls import Toolbox
from dsr.chat.tools.rounds import Round, answer_in_rounds
from dsr.chat.turns import before_last_question
from dsr.loading.options import OFF, experts_request
from dsr.models import library
from dsr.models.model import Model
from dsr.store.settings import OnFull
from dsr.ui.console import Console, one_line, show_error
from dsr.ui.editor import edited
from dsr.ui.interrupts import is_ending
from runtime.base.errors import DoesNotFit, DsrError, UsageError, WeightsLost
from runtime.base.events import Event
from runtime.base.files import expanded
from runtime.base.run import Stop
from runtime.base.texts import read_text
from runtime.base.types import listed


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
        self.resumed: Earlier | None = None  # a kept conversation that the next model continues
        self._keeping = Keeping(conversation, console, record)
        self._commands = self._command_table()

    def _command_table(self) -> dict[str, Command]:
        controls, keeping = self._controls, self._keeping
        facts = Facts(self._conversation, self._console, controls)
        choices = Choices(self._conversation, self._console, self._toolbox)
        return {
            "/help": Command("this list", self._help),
            "/bye": Command("leave (or Ctrl-D)", self._bye),
            "/clear": Command("forget the conversation so far", self._clear),
            "/edit": Command("write a message in your editor, $EDITOR (or Ctrl-X Ctrl-E)", self._edit),
            "/file": Command(
                "FILE: add a text file to the next question; off removes all. Or write @FILE in a question",
                self._file,
                lambda _: (FILES,),
            ),
            "/retry": Command("answer the last question again, with another seed (or /regen)", self._regen),
            "/copy": Command(
                "copy the last answer; code: its last block of code; all: the conversation",
                keeping.copy,
                lambda before: () if before else ("code", "all"),
            ),
            "/think": Command(
                "on, off, or a budget of N tokens", controls.think, lambda before: () if before else ("on", "off")
            ),
            "/effort": Command(
                "LEVEL or default: how much to think; LEVEL QUESTION: for one question; alone: show it",
                controls.effort,
                lambda before: () if before else (*self._conversation.loaded.chat_format.facts.efforts, "default"),
            ),
            "/keep-thoughts": Command(
                "on or off: earlier thoughts stay in the prompt; alone: show it",
                controls.keep_thoughts,
                lambda before: () if before else ("on", "off"),
            ),
            "/system": Command("set the system prompt; alone: remove it", self._system),
            "/set": Command(
                "NAME VALUE, or NAME default; reset: all of them; alone: names, values and ranges",
                controls.set,
                controls.names,
            ),
            "/raw": Command(
                "on or off: show answers as the model writes them; alone: the last one",
                facts.raw,
                lambda before: () if before else ("on", "off"),
            ),
            "/show": Command("the model and the settings in force", facts.show),
            "/stats": Command(
                "tokens and speed of the last answer; on or off to see them always",
                facts.stats,
                lambda before: () if before else ("on", "off"),
            ),
            "/vote": Command(
                "N: draw N samples and answer with what most agree on; or off",
                choices.vote,
                lambda before: () if before else ("8", "off"),
            ),
            "/strategy": Command(
                "NAME [KEY=VALUE ...]: how to think longer, or off; alone: list them", choices.strategy, choices.names
            ),
            "/tools": Command(
                "the tools, and which run without a question; forget NAME: ask again",
                choices.tools,
                lambda before: () if before else ("forget",),
            ),
            "/why": Command("how the last answer was chosen", facts.why),
            "/history": Command("the kept conversations; TEXT: only those that contain it", keeping.history),
            "/resume": Command("ID: go on with a kept conversation; alone: with the latest other one", self._resume),
            "/export": Command("FILE: write the conversation as Markdown", keeping.export, lambda _: (FILES,)),
            "/save": Command("FILE: write the conversation to a JSON file", keeping.save, lambda _: (FILES,)),
            "/load": Command("FILE: continue a conversation written by /save", self._load, lambda _: (FILES,)),
            "/on-full": Command(
                "stop, forget or summary, when the context is full; alone: show it",
                facts.set_on_full,
                lambda before: () if before else get_args(OnFull),
            ),
            "/model": Command("NAME: go on with another model", self._model, _models_here),
            "/experts": Command(
                "auto, TASK or off: load only the needed experts; alone: show it",
                self._choose_experts,
                lambda before: () if before else ("auto", "off"),
            ),
        }

    def run(self, read: Callable[[str], str] | None = None, *, first: str | None = None) -> Model | None:
        """Read from the terminal, or from `read`, which gets the prompt to show and raises EOFError at the end.

        `first` was typed before.
        """
        read = read or line_editor(self._record, self._commands).prompt
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
            aliases = {"/?": "/help", "/exit": "/bye", "/quit": "/bye", "/regen": "/retry"}
            name = aliases.get(word, word)
            if name not in self._commands:
                near = difflib.get_close_matches(word, self._commands, n=1)
                like = f"did you mean {near[0]}? " if near else ""
                raise UsageError(
                    f"no command {word}", hint=f"{like}/help lists them; begin with a space to say it to the model"
                )
            self._commands[name].run(rest.strip())
            return
        self._ask_with_files(text.strip())

    def _ask_with_files(self, question: str) -> None:
        named = mentions(question)
        for word in named.missing:
            self._console.say(f"there is no file {word}: the question goes without it")
        self._ask(with_files(tuple(dict.fromkeys((*self._files, *named.files))), question) or "")

    def _edit(self, text: str) -> None:
        message = edited(text)
        if not message:
            self._console.say("the message is empty; nothing is sent")
            return
        self._console.say(
            f"> {one_line(message)}" if "\n" not in message else "\n".join(f"> {line}" for line in message.split("\n"))
        )
        self._ask_with_files(message)

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
        for name, command in self._commands.items():
            self._console.say(f"{name:{width}} {command.help}", style="plain", hang=width + 1)
        self._console.say(
            f"{BLOCK} begins and ends a message of several lines; Tab completes commands and @files", style="plain"
        )

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
        path = expanded(name)
        read_text(path)  # refuses an unreadable file now
        self._files.append(path)
        self._console.say(f"the next question is about {listed([each.name for each in self._files])}")

    def _system(self, text: str) -> None:
        self._conversation.system = text
        self._begin_record()
        self._console.say(f"system prompt: {text}" if text else "no system prompt")
        if note := self._conversation.loaded.chat_format.system_note(text):
            self._console.say(note)

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

    def _load(self, name: str) -> None:
        count = self._keeping.load(name)
        self._experts.reset()
        self._begin_record()
        self._console.say(f"continuing with {count} messages")

    def _resume(self, text: str) -> None:
        earlier = self._keeping.earlier(text)
        if earlier.model == self._conversation.reference:
            self._keeping.resume(earlier)
            self._files.clear()
            self._experts.reset()
            self._console.say(resumed_line(earlier))
        else:
            self._next_model, self.resumed = library.find(earlier.model), earlier

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


def _models_here(before: str) -> list[str]:
    return [] if before else [model.reference for model in library.installed() if model.kind == "gguf"]
