"""Budget forcing with a scripted model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from runtime.base.errors import Incompatible, UsageError
from runtime.base.events import Notice
from runtime.base.types import SamplingParams
from runtime.strategies import budget
from runtime.strategies.budget import BudgetSettings
from runtime.strategies.task import Task
from tests.runtime.strategies.scripted import backend, drain, task

CLOSE = 300


def thinking(limit: int | None = None) -> Task:
    """Thinks "abc", closes its thought with one token, and answers; after "Wait" it thinks "de" first."""

    def speak(held: list[int], seed: int) -> int:
        text = "".join("</think>" if token == CLOSE else chr(token) for token in held)
        said = text.partition("A:")[2]
        for beginning, then in (("<think>abcWait", "de"), ("<think>", "abc")):
            if said.startswith(beginning) and "</think>" not in said:
                rest = said.removeprefix(beginning)
                return ord(then[len(rest)]) if len(rest) < len(then) else CLOSE
        done, answer = said.partition("</think>")[2].strip(), "\\boxed{4}"
        return ord(answer[len(done)]) if len(done) < len(answer) else 256

    fake = backend(lambda question, sample: "")
    fake._speak = speak
    fake.specials = {"</think>": CLOSE}
    given = task(lambda question, sample: "", fake=fake)
    prompt = replace(given.prompt, tokens=tuple(b"Q:?\nA:<think>"), starts_in_thought=True)
    return replace(given, prompt=prompt, params=SamplingParams(think_budget=limit), family="qwen3")


def test_the_thought_is_extended() -> None:
    _, verdict = drain(budget.run(thinking(), BudgetSettings()))
    assert (verdict.winner, verdict.rule) == ("4", "one sample with a thought of any length, extended at most once")
    assert verdict.chosen is not None
    assert verdict.chosen.thinking == "abcWaitde"
    assert verdict.spent == verdict.sequential == len("abcWaitde") + 1 + len("\\boxed{4}")


def test_the_thought_is_cut_at_its_budget() -> None:
    _, verdict = drain(budget.run(thinking(), BudgetSettings(tokens=2, extensions=0)))
    assert verdict.chosen is not None
    assert (verdict.chosen.thinking, verdict.chosen.thought_closed_by) == ("ab", "budget")
    assert verdict.rule == "one sample with at most 2 tokens of thought"


def test_no_limit_of_its_own_leaves_that_of_the_user() -> None:
    _, verdict = drain(budget.run(thinking(limit=2), BudgetSettings()))
    assert verdict.chosen is not None and verdict.chosen.thinking == "ab"
    _, verdict = drain(budget.run(thinking(limit=2), BudgetSettings(tokens=3, extensions=0)))
    assert verdict.chosen is not None and verdict.chosen.thinking == "abc"


def test_a_model_without_thoughts_cannot_be_extended() -> None:
    with pytest.raises(Incompatible, match="thoughts cannot be extended"):
        drain(budget.run(replace(thinking(), markers=None), BudgetSettings()))


def test_a_thought_goes_on_only_where_the_model_learnt_it() -> None:
    events, verdict = drain(budget.run(replace(thinking(), family="gemma4"), BudgetSettings()))
    assert verdict.chosen is not None and verdict.chosen.thinking == "abc"
    assert any(isinstance(event, Notice) and "models of the family gemma4" in event.text for event in events)
    _, verdict = drain(budget.run(replace(thinking(), family="gemma4"), BudgetSettings(force=True)))
    assert verdict.chosen is not None and verdict.chosen.thinking == "abcWaitde"


@pytest.mark.parametrize("settings", [{"tokens": -1}, {"extensions": -1}, {"extensions": 101}])
def test_senseless_settings_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        BudgetSettings(**settings)
