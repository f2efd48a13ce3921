"""What drafts are worth, measured while it happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.base.events import TextDrawn
from runtime.engine.backend import Batch
from runtime.engine.engine import Engine
from runtime.engine.speculation import LONGEST_DRAFT, ModelDrafter, Pace
from tests.fakes import END, FakeBackend
from tests.runtime.engine.speculation.drafting import PROMPT, request


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def step(pace: Pace, clock: Clock, drafted: int, tokens: int, seconds: float) -> None:
    pace.start()
    clock.time += seconds
    pace.done(drafted, tokens)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    """One that knows what a token takes: a second."""
    made = Pace(clock)
    for _ in range(3):
        step(made, clock, 0, 1, 1.0)
    return made


SURE = [0.98] * LONGEST_DRAFT


def test_first_it_is_measured_what_a_token_takes(clock: Clock) -> None:
    pace = Pace(clock)
    for _ in range(3):
        assert pace.worth(SURE) == 0
        step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) == LONGEST_DRAFT


def test_unlikely_guesses_are_not_checked(pace: Pace) -> None:
    assert pace.worth([0.5] * 8) == 0
    assert pace.worth([]) == 0


def test_a_draft_ends_where_its_tokens_become_unlikely(pace: Pace) -> None:
    assert pace.worth([0.99] * 8 + [0.2] * 7) == 8


def test_drafts_are_longer_where_checking_is_cheap(pace: Pace, clock: Clock) -> None:
    chances = [0.85] * LONGEST_DRAFT
    before = pace.worth(chances)
    for drafted in (2, 8, 12, 4) * 5:
        step(pace, clock, drafted, drafted + 1, 1.0 + 0.02 * drafted)
    step(pace, clock, 0, 1, 1.0)
    assert pace.worth(chances) > before


def test_no_drafts_where_checking_costs_as_much_as_drawing(pace: Pace, clock: Clock) -> None:
    for drafted in (2, 8, 12, 4) * 3:
        step(pace, clock, drafted, drafted + 1, 1.0 + drafted)
    step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) == 0


def test_wrong_drafts_soon_use_up_the_advance(pace: Pace, clock: Clock) -> None:
    wasted = 0
    while pace.worth(SURE):
        step(pace, clock, 8, 1, 3.0)
        wasted += 1
    assert wasted == 3  # two seconds each, of four and a little
    assert pace.off_after is None


def test_drafts_that_do_not_pay_are_switched_off_after_two_hundred_tokens(pace: Pace, clock: Clock) -> None:
    while pace.worth(SURE):
        step(pace, clock, 8, 1, 3.0)
    tokens = 6
    while pace.off_after is None:
        step(pace, clock, 0, 1, 1.0)
        tokens += 1
    assert tokens == pace.off_after == 200
    assert pace.worth(SURE) == 0
    pace.begin()
    assert pace.off_after is None


def test_drafts_that_pay_stay(pace: Pace, clock: Clock) -> None:
    for _ in range(100):
        step(pace, clock, 8, 9, 3.0)
        step(pace, clock, 0, 1, 1.0)
    assert pace.off_after is None
    assert pace.worth(SURE) >= 8


def test_no_drafts_are_no_loss(pace: Pace, clock: Clock) -> None:
    for _ in range(1000):
        step(pace, clock, 0, 1, 1.0)
    assert pace.off_after is None


def test_a_fiftieth_of_the_time_is_for_learning(pace: Pace, clock: Clock) -> None:
    learnt = []
    for number in range(1900):
        pace.start()
        if pace.may_learn():
            clock.time += 0.25
            pace.learnt()
            learnt.append(number)
        clock.time += 1.0
        pace.done(0, 1)
    # 32 guesses in a row take eight seconds, for which 400 seconds pay; the first ones need 200 in advance.
    lessons = [number for number in learnt if number - 1 not in learnt]
    assert len(learnt) == 32 * len(lessons)
    assert lessons == [197, 597, 997, 1397, 1797]
    assert pace.worth(SURE) > 0  # and all that is no loss by drafts


def test_there_is_nothing_to_learn_where_a_sure_draft_would_not_pay(pace: Pace, clock: Clock) -> None:
    for _ in range(60):
        step(pace, clock, 4, 5, 5.0)
        step(pace, clock, 12, 13, 13.0)
        step(pace, clock, 0, 1, 1.0)
    pace.start()
    assert not pace.may_learn()


def test_what_a_token_takes_is_measured_again_now_and_then(pace: Pace, clock: Clock) -> None:
    for _ in range(16):
        assert pace.worth(SURE) > 0
        step(pace, clock, 8, 9, 3.0)
    assert pace.worth(SURE) == 0
    step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) > 0


def test_drafts_that_were_wrong_are_tried_again_when_they_would_be_right(clock: Clock) -> None:
    class Ticking(FakeBackend):
        """A step takes so many seconds, and a tenth of that more for each further token."""

        def __init__(self, speak: Callable[[list[int], int], int], seconds: float) -> None:
            super().__init__(speak, context=2048)
            self._seconds = seconds

        def decode(self, batch: Batch) -> None:
            clock.time += self._seconds * (1 + 0.1 * (len(batch.tokens) - 1))
            super().decode(batch)

    reply, wrong_until = "abcdefghij" * 150, 800

    def speak(held: list[int], seed: int) -> int:
        said = len(held) - len(PROMPT)
        return ord(reply[said]) if said < len(reply) else END

    def blunder(held: list[int], seed: int) -> int:
        return speak(held, seed) if len(held) - len(PROMPT) >= wrong_until else ord("y")

    engine = Engine(Ticking(speak, 1.0), drafter=ModelDrafter(Ticking(blunder, 0.1), vocabulary=256), now=clock)
    drawn_at = []
    for event in engine.stream([request()]):
        if isinstance(event, TextDrawn):
            drawn_at += [clock.time] * len(event.text)
    drafts = engine.take_drafts()
    assert drafts is not None
    # One draft is wrong. To learn takes a fiftieth of the time, and no more than four steps in advance.
    assert drafts.drafted - drafts.accepted <= 2 * LONGEST_DRAFT
    assert drawn_at[wrong_until - 1] < 1.02 * wrong_until + 4 + 12
    # Later drafts are right, and found out to be.
    assert drafts.off is None
    assert drafts.accepted > 300
    assert drawn_at[-1] - drawn_at[wrong_until] < 0.7 * (len(reply) - wrong_until)


def test_an_interruption_is_no_price(pace: Pace, clock: Clock) -> None:
    step(pace, clock, 8, 9, 1000.0)
    for _ in range(3):
        step(pace, clock, 0, 1, 1.0)
    assert pace.worth(SURE) > 0
