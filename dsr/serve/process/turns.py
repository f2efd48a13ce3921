"""One engine for many clients: each of them draws as if the engine were its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import SimpleQueue

from runtime.base.errors import Aborted
from runtime.base.events import Event, Interrupted, Listener, SampleFinished
from runtime.engine.engine import Engine
from runtime.engine.scheduler import Ticket
from runtime.engine.sequence import Request

# Does something in the thread of the engine, before its next step.
Do = Callable[[Callable[[], None]], None]


class Turn:
    """The samples of one ask. All methods but `withdraw` run in the thread of the engine."""

    def __init__(self, engine: Engine, client: str) -> None:
        self._engine = engine
        self._client = client
        self._tickets: list[Ticket] = []
        self.withdrawn = False

    @property
    def aborted(self) -> Aborted | None:
        """What ended the last requests of the engine, if that was an abort."""
        return self._engine.aborted

    def submit(self, requests: Sequence[Request], listen: Listener) -> list[Ticket]:
        """Queue all requests or none. Raises as `Engine.submit` does."""
        tickets: list[Ticket] = []
        try:
            for request in requests:
                tickets.append(self._engine.submit(request, listen, self._client))
        except BaseException:
            for ticket in tickets:
                self._engine.withdraw(ticket)
            raise
        self._tickets = [each for each in self._tickets if not each.done] + tickets
        if self.withdrawn:
            self.withdraw()
        return tickets

    def withdraw(self) -> None:
        """End all samples before their next token."""
        self.withdrawn = True
        for ticket in self._tickets:
            self._engine.withdraw(ticket)


class TurnDrawer:
    """The `Drawer` of a strategy that runs in a thread of its own. Each call of `stream` is served by the engine's
    thread, which hands its events over.
    """

    def __init__(self, turn: Turn, slots: int, do: Do) -> None:
        self._turn = turn
        self._do = do
        self._tickets: list[Ticket] = []
        self.slots = slots

    def stream(self, requests: Sequence[Request]) -> Iterator[Event]:
        """As `Engine.stream`. Close it to cancel. Raises what submitting raised; Aborted when the client is gone."""
        events: SimpleQueue[Event | Exception] = SimpleQueue()
        tickets: list[Ticket] = []
        closed = False

        def submit() -> None:
            try:
                tickets[:] = self._turn.submit(requests, events.put)
            except Exception as error:
                events.put(error)
            if closed:
                withdraw()

        def withdraw() -> None:
            for ticket in tickets:
                ticket.withdrawn = True

        if self._turn.withdrawn:
            raise Aborted
        self._tickets = tickets
        self._do(submit)
        left = len(requests)
        try:
            while left:
                event = events.get()
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Interrupted):
                    continue  # it comes below, behind all samples
                left -= isinstance(event, SampleFinished)
                yield event
            if (error := self._turn.aborted) is not None:
                yield Interrupted(error)
        finally:
            closed = True
            withdraw()

    def cancel(self, samples: Iterable[int]) -> None:
        numbers = {*samples}
        for ticket in self._tickets:
            if ticket.sequence.request.sample in numbers:
                ticket.withdrawn = True
