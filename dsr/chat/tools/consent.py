"""Whether a call may run: what is allowed beforehand, what a person said for good, and the question before each call.

Everything that a model or a server wrote is shown as content, behind a bar: only dsr writes the question.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsr.chat.tools.config import ALL
from dsr.chat.tools.offer import OfferedTool
from dsr.store.consents import Consent, Consents
from dsr.ui.choice import choose
from dsr.ui.console import Console, columns, printable
from dsr.ui.text import display_width, truncate
from runtime.base.texts import json_text
from runtime.base.types import counted

_BAR = "│ "
_MOST_LINES = 40
_ANSWERS = {"y": "yes", "a": "always", "n": "no"}

Permission = Literal["allowed", "ask", "refused"]
# Asks the question that is its argument, with these answers; returns a letter.
Ask = Callable[[str, Mapping[str, str]], str]


def permission(name: str, allowed: frozenset[str], *, remembered: bool, terminal: bool) -> Permission:
    """How a call of a tool goes on. Without a terminal only `allowed` counts, which was written for this run."""
    if name in allowed or ALL in allowed:
        return "allowed"
    if not terminal:
        return "refused"
    return "allowed" if remembered else "ask"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a call runs, and why not in words for the model."""

    runs: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Gate:
    """Decides about calls. `allowed`: the names of --allow-tool. `terminal`: somebody can be asked."""

    consents: Consents
    allowed: frozenset[str]
    terminal: bool
    console: Console
    ask: Ask = choose

    def decide(self, tool: OfferedTool, arguments: dict[str, Any]) -> Decision:
        """Shows the call, and asks if nobody allowed it before. Raises DsrError, and KeyboardInterrupt on Ctrl-C."""
        name, identity = tool.tool.name, tool.server.identity
        # Without a terminal, or with --allow-tool, the file plays no part.
        remembered = self.terminal and self.consents.has(identity, tool.name)
        found = permission(name, self.allowed, remembered=remembered, terminal=self.terminal)
        if found == "refused":
            self.console.warn(f"the model calls {name}, which nobody allowed: it does not run (--allow-tool {name})")
            return Decision(False, "The user did not allow this call.")
        self._show(tool, arguments)
        if found == "allowed":
            return Decision(True)
        answer = self._answered(arguments)
        if answer == "n":
            self.console.say("refused")
            return Decision(False, "The user refused this call.")
        if answer == "a":
            self.consents.add(Consent.now(identity, tool.name, name, tool.server.label))
            self.console.say(f"dsr will not ask again for {name}; /tools forget {name} takes that back")
        return Decision(True)

    def _show(self, tool: OfferedTool, arguments: dict[str, Any]) -> None:
        self.console.say(f"the model calls {tool.tool.name} ({tool})", style="yellow")
        behind_bar(argument_lines(arguments), _MOST_LINES, self.console)

    def _answered(self, arguments: dict[str, Any]) -> str:
        lines = argument_lines(arguments)
        if not is_cut(lines, _MOST_LINES):
            return self.ask("run it? [y]es once, [a]lways for this tool, [n]o:", _ANSWERS)
        while True:  # nobody should agree to something that was not shown
            question = "run it? [s]how all of it, [y]es once, [a]lways for this tool, [n]o:"
            answer = self.ask(question, {"s": "show", **_ANSWERS})
            if answer != "s":
                return answer
            width = _width()
            for line in lines:
                for at in range(0, len(line), width):
                    self.console.say(_BAR + line[at : at + width], style="plain")


def behind_bar(lines: Sequence[str], most: int, console: Console) -> None:
    """Shows the first `most` lines of something that dsr did not write, each cut to the width of the terminal."""
    for line in lines[:most]:
        console.say(_BAR + truncate(printable(line), _width()), style="plain")
    if len(lines) > most:
        console.say(f"{_BAR}... {counted(len(lines) - most, 'more line')}")


def is_cut(lines: Sequence[str], most: int) -> bool:
    """Whether `behind_bar` leaves something out."""
    return len(lines) > most or any(display_width(line) > _width() for line in lines)


def _width() -> int:
    return max(20, columns(sys.stderr) - len(_BAR))


def argument_lines(arguments: dict[str, Any]) -> list[str]:
    """The arguments of a call as lines of JSON. Control characters are escaped, not removed: they are sent, too."""
    if not arguments:
        return ["no arguments"]
    return [line.removeprefix("  ") for line in json_text(arguments, indent=2).splitlines()[1:-1]]
