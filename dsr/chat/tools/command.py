"""/tools: the servers, their tools, the tools that never ask again, and how to take that back."""

from __future__ import annotations

from dsr.chat.tools.calls import Toolbox
from dsr.store import paths
from dsr.store.consents import Consents
from dsr.ui.console import Console, one_line
from dsr.ui.text import truncate
from runtime.base.errors import NotFound, UsageError

_SHOWN_OF_DESCRIPTION = 200


def tools_command(text: str, toolbox: Toolbox | None, console: Console) -> None:
    """/tools, or /tools forget NAME. Raises UsageError, NotFound, and DsrError if the consents cannot be used."""
    consents = Consents(paths.consents_file())
    word, _, name = text.partition(" ")
    if word == "forget" and name.strip():
        _forget(name.strip(), consents, console)
    elif word:
        raise UsageError(f"/tools does not know {text!r}", hint="/tools lists the tools, /tools forget NAME asks again")
    else:
        _list(toolbox, consents, console)


def _forget(name: str, consents: Consents, console: Console) -> None:
    if not consents.forget(name):
        raise NotFound(f"{name} is not a tool that runs without a question", hint="/tools lists them")
    console.say(f"dsr asks again before it runs {name}")


def _list(toolbox: Toolbox | None, consents: Consents, console: Console) -> None:
    if toolbox is None:
        console.say("no tools; dsr chat --tools mcp.json gives the model those of MCP servers", style="plain")
    server = None
    for each in toolbox.offer.tools if toolbox is not None else ():
        if each.server != server:
            server = each.server
            console.say(one_line(f"{server.name}: {server.label}"), style="bold")
        described = truncate(one_line(each.tool.description), _SHOWN_OF_DESCRIPTION)
        console.say(f"  {each.tool.name}  {described}".rstrip(), style="plain", hang=4)
    known = consents.all()
    if known:
        console.say("these run without a question (/tools forget NAME):", style="bold")
    for consent in known:
        console.say(
            f"  {one_line(consent.name)}  since {one_line(consent.since)}, of {one_line(consent.server)}",
            style="plain",
            hang=4,
        )
