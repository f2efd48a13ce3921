"""One engine process, as the server sees it."""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from dsr.serve import frames
from dsr.serve.ask import Ask, QueryKind
from dsr.serve.told import LAST, Failed, Result, Told, told_of
from runtime.base.errors import EngineFailed
from runtime.base.events import Notice, Progress

_OPENING = 0
_PATIENCE = 10.0  # seconds for a process to leave before it is killed


@dataclass(frozen=True, slots=True)
class OpenAsk:
    """What an engine process opens: `model` is a reference, `load` the fields of `LoadOptions`."""

    model: str
    load: Mapping[str, Any] = field(default_factory=dict)
    slots: int = 8
    threads: int | None = None
    most_waiting: int = 64

    def wire(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "load": dict(self.load),
            "slots": self.slots,
            "threads": self.threads,
            "most_waiting": self.most_waiting,
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
        self.props: dict[str, Any] = {}
        self.died = False

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def answering(self) -> int:
        """How many asks and queries it works on."""
        return len(self._told)

    async def start(self, asked: OpenAsk) -> int:
        """Start the process; returns the bytes of memory that its model will take. Raises ToldFailed."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "dsr.serve.process",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C at the terminal is the server's, which lets it end its answers
        )
        opening = self._told[_OPENING] = asyncio.Queue()
        self._reading = asyncio.create_task(self._read())
        self._send(asked.wire())
        need: int = (await self._result(opening))["need"]
        return need

    async def open(self) -> AsyncIterator[Progress | Notice]:
        """Open the model, and yield how far it is. Raises ToldFailed."""
        opening = self._told[_OPENING]
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
        del self._told[_OPENING]

    async def ask(self, ask: Ask) -> AsyncIterator[list[Told]]:
        """What is told of an ask, as many events at a time as have come. Closing the iterator withdraws it.

        The last one is Done or Failed; a process that dies fails its asks.
        """
        number = next(self._numbers)
        queue = self._told[number] = asyncio.Queue()
        self._send({"number": number, "ask": ask.wire()})
        ended = False
        try:
            while not ended:
                come = [await queue.get()]
                while not queue.empty():
                    come.append(queue.get_nowait())
                ended = isinstance(come[-1], LAST)
                yield come
        finally:
            self._told.pop(number, None)
            if not ended:
                self._send({"number": number})

    async def query(self, kind: QueryKind, given: Mapping[str, Any]) -> Any:
        """The answer to a query. Raises ToldFailed."""
        number = next(self._numbers)
        queue = self._told[number] = asyncio.Queue()
        self._send({"number": number, "query": kind, "given": dict(given)})
        try:
            return await self._result(queue)
        finally:
            self._told.pop(number, None)

    async def close(self) -> None:
        """End the process, with its answers."""
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), _PATIENCE)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
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
        elif (queue := self._told.get(value.get("number", _OPENING))) is not None:
            queue.put_nowait(_DIED)

    async def _read(self) -> None:
        """Hand out what the process tells, until it ends; then fail what is open."""
        assert self._process is not None and self._process.stdout is not None
        while (rows := await frames.receive(self._process.stdout)) is not None:
            for number, *wired in rows:
                if (queue := self._told.get(number)) is not None:
                    queue.put_nowait(told_of(wired))
        self.died = True
        for queue in self._told.values():
            queue.put_nowait(_DIED)


_DIED = Failed(
    "EngineDied",
    "the engine process of this model ended while it answered",
    "ask again: it is loaded anew",
)
