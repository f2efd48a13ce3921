"""What a conversation tells about itself: /show, /stats, /why, /raw and /on-full."""

from __future__ import annotations

from dsr.chat.asked import effort_line, kept_line
from dsr.chat.controls import Controls
from dsr.chat.conversation import Conversation
from dsr.chat.options import on_full_of
from dsr.chat.summary import stats_line, why_lines
from dsr.models.thinking_facts import switch_text, system_text
from dsr.ui.console import Console, one_line, printable_stream
from dsr.ui.streams import write_out
from runtime.base.errors import UsageError


class Facts:
    """The commands that show something, and switch whether it is shown."""

    def __init__(self, conversation: Conversation, console: Console, controls: Controls) -> None:
        self._conversation = conversation
        self._console = console
        self._controls = controls
        self._options = conversation.options

    def show(self, _: str) -> None:
        """/show: the model and the settings in force."""
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

    def set_on_full(self, value: str) -> None:
        """/on-full: what happens when the context is full. Raises UsageError."""
        if value:
            self._options.on_full = on_full_of("/on-full", value)
        self._console.say(f"on-full   {self._on_full()}", style="plain", hang=10)

    def stats(self, value: str) -> None:
        """/stats: of the last answer, or whether they are always shown. Raises UsageError."""
        if value in ("on", "off"):
            self._options.stats = value == "on"
            self._console.say(f"stats are {value}")
        elif value:
            raise UsageError("/stats takes on, off, or nothing")
        elif self._conversation.last is None:
            self._console.say("no answer yet")
        else:
            self._console.say(stats_line(self._conversation.last), style="plain")

    def why(self, _: str) -> None:
        """/why: how the last answer was chosen."""
        last = self._conversation.last
        if last is None:
            self._console.say("no answer yet")
        elif last.verdict is None:
            self._console.say("it was the only sample; /vote 8 lets several agree")
        else:
            for line in why_lines(last.verdict):
                self._console.say(line, style="plain", hang=2)

    def raw(self, value: str) -> None:
        """/raw: the last answer as the model wrote it, or whether answers are always shown so. Raises UsageError."""
        if value in ("on", "off"):
            self._options.raw = value == "on"
            self._console.say("answers are shown as the model writes them" if value == "on" else "answers are rendered")
        elif value:
            raise UsageError("/raw takes on, off, or nothing")
        elif self._conversation.last is None:
            self._console.say("no answer yet")
        else:
            write_out(printable_stream(self._conversation.last.completion.answer) + "\n")
