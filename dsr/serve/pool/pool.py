"""The models that are open: they are loaded on demand, wait in line for memory, and leave when idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from dsr.serve.pool.engine import EngineProcess, OpenAsk, ToldFailed
from dsr.serve.pool.room import Resident, Room, make_room
from dsr.serve.told import Failed
from runtime.base.errors import Busy
from runtime.base.events import Progress

State = Literal["waiting", "loading", "open", "leaving"]
_LOOK = 5.0  # seconds between two looks for idle models


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """`keep_alive`: seconds without a request after which a model leaves; None keeps it. `most_models` are open at
    once; `most_waiting` requests wait for one model. `load`, `slots` and `threads` as in `OpenAsk`.
    """

    keep_alive: float | None = 600.0
    most_models: int = 3
    most_waiting: int = 64
    slots: int = 8
    threads: int | None = None
    load: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Seat:
    """A model that is open, or on its way. `users` are the requests that hold it."""

    name: str
    engine: EngineProcess
    state: State = "waiting"
    need: int = 0
    users: int = 0
    used: float = 0.0
    since: float = 0.0
    progress: Progress | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Failed | None = None
    keep: float | None = None  # what a client asked for instead of the pool's keep_alive; negative: forever


class Pool:
    """Engine processes by the reference of their model."""

    def __init__(
        self,
        options: PoolOptions,
        free_memory: Callable[[], int],
        now: Callable[[], float] = time.monotonic,
        make: Callable[[], EngineProcess] = EngineProcess,
    ) -> None:
        """`free_memory`: bytes; `now`: a clock in seconds; `make` makes a process that is not started."""
        self.options = options
        self._make = make
        self._free_memory = free_memory
        self._now = now
        self._seats: dict[str, Seat] = {}
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def seats(self) -> tuple[Seat, ...]:
        return tuple(self._seats.values())

    async def start(self) -> None:
        self._spawn(self._leave_when_idle())

    async def close(self) -> None:
        """End all engine processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(seat.engine.close() for seat in self._seats.values()), return_exceptions=True)
        self._seats.clear()

    @asynccontextmanager
    async def engine(self, reference: str) -> AsyncIterator[EngineProcess]:
        """The engine of a model for the length of the block, loaded if need be; it stays as long.

        Raises Busy if too many requests wait for it, ToldFailed if it cannot be loaded.
        """
        seat = self._seat(reference)
        if not seat.opened.is_set() and seat.users >= self.options.most_waiting:
            raise Busy(f"{seat.users} requests wait for {reference} already", hint="try again in a moment")
        seat.users += 1
        try:
            await seat.opened.wait()
            if seat.failed is not None:
                raise ToldFailed(seat.failed)
            yield seat.engine
        finally:
            seat.users -= 1
            seat.used = self._now()
            if seat.engine.died:
                self._take_out(seat)
            await self._tell_change()

    async def unload(self, reference: str) -> bool:
        """Let a model leave now. False if it is not open or answers."""
        seat = self._seats.get(reference)
        if seat is None or seat.users or seat.state != "open":
            return False
        await self._leave(seat)
        return True

    def keep(self, reference: str, seconds: float | None) -> None:
        """Let an open model leave so many seconds after its last answer; negative: never; None: as before."""
        seat = self._seats.get(reference)
        if seat is not None and seconds is not None:
            seat.keep = seconds

    def kept(self, seat: Seat) -> float | None:
        """The seconds without a request after which a model leaves; None: it stays."""
        if seat.keep is None:
            return self.options.keep_alive
        return seat.keep if seat.keep >= 0 else None

    def _seat(self, reference: str) -> Seat:
        seat = self._seats.get(reference)
        if seat is None or seat.engine.died or seat.state == "leaving":
            seat = self._seats[reference] = Seat(reference, self._make(), since=self._now())
            self._spawn(self._open(seat))
        return seat

    async def _open(self, seat: Seat) -> None:
        try:
            asked = OpenAsk(
                seat.name, self.options.load, self.options.slots, self.options.threads, self.options.most_waiting
            )
            seat.need = await seat.engine.start(asked)
            await self._wait_for_room(seat)
            seat.state = "loading"
            async for told in seat.engine.open():
                if isinstance(told, Progress):
                    seat.progress = told
            seat.state, seat.used, seat.progress = "open", self._now(), None
        except ToldFailed as error:
            seat.failed = error.failed
            await self._leave(seat)
        except Exception as error:
            seat.failed = Failed("EngineFailed", f"the engine process cannot be started: {error}")
            await self._leave(seat)
        finally:
            seat.opened.set()
            await self._tell_change()

    async def _wait_for_room(self, seat: Seat) -> None:
        async with self._changed:
            while True:
                room = self._room(seat)
                if not room.wait:
                    break
                await self._changed.wait()
            seat.state = "loading"  # from here on its memory is promised to it
            leaving = [self._take_out(self._seats[name]) for name in room.leave]
        for each in leaving:
            await each.engine.close()

    def _room(self, seat: Seat) -> Room:
        others = [each for each in self._seats.values() if each is not seat and each.state in ("open", "loading")]
        promised = sum(each.need for each in others if each.state == "loading")
        residents = [
            Resident(each.name, each.need, each.used, bool(each.users) or each.state == "loading") for each in others
        ]
        return make_room(seat.need, max(0, self._free_memory() - promised), residents, self.options.most_models)

    async def _leave(self, seat: Seat) -> None:
        await self._take_out(seat).engine.close()
        await self._tell_change()

    def _take_out(self, seat: Seat) -> Seat:
        """From now on a request for this model opens it anew."""
        seat.state = "leaving"
        if self._seats.get(seat.name) is seat:
            del self._seats[seat.name]
        return seat

    async def _leave_when_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            for seat in [*self._seats.values()]:
                keep = self.kept(seat)
                idle = seat.state == "open" and not seat.users
                if seat.engine.died or (idle and keep is not None and self._now() - seat.used > keep):
                    await self._leave(seat)

    async def _tell_change(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
