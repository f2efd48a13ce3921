"""How several samples become an answer, and which tools run: /vote, /strategy and /tools."""

from __future__ import annotations

import shlex

from dsr.chat.conversation import Conversation
from dsr.chat.options import NAME_WIDTH, strategy_notes, table
from dsr.chat.tools.calls import Toolbox
from dsr.chat.tools.command import tools_command
from dsr.ui.console import Console
from runtime.base.errors import UsageError
from runtime.strategies.strategy import STRATEGIES, Strategy, find


class Choices:
    """The commands that choose a strategy or a tool."""

    def __init__(self, conversation: Conversation, console: Console, toolbox: Toolbox | None) -> None:
        self._conversation = conversation
        self._console = console
        self._toolbox = toolbox
        self._options = conversation.options

    def names(self, before: str) -> list[str]:
        """The arguments of /strategy: a name, then its settings."""
        if not before:
            return [*STRATEGIES, "off"]
        name = before.split()[0]
        return [f"{each.partition('=')[0]}=" for each in find(name).defaults()] if name in STRATEGIES else []

    def vote(self, value: str) -> None:
        """/vote: a number of samples, or off. Raises UsageError."""
        if value != "off" and not (value.isdecimal() and len(value) < 10):
            raise UsageError("/vote takes a number of samples, or off")
        self._choose(None if value == "off" else find("vote").configured(n=int(value)))

    def strategy(self, text: str) -> None:
        """/strategy: a name with its settings, or off; alone: the list. Raises UsageError."""
        try:
            name, *settings = shlex.split(text) or [""]
        except ValueError:
            raise UsageError("a quotation mark is missing") from None
        if name:
            self._choose(None if name == "off" else find(name).configured(settings))
            return
        self._console.say(f"now: {self._options.strategy or 'direct'}", style="plain")
        for each in table():
            self._console.say(f"{each.name:{NAME_WIDTH}} {each.summary}", style="plain", hang=NAME_WIDTH + 1)
            for line in filter(None, (each.measured, each.settings)):
                self._console.say(f"{'':{NAME_WIDTH}} {line}", hang=NAME_WIDTH + 1)

    def tools(self, text: str) -> None:
        """/tools: the tools, and which run without a question. Raises UsageError."""
        tools_command(text, self._toolbox, self._console)

    def _choose(self, strategy: Strategy | None) -> None:
        if self._toolbox is not None and strategy is not None and not strategy.plain:
            raise UsageError("a vote never runs tools", hint="start dsr without --tools to draw several samples")
        conversation = self._conversation
        self._options.strategy = strategy
        self._console.say(f"strategy: {strategy or 'direct'}")
        for note in strategy_notes(strategy, conversation.loaded.backend, conversation.params):
            self._console.say(note)
