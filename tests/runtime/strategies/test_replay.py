"""Strategies on samples that were drawn before decide and spend what they would have with a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.base.types import Completion, SamplingParams, TokenStatistics
from runtime.engine.engine import Engine
from runtime.strategies.strategy import STRATEGIES, Strategy, find
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict
from tests.runtime.strategies.scripted import backend, completion, drain, task

N = 7
TABLE: list[Strategy] = [
    find("direct").configured(),
    *(find("vote").configured(n=N, stop=stop, weights=weights, window=3)
      for stop in ("beta", "esc", "certain", "none") for weights in ("none", "probability", "confidence", "certainty")),
    *(find("first-finish").configured(n=N, k=k) for k in (1, 3)),
    *(find("short-m").configured(n=N, m=m) for m in (1, 3)),
    find("deepconf").configured(n=N, warmup=3, window=4, keep=50),
    find("deepconf").configured(n=N, warmup=4, keep=10, share=1),
]  # fmt: skip


def replies() -> st.SearchStrategy[str]:
    """Replies that begin inside of a thought; not all get out of it."""
    answer = st.sampled_from(["\\boxed{4}", "\\boxed{5}", "so \\boxed{4}", "the answer: 6", "Hm.. I cannot say.", ""])
    return st.tuples(st.text("abc ", max_size=30), st.sampled_from(["</think>"] * 4 + [""]), answer).map("".join)


def asked(said: Sequence[str], params: SamplingParams, *, marked: bool) -> Task:
    """A model that says these, more or less sure of what it says; `marked`: its thoughts are told from its answers."""
    fake = backend(lambda question, sample: said[sample], slots=N)
    fake.statistics = lambda row, token: TokenStatistics(-(token % 7) / 4, token % 5 + 1, token % 11)  # type: ignore[method-assign]
    plain = task(lambda question, sample: "", fake=fake)
    prompt = replace(plain.prompt, starts_in_thought=marked)
    return replace(plain, params=params, prompt=prompt, markers=plain.markers if marked else None)


def drawn(source: Task) -> list[Completion]:
    engine = source.engine
    assert isinstance(engine, Engine)
    return engine.generate(source.requests(range(N)))


def outcome(verdict: Verdict) -> tuple[object, ...]:
    samples = [
        (each.completion.sample, each.answer, each.weight, each.note, each.completion.tokens,
         each.completion.finish_reason, each.completion.thinking_tokens)
        for each in verdict.samples
    ]  # fmt: skip
    tokens = (verdict.spent, verdict.saved, verdict.sequential)
    return (
        verdict.winner,
        verdict.confidence,
        verdict.tally,
        verdict.abstained,
        verdict.tied,
        verdict.rule,
        tokens,
        samples,
    )


@settings(max_examples=150, deadline=None)
@given(
    strategy=st.sampled_from(TABLE),
    said=st.lists(replies(), min_size=N, max_size=N),
    budget=st.sampled_from([None, None, 0, 9]),
    limit=st.sampled_from([None, None, 12, 30]),
    marked=st.booleans(),
)
def test_a_replay_equals_the_live_run(
    strategy: Strategy, said: list[str], budget: int | None, limit: int | None, marked: bool
) -> None:
    params = SamplingParams(think_budget=budget if marked else None, max_tokens=limit)
    _, live = drain(strategy.run(asked(said, params, marked=marked)))
    assert outcome(strategy.replay(drawn(asked(said, params, marked=marked)))) == outcome(live)


def test_the_table_knows_what_can_be_replayed() -> None:
    family = {"direct", "vote", "first-finish", "short-m", "deepconf"}
    assert family <= {name for name, kind in STRATEGIES.items() if kind.replayable}
    assert not STRATEGIES["no-think-vote"].replayable


def test_samples_without_statistics_grow_by_one_token_a_step() -> None:
    recorded = [
        completion(0, "\\boxed{4}", tokens=9),
        completion(1, "\\boxed{5}", tokens=4),
        completion(2, "6", tokens=7),
    ]
    verdict = find("first-finish").configured(n=3).replay(recorded)
    assert (verdict.winner, verdict.spent, verdict.sequential) == ("5", 4 + 5 + 5, 5)
    assert [each.completion.finish_reason for each in verdict.samples] == ["cancelled", "stop", "cancelled"]


def test_a_sample_that_was_never_drawn_is_named() -> None:
    with pytest.raises(UsageError, match="sample 1 was never drawn"):
        find("vote").configured(n=4).replay([completion(0, "4")])
