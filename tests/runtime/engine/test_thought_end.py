"""Where a thought is closed for its budget, and what it says at its end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.engine.thought_end import grace, may_end
from tests.runtime.strategies.scripted import MARKERS, backend, drain, task

THOUGHT = "One. Two and three. Four, five, six, seven."


@pytest.mark.parametrize(
    ("used", "text", "ends"),
    [
        (100, "wor", True),
        (99, "wor", False),
        (75, " done.", True),
        (74, " done.", False),
        (90, "line\n", True),
        (90, "3.", False),
        (90, "so。", True),
        (90, '!")', True),
    ],
)
def test_a_thought_ends_with_a_sentence_or_at_its_limit(used: int, text: str, ends: bool) -> None:
    assert grace(100) == 25
    assert may_end(used, 100, text) is ends
    assert grace(10_000) == 32


@pytest.mark.parametrize(("budget", "thinking"), [(20, "One. Two and three."), (31, "One. Two and three. Four, five")])
def test_a_cut_thought_says_so_in_the_words_of_its_family(budget: int, thinking: str) -> None:
    fake = backend(lambda question, sample: f"<think>{THOUGHT}</think>\\boxed{{7}}")
    asked = task(lambda question, sample: "", fake=fake)
    asked = replace(asked, markers=replace(MARKERS, conclusion="Enough."))
    [sample] = drain(asked.draw([asked.request(think_budget=budget)]))[1]
    done = sample.completion
    assert done.thinking == f"{thinking}\n\nEnough."
    assert done.thought_closed_by == "budget"
    assert len(done.statistics) == len(done.tokens)
