"""The voting strategies with the real engine and the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.engine.engine import Engine
from runtime.strategies.strategy import find
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict
from tests.runtime.strategies.scripted import drain, nano_task


@pytest.fixture(scope="module")
def asked(nano_path: Path) -> Iterator[Task]:
    with nano_task(nano_path, "What is 347 + 586?", slots=8) as task:
        yield task


def decided(task: Task, name: str, **given: str) -> Verdict:
    return drain(find(name).configured([f"{key}={value}" for key, value in given.items()]).run(task))[1]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("direct", {}),
        *(("vote", {"stop": stop}) for stop in ("beta", "esc", "certain", "none")),
        *(("vote", {"weights": weights}) for weights in ("probability", "confidence", "certainty")),
        ("first-finish", {}),
        ("short-m", {}),
        ("deepconf", {"n": "8", "warmup": "4"}),
        ("budget", {"extensions": "0", "tokens": "90"}),
    ],
)
def test_an_easy_question_is_answered(asked: Task, name: str, given: dict[str, str]) -> None:
    verdict = decided(asked, name, **given)
    assert verdict.winner == "933"
    assert verdict.chosen is not None and "933" in verdict.chosen.answer
    assert verdict.spent == sum(len(each.completion.tokens) for each in verdict.samples)
    assert all(len(each.completion.statistics) == len(each.completion.tokens) for each in verdict.samples)


def test_samples_without_thought_are_short(asked: Task) -> None:
    verdict = decided(asked, "no-think-vote")
    assert len(verdict.samples) == 8
    assert {each.completion.thinking_tokens for each in verdict.samples} == {0}


def test_a_thought_is_extended(asked: Task) -> None:
    verdict = decided(asked, "budget", force="true")  # nano was not made for it
    assert verdict.chosen is not None and "Wait" in verdict.chosen.thinking


def test_the_same_seed_and_slots_give_the_same_verdict(asked: Task) -> None:
    first, second = (decided(asked, "vote", stop="certain") for _ in range(2))
    assert [each.completion.tokens for each in first.samples] == [each.completion.tokens for each in second.samples]
    assert (first.winner, first.rule, first.tally) == (second.winner, second.rule, second.tally)


def test_a_replay_decides_and_spends_what_the_live_run_does(asked: Task) -> None:
    engine = asked.engine
    assert isinstance(engine, Engine)
    drawn = engine.generate(asked.requests(range(8)))
    # With all samples in one wave the batches, and so the tokens, are the same.
    strategy = find("vote").configured(stop="certain")
    replayed, (_, live) = strategy.replay(drawn), drain(strategy.run(asked))
    assert (replayed.winner, replayed.rule, replayed.spent) == (live.winner, live.rule, live.spent)
