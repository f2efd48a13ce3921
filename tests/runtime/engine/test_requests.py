"""Requests that come at any time: what is read for them, who waits for whom, and 1,000 random schedules."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field, replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.base.errors import Busy, DoesNotFit, EngineFailed
from runtime.base.events import Event, Interrupted, Progress, SampleFinished, TextDrawn, ignore
from runtime.base.types import Completion, SamplingParams
from runtime.engine import host_cache, prefix_cache, prefix_plan
from runtime.engine.backend import CHUNK, Batch, PassProgress
from runtime.engine.engine import Engine
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from tests.fakes import END, FakeBackend, saying


def request(
    text: str, sample: int = 0, branches: tuple[int, ...] = (), keep: bool = False, **params: object
) -> Request:
    prompt = Prompt(tuple(text.encode()), branches=branches)
    return Request(prompt, SamplingParams(**params), sample=sample, keep_reply=keep)  # type: ignore[arg-type]


def run(engine: Engine, *asked: Request) -> list[Completion]:
    """Submit requests one after the other, and step until all are done."""
    events: list[Event] = []
    for each in asked:
        engine.submit(each, events.append)
    while engine.busy:
        engine.step()
    return [event.completion for event in events if isinstance(event, SampleFinished)]


# Reading


def test_a_turn_begins_behind_the_answer_before_it() -> None:
    backend = FakeBackend(saying("Four.", after="? "))
    engine = Engine(backend)
    run(engine, request("2+2? ", keep=True))
    before = backend.decoded
    [completion] = run(engine, request("2+2? Four. And 3+3? "))
    assert backend.decoded - before == len(" And 3+3? ") + len("Four.")
    assert completion.cached == len("2+2? Four.")


def test_a_reply_that_nobody_keeps_leaves_its_cells() -> None:
    backend = FakeBackend(saying("Four.", after="? "))
    run(Engine(backend), request("2+2? "))
    assert backend.cells() == len("2+2? ") - 1


def test_a_reply_with_a_thought_leaves_its_cells_since_later_prompts_leave_it_out() -> None:
    tags = ThinkingMarkers("<think>", "</think>")
    backend = FakeBackend(saying("<think>two and two</think>Four.", after="? "))
    run(Engine(backend), replace(request("2+2? ", keep=True), markers=tags))
    assert backend.cells() == len("2+2? ") - 1


def test_the_same_prompt_again_costs_its_last_token() -> None:
    backend = FakeBackend(saying("x", after="? "))
    engine = Engine(backend)
    run(engine, request("Question? "))
    before = backend.decoded
    [completion] = run(engine, request("Question? ", sample=1))
    assert backend.decoded - before == 1 + len("x")
    assert completion.cached == len("Question? ") - 1


def test_what_was_cached_is_counted_by_what_was_decoded() -> None:
    backend = FakeBackend(saying("x", after="? "), slots=2)
    first, second = run(Engine(backend), request("Question? "), request("Question? ", sample=1))
    assert (first.cached, second.cached) == (0, len("Question? ") - 1)


def test_a_recurrent_model_reads_a_conversation_once() -> None:
    """Every turn's prompt parts from the one before at the header of the answer, as the thought is left out."""
    backend = FakeBackend(lambda held, seed: END, goes_back=0, sequences=2)
    engine = Engine(backend)
    text, decoded = "system ", []
    for letter in "abc":
        text += letter * 100
        before = backend.decoded
        run(engine, request(text + "think:", branches=(7, len(text))))
        decoded.append(backend.decoded - before)
        text += "answer: yes "
    new = len("answer: yes ") + 100 + len("think:")
    assert decoded == [len("system ") + 100 + len("think:"), new, new]


def test_a_recurrent_model_reads_a_file_once_for_several_questions() -> None:
    backend = FakeBackend(lambda held, seed: END, goes_back=0, sequences=2)
    engine = Engine(backend)
    file = "f" * 300
    run(engine, request(file + "first? ", branches=(300, 306)))
    before = backend.decoded
    for question in ("second? ", "third? "):
        run(engine, request(file + question, branches=(300,)))
    assert backend.decoded - before == len("second? ") + len("third? ")


def test_votes_of_a_recurrent_model_fork_the_prompt() -> None:
    backend = FakeBackend(saying(*"abcd", after="? "), slots=4, goes_back=0)
    completions = run(Engine(backend), *(request("Question? ", sample=n) for n in range(4)))
    assert [each.answer for each in completions] == list("abcd")
    assert backend.decoded == len("Question? ") - 1 + 4 * 2


def batches_beside_an_answer(backend: FakeBackend, steps: int) -> list[int]:
    """The batches of so many steps in which a prompt of 1,002 tokens is read while an answer is drawn."""
    engine = Engine(backend)
    engine.submit(request("Question? "), ignore)
    for _ in range(5):
        engine.step()
    engine.submit(request("y" * 1000 + "? ", sample=1), ignore)
    before = len(backend.batches)
    for _ in range(steps):
        engine.step()
    return backend.batches[before:]


def test_a_running_answer_waits_for_one_chunk_at_most() -> None:
    backend = FakeBackend(saying("x" * 50, after="? "), slots=2, context=4000, batch_size=512)
    assert batches_beside_an_answer(backend, 5) == [CHUNK + 1] * 5


def test_a_model_from_the_disk_reads_a_prompt_in_whole_passes_beside_an_answer() -> None:
    backend = FakeBackend(saying("x" * 50, after="? "), slots=2, context=4000, batch_size=512, chunk_size=512)
    assert batches_beside_an_answer(backend, 2) == [512, 491]  # each with a token of the answer


class Slow(FakeBackend):
    """Tells how far each pass has come, in the middle of it."""

    def __init__(self, progress: PassProgress, **options: Any) -> None:
        super().__init__(saying("x", after="? "), **options)
        self._progress = progress

    def decode(self, batch: Batch) -> None:
        self._progress.listen(0.5)
        super().decode(batch)


def test_a_long_pass_tells_how_far_the_prompt_is_read_while_it_is_computed() -> None:
    progress, heard, told = PassProgress(), list[Event](), list[Event]()
    engine = Engine(Slow(progress, batch_size=64), pass_progress=progress, meanwhile=heard.append)
    engine.submit(request("y" * 99 + "? "), told.append)
    while engine.busy:
        engine.step()
    half, whole = (Progress("reading the prompt", "", done, 100, "tokens") for done in (32, 64 + 18))
    assert heard == [half, whole]
    assert [each.done for each in told if isinstance(each, Progress)] == [0, 32, 64, 82, 100]


def test_a_stream_hears_it_meanwhile_and_not_again_behind_the_pass() -> None:
    progress, heard = PassProgress(), list[Event]()
    engine = Engine(Slow(progress, batch_size=64), pass_progress=progress, meanwhile=heard.append)
    events = list(engine.stream([request("y" * 99 + "? ")]))
    assert [each.done for each in heard if isinstance(each, Progress)] == [32, 82]
    assert [each.done for each in events if isinstance(each, Progress)] == [0, 64, 100]


def test_two_prompts_with_the_same_file_read_it_once_while_the_first_is_still_read() -> None:
    backend = FakeBackend(saying("x", after="? "), slots=2, batch_size=64)
    engine = Engine(backend)
    file = "f" * 300
    engine.submit(request(file + "one? "), ignore)
    engine.step()
    run(engine, request(file + "two? ", sample=1))
    assert backend.decoded == 300 + len("one? ") + len("two? ") + 2 * len("x")


def test_what_is_needed_least_recently_makes_room() -> None:
    backend = FakeBackend(saying("x", after="? "), context=40)
    engine = Engine(backend)
    for name in "abc":
        run(engine, request(name * 15 + "? "))
    before = backend.decoded
    run(engine, request("c" * 15 + "? "))
    assert backend.decoded - before == 2
    run(engine, request("a" * 15 + "? "))
    assert backend.decoded - before == 2 + len("a" * 15 + "? ") + 1


# Requests and their events


def test_events_go_to_who_asked() -> None:
    engine = Engine(FakeBackend(saying("a", "b", after="? "), slots=2))
    one, other = list[Event](), list[Event]()
    engine.submit(request("Question? "), one.append)
    engine.submit(request("Question? ", sample=1), other.append)
    while engine.busy:
        engine.step()
    assert [event.text for event in one if isinstance(event, TextDrawn)] == ["a"]
    assert [event.text for event in other if isinstance(event, TextDrawn)] == ["b"]
    assert [event.done for event in one if isinstance(event, Progress)] == [0, 9]


def test_clients_take_turns() -> None:
    engine = Engine(FakeBackend(saying("x", after="? ")))
    ended: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, SampleFinished):
            ended.append(event.completion.sample)

    for number in range(3):
        engine.submit(request("Question? ", sample=number), listen, "greedy")
    engine.submit(request("Question? ", sample=9), listen, "modest")
    while engine.busy:
        engine.step()
    assert ended == [0, 9, 1, 2]


def test_a_request_is_withdrawn_wherever_it_is() -> None:
    backend = FakeBackend(saying("x" * 50, after="? "), slots=2, batch_size=8)
    engine = Engine(backend)
    events: list[Event] = []
    drawing = engine.submit(request("? "), events.append)
    for _ in range(3):
        engine.step()
    reading = engine.submit(request("y" * 100 + "? ", sample=1), events.append)
    waiting = engine.submit(request("z? ", sample=2), events.append)
    engine.step()
    for ticket in (drawing, reading, waiting):
        engine.withdraw(ticket)
    engine.step()
    assert not engine.busy
    ended = {e.completion.sample: e.completion.finish_reason for e in events if isinstance(e, SampleFinished)}
    assert ended == {0: "cancelled", 1: "cancelled", 2: "cancelled"}


def test_a_full_queue_refuses_and_a_long_prompt_too() -> None:
    engine = Engine(FakeBackend(saying("x", after="? "), context=20), most_waiting=1)
    engine.submit(request("? "), ignore)
    with pytest.raises(Busy, match="it has 1 request"):
        engine.submit(request("? "), ignore)
    with pytest.raises(DoesNotFit, match="the prompt is 30 tokens long"):
        engine.submit(request("y" * 30), ignore)


def test_an_abort_ends_every_request_and_each_listener_hears_it_once() -> None:
    backend = FakeBackend(saying("x" * 50, after="? "), slots=2)
    engine = Engine(backend)
    one, other = list[Event](), list[Event]()
    engine.submit(request("? "), one.append)
    engine.submit(request("? ", sample=1), one.append)
    engine.submit(request("? ", sample=2), other.append)
    backend.abort_after = 5
    while engine.busy:
        engine.step()
    assert engine.aborted
    for events, count in ((one, 2), (other, 1)):
        assert [type(event) for event in events].count(SampleFinished) == count
        assert isinstance(events[-1], Interrupted)
        assert [type(event) for event in events].count(Interrupted) == 1


def test_a_stream_is_drawn_while_other_requests_run() -> None:
    engine = Engine(FakeBackend(saying("abc", after="? "), slots=2))
    events: list[Event] = []
    engine.submit(request("one? "), events.append)
    assert [each.answer for each in engine.generate([request("two? ")])] == ["abc"]
    while engine.busy:
        engine.step()
    assert [event.completion.answer for event in events if isinstance(event, SampleFinished)] == ["abc"]


def test_an_engine_that_cannot_copy_a_sequence_says_so_and_can_be_used_again() -> None:
    class Broken(FakeBackend):
        broken = True

        def fork(self, source: int, target: int) -> None:
            if self.broken:
                raise EngineFailed("the engine cannot copy a sequence")
            super().fork(source, target)

    backend = Broken(saying("x", after="? "))
    engine = Engine(backend)
    engine.submit(request("Question? "), ignore)
    engine.submit(request("Other? "), ignore)
    with pytest.raises(EngineFailed, match="cannot copy"):
        while engine.busy:
            engine.step()
    assert not engine.busy
    with pytest.raises(EngineFailed, match="cannot copy"):
        engine.generate([request("Question? ")])
    assert not engine.busy
    backend.broken = False
    assert [each.answer for each in engine.generate([request("Question? ")])] == ["x"]


# Random schedules


def speak(held: list[int], seed: int) -> int:
    """Depends on all that was said, so that one wrong cell changes everything after it. Ends after 15 tokens or so."""
    drawn = hashlib.blake2b(bytes(token % 256 for token in held) + bytes([seed % 256]), digest_size=2).digest()
    return END if drawn[0] < 17 else ord("a") + drawn[1] % 4


WORDS = "abcdefghijklmnopqrstuvwxyz"
BEGINNINGS = (
    "",
    "system: be kind. ",
    "system: be kind. file: " + "f" * 23,
    "other ",
    "old: " + WORDS,
    "newer: " + WORDS,
)
QUESTIONS = ("a?", "why is that so?", "b" * 30, "c")


@dataclass
class Asked:
    request: Request
    events: list[Event] = field(default_factory=list)
    withdrawn: bool = False

    @property
    def completion(self) -> Completion:
        [completion] = [event.completion for event in self.events if isinstance(event, SampleFinished)]
        return completion


def alone(asked: Request) -> Completion:
    [completion] = Engine(FakeBackend(speak, context=2000, batch_size=512)).generate([asked])
    return completion


def check_cells(engine: Engine, backend: FakeBackend) -> None:
    """The engine knows which sequence holds which tokens in how many cells."""
    tree = engine._cache._tree
    assert tree.used == backend.cells() <= backend.context
    for sequence in range(backend.sequences):
        assert list(tree.tokens(sequence)) == backend.held(sequence)
    used = [(ticket.sequence.request, ticket.sequence.slot) for ticket in engine._scheduler.drawing]
    used += [(reading.ticket.sequence.request, reading.slot) for reading in engine._scheduler.reading]
    assert all(request.approximate or backend.is_exact(slot) for request, slot in used)


@patch.object(prefix_cache, "_WORTH_A_SPLICE", 1)
@patch.object(host_cache, "FEW_TOKENS", 1)
@patch.object(prefix_plan, "_STEP", 20)
@given(st.integers(0, 2**32), st.sampled_from([None, 0, 12]))
@settings(max_examples=1000, deadline=None)
def test_every_text_of_a_random_schedule_is_the_one_drawn_alone(seed: int, goes_back: int | None) -> None:
    rng = random.Random(seed)
    slots = rng.randint(1, 4)
    backend = FakeBackend(
        speak,
        slots=slots,
        context=rng.choice([80, 120, 400]),
        batch_size=rng.choice([3, 16, 64]),
        sequences=slots + rng.randint(1, 3),
        goes_back=goes_back,
    )
    room = backend.context
    if room > 80 and rng.random() < 0.3:
        room = backend.refuse_above = room - rng.randint(1, 40)
    engine = Engine(backend, most_checkpoints=rng.randint(0, 3), host_bytes=rng.choice([0, 300, 10_000]))
    moving = rng.random() < 0.4
    everything: list[Asked] = []
    tickets = []
    for number in range(rng.randint(1, 14)):
        for _ in range(rng.randint(0, 6)):
            engine.step()
            check_cells(engine, backend)
        if rng.random() < 0.3:
            engine.rest()
            check_cells(engine, backend)
        if tickets and rng.random() < 0.2:
            chosen = rng.randrange(len(tickets))
            engine.withdraw(tickets[chosen])
            everything[chosen].withdrawn = True
        if rng.random() < 0.1:
            backend.abort_after = len(backend.batches) + rng.randint(0, 4)
        text = rng.choice(BEGINNINGS[-2:] if moving else BEGINNINGS) + rng.choice(QUESTIONS)
        branches = {length for length in (17, 40, rng.randint(1, 60)) if length < len(text)}
        limit = rng.choice([None, 1, 5, 20])
        keep, seed_of = rng.random() < 0.5, rng.randint(0, 3)
        wanted = request(text, number, tuple(sorted(branches)), keep, seed=seed_of, max_tokens=limit)
        asked = Asked(replace(wanted, approximate=moving and rng.random() < 0.7))
        everything.append(asked)
        tickets.append(engine.submit(asked.request, asked.events.append, rng.choice("ab")))
    steps = 0
    while engine.busy:
        engine.step()
        if engine.aborted:
            backend.abort_after = None
        check_cells(engine, backend)
        steps += 1
        assert steps < 5000
    for asked in everything:
        completion, expected = asked.completion, alone(asked.request)
        assert completion.tokens == expected.tokens[: len(completion.tokens)]
        text = "".join(event.text for event in asked.events if isinstance(event, TextDrawn))
        assert text == completion.answer
        if completion.finish_reason == "stop":
            assert completion.tokens == expected.tokens
        elif completion.finish_reason == "cancelled":
            assert asked.withdrawn or any(isinstance(event, Interrupted) for event in asked.events)
        elif len(completion.tokens) != asked.request.params.max_tokens:
            # It ended with the context, which nobody else may have taken from it.
            assert len(asked.request.prompt.tokens) + len(completion.tokens) == room + 1
    assert not engine._cache._busy
