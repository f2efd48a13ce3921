"""From an mcp.json file to a toolbox: servers run, their tools are offered, and calls can be asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from dsr.chat.tools.calls import Toolbox
from dsr.chat.tools.config import ALL, ToolsRequest, read_tools_file
from dsr.chat.tools.consent import Gate
from dsr.chat.tools.offer import offer
from dsr.store import paths
from dsr.store.consents import Consents
from dsr.ui.console import Console, one_line
from dsr.ui.interrupts import stopping
from dsr.ui.progress import showing
from runtime.base.errors import DsrError, NotFound
from runtime.base.events import Progress
from runtime.base.run import Stop
from runtime.base.types import counted, listed


@contextmanager
def open_tools(request: ToolsRequest, console: Console, stop: Stop) -> Iterator[Toolbox]:
    """Start the servers for the length of the block. Without a terminal, nobody can be asked before calls.

    A server that does not start is one line, and the others go on. Raises NotFound, UsageError, DsrError if no server
    starts, Aborted.
    """
    file = read_tools_file(request.file)
    consents = Consents(paths.consents_file())
    consents.all()  # a damaged file is told now, not in the middle of an answer
    from dsr.chat.tools.servers import Servers

    with Servers(file.servers) as servers:
        with stopping(stop), showing(console) as listen:
            listen(Progress("starting", counted(len(file.servers), "tool server"), 0, 0, "steps"))
            listings = servers.start(stop)
        for note in file.notes:
            console.say(one_line(note))
        for each in listings:
            if each.problem:
                console.warn(f"the tool server {each.server.name} does not start: {each.problem}")
        running = [each for each in listings if not each.problem]
        if not running:
            raise DsrError("no tool server starts", hint=f"check {request.file}, or leave out --tools")
        offered = offer([(each.server, each.tools) for each in running])
        for note in offered.notes:
            console.say(one_line(note))
        names = [each.tool.name for each in offered.tools]
        for name in sorted(request.allowed - {ALL, *names}):
            raise NotFound(
                f"--allow-tool {name}: there is no such tool", hint=f"the tools are {listed(names) or 'none'}"
            )
        console.say(f"{counted(len(names), 'tool')} of {counted(len(running), 'server')}: {listed(names)}")
        gate = Gate(consents, request.allowed, console.live and sys.stdin.isatty(), console)
        yield Toolbox(offered, servers, gate, request.seconds, request.rounds)
