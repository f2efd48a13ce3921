"""The servers of a conversation as the rounds of calls see them, without the library that speaks to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from dsr.chat.tools.config import ServerConfig
from dsr.chat.tools.offer import ListedTool
from runtime.base.run import Stop


@dataclass(frozen=True, slots=True)
class Listing:
    """The tools of a server that runs; or the `problem`, in one line, why it does not."""

    server: ServerConfig
    tools: tuple[ListedTool, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class CallResult:
    """The text that a call returned, or why it `failed`."""

    text: str
    failed: bool = False


class CallCancelled(Exception):
    """Ctrl-C while a call ran."""


class ToolServers(Protocol):
    """Running servers; see `dsr.chat.tools.servers.Servers`."""

    def call(
        self, server: ServerConfig, tool: str, arguments: dict[str, Any], seconds: float, stop: Stop
    ) -> CallResult:
        """Call a tool, for at most some seconds. Raises CallCancelled after Ctrl-C; a failure is a result."""
        ...
