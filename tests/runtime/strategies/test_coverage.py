"""pass@k against figures counted by hand and against every choice of samples."""

from __future__ import annotations

from itertools import combinations

import pytest

from runtime.strategies.coverage import pass_at_k


@pytest.mark.parametrize(
    ("n", "correct", "k", "share"),
    [
        (4, 1, 1, 0.25),
        (4, 1, 2, 0.5),
        (4, 2, 2, 5 / 6),
        (5, 2, 3, 0.9),
        (8, 0, 8, 0.0),
        (8, 1, 8, 1.0),
        (8, 6, 3, 1.0),
        (10, 3, 2, 8 / 15),
        (10_000, 1, 1000, 0.1),
    ],
)
def test_it_is_the_share_of_choices_with_a_right_one(n: int, correct: int, k: int, share: float) -> None:
    assert pass_at_k(n, correct, k) == share


def test_it_agrees_with_every_choice() -> None:
    for n in range(1, 8):
        for correct in range(n + 1):
            for k in range(1, n + 1):
                choices = list(combinations(range(n), k))
                right = sum(min(choice) < correct for choice in choices)
                assert pass_at_k(n, correct, k) == pytest.approx(right / len(choices), abs=1e-12)


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 5, 1), (4, -1, 1), (4, 1, 0), (4, 1, 5), (0, 0, 1)])
def test_what_cannot_be_told_is_refused(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="cannot be told"):
        pass_at_k(n, correct, k)
