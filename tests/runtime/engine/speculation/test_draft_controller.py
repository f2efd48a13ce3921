"""What drafts are worth, measured while it happens."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from runtime.base.events import TextDrawn
from runtime.engine.backend import Batch
from runtime.engine.engine import Engine
from runtime.engine.speculation import LONGEST_DRAFT, DraftController, ModelDrafter
from tests.fakes import END, FakeBackend
from tests.runtime.engine.speculation.drafting import PROMPT, request


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def step(controller: DraftController, clock: Clock, drafted: int, tokens: int, seconds: float) -> None:
    controller.start()
    clock.time += seconds
    controller.done(drafted, tokens)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def controller(clock: Clock) -> DraftController:
    """One that knows what a token takes: a second."""
    made = DraftController(clock)
    for _ in range(3):
        step(made, clock, 0, 1, 1.0)
    return made


SURE = [0.98] * LONGEST_DRAFT


def test_first_it_is_measured_what_a_token_takes(clock: Clock) -> None:
    controller = DraftController(clock)
    for _ in range(3):
        assert controller.worth(SURE) == 0
        step(controller, clock, 0, 1, 1.0)
    assert controller.worth(SURE) == LONGEST_DRAFT


def test_unlikely_guesses_are_not_checked(controller: DraftController) -> None:
    assert controller.worth([0.5] * 8) == 0
    assert controller.worth([]) == 0


def test_a_draft_ends_where_its_tokens_become_unlikely(controller: DraftController) -> None:
    assert controller.worth([0.99] * 8 + [0.2] * 7) == 8


def test_drafts_are_longer_where_checking_is_cheap(controller: DraftController, clock: Clock) -> None:
    chances = [0.85] * LONGEST_DRAFT
    before = controller.worth(chances)
    for drafted in (2, 8, 12, 4) * 5:
        step(controller, clock, drafted, drafted + 1, 1.0 + 0.02 * drafted)
    step(controller, clock, 0, 1, 1.0)
    assert controller.worth(chances) > before


def test_no_drafts_where_checking_costs_as_much_as_drawing(controller: DraftController, clock: Clock) -> None:
    for drafted in (2, 8, 12, 4) * 3:
        step(controller, clock, drafted, drafted + 1, 1.0 + drafted)
    step(controller, clock, 0, 1, 1.0)
    assert controller.worth(SURE) == 0


def test_wrong_drafts_soon_use_up_the_advance(controller: DraftController, clock: Clock) -> None:
    wasted = 0
    while controller.worth(SURE):
        step(controller, clock, 8, 1, 3.0)
        wasted += 1
    assert wasted == 3  # two seconds each, of four and a little
    assert controller.off_after is None


def test_drafts_that_do_not_pay_are_switched_off_after_two_hundred_tokens(
    controller: DraftController, clock: Clock
) -> None:
    while controller.worth(SURE):
        step(controller, clock, 8, 1, 3.0)
    tokens = 6
    while controller.off_after is None:
        step(controller, clock, 0, 1, 1.0)
        tokens += 1
    assert tokens == controller.off_after == 200
    assert controller.worth(SURE) == 0
    controller.begin()
    assert controller.off_after is None


def test_drafts_that_pay_stay(controller: DraftController, clock: Clock) -> None:
    for _ in range(100):
        step(controller, clock, 8, 9, 3.0)
        step(controller, clock, 0, 1, 1.0)
    assert controller.off_after is None
    assert controller.worth(SURE) >= 8


def test_no_drafts_are_no_loss(controller: DraftController, clock: Clock) -> None:
    for _ in range(1000):
        step(controller, clock, 0, 1, 1.0)
    assert controller.off_after is None


def test_a_fiftieth_of_the_time_is_for_learning(controller: DraftController, clock: Clock) -> None:
    learnt = []
    for number in range(1900):
        controller.start()
        if controller.may_learn():
            clock.time += 0.25
            controller.learnt()
            learnt.append(number)
        clock.time += 1.0
        controller.done(0, 1)
    # 32 guesses in a row take eight seconds, for which 400 seconds pay; the first ones need 200 in advance.
    lessons = [number for number in learnt if number - 1 not in learnt]
    assert len(learnt) == 32 * len(lessons)
    assert lessons == [197, 597, 997, 1397, 1797]
    assert controller.worth(SURE) > 0  # and all that is no loss by drafts


def test_there_is_nothing_to_learn_where_a_sure_draft_would_not_pay(controller: DraftController, clock: Clock) -> None:
    for _ in range(60):
        step(controller, clock, 4, 5, 5.0)
        step(controller, clock, 12, 13, 13.0)
        step(controller, clock, 0, 1, 1.0)
    controller.start()
    assert not controller.may_learn()


def test_what_a_token_takes_is_measured_again_now_and_then(controller: DraftController, clock: Clock) -> None:
    for _ in range(16):
        assert controller.worth(SURE) > 0
        step(controller, clock, 8, 9, 3.0)
    assert controller.worth(SURE) == 0
    step(controller, clock, 0, 1, 1.0)
    assert controller.worth(SURE) > 0


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


def test_an_interruption_is_no_price(controller: DraftController, clock: Clock) -> None:
    step(controller, clock, 8, 9, 1000.0)
    for _ in range(3):
        step(controller, clock, 0, 1, 1.0)
    assert controller.worth(SURE) > 0
