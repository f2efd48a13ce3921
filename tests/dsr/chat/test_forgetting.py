"""What a prompt leaves out of a conversation that outgrows the context."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr.chat.forgetting import NOTHING, Forgotten, exchanges, forget, prompt_limit, remaining
from runtime.base.types import Message

NOTES = "[file name]: notes.txt\n[file content begin]\nmilk\n[file content end]\n"


def talk(*said: str) -> list[Message]:
    return [Message("assistant" if number % 2 else "user", text) for number, text in enumerate(said)]


@pytest.mark.parametrize(
    ("longest", "context", "max_tokens", "together", "limit"),
    [
        (8192, 8192, None, 1, 6144),
        (8192, 8192, 1000, 1, 7192),
        (8192, 8192, 6000, 1, 4096),  # half stays for the prompt
        (8192, 32768, None, 8, 6144),
        (8192, 8192, 500, 8, 6144),  # eight samples need 256 tokens each
        (2048, 2048, None, 8, 1024),
        (2, 2, None, 1, 2),
    ],
)
def test_the_longest_prompt_after_which_an_answer_has_room(
    longest: int, context: int, max_tokens: int | None, together: int, limit: int
) -> None:
    assert prompt_limit(longest, context, max_tokens, together) == limit


def plan(lengths: list[int], limit: int, before: Forgotten = NOTHING) -> tuple[int, int]:
    """`lengths[k]`: of the prompt without the oldest k exchanges."""
    now = forget(lengths.__getitem__, before, len(lengths) - 1, limit)
    return now.exchanges, now.tokens


def test_nothing_goes_while_the_prompt_fits() -> None:
    assert plan([750, 400, 100], limit=750) == (0, 0)
    assert plan([900], limit=750) == (0, 0)  # a first question: there is nothing to forget


def test_the_oldest_go_until_half_of_the_room_is_free() -> None:
    # 100 tokens always stay, so exchanges may take 650: those that stay take 325.
    assert plan([800, 700, 600, 500, 425, 300, 100], limit=750) == (4, 375)
    assert plan([800, 700, 600, 500, 426, 300, 100], limit=750) == (5, 500)


def test_what_went_stays_forgotten_and_is_counted_on() -> None:
    before = Forgotten(2, 200, "They spoke of milk.")
    assert forget([0, 0, 700, 100].__getitem__, before, 3, 750) is before
    assert forget([0, 0, 800, 400, 100].__getitem__, before, 4, 750) == Forgotten(3, 600, "They spoke of milk.")


def test_the_newest_exchange_stays_if_it_fits_at_all() -> None:
    assert plan([800, 600, 100], limit=750) == (1, 200)
    assert plan([2000, 800, 100], limit=750) == (2, 1900)
    assert plan([800, 100], limit=750) == (1, 700)


def test_long_files_leave_what_room_they_leave() -> None:
    assert plan([900, 880, 860, 820], limit=750) == (3, 80)
    assert plan([760, 750, 720, 700, 690], limit=750) == (2, 40)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=12), st.integers(0, 3000), st.integers(1, 4000), st.data())
def test_a_plan_is_consistent(sizes: list[int], least: int, limit: int, data: st.DataObject) -> None:
    lengths = [least + sum(sizes[k:]) for k in range(len(sizes) + 1)]
    gone = data.draw(st.integers(0, len(sizes)))
    now = forget(lengths.__getitem__, Forgotten(gone, 7), len(sizes), limit)
    assert gone <= now.exchanges <= len(sizes)
    assert now.tokens == 7 + lengths[gone] - lengths[now.exchanges]
    if lengths[gone] <= limit:
        assert now.exchanges == gone
    elif lengths[-1] <= limit:
        assert lengths[now.exchanges] <= limit
    else:
        assert now.exchanges == len(sizes)


def test_only_answered_questions_are_exchanges() -> None:
    assert exchanges(talk("a", "A", "b")) == 1
    assert exchanges(talk("a", "A", "b", "", "c")) == 1
    assert exchanges([]) == 0


def test_the_oldest_exchanges_are_left_out() -> None:
    turns = talk("a", "A", "b", "", "c", "C", "d")
    assert remaining(turns, NOTHING) == turns
    assert remaining(turns, Forgotten(1)) == talk("c", "C", "d")
    assert remaining(turns, Forgotten(2)) == talk("d")


def test_files_and_a_summary_stand_before_the_first_question_that_is_left() -> None:
    turns = talk(NOTES + "a", "A", "b", "B", "c")
    assert remaining(turns, Forgotten(1)) == talk(NOTES + "b", "B", "c")
    summary = "[summary of the earlier conversation begin]\n{milk}\n[summary of the earlier conversation end]\n"
    assert remaining(turns, Forgotten(1, 9, "{milk}")) == talk(NOTES + summary + "b", "B", "c")
    assert remaining(turns, Forgotten(2, 9, "{milk}")) == talk(NOTES + summary + "c")


def test_the_words_for_what_went() -> None:
    assert str(Forgotten(3, 1204)) == "the 3 oldest exchanges (1,204 tokens)"
    assert str(Forgotten(4, 1304).since(Forgotten(3, 1204))) == "the oldest exchange (100 tokens)"
