"""The model sums up the oldest exchanges before they are forgotten."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import prompts
from dsr.chat import recap
from dsr.chat.forgetting import NOTHING, Forgotten
from dsr.chat.recap import Recap, longest_summary, sum_up
from runtime.base.errors import Aborted
from runtime.base.events import Event, Progress, TextDrawn
from runtime.base.types import Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.sequence import Request
from runtime.engine.template import Prompt
from tests.fakes import END, FakeBackend

ORDER = prompts.read("summary-request")
TURNS = [
    Message("assistant" if number % 2 else "user", text * 60) for number, text in enumerate(("a", "A", "b", "B", "c"))
]


def make_request(said: list[Message]) -> Request:
    text = "\n".join(f"{turn.role}: {turn.content}" for turn in said) + "\nassistant:"
    return Request(Prompt(tuple(text.encode()), text=text), SamplingParams(max_tokens=20))


class Model:
    """Answers each prompt with the next of `replies`; `asked` are the prompts."""

    def __init__(self, *replies: str) -> None:
        self.asked: list[str] = []
        self._replies = list(replies)
        self.backend = FakeBackend(self._speak, context=4000)
        self.engine = Engine(self.backend)

    def _speak(self, held: list[int], seed: int) -> int:
        prompt, _, said = bytes(held).decode().rpartition("assistant:")
        if not said:
            self.asked.append(prompt)
        reply = self._replies[len(self.asked) - 1].encode()
        return reply[len(said)] if len(said) < len(reply) else END

    def sum_up(self, before: Forgotten, count: int, limit: int = 4000) -> tuple[Recap, list[Event]]:
        drawing = sum_up(TURNS, before, count, make_request, limit, self.engine)
        events: list[Event] = []
        while True:
            try:
                events.append(next(drawing))
            except StopIteration as end:
                return end.value, events


def test_a_summary_takes_a_page_at_most_and_an_eighth_of_a_short_context() -> None:
    assert [longest_summary(longest) for longest in (2048, 4096, 131072)] == [256, 512, 512]


def test_the_conversation_is_continued_with_the_order_to_sum_it_up() -> None:
    model = Model(" Notes. \n")
    found, events = model.sum_up(NOTHING, 2)
    assert found == Recap("Notes.")
    said = "\n".join(f"{turn.role}: {turn.content}" for turn in TURNS[:4])
    assert model.asked == [f"{said}\nuser: {ORDER}\n"]
    assert not any(isinstance(event, TextDrawn) for event in events)
    summing = [event for event in events if isinstance(event, Progress) and event.job.startswith("summing up")]
    assert summing[0].done == 1 and summing[-1].finished and not any(event.finished for event in summing[:-1])


def test_an_earlier_summary_becomes_part_of_the_next() -> None:
    model = Model("Both.")
    assert model.sum_up(Forgotten(1, 40, "First."), 2)[0] == Recap("Both.")
    assert "First." in model.asked[0] and "aaaa" not in model.asked[0]


def test_more_than_the_context_holds_is_summed_up_in_parts() -> None:
    model = Model("One.", "Both.")
    one = len(make_request([*TURNS[:2], Message("user", ORDER)]).prompt.tokens)
    # A second exchange takes 140 tokens more, a summary with its layout 103.
    assert model.sum_up(NOTHING, 2, one + 120)[0] == Recap("Both.")
    first, second = model.asked
    assert "aaaa" in first and "bbbb" not in first
    assert "aaaa" not in second and "One." in second and "bbbb" in second


def test_an_exchange_that_is_too_long_ends_it() -> None:
    model = Model("One.")
    assert model.sum_up(NOTHING, 2, 60)[0] == Recap("", "an exchange is too long for a summary")
    assert model.asked == []


@pytest.mark.parametrize("reply", ["", " \n"])
def test_an_empty_summary_is_none(reply: str) -> None:
    assert Model(reply).sum_up(Forgotten(1, 40, "First."), 2)[0] == Recap("First.", "the summary came out empty")


def stopping(model: Model) -> Callable[[list[int], int], int]:
    speak = model.backend._speak

    def speaking(held: list[int], seed: int) -> int:
        model.backend.stop.set()
        return speak(held, seed)

    return speaking


def test_ctrl_c_ends_the_summary_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model("Notes.", "Notes.")
    model.backend._speak = stopping(model)
    assert model.sum_up(NOTHING, 2)[0] == Recap("", "the summary was stopped")
    monkeypatch.setattr(recap, "is_ending", lambda: True)
    with pytest.raises(Aborted):
        model.sum_up(NOTHING, 2)
