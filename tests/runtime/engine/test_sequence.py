from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, count, islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.engine.loop_detector import LoopDetector


def caught_at(tokens: Iterable[int]) -> int | None:
    """After how many tokens the detector speaks up."""
    detector = LoopDetector()
    return next((number for number, token in enumerate(tokens, 1) if detector.feed(token)), None)


def words(text: str) -> list[int]:
    """A token per character: harder than real text, whose numbers and words are fewer and rarer tokens."""
    return [ord(c) for c in text]


@pytest.mark.parametrize(
    ("period", "latest"), [(1, 336), (2, 336), (7, 336), (16, 336), (80, 336), (120, 496), (200, 816), (256, 1040)]
)
def test_a_true_loop_is_caught_within_a_few_copies(period: int, latest: int) -> None:
    thought = range(1000, 1500)
    looped = islice(chain.from_iterable(range(period) for _ in count()), 4000)
    at = caught_at([*thought, *looped])
    assert at is not None
    assert 500 + 304 <= at <= 500 + latest


def test_a_loop_whose_phrase_repeats_words_inside_is_caught() -> None:
    phrase = words("wait, wait, no. wait, wait, yes. wait, wait, no. ")
    assert caught_at(phrase * 10) is not None


def test_a_loop_that_began_after_a_long_thought_is_caught() -> None:
    assert caught_at([*range(100_000), *([7, 8, 9] * 110)]) == 100_000 + 320


def test_three_copies_are_not_yet_a_loop() -> None:
    assert caught_at([*range(1000), *list(range(150)) * 3, *range(2000, 2400)]) is None


def test_a_repetition_that_stops_in_time_is_no_loop() -> None:
    assert caught_at([*range(1000), *[5] * 300, *range(2000, 2400)]) is None


def test_one_changing_token_per_round_is_progress() -> None:
    assert caught_at(chain.from_iterable([1, 2, 3, 4, 5, 6, 7, 100 + n] for n in range(200))) is None


@pytest.mark.parametrize(
    "text",
    [
        ", ".join(str(n) for n in range(1, 101)),
        "\n".join(f"| {a} | {b} | {a * b} |" for a, b in product(range(1, 13), repeat=2)),
        "| --- | --- | --- | --- |\n" * 8,
        "- yes\n" * 50,
        "=" * 120 + "\nresult\n" + "=" * 120,
        "0 0 0 0 0 0 0 0\n" * 16,
        "\n".join(f"{'UHTO'[n % 4]}:{n % 10}+{n * 7 % 10}={n * 8 % 20},carry{n % 2}=>{n * 8 % 10}" for n in range(90)),
        "\n".join(f"Step {n}: check whether {n} divides 9991; it does not." for n in range(2, 60)),
    ],
    ids=["counting", "table", "rules", "short lines", "dashes", "zeros", "carries", "steps"],
)
def test_honest_structure_is_left_alone(text: str) -> None:
    assert caught_at(words(text)) is None


@settings(max_examples=50, deadline=None)
@given(
    noise=st.lists(st.integers(0, 2), max_size=400),
    phrase=st.lists(st.integers(0, 2), min_size=1, max_size=120),
    length=st.integers(0, 700),
)
def test_the_detector_says_what_a_plain_search_says(noise: list[int], phrase: list[int], length: int) -> None:
    tokens = [*noise, *islice(chain.from_iterable(phrase for _ in count()), length)]
    detector = LoopDetector()
    for number, token in enumerate(tokens, 1):
        if number % 16:
            assert not detector.feed(token)
        else:
            assert detector.feed(token) == in_a_loop(tokens[:number])


def in_a_loop(tokens: list[int]) -> bool:
    return any(
        len(tokens) >= (span := max(320, 4 * period)) and tokens[period - span :] == tokens[-span:-period]
        for period in range(1, 257)
    )
