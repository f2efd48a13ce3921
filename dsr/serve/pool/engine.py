"""One engine process, as the server sees it."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dsr.serve import account, frames
from dsr.serve.ask import Ask, QueryKind
from dsr.serve.child import child_command, child_environment
from dsr.serve.names import shown_reference
from dsr.serve.told import LAST, Failed, Result, Told, told_of
from runtime.base.errors import EngineFailed
from runtime.base.events import Notice, Progress
from runtime.engine.standing import Standing

_PATIENCE = 10.0  # seconds for a process to leave before it is killed
# Events that wait for a client that reads too slowly; an answer of so many tokens is long. They take some megabytes.
_MOST_UNREAD = 10_000


@dataclass(frozen=True, slots=True)
class OpenAsk:
    """What an engine process opens: `model` is a reference, `load` the fields of `LoadOptions`.

    `timeout`: seconds that an answer may take; the process does not get it, since the server withdraws the ask.
    `usual` are the person's settings for asks that say nothing: "sampling" by name, "effort", "keep_thoughts".
    """

    model: str
    load: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 8
    threads: int | None = None
    most_waiting: int = 64
    timeout: float | None = None
    usual: Mapping[str, Any] = field(default_factory=dict)

    def wire(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "load": dict(self.load),
            "slots": self.slots,
            "threads": self.threads,
            "most_waiting": self.most_waiting,
            "usual": dict(self.usual),
        }


class ToldFailed(Exception):
    """What an engine process said as its last word on an ask."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message)
        self.failed = failed


class EngineProcess:
    """A process that holds one model. `props` are known once it is open. After `died`, it answers nothing."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._told: dict[int, asyncio.Queue[Told]] = {}
        self._numbers = itertools.count(1)
        self._gone = asyncio.Event()
        self._last = Failed("EngineDied", "the engine process is not running")
        self._why: Failed | None = None  # what the process said before it ended by itself
        self._reading: asyncio.Task[None] | None = None
        self._asked = OpenAsk("")
        self.props: dict[str, Any] = {}
        self.standing = Standing()
        self.disk: dict[str, float] = {}  # what it has read, as `DiskUse.as_json` has it; {} for a model in memory
        self.died = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def answering(self) -> int:
        """How many asks and queries it works on."""
        return len(self._told)

    async def start(self, asked: OpenAsk) -> int:
        """Start the process; returns the bytes of memory that its model will take. Raises ToldFailed, OSError."""
        self._asked = asked
        self._process = await asyncio.create_subprocess_exec(
            *child_command("dsr.serve.process"),
            env=child_environment(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is the server's, which lets it end its answers
        )
        opening = self._told[frames.OPENING] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self._send(asked.wire())
        need: int = (await self._result(opening))["need"]
        return need

    async def open(self) -> AsyncIterator[Progress | Notice]:
        """Open the model, and yield how far it is. Raises ToldFailed."""
        opening = self._told[frames.OPENING]
        self._send({"open": True})
        while True:
            told = await opening.get()
            if isinstance(told, Result):
                self.props = told.value
                break
            if isinstance(told, Failed):
                raise ToldFailed(told)
            if isinstance(told, (Progress, Notice)):
                yield told
        del self._told[frames.OPENING]

    async def ask(self, ask: Ask) -> AsyncIterator[list[Told]]:
        """What is told of an ask, as many events at a time as have come. Closing the iterator withdraws it.

        The last one is Done or Failed; a process that dies fails its asks, and so does the end of their time.
        """
        number = next(self._numbers)
        queue = self._told[number] = asyncio.Queue()
        spent = account.current()
        seconds = min((each for each in (ask.seconds, self._asked.timeout) if each is not None), default=None)
        until = asyncio.get_running_loop().time() + seconds if seconds is not None else None
        ended = False
        try:
            self._send({"number": number, "ask": ask.wire()})
            while not ended:
                try:
                    async with asyncio.timeout_at(until):
                        come = [await queue.get()]
                except TimeoutError:
                    yield [_too_late(seconds or 0)]
                    return
                while not queue.empty():
                    come.append(queue.get_nowait())
                for told in come:
                    spent.add(told)
                ended = isinstance(come[-1], LAST)
                yield come
        finally:
            self._told.pop(number, None)
            if not ended:
                self._send({"number": number})

    async def query(self, kind: QueryKind, given: Mapping[str, Any]) -> Any:
        """The answer to a query, which is withdrawn when its client leaves. Raises ToldFailed."""
        number = next(self._numbers)
        queue = self._told[number] = asyncio.Queue()
        ended = False
        try:
            self._send({"number": number, "query": kind, "given": dict(given)})
            value = await self._result(queue)
            ended = True
            return value
        except ToldFailed:
            ended = True
            raise
        finally:
            self._told.pop(number, None)
            if not ended:
                self._send({"number": number})

    def fail(self, failed: Failed) -> None:
        """Let this be the last word on everything that is asked."""
        for queue in self._told.values():
            queue.put_nowait(failed)

    async def gone(self) -> Failed:
        """Why the process ended, once it has."""
        await self._gone.wait()
        return self._last

    async def close(self) -> None:
        """End the process, with its answers."""
        process = self._process
        if process is None or self._reading is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            _kill(process)
            await process.wait()
        await self._reading

    async def _result(self, queue: asyncio.Queue[Told]) -> Any:
        while True:
            told = await queue.get()
            if isinstance(told, Result):
                return told.value
            if isinstance(told, Failed):
                raise ToldFailed(told)

    def _send(self, value: Mapping[str, Any]) -> None:
        if self._process is None or self._process.stdin is None:
            raise EngineFailed("the engine process is not running")
        if not self.died and not self._process.stdin.is_closing():
            self._process.stdin.write(frames.packed(value))
        elif (queue := self._told.get(value.get("number", frames.OPENING))) is not None:
            queue.put_nowait(self._last)

    async def _read(self) -> None:
        """Hand out what the process tells, until it ends; then fail what is open."""
        assert self._process is not None and self._process.stdout is not None
        try:
            while (rows := await frames.receive(self._process.stdout)) is not None:
                for number, *wired in rows:
                    if number == frames.STANDING:
                        self.standing = Standing(*wired)
                    elif number == frames.DISK:
                        self.disk = wired[0]
                    elif (queue := self._told.get(number)) is not None:
                        self._hand_out(number, queue, told_of(wired))
                    elif number == frames.OPENING and isinstance(told := told_of(wired), Failed):
                        self._why = told
        except (ValueError, TypeError, KeyError, IndexError):  # no frame of ours: a native fault wrote into the pipe
            _kill(self._process)
        finally:
            await self._end(self._process)

    def _hand_out(self, number: int, queue: asyncio.Queue[Told], told: Told) -> None:
        """Give `told` to who asked, unless too much waits there already: then the ask is withdrawn."""
        if queue.qsize() < _MOST_UNREAD or isinstance(told, LAST):
            queue.put_nowait(told)
            return
        del self._told[number]
        self._send({"number": number})
        while not queue.empty():
            queue.get_nowait()
        queue.put_nowait(_TOO_SLOW)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self.died = True  # it tells nothing any more
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            _kill(process)
            await process.wait()
        self._last = self._why or _died(shown_reference(self._asked.model), process.returncode or 0)
        self.standing = Standing()
        self._gone.set()
        self.fail(self._last)


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


_TOO_SLOW = Failed("SlowClient", f"the client has not read {_MOST_UNREAD:,} events of its answer", "read faster")


def _too_late(seconds: float) -> Failed:
    return Failed("TimedOut", f"the answer was not complete after {seconds:g} s", "ask for fewer tokens, or allow more")


def _died(model: str, code: int) -> Failed:
    how = f"exit code {code}"
    if code < 0:
        with suppress(ValueError):
            how = signal.Signals(-code).name
        if code == -getattr(signal, "SIGKILL", 9):
            how += ", as when the system is out of memory"
    return Failed("EngineDied", f"the engine process of {model} ended ({how})", "ask again: dsr loads the model again")
