"""Running MCP servers, on a thread of their own: started, asked for their tools, called, and ended in any case."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import math
import threading
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import anyio
from mcp.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import Implementation

import dsr
from dsr.chat.tools.config import LocalServer, ServerConfig
from dsr.chat.tools.local_process import LocalProcess
from dsr.chat.tools.offer import MOST_TOOLS, ListedTool
from dsr.chat.tools.remote import remote_transport
from dsr.chat.tools.results import result_text
from dsr.chat.tools.tool_servers import CallCancelled, CallResult, Listing
from dsr.ui.console import one_line
from dsr.ui.text import truncate
from runtime.base.errors import Aborted
from runtime.base.run import Stop

START_SECONDS = 60.0  # npx and uvx may download the server first
_MOST_PAGES = 64  # of a list of tools
_LONGEST_PROBLEM = 400
_POLL = 0.05  # seconds between looks at Ctrl-C
# The longest that the end of a process takes (local_process), and a moment.
_END_SECONDS = 8.0


@dataclass(slots=True)
class _Connection:
    """One server, open from its start to its end. `gone` says why it cannot be called any more."""

    server: ServerConfig
    process: LocalProcess | None
    listing: asyncio.Future[Listing]
    scope: anyio.CancelScope
    client: Client | None = None
    gone: str = ""
    closing: anyio.Event = field(default_factory=anyio.Event)


class Servers:
    """The servers of a file, as a context manager. Every server ends with the block."""

    def __init__(self, servers: Sequence[ServerConfig]) -> None:
        self._servers = tuple(servers)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="tool servers", daemon=True)
        self._connections: list[_Connection] = []
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Servers:
        for name in ("mcp", "client"):  # the library's loggers: what they say becomes part of our lines, or nobody's
            logging.getLogger(name).addHandler(logging.NullHandler())
            logging.getLogger(name).propagate = False
        self._loop.set_exception_handler(lambda loop, context: None)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closed = asyncio.run_coroutine_threadsafe(self._close(), self._loop)
        try:
            with suppress(concurrent.futures.TimeoutError):
                closed.result(_END_SECONDS)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(1.0)

    def start(self, stop: Stop) -> tuple[Listing, ...]:
        """Start all servers at once and list their tools. Raises Aborted after Ctrl-C."""
        starting = asyncio.run_coroutine_threadsafe(self._start(), self._loop)
        if not _done(starting, stop):
            raise Aborted
        return starting.result()

    def call(
        self, server: ServerConfig, tool: str, arguments: dict[str, Any], seconds: float, stop: Stop
    ) -> CallResult:
        """Call a tool, for at most some seconds. Raises CallCancelled after Ctrl-C; a failure is a result."""
        calling = asyncio.run_coroutine_threadsafe(self._call(server, tool, arguments, seconds), self._loop)
        if not _done(calling, stop):
            raise CallCancelled
        return calling.result()

    # In the thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.close()

    async def _start(self) -> tuple[Listing, ...]:
        for server in self._servers:
            process = LocalProcess(server) if isinstance(server, LocalServer) else None
            scope = anyio.CancelScope(deadline=anyio.current_time() + START_SECONDS)
            connection = _Connection(server, process, self._loop.create_future(), scope)
            self._connections.append(connection)
            self._tasks.append(self._loop.create_task(_serve(connection)))
        return tuple([await connection.listing for connection in self._connections])

    async def _call(self, server: ServerConfig, tool: str, arguments: dict[str, Any], seconds: float) -> CallResult:
        connection = next(each for each in self._connections if each.server == server)
        if connection.gone or connection.client is None:
            return CallResult(f"the server {server.name} is gone: {connection.gone}", failed=True)
        try:
            with anyio.fail_after(seconds):
                result = await connection.client.call_tool(tool, arguments)
        except TimeoutError:
            return CallResult(f"no result within {seconds:g} s", failed=True)
        except Exception as error:
            problem = await _problem(connection, error)
            return CallResult(problem, failed=True)
        return CallResult(result_text(result.content, result.structured_content), failed=result.is_error)

    async def _close(self) -> None:
        for connection in self._connections:
            connection.closing.set()
            if connection.client is None:
                connection.scope.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


async def _serve(connection: _Connection) -> None:
    """Open a server, tell its tools, and keep it open until it is to close."""
    problem = ""
    with connection.scope:
        try:
            async with Client(
                _transport(connection),
                client_info=Implementation(name="dsr", version=dsr.__version__),
                cache=None,
            ) as client:
                # A server's output schema may have an expression that holds the interpreter for hours.
                setattr(client.session, "validate_tool_result", _accept)  # noqa: B010
                tools = await _tools(client)
                connection.scope.deadline = math.inf
                connection.client = client
                connection.listing.set_result(Listing(connection.server, tools))
                await connection.closing.wait()
        except Exception as error:
            problem = await _problem(connection, error)
    if not connection.listing.done():
        problem = problem or _late(connection)
        connection.listing.set_result(Listing(connection.server, problem=problem))
    connection.gone = connection.gone or problem or "it has ended"


def _transport(connection: _Connection) -> AbstractAsyncContextManager[Any]:
    if connection.process is not None:
        return connection.process.transport()
    assert not isinstance(connection.server, LocalServer)
    return remote_transport(connection.server)


async def _accept(name: str, result: object) -> None:
    """Takes any result as valid."""


async def _tools(client: Client) -> tuple[ListedTool, ...]:
    """All tools that a server lists, or the first of them if it lists more than any prompt holds."""
    found: list[ListedTool] = []
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.list_tools(cursor=cursor)
        found += [ListedTool(each.name, each.description or each.title or "", each.input_schema) for each in page.tools]
        cursor = page.next_cursor
        if cursor is None or len(found) > 2 * MOST_TOOLS:
            break
    return tuple(found)


async def _problem(connection: _Connection, error: BaseException) -> str:
    """Why a server fails, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    process = connection.process
    if isinstance(error, FileNotFoundError) and isinstance(connection.server, LocalServer):
        missing = connection.server.command if connection.server.folder.is_dir() else str(connection.server.folder)
        return f"{missing}: no such program or folder"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    closed = isinstance(error, (MCPError, anyio.ClosedResourceError, anyio.BrokenResourceError))
    if process is not None and closed and _is_closed(error) and await process.ended(1.0):
        connection.gone = process.obituary()
        return connection.gone
    said = truncate(one_line(str(error)), _LONGEST_PROBLEM) or type(error).__name__
    return f"it answers with an error: {said}" if isinstance(error, MCPError) else said


def _is_closed(error: BaseException) -> bool:
    return not isinstance(error, MCPError) or "closed" in error.error.message.lower()


def _late(connection: _Connection) -> str:
    """The problem of a server that did not answer in time."""
    words = connection.process.last_words if connection.process is not None else ""
    return f"it did not answer within {START_SECONDS:g} s" + (f": {words}" if words else "")


def _done(future: concurrent.futures.Future[Any], stop: Stop) -> bool:
    """Waits; False after a Ctrl-C, which cancels the work."""
    while not concurrent.futures.wait([future], _POLL).done:
        if stop.take():
            future.cancel()
            return False
    return True
