"""The models that are open: they are loaded on demand, wait in line for memory, and leave when idle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from dsr.serve import account
from dsr.serve.names import shown_reference
from dsr.serve.pool.engine import EngineProcess, OpenAsk, ToldFailed
from dsr.serve.pool.room import Memory, Resident, Room, make_room
from dsr.serve.told import Failed
from runtime.base.errors import Busy
from runtime.base.events import Progress

State = Literal["waiting", "loading", "open", "leaving"]
_LOOK = 1.0  # seconds between two looks for idle models, and at the memory that other programs left
_REMEMBERED = 5.0  # seconds in which a model that could not be loaded is not tried again
_PATIENCE = 10.0  # seconds at the head of the line after which models that should leave get no new requests
# Bytes that a process takes before it says what its model needs: it was 28 MiB. A model that runs from the disk leaves
# less free in a small control group, and the system would end it.
_PROCESS = 64 << 20
ENDING = Failed("Aborted", "dsr serve is ending", "ask again when it runs")


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """`keep_alive`: seconds without a request after which a model leaves; None keeps it. `most_models` are open at
    once; `most_waiting` requests wait for one model. `load`, `slots`, `threads`, `timeout` and `usual` as in
    `OpenAsk`.
    """

    keep_alive: float | None = 600.0
    most_models: int = 3
    most_waiting: int = 64
    slots: int = 8
    threads: int | None = None
    timeout: float | None = None
    load: Mapping[str, Any] = field(default_factory=dict)
    usual: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class Seat:
    """A model that is open, or on its way. `name` is its reference, `users` are the requests that hold it.

    `keep_alive`: seconds without a request after which it leaves; None: it stays.
    """

    name: str
    engine: EngineProcess
    keep_alive: float | None
    state: State = "waiting"
    need: int = 0
    users: int = 0
    used: float = 0.0
    reason: str = ""  # why it waits
    progress: Progress | None = None
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    failed: Failed | None = None
    life: asyncio.Task[None] | None = None

    @property
    def shown(self) -> str:
        """The name for clients."""
        return shown_reference(self.name)

    @property
    def idle(self) -> bool:
        return self.state == "open" and not self.users


@dataclass(slots=True)
class PoolCounts:
    """Since the start of the server."""

    loaded: int = 0
    failed: int = 0
    died: int = 0


class Pool:
    """Engine processes by the reference of their model."""

    def __init__(
        self,
        options: PoolOptions,
        memory: Callable[[], Memory],
        now: Callable[[], float] = time.monotonic,
        make: Callable[[], EngineProcess] = EngineProcess,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        """`now`: a clock in seconds; `make` makes a process that is not started; `report` is told of deaths."""
        self.options = options
        self.counts = PoolCounts()
        self._memory = memory
        self._now = now
        self._make = make
        self._report = report
        self._seats: dict[str, Seat] = {}
        self._line: list[Seat] = []  # those that wait for room, the first one first
        self._at_head = 0.0  # since when the first one is the first
        self._leaving: set[Seat] = set()  # their memory is not free yet
        self._running: set[EngineProcess] = set()
        self._failures: dict[str, tuple[float, Failed]] = {}
        self._died: set[str] = set()  # models whose process died while it opened them
        self._held_back: dict[str, int] = {}  # by model: requests that wait until the line has moved
        self._change = asyncio.Event()
        self._ending = False
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def seats(self) -> tuple[Seat, ...]:
        return tuple(self._seats.values())

    async def start(self) -> None:
        self._spawn(self._leave_when_idle())

    def end_answers(self) -> None:
        """Let all answers fail now, since the server ends."""
        self._ending = True
        for seat in self._seats.values():
            seat.engine.fail(ENDING)
            seat.failed = seat.failed or ENDING
            seat.opened.set()
        self._tell_change()

    async def close(self) -> None:
        """End all engine processes."""
        self.end_answers()
        tasks = {*self._tasks}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(engine.close() for engine in self._running))

    @asynccontextmanager
    async def engine(self, reference: str) -> AsyncIterator[EngineProcess]:
        """The engine of a model for the length of the block, loaded if need be; it stays as long.

        Raises Busy if too many requests wait for it, ToldFailed if it cannot be loaded.
        """
        account.current().model = shown_reference(reference)
        await self._turn(reference)
        seat = self._seat(reference)
        if not seat.opened.is_set() and seat.users >= self.options.most_waiting:
            raise Busy(f"{seat.users} requests wait for {seat.shown} already", hint="try again in a moment")
        seat.users += 1
        try:
            await seat.opened.wait()
            if seat.failed is not None:
                raise ToldFailed(seat.failed)
            yield seat.engine
        finally:
            self._leave_seat(seat)

    async def unload(self, reference: str) -> bool:
        """Let a model leave now. False if it is not open or answers."""
        seat = self._seats.get(reference)
        if seat is None or not seat.idle:
            return False
        self._take_out(seat)
        await seat.engine.close()
        return True

    def keep(self, reference: str, seconds: float | None) -> None:
        """Let an open model leave so many seconds after its last answer; negative: never; None: as before."""
        seat = self._seats.get(reference)
        if seat is not None and seconds is not None:
            seat.keep_alive = seconds if seconds >= 0 else None

    def _leave_seat(self, seat: Seat) -> None:
        seat.users -= 1
        seat.used = self._now()
        if seat.users == 0 and seat.state == "waiting" and seat.life is not None:
            self._take_out(seat)  # nobody waits for it any more
            seat.life.cancel()
        elif seat.idle and seat.keep_alive == 0:
            self._take_out(seat)
            self._spawn(seat.engine.close())
        self._tell_change()

    async def _turn(self, reference: str) -> None:
        """Wait while this model must become idle, so that another one gets its memory. Raises Busy."""
        if not self._must_empty(reference):
            return
        held = self._held_back.get(reference, 0)
        if held >= self.options.most_waiting:
            raise Busy(f"{held} requests wait for {shown_reference(reference)} already", hint="try again in a moment")
        self._held_back[reference] = held + 1
        try:
            while self._must_empty(reference):
                await self._changed()
        finally:
            self._held_back[reference] -= 1
            if not self._held_back[reference]:
                del self._held_back[reference]

    def _must_empty(self, reference: str) -> bool:
        if not self._line or self._ending or self._now() - self._at_head < _PATIENCE:
            return False
        seat = self._seats.get(reference)
        return seat is not None and seat.state == "open"

    def _seat(self, reference: str) -> Seat:
        """Raises ToldFailed where loading failed a moment ago, and when the server ends."""
        if self._ending:
            raise ToldFailed(ENDING)
        seat = self._seats.get(reference)
        if seat is not None and seat.engine.died:
            self._take_out(seat)
            seat = None
        if seat is None:
            since, failed = self._failures.get(reference, (0.0, None))
            if failed is not None and self._now() - since < _REMEMBERED:
                raise ToldFailed(failed)
            self._failures.pop(reference, None)
            seat = self._seats[reference] = Seat(reference, self._make(), self.options.keep_alive)
            self._running.add(seat.engine)
            seat.life = self._spawn(self._live(seat))
        return seat

    async def _live(self, seat: Seat) -> None:
        """A seat from its start to its end."""
        try:
            await self._open(seat)
            seat.opened.set()
            self._tell_change()
            failed = await seat.engine.gone()
            if seat.state != "leaving":
                self.counts.died += 1
                self._report(failed.message)
        except ToldFailed as error:
            self._fail(seat, error.failed)
        except asyncio.CancelledError:
            seat.failed = seat.failed or ENDING
            raise
        except Exception as error:
            self._fail(seat, Failed("EngineFailed", f"the engine process of {seat.shown} cannot be started: {error}"))
        finally:
            self._take_out(seat)
            seat.opened.set()
            self._tell_change()
            await seat.engine.close()
            self._running.discard(seat.engine)
            self._leaving.discard(seat)
            self._tell_change()

    async def _open(self, seat: Seat) -> None:
        options = self.options
        asked = OpenAsk(
            seat.name, options.load, options.slots, options.threads, options.most_waiting, options.timeout,
            options.usual,
        )  # fmt: skip
        if self._memory().available < _PROCESS:
            seat.need = _PROCESS
            await self._wait_for_room(seat)
            seat.state = "waiting"
        seat.need = await seat.engine.start(asked)
        await self._wait_for_room(seat)
        async for told in seat.engine.open():
            if isinstance(told, Progress):
                seat.progress = told
            else:
                self._report(f"{seat.shown}: {told.text}")
        self.counts.loaded += 1
        self._died.discard(seat.name)
        seat.state, seat.used, seat.progress = "open", self._now(), None

    def _fail(self, seat: Seat, failed: Failed) -> None:
        self.counts.failed += 1
        seat.failed = failed
        if failed.kind == "EngineDied" and seat.name not in self._died:
            self._died.add(seat.name)  # once may be the system, which was out of memory; twice is the file
        else:
            self._failures[seat.name] = (self._now(), failed)
        self._report(f"{seat.shown} cannot be loaded: {failed.message}")

    async def _wait_for_room(self, seat: Seat) -> None:
        self._line.append(seat)
        self._at_head = self._now() if len(self._line) == 1 else self._at_head
        try:
            while True:
                room = self._room(seat)
                if not room.wait:
                    break
                seat.reason = room.reason
                await self._changed()
            seat.state, seat.reason = "loading", ""  # from here on its memory is promised to it
        finally:
            self._line.remove(seat)
            self._at_head = self._now()
            self._tell_change()
        leaving = [self._take_out(self._seats[name]) for name in room.leave]
        await asyncio.gather(*(each.engine.close() for each in leaving))

    def _room(self, seat: Seat) -> Room:
        if self._line[0] is not seat:
            return Room(wait=True, reason=f"{self._line[0].shown} comes first")
        if self._leaving:
            return Room(wait=True, reason="another model is leaving")
        others = [each for each in self._seats.values() if each is not seat and each.state in ("open", "loading")]
        promised = sum(each.need for each in others if each.state == "loading")
        memory = self._memory()
        residents = [Resident(each.name, each.need, each.used, not each.idle) for each in others]
        free = Memory(memory.total, max(0, memory.available - promised))
        return make_room(seat.need, free, residents, self.options.most_models)

    def _take_out(self, seat: Seat) -> Seat:
        """From now on a request for this model opens it again. Its memory is free when its process has ended."""
        if seat.state in ("open", "loading"):
            self._leaving.add(seat)
        seat.state = "leaving"
        if self._seats.get(seat.name) is seat:
            del self._seats[seat.name]
        return seat

    async def _leave_when_idle(self) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            now = self._now()
            for seat in self.seats:
                if seat.idle and seat.keep_alive is not None and now - seat.used > seat.keep_alive:
                    self._take_out(seat)
                    self._spawn(seat.engine.close())

    async def _changed(self) -> None:
        """Wait until something has changed here, or may have changed outside."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._change.wait(), _LOOK)

    def _tell_change(self) -> None:
        self._change.set()
        self._change = asyncio.Event()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
