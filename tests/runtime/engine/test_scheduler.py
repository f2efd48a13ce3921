from __future__ import annotations

import pytest

from runtime.base.errors import Busy
from runtime.base.events import ignore
from runtime.base.types import SamplingParams
from runtime.engine.backend import CHUNK
from runtime.engine.scheduler import Reading, Scheduler, Ticket, WaitingQueue
from runtime.engine.sequence import Request, Sequence
from runtime.engine.template import Prompt


def ticket(prompt: str = "question?", client: str = "", number: int = 0) -> Ticket:
    request = Request(Prompt(tuple(prompt.encode())), SamplingParams(), sample=number)
    return Ticket(Sequence(request, lambda row: 256, lambda markers: [], []), ignore, client)


def reading(prompt: str, slot: int = 0, done: int = 0) -> Reading:
    return Reading(ticket(prompt), tuple(prompt.encode()), slot, done)


def drawing(scheduler: Scheduler, slot: int) -> Ticket:
    one = ticket("abcd")
    one.sequence.enter(slot, 3)
    scheduler.enter(one)
    return one


# The queue


def test_clients_take_turns_and_each_is_served_in_order() -> None:
    queue = WaitingQueue()
    for client, number in (("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5)):
        queue.add(ticket(client=client, number=number))
    order = []
    while len(queue):
        first = next(iter(queue))
        order.append(first.sequence.request.sample)
        queue.take(first)
    assert order == [1, 4, 5, 2, 3]


def test_who_is_put_back_is_the_first_of_its_client() -> None:
    queue = WaitingQueue()
    queue.add(ticket(client="a", number=1))
    queue.put_back(ticket(client="a", number=2))
    assert [each.sequence.request.sample for each in queue] == [2, 1]


def test_a_full_queue_refuses() -> None:
    queue = WaitingQueue(most=2)
    queue.add(ticket())
    queue.add(ticket())
    with pytest.raises(Busy, match="the queue is full: it has 2 requests"):
        queue.add(ticket())


# The batch


def test_who_draws_goes_first_and_a_prompt_fills_at_most_a_chunk() -> None:
    scheduler = Scheduler(slots=4, batch_size=512, chunk_size=CHUNK)
    one, other = drawing(scheduler, 0), drawing(scheduler, 1)
    scheduler.reading.append(reading("x" * 400, slot=2))
    batch, draws = scheduler.next_batch()
    assert draws == [one, other]
    assert (batch.outputs, batch.slots) == ([0, 1], [0, 1] + [2] * CHUNK)


def test_a_prompt_has_the_whole_batch_while_nobody_draws() -> None:
    scheduler = Scheduler(slots=4, batch_size=512, chunk_size=CHUNK)
    scheduler.reading += [reading("x" * 400, slot=0), reading("y" * 400, slot=1)]
    batch, draws = scheduler.next_batch()
    assert draws == []
    assert batch.slots == [0] * 399 + [1] * 113
    assert [(each.slot, each.done) for each in scheduler.decoded()] == [(0, 399), (1, 113)]


def test_a_batch_ends_where_somebody_wants_to_begin() -> None:
    scheduler = Scheduler(slots=4, batch_size=512, chunk_size=CHUNK)
    first = reading("the same beginning, one end")
    scheduler.reading.append(first)
    assert scheduler.waits_for(tuple(b"the same beginning, another"), 0)
    batch, _ = scheduler.next_batch()
    assert bytes(batch.tokens) == b"the same beginning, "
    scheduler.decoded()
    assert not scheduler.waits_for(tuple(b"the same beginning, another"), len("the same beginning, "))


def test_nobody_waits_for_less_than_it_is_worth() -> None:
    scheduler = Scheduler(slots=4, batch_size=512, chunk_size=CHUNK)
    scheduler.reading.append(reading("the same, one end"))
    assert not scheduler.waits_for(tuple(b"the same, another"), 0, worth=64)
    assert scheduler.reading[0].stops == set()


def test_a_batch_that_is_full_of_pending_tokens_reads_nothing() -> None:
    scheduler = Scheduler(slots=4, batch_size=2, chunk_size=CHUNK)
    drawing(scheduler, 0)
    drawing(scheduler, 1)
    scheduler.reading.append(reading("xyz", slot=2))
    batch, _ = scheduler.next_batch()
    assert batch.slots == [0, 1]


# Entering and leaving


def test_who_reads_takes_a_place_too() -> None:
    scheduler = Scheduler(slots=2, batch_size=8, chunk_size=CHUNK)
    drawing(scheduler, 0)
    assert not scheduler.full
    scheduler.reading.append(reading("xyz", slot=1))
    assert scheduler.full


def test_a_full_cache_sends_readers_back_first_and_then_the_younger_half() -> None:
    scheduler = Scheduler(slots=8, batch_size=8, chunk_size=CHUNK)
    drawers = [drawing(scheduler, slot) for slot in range(4)]
    scheduler.reading.append(reading("xyz", slot=5))
    assert scheduler.preempt() == [5]
    assert scheduler.drawing == drawers
    assert scheduler.preempt() == [2, 3]
    assert [*scheduler.waiting][:2] == drawers[2:]
    assert scheduler.preempt() == [1]
    assert scheduler.preempt() == []
    assert scheduler.full  # nobody enters until the last one is done
    scheduler.remove(drawers[0])
    assert not scheduler.full


def test_the_cells_that_are_spoken_for() -> None:
    scheduler = Scheduler(slots=8, batch_size=8, chunk_size=CHUNK)
    drawing(scheduler, 0)
    scheduler.reading.append(reading("x" * 10, slot=1, done=4))
    assert scheduler.reserved == 1 + 6


def test_only_a_single_sample_is_alone() -> None:
    scheduler = Scheduler(slots=8, batch_size=8, chunk_size=CHUNK)
    assert scheduler.alone() is None
    one = drawing(scheduler, 0)
    assert scheduler.alone() is one
    scheduler.reading.append(reading("xyz", slot=1))
    assert scheduler.alone() is None
