"""Budgets: how they are written, and that every strategy ends within its own, or when the user stops it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.base.events import Interrupted, Notice, SampleFinished
from runtime.strategies.bounds import Budget
from runtime.strategies.strategy import STRATEGIES, Strategy, find
from runtime.strategies.verdict import Sample
from tests.runtime.strategies.scripted import MARKERS, backend, drain, nano_task, task

# Settings that a strategy needs, or that keep a run with a fake model short.
NEEDED = {
    "repeated-sampling": ["check=grep -q 5"],
    "phi": ["lookahead=40"],
    "verify": ["rounds=4"],
    "budget": ["extensions=0"],
}


@pytest.mark.parametrize(("text", "budget"), [("4000", Budget(4000)), (" 2.5S ", Budget(None, 2.5))])
def test_budgets_are_of_tokens_or_seconds(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "0", "0s", "-3", "4k", "s", "1e3", "30 m", "nan"])
def test_anything_else_is_no_budget(text: str) -> None:
    with pytest.raises(UsageError, match="is not a budget") as caught:
        find("vote").configured([f"budget={text}"])
    assert caught.value.hint == "as in 4000 for tokens, or 30s for seconds"


def test_a_budget_is_a_setting_of_every_strategy() -> None:
    strategy = find("vote").configured(["n=4", "budget=4000"])
    assert (strategy.budget, str(strategy)) == (Budget(4000), "vote n=4 budget=4000")
    assert {str(kind.configured(["budget=30s"]).budget) for kind in STRATEGIES.values()} == {"30 s"}


def rambling(seed: int) -> str:
    """A reply of any length, with or without thought, answer and judgement."""
    rng = random.Random(seed)
    thought = f"<think>{'so on. ' * rng.randrange(30)}</think>" if rng.random() < 0.7 else ""
    lines = [
        "3 + 4 = 7", f"\\boxed{{{rng.randrange(4)}}}", f"First wrong step: {rng.choice(['none', '1', '2'])}",
        f"The best choice is {rng.randrange(1, 4)}", "likely", "- go on", "so on " * rng.randrange(40),
    ]  # fmt: skip
    return thought + "\n".join(rng.sample(lines, rng.randrange(1, 5)))


def configured(name: str, given: Sequence[str] = ()) -> Strategy:
    return find(name).configured([*NEEDED.get(name, ()), *given])


@pytest.mark.parametrize("name", STRATEGIES)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10**6), tokens=st.integers(1, 3000), slots=st.integers(1, 6))
def test_every_strategy_ends_within_its_tokens(name: str, seed: int, tokens: int, slots: int) -> None:
    fake = backend(lambda question, sample: rambling(seed + sample + len(question)), slots=slots)
    strategy = configured(name, [f"budget={tokens}"])
    asked = task(lambda question, sample: "", "3 3 8 8", fake=fake)
    events, verdict = drain(strategy.run(asked))
    drawn = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert sum(len(each.tokens) for each in drawn) == verdict.spent <= tokens
    assert all(each.answer_tokens >= 0 and len(each.statistics) == len(each.tokens) for each in drawn)


class Clock:
    """A tenth of a second passes with each look."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        self.time += 0.1
        return self.time


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("seconds", ["1s", "20s", "200s"])
def test_every_strategy_ends_within_its_time(name: str, seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("runtime.engine.allowance.time.monotonic", clock)
    endless = backend(lambda question, sample: "<think>" + "so on. " * 2000)
    asked = task(lambda question, sample: "", "3 3 8 8", fake=endless)
    _, verdict = drain(configured(name, [f"budget={seconds}"]).run(asked))
    assert verdict.rule.endswith(f"the budget of {seconds.removesuffix('s')} s is used up")
    # The last looks happen behind the limit, some for each sample that is drawn at that time.
    assert clock.time < Budget.parse(seconds).seconds + 50  # type: ignore[operator]


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("budget", [(), ("budget=2000",)])
@pytest.mark.parametrize("batches", [1, 7, 40, 150])
def test_a_stop_ends_every_strategy_with_what_it_has(name: str, budget: tuple[str, ...], batches: int) -> None:
    fake = backend(lambda question, sample: rambling(sample + len(question)))
    fake.abort_after = batches
    asked = task(lambda question, sample: "", "3 3 8 8", fake=fake)
    events, verdict = drain(configured(name, budget).run(asked))
    stops = [index for index, event in enumerate(events) if isinstance(event, Interrupted)]
    assert len(stops) <= 1, "drew on after the stop"
    ended = [Sample.of(event.completion) for event in events if isinstance(event, SampleFinished)]
    if name != "repeated-sampling" and find(name).draws != "in stages":
        assert (verdict.winner is not None) == any(each.answer is not None for each in ended)


def test_thoughts_are_closed_in_time_for_answers() -> None:
    thoughtful = backend(lambda question, sample: "<think>" + "hm. " * 100 + "</think>\\boxed{7}")
    asked = task(lambda question, sample: "", fake=thoughtful)
    _, verdict = drain(find("vote").configured(["n=4", "stop=none", "budget=1000"]).run(asked))
    assert {each.completion.thought_closed_by for each in verdict.samples} == {"budget"}
    assert 230 > max(each.completion.thinking_tokens for each in verdict.samples) > 180


def test_a_tree_without_an_answer_gives_way_to_one_sample() -> None:
    def script(question: str, sample: int) -> str:
        if question == "How many?":
            return "\\boxed{7}"
        return "so on " * (1 if sample % 2 else 1000)  # some thoughts end, none is an answer

    events, verdict = drain(find("tree").configured(["budget=400"]).run(task(script)))
    assert verdict.winner == "7"
    assert verdict.rule == "stopped before an answer; one sample answered with the rest of the budget"
    assert verdict.spent <= 400
    assert any(isinstance(event, Notice) and "one sample answers with the rest" in event.text for event in events)


def test_the_embedded_model_keeps_a_budget(nano_path: Path) -> None:
    for name in ("vote", "rounds", "verify"):
        for tokens in (10, 100, 400):
            with nano_task(nano_path, "What is 347 + 586?") as asked:
                _, verdict = drain(configured(name, [f"budget={tokens}"]).run(asked))
            assert 0 < verdict.spent <= tokens
    assert MARKERS.close == "</think>"
