"""Decides who reads and who draws in the next batch. No I/O and no model: queues, turns, and the places in a batch."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from runtime.base.common_prefix import common_length
from runtime.base.errors import Busy
from runtime.base.events import Listener
from runtime.base.types import counted
from runtime.engine.backend import Batch
from runtime.engine.sequence import Sequence

# The most tokens of prompts in a batch in which somebody draws: a chunk is as long as a running answer has to wait.
# Larger ones read hardly faster on a CPU, whose kernels are busy from about 32 rows on.
CHUNK = 128


@dataclass(eq=False, slots=True)
class Ticket:
    """A request on its way. `listen` gets its events; `client` is whose request it is.

    `unwanted`: somebody cancelled it, and it ends before the next batch.
    """

    sequence: Sequence
    listen: Listener
    client: str = ""
    unwanted: bool = False

    @property
    def done(self) -> bool:
        return self.sequence.finish_reason is not None


@dataclass(eq=False, slots=True)
class Reading:
    """A text that is being read into a sequence of the cache, up to the token before its last one.

    `done` tokens are cached. `stops` are lengths at which a batch must end, so that others can begin there.
    """

    ticket: Ticket
    tokens: tuple[int, ...]
    slot: int
    done: int
    stops: set[int] = field(default_factory=set)

    @property
    def target(self) -> int:
        return len(self.tokens) - 1

    @property
    def left(self) -> int:
        return self.target - self.done

    @property
    def next_stop(self) -> int:
        return min((stop for stop in self.stops if self.done < stop < self.target), default=self.target)


class WaitingLine:
    """Who waits: in turn by client, and in the order of arrival for each client.

    With `most` requests waiting, another one is refused.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._lines: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Ticket]:
        """The first of each client, then the second of each, and so on; the client served last comes last."""
        lines = [iter([*line]) for line in self._lines.values()]
        while lines:
            for line in [*lines]:
                ticket = next(line, None)
                if ticket is None:
                    lines.remove(line)
                else:
                    yield ticket

    def add(self, ticket: Ticket) -> None:
        """Raises Busy."""
        if self._most is not None and len(self) >= self._most:
            raise Busy(f"{counted(len(self), 'request')} wait already", hint="try again in a moment")
        self._lines.setdefault(ticket.client, deque()).append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """To the head of the line of its client."""
        self._lines.setdefault(ticket.client, deque()).appendleft(ticket)

    def take(self, ticket: Ticket) -> None:
        """Remove a ticket; its client goes to the end of the turn."""
        line = self._lines.pop(ticket.client)
        line.remove(ticket)
        if line:
            self._lines[ticket.client] = line


class Scheduler:
    """Continuous batching: who has finished leaves at once, and the next one in the line enters.

    A request is first read, then draws. Several requests may read and draw together, at most `slots`; those that draw
    are served first, and prompts are read in chunks between their tokens.
    """

    def __init__(self, *, slots: int, batch_size: int, most_waiting: int | None = None) -> None:
        self.waiting = WaitingLine(most_waiting)
        self.reading: list[Reading] = []
        self.drawing: list[Ticket] = []
        self._slots = self._most = slots
        self._batch_size = batch_size
        self._drawn: list[tuple[Sequence, int]] = []
        self._read: list[tuple[Reading, int]] = []

    @property
    def busy(self) -> bool:
        return bool(self.drawing or self.reading or len(self.waiting))

    @property
    def tickets(self) -> list[Ticket]:
        """All that are on their way: who draws, who reads, who waits."""
        return [*self.drawing, *(reading.ticket for reading in self.reading), *self.waiting]

    @property
    def full(self) -> bool:
        """Whether nobody may enter now."""
        if not self.drawing and not self.reading:
            self._most = self._slots
        return len(self.drawing) + len(self.reading) >= self._most

    @property
    def reserved(self) -> int:
        """Cells that who reads and draws now needs next."""
        pending = sum(len(ticket.sequence.pending) for ticket in self.drawing)
        return pending + sum(reading.left + 1 for reading in self.reading)

    def waits_for(self, tokens: tuple[int, ...], cached: int, worth: int = 1) -> bool:
        """Whether somebody is about to read more of the beginning of `tokens` than is `cached`.

        The batch of that reader will end where the two texts part. That must save `worth` tokens, if it is before the
        end of what is read.
        """
        for reading in self.reading:
            same = min(common_length(reading.tokens, tokens), reading.target, len(tokens) - 1)
            least = cached + (1 if same == reading.target else worth)
            if same >= least and same > reading.done:
                reading.stops.add(same)
                return True
        return False

    def alone(self) -> Ticket | None:
        """The only one on the way, when one token of it is pending: its next tokens may be drafted."""
        if len(self.drawing) != 1 or self.reading or len(self.drawing[0].sequence.pending) != 1:
            return None
        return self.drawing[0]

    def next_batch(self) -> tuple[Batch, list[Ticket]]:
        """The tokens to decode, and the tickets that draw from its `outputs`, in the same order.

        Samples with few pending tokens go first. Prompts fill what is left, at most `CHUNK` if anybody draws.
        """
        batch, drawing = Batch(), []
        self._drawn, self._read = [], []
        room = self._batch_size
        for ticket in sorted(self.drawing, key=_pending):
            sequence = ticket.sequence
            count = min(len(sequence.pending), room)
            if not count:
                break
            whole = count == len(sequence.pending)
            batch.add(sequence.pending[:count], sequence.cached, sequence.slot, output=whole)
            self._drawn.append((sequence, count))
            room -= count
            if whole:
                drawing.append(ticket)
        room = min(room, CHUNK) if self.drawing else room
        for reading in self.reading:
            count = min(reading.next_stop - reading.done, room)
            if count:
                batch.add(
                    [*reading.tokens[reading.done : reading.done + count]], reading.done, reading.slot, output=False
                )
                self._read.append((reading, count))
                room -= count
        return batch, drawing

    def decoded(self) -> list[Reading]:
        """Record that the tokens of the last batch are in the cache now; returns who read some of them."""
        for sequence, count in self._drawn:
            sequence.cached += count
            sequence.pending = sequence.pending[count:]
        for reading, count in self._read:
            reading.done += count
            reading.ticket.sequence.read += count
        return [reading for reading, _ in self._read]

    def enter(self, ticket: Ticket) -> None:
        """A ticket draws from now on."""
        self.drawing.append(ticket)
        for each in self.drawing:
            each.sequence.most_slots = max(each.sequence.most_slots, len(self.drawing))

    def remove(self, ticket: Ticket) -> int | None:
        """Take a ticket out, wherever it is; returns the sequence of the cache that it used."""
        if ticket in self.drawing:
            self.drawing.remove(ticket)
            return ticket.sequence.slot
        for reading in self.reading:
            if reading.ticket is ticket:
                self.reading.remove(reading)
                return reading.slot
        self.waiting.take(ticket)
        return None

    def step_back(self) -> list[int]:
        """The cache is full: readers go back to the head of the line; without any, the younger half of who draws.

        They keep their tokens. From now on no more run together than now stay, until all of them are done. Returns the
        sequences they used; none where only one is left.
        """
        leaving = [reading.ticket for reading in self.reading]
        if not self.drawing:
            del leaving[:1]
        if not leaving:
            leaving = self.drawing[(len(self.drawing) + 1) // 2 :]
        slots = [slot for ticket in leaving if (slot := self.remove(ticket)) is not None]
        for ticket in reversed(leaving):
            self.waiting.put_back(ticket)
        self._most = max(len(self.drawing), 1)
        return slots


def _pending(ticket: Ticket) -> int:
    return len(ticket.sequence.pending)
