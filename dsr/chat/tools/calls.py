"""The calls of one answer: checked, allowed, run one after the other, and turned into messages for the model."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dsr.chat.tools.consent import Gate, behind_bar
from dsr.chat.tools.offer import Offer, OfferedTool, json_depth
from dsr.chat.tools.tool_servers import CallCancelled, ToolServers
from dsr.ui.console import one_line
from dsr.ui.interrupts import is_ending, stopping
from dsr.ui.progress import showing
from dsr.ui.text import truncate
from runtime.base.events import Progress
from runtime.base.run import Stop
from runtime.base.types import Message, Tool, ToolCall

_DEEPEST_ARGUMENTS = 32
_SHOWN_LINES = 3  # of a result; the history has all of it

# "invalid": the model's mistake. "refused": by the person, or nobody allowed it. "cancelled": Ctrl-C.
State = Literal["done", "failed", "invalid", "refused", "cancelled"]


@dataclass(frozen=True, slots=True)
class CallDone:
    """A call and how it ended. `text` is what the model reads; `tool` is None for a name that nobody offers."""

    call: ToolCall
    tool: OfferedTool | None
    state: State
    text: str
    seconds: float = 0.0

    @property
    def message(self) -> Message:
        text = f"Error: {self.text}" if self.state in ("failed", "invalid") else self.text
        return Message("tool", text or "(no text)", call_id=self.call.id, name=self.call.name)

    def json(self) -> dict[str, Any]:
        return {
            "id": self.call.id,
            "name": self.call.name,
            "server": self.tool.server.name if self.tool else None,
            "arguments": self.call.arguments,
            "state": self.state,
            "result": self.text,
            "seconds": round(self.seconds, 4),
        }


@dataclass(slots=True)
class Toolbox:
    """The tools of a conversation. `seconds`: the longest call; `rounds`: how often one question may lead to calls."""

    offer: Offer
    servers: ToolServers
    gate: Gate
    seconds: float
    rounds: int

    @property
    def tools(self) -> tuple[Tool, ...]:
        return tuple(each.tool for each in self.offer.tools)

    def find(self, name: str) -> OfferedTool | None:
        return next((each for each in self.offer.tools if each.tool.name == name), None)

    def run(self, calls: Sequence[ToolCall], shorten: Callable[[str], str], stop: Stop) -> tuple[CallDone, ...]:
        """Run the calls that may run, in order; results are as `shorten` leaves them.

        Ctrl-C at a question refuses it and all later ones, and `stop` is set.
        """
        done: list[CallDone] = []
        for call in calls:
            if stop.wanted or is_ending():
                done.append(CallDone(call, self.find(call.name), "cancelled", "The user stopped before this call."))
            else:
                done.append(self._run(call, shorten, stop))
        return tuple(done)

    def _run(self, call: ToolCall, shorten: Callable[[str], str], stop: Stop) -> CallDone:
        tool, console = self.find(call.name), self.gate.console
        if tool is None:
            console.say(f"the model calls {truncate(one_line(call.name), 64)}, which is not a tool")
            return CallDone(call, None, "invalid", "there is no such tool")
        arguments = arguments_of(call)
        if arguments is None:
            console.say(f"the model calls {call.name} with arguments that are not a JSON object: it does not run")
            return CallDone(call, tool, "invalid", "the arguments are not a JSON object")
        try:
            decision = self.gate.decide(tool, arguments)
        except KeyboardInterrupt:
            stop.set()
            console.say("stopped")
            return CallDone(call, tool, "cancelled", "The user stopped before this call.")
        if not decision.runs:
            return CallDone(call, tool, "refused", decision.why)
        return self._ran(call, tool, arguments, shorten, stop)

    def _ran(
        self, call: ToolCall, tool: OfferedTool, arguments: dict[str, Any], shorten: Callable[[str], str], stop: Stop
    ) -> CallDone:
        started, console = time.perf_counter(), self.gate.console
        try:
            with stopping(stop), showing(console) as listen:
                listen(Progress(f"running {call.name}", "", 0, 0, "steps"))
                result = self.servers.call(tool.server, tool.name, arguments, self.seconds, stop)
        except CallCancelled:
            console.say("cancelled; the model is told")
            return CallDone(call, tool, "cancelled", "The user cancelled this call.", time.perf_counter() - started)
        took = time.perf_counter() - started
        failed = "failed: " if result.failed else ""
        console.say(f"{failed}{len(result.text):,} characters in {took:.1f} s")
        behind_bar(result.text.splitlines(), _SHOWN_LINES, console)
        return CallDone(call, tool, "failed" if result.failed else "done", shorten(result.text), took)


def arguments_of(call: ToolCall) -> dict[str, Any] | None:
    """The arguments of a call; None if they are not a JSON object that can be shown and sent."""
    try:
        found = json.loads(call.arguments or "{}")
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or json_depth(found, _DEEPEST_ARGUMENTS + 1) > _DEEPEST_ARGUMENTS:
        return None
    return found
