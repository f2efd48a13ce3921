"""The process of a local server: its messages in bounded lines, the end of what it says on stderr, its end in time.

`mcp.client.stdio` has the same task. It tells neither how a server ended nor why, and reads a line of any length.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import anyio.abc
import mcp.client.stdio as stdio
import mcp_types as types
from mcp.shared.message import SessionMessage

from dsr.chat.tools.config import LocalServer
from dsr.ui.console import one_line
from dsr.ui.text import truncate

# One message; a result of this size is cut to a small part of it anyway.
_LONGEST_LINE = 16 << 20
_STDERR_TAIL = 4096
_SHOWN_OF_STDERR = 300
# Seconds. As in the specification: first the server gets time to end by itself, then SIGTERM, then SIGKILL.
_TO_END, _TO_TERMINATE, _TO_DIE = 2.0, 2.0, 2.0
_POLL = 0.02
# Kills a group of processes when its own standard input closes: so dsr leaves no server, even if it is killed.
_REAPER = 'read -r _; kill -s KILL -- "-$1"'  # as POSIX writes it: dash knows no other way


class LocalProcess:
    """One start of a local server. `transport` is for `mcp.Client`, once."""

    def __init__(self, server: LocalServer) -> None:
        self.server = server
        self._process: anyio.abc.Process | None = None
        self._tail = bytearray()
        self._fault = ""  # what it sent that ends the connection

    def obituary(self) -> str:
        """How the server ended and its last words, in one line: "it ended with exit code 1: no such file"."""
        code = None if self._process is None else self._process.returncode
        if self._fault:
            how = self._fault
        elif code is None:
            how = "it closed its output"
        elif code < 0:
            how = f"it was ended by {_signal_name(-code)}"
        else:
            how = f"it ended with exit code {code}"
        words = self.last_words
        return f"{how}: {words}" if words else how

    @property
    def last_words(self) -> str:
        """The last lines on stderr, in one line."""
        lines = [one_line(line) for line in self._tail.decode("utf-8", "replace").splitlines()]
        said = " / ".join([line for line in lines if line][-3:])
        return said if len(said) <= _SHOWN_OF_STDERR else f"... {said[-_SHOWN_OF_STDERR:]}"

    async def ended(self, seconds: float) -> bool:
        """Whether the process ends within some seconds, so that its exit code is known."""
        if self._process is None:
            return True
        with anyio.move_on_after(seconds):
            while self._process.returncode is None:
                await anyio.sleep(_POLL)
            await anyio.sleep(_POLL)  # its last words are on the way
            return True
        return False

    @asynccontextmanager
    async def transport(self) -> AsyncIterator[Any]:
        """Starts the process, and ends it and all that it started. Raises OSError."""
        server = self.server
        process = await anyio.open_process(
            [server.command, *server.args],
            env=stdio.get_default_environment() | dict(server.env),
            cwd=server.folder,
            start_new_session=True,  # no terminal: Ctrl-C is for dsr, and only dsr asks the person
        )
        self._process = process
        reaper = _reaper(process.pid)
        to_client, incoming = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        outgoing, from_client = anyio.create_memory_object_stream[SessionMessage](0)
        try:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._read, process, to_client)
                tasks.start_soon(self._read_errors, process)
                tasks.start_soon(_write, process, from_client, to_client)
                try:
                    yield incoming, outgoing
                finally:
                    with anyio.CancelScope(shield=True):
                        await _end(process)
                    tasks.cancel_scope.cancel()
        finally:
            for stream in (to_client, incoming, outgoing, from_client):
                stream.close()
            if reaper is not None:
                # Before the number of the group can belong to another one.
                reaper.kill()
                reaper.wait()
                assert reaper.stdin is not None
                reaper.stdin.close()
            with suppress(OSError):
                with anyio.CancelScope(shield=True):
                    await process.aclose()

    async def _read(self, process: anyio.abc.Process, to_client: Any) -> None:
        assert process.stdout is not None
        line = bytearray()
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError):
            async with to_client:
                async for chunk in process.stdout:
                    *whole, rest = chunk.split(b"\n")
                    for part in whole:
                        line += part
                        message = _message(bytes(line))
                        if isinstance(message, Exception) and b'"jsonrpc"' in line:
                            # Somebody would wait for this answer until the time is over.
                            self._fault = f"it sent a message that cannot be read: {message}"
                            break
                        await to_client.send(message)
                        line.clear()
                    line += rest
                    if len(line) > _LONGEST_LINE:
                        self._fault = f"it sent a line of more than {_LONGEST_LINE >> 20} MiB"
                    if self._fault:
                        _signal(process, signal.SIGTERM)
                        break
        # What it still writes is thrown away, so that it can end.
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError):
            async for _ in process.stdout:
                pass

    async def _read_errors(self, process: anyio.abc.Process) -> None:
        assert process.stderr is not None
        with suppress(anyio.ClosedResourceError, anyio.BrokenResourceError, anyio.EndOfStream, OSError):
            async for chunk in process.stderr:
                self._tail += chunk
                del self._tail[:-_STDERR_TAIL]


def _message(line: bytes) -> SessionMessage | Exception:
    """A line as a message; the error, which the client passes over, for a line that is none, such as a log."""
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except (ValueError, RecursionError) as error:
        return ValueError(truncate(one_line(str(error)), _SHOWN_OF_STDERR))


async def _write(process: anyio.abc.Process, from_client: Any, to_client: Any) -> None:
    assert process.stdin is not None
    try:
        async with from_client:
            async for each in from_client:
                text = each.message.model_dump_json(by_alias=True, exclude_unset=True)
                await process.stdin.send(text.encode("utf-8", "replace") + b"\n")
    except (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError):
        await to_client.aclose()  # a waiting call then fails instead of waiting on


async def _end(process: anyio.abc.Process) -> None:
    """Close its input; without an effect, SIGTERM and SIGKILL to all that it started. Takes a bounded time."""
    assert process.stdin is not None
    with suppress(OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
        await process.stdin.aclose()
    if await _gone(process, _TO_END):
        return
    _signal(process, signal.SIGTERM)
    if not await _gone(process, _TO_TERMINATE):
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
        await _gone(process, _TO_DIE)


async def _gone(process: anyio.abc.Process, seconds: float) -> bool:
    """Whether the process and all of its group end within some seconds."""
    with anyio.move_on_after(seconds):
        while process.returncode is None or _group_lives(process.pid):
            await anyio.sleep(_POLL)
        return True
    return False


def _group_lives(group: int) -> bool:
    if sys.platform == "win32":
        return False
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _signal(process: anyio.abc.Process, number: int) -> None:
    with suppress(OSError):
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, number)  # it leads its own session


def _reaper(group: int) -> subprocess.Popen[bytes] | None:
    """A shell that outlives dsr for a moment, to kill the server's group. None where there is none."""
    if sys.platform == "win32":
        return None
    try:
        return subprocess.Popen(
            ["/bin/sh", "-c", _REAPER, "sh", str(group)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError:
        return None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
