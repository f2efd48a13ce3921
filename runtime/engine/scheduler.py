"""Decides which requests read and draw in the next batch. No I/O and no model: a queue, turns, and rows of a batch.

Continuous batching as in Orca (Yu et al., OSDI 2022), with chunks of prompts between the tokens of answers as in
SARATHI (arXiv 2308.16369).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from runtime.base.common_prefix import common_length
from runtime.base.errors import Busy
from runtime.base.events import Listener, Progress
from runtime.base.types import counted
from runtime.engine.backend import Batch
from runtime.engine.sequence import Sequence
from runtime.engine.splice import Splice


@dataclass(eq=False, slots=True)
class Ticket:
    """A submitted request. `listen` gets its events; `client` names who submitted it.

    A `withdrawn` request ends before the next batch.
    """

    sequence: Sequence
    listen: Listener
    client: str = ""
    withdrawn: bool = False

    @property
    def done(self) -> bool:
        return self.sequence.finish_reason is not None


@dataclass(eq=False, slots=True)
class Reading:
    """A text that is being read into a sequence of the cache, up to the token before its last one.

    `done` tokens are cached. `stops` are lengths at which a batch must end, so that others can begin there. At
    `splice.at` the text continues with a cached part of sequence `source`, if that still holds it.
    """

    ticket: Ticket
    tokens: tuple[int, ...]
    slot: int
    done: int
    stops: set[int] = field(default_factory=set)
    splice: Splice | None = None
    source: int = -1

    @property
    def target(self) -> int:
        return len(self.tokens) - 1

    @property
    def left(self) -> int:
        return self.target - self.done

    @property
    def progress(self) -> Progress:
        return Progress("reading the prompt", "", self.done, self.target, "tokens")

    @property
    def next_stop(self) -> int:
        return min((stop for stop in self.stops if self.done < stop < self.target), default=self.target)


class WaitingQueue:
    """The requests that wait: clients take turns, and each client's requests keep their order.

    `most`: the most requests that may wait; None for no limit.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = most
        self._by_client: OrderedDict[str, deque[Ticket]] = OrderedDict()

    def __len__(self) -> int:
        return sum(map(len, self._by_client.values()))

    def __iter__(self) -> Iterator[Ticket]:
        """The first of each client, then the second of each, and so on; the client served last comes last."""
        queues = [iter([*queue]) for queue in self._by_client.values()]
        while queues:
            for queue in [*queues]:
                ticket = next(queue, None)
                if ticket is None:
                    queues.remove(queue)
                else:
                    yield ticket

    def add(self, ticket: Ticket) -> None:
        """Raises Busy."""
        if self._most is not None and len(self) >= self._most:
            raise Busy(f"the queue is full: it has {counted(len(self), 'request')}", hint="try again in a moment")
        self._by_client.setdefault(ticket.client, deque()).append(ticket)

    def put_back(self, ticket: Ticket) -> None:
        """Make a ticket the first of its client again."""
        self._by_client.setdefault(ticket.client, deque()).appendleft(ticket)

    def take(self, ticket: Ticket) -> None:
        """Remove a ticket; its client has the last turn now."""
        queue = self._by_client.pop(ticket.client)
        queue.remove(ticket)
        if queue:
            self._by_client[ticket.client] = queue


class Scheduler:
    """The requests in progress, at most `slots`, and the queue. A finished request leaves at once, and another enters.

    A request first reads its text, then draws. Requests that draw are served first.
    """

    def __init__(
        self,
        *,
        slots: int,
        batch_size: int,
        chunk_size: int,
        most_outputs: int | None = None,
        most_waiting: int | None = None,
    ) -> None:
        """`chunk_size`: the most prompt tokens of a batch in which samples draw, too. `most_outputs`: the most rows of
        logits of a batch, at least `slots`, which is the default."""
        self.waiting = WaitingQueue(most_waiting)
        self.reading: list[Reading] = []
        self.drawing: list[Ticket] = []
        self._slots = self._most = slots
        self._batch_size, self._chunk_size = batch_size, chunk_size
        self._most_outputs = max(slots, most_outputs or 0)
        self._drawn: list[tuple[Sequence, int]] = []
        self._read: list[tuple[Reading, int]] = []

    @property
    def busy(self) -> bool:
        return bool(self.drawing or self.reading or len(self.waiting))

    @property
    def tickets(self) -> list[Ticket]:
        """All tickets: drawing, then reading, then waiting."""
        return [*self.drawing, *(reading.ticket for reading in self.reading), *self.waiting]

    @property
    def full(self) -> bool:
        """Whether no request may enter now."""
        return len(self.drawing) + len(self.reading) >= self._most

    @property
    def reserved(self) -> int:
        """Cells that the requests in progress need next: for pending tokens, and for the rest of their texts."""
        pending = sum(len(ticket.sequence.pending) for ticket in self.drawing)
        return pending + sum(reading.left + 1 for reading in self.reading)

    def waits_for(self, tokens: tuple[int, ...], cached: int, worth: int = 1) -> bool:
        """Whether a request is about to read a longer prefix of `tokens` than the `cached` one.

        A batch of that request then ends where the two texts part. If it has to be cut for that, the longer prefix must
        save at least `worth` tokens.
        """
        for reading in self.reading:
            same = min(common_length(reading.tokens, tokens), reading.target, len(tokens) - 1)
            least = cached + (1 if same == reading.target else worth)
            if same >= least and same > reading.done:
                reading.stops.add(same)
                return True
        return False

    def alone(self) -> Ticket | None:
        """The only ticket in progress, if it draws and has one pending token: its next tokens may be drafted."""
        if len(self.drawing) != 1 or self.reading or len(self.drawing[0].sequence.pending) != 1:
            return None
        return self.drawing[0] if self.drawing[0].sequence.request.draws else None

    def next_batch(self) -> tuple[Batch, list[Ticket]]:
        """The tokens to decode, and the tickets of its `outputs`, in the same order: each draws from its row.

        Samples with few pending tokens go first. A given reply has several rows: they share what the others leave.
        Prompts fill the rest, up to a chunk if any sample draws. Hidden states are read in a batch of their own: the
        engine puts out all rows of such a batch.
        """
        self._drawn, self._read = [], []
        hidden = [ticket for ticket in self.drawing if ticket.sequence.request.hidden]
        if hidden:
            return self._batch_of_hidden(hidden[: self._batch_size])
        batch, drawing = Batch(), []
        room, spare = self._batch_size, self._most_outputs - len(self.drawing)
        for ticket in sorted(self.drawing, key=_pending):
            sequence = ticket.sequence
            count = min(len(sequence.pending), room)
            if sequence.request.given:
                count = min(count, 1 + spare)
            if not count:
                break
            first = len(sequence.pending) - sequence.outputs  # the first one whose row is needed
            batch.add(sequence.pending[:count], sequence.cached, sequence.slot, output=False)
            rows = len(batch.tokens)
            wanted = range(rows - max(0, count - first), rows)
            batch.outputs += wanted
            drawing += [ticket] * len(wanted)
            spare -= max(0, len(wanted) - 1)
            self._drawn.append((sequence, count))
            room -= count
        room = min(room, self._chunk_size) if self.drawing else room
        for reading in self.reading:
            count = min(reading.next_stop - reading.done, room)
            if count:
                batch.add(
                    [*reading.tokens[reading.done : reading.done + count]], reading.done, reading.slot, output=False
                )
                self._read.append((reading, count))
                room -= count
        return batch, drawing

    def _batch_of_hidden(self, tickets: list[Ticket]) -> tuple[Batch, list[Ticket]]:
        """The last token of each of these texts: all before it was read."""
        batch = Batch(hidden=True)
        for ticket in tickets:
            sequence = ticket.sequence
            batch.add(sequence.pending, sequence.cached, sequence.slot, output=True)
            self._drawn.append((sequence, len(sequence.pending)))
        return batch, tickets

    def progress(self, share: float) -> list[tuple[Ticket, Progress]]:
        """How far the prompts of the last batch are read once this share of it is computed."""
        return [
            (reading.ticket, replace(reading.progress, done=reading.done + int(count * share)))
            for reading, count in self._read
        ]

    def decoded(self) -> list[Reading]:
        """Record that the tokens of the last batch are in the cache now; returns the readings in it."""
        for sequence, count in self._drawn:
            sequence.cached += count
            sequence.pending = sequence.pending[count:]
        for reading, count in self._read:
            reading.done += count
            reading.ticket.sequence.read += count
        readings = [reading for reading, _ in self._read]
        self._read = []
        return readings

    def enter(self, ticket: Ticket) -> None:
        """A ticket draws from now on."""
        self.drawing.append(ticket)
        for each in self.drawing:
            each.sequence.most_slots = max(each.sequence.most_slots, len(self.drawing))

    def remove(self, ticket: Ticket) -> int | None:
        """Take a ticket out, wherever it is; returns the sequence of the cache that it used, None if it waited."""
        if ticket in self.drawing:
            self.drawing.remove(ticket)
            slot = ticket.sequence.slot
        else:
            reading = next((each for each in self.reading if each.ticket is ticket), None)
            if reading is None:
                self.waiting.take(ticket)
                return None
            self.reading.remove(reading)
            slot = reading.slot
        if not self.drawing and not self.reading:
            self._most = self._slots
        return slot

    def preempt(self) -> list[int]:
        """Because the cache is full, send readers back to the queue; without readers, the younger half that draws.

        They keep their tokens. Until the remaining requests are done, no more than their number run together. Returns
        the sequences of the cache that became unused; none if only one request is in progress.
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
