"""Soft self-consistency: the text that is nearest to the others."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.strategies import soft
from runtime.strategies.soft import SoftSettings, nearness
from tests.runtime.strategies.scripted import backend, drain, task

TEXTS = ("cats sleep", "cats nap", "dogs bark")


def test_nearness_is_the_mean_over_the_other_texts() -> None:
    # Row i: the texts but i, after text i.
    assert nearness([(-1.0, -4.0), (-2.0, -6.0), (-3.0, -5.0)]) == [-2.5, -3.0, -5.0]


def test_the_text_nearest_to_the_others_is_shown() -> None:
    fake = backend(lambda question, sample: TEXTS[sample])

    def likelihood(held: list[int], token: int) -> float:
        text = bytes(each for each in held if each < 256)
        shown, _, said = text.rpartition(b"\nA:")
        cats = b"cats" in shown and said + bytes([token]) == b"cats nap"[: len(said) + 1]
        return -0.2 if cats else -2.0

    fake.likelihood = likelihood
    _, verdict = drain(soft.run(task(lambda question, sample: "", fake=fake), SoftSettings(n=3)))
    assert verdict.chosen is not None and verdict.chosen.answer == "cats nap"
    assert verdict.rule == "the nearest to the others of 3"


def test_a_stop_leaves_the_surest() -> None:
    fake = backend(lambda question, sample: TEXTS[sample])
    running = soft.run(task(lambda question, sample: "", fake=fake), SoftSettings(n=3))
    for event in running:
        if getattr(event, "text", "") == "soft: comparing 3 answers":
            fake.abort_after = 0
            break
    _, verdict = drain(running)
    assert verdict.chosen is not None
    assert verdict.rule == "the surest, not compared of 3"
    with pytest.raises(UsageError):
        SoftSettings(n=1)
