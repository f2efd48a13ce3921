"""Value-guided search over scripted replies, valued by a head on made-up hidden states, or by the model itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runtime.base.errors import Incompatible, UsageError
from runtime.base.events import Event, Interrupted, Notice, SampleFinished, SampleNoted
from runtime.base.types import SamplingParams
from runtime.strategies import bon, value_guided
from runtime.strategies.bon import BonSettings
from runtime.strategies.strategy import find
from runtime.strategies.value_guided import Beam, ValueGuidedSettings
from runtime.strategies.verdict import Verdict
from tests.fakes import FakeBackend
from tests.runtime.strategies.heads import write_head
from tests.runtime.strategies.scripted import backend, drain, nano_task, task

RIGHT = "<think>one two three four</think>It is \\boxed{7}"
WRONG = "<think>one six nine zero</think>It is \\boxed{8}"


def script(question: str, sample: int) -> str:
    """Only the sample 5 thinks right; what goes on with its thought stays right."""
    return RIGHT if sample == 5 else WRONG


def branching() -> FakeBackend:
    """Goes on with the thought that a text has begun; the numbers of samples decide only the first block."""
    fake = backend(script, slots=8)
    spoken = fake._speak

    def speak(held: list[int], seed: int) -> int:
        text = bytes(token for token in held if token < 256).decode()
        return spoken(held, 5 if "one t" in text else 0 if "one s" in text else seed)

    fake._speak = speak
    fake.hidden = lambda held: (1.0 if b"one t" in bytes(each for each in held if each < 256) else -1.0, 0.0)
    return fake


@pytest.fixture
def head(tmp_path: Path) -> str:
    return str(write_head(tmp_path / "head.safetensors", {"score.weight": [[2.0, 0.0]]}))


def searched(settings: ValueGuidedSettings, fake: FakeBackend, **kinds: object) -> tuple[list[Event], Verdict]:
    return drain(value_guided.run(task(script, fake=fake, **kinds), settings))


def test_the_beams_go_on_from_the_best_blocks(head: str) -> None:
    events, verdict = searched(ValueGuidedSettings(n=8, width=2, block=16, head=head), branching())
    # One of eight first blocks is right, two of its beam's continuations and four after those.
    assert verdict.winner == "7"
    assert [each.answer for each in verdict.samples].count("7") >= 3
    assert verdict.valued_by == "head"
    assert verdict.rule.startswith("votes of 4 weighted by a value head, 4 steps of 8 blocks")
    assert any(isinstance(each, SampleNoted) and each.text == "value 0.88" for each in events)
    assert verdict.spent == sum(len(each.completion.tokens) for each in events if isinstance(each, SampleFinished))


def test_a_vote_of_as_many_samples_is_wrong_where_the_search_is_right() -> None:
    asked = task(script, fake=branching())
    assert drain(find("vote").configured(["n=8"]).run(asked))[1].winner == "8"


def test_the_thought_is_told_from_the_answer(head: str) -> None:
    _, verdict = searched(ValueGuidedSettings(n=2, width=2, block=7, head=head), branching())
    assert verdict.chosen is not None
    assert (verdict.chosen.thinking, verdict.chosen.answer) == ("one six nine zero", "It is \\boxed{8}")


def test_searches_are_apart_and_vote_together(head: str) -> None:
    _, verdict = searched(ValueGuidedSettings(n=4, width=2, searches=3, block=16, head=head), branching())
    assert len(verdict.samples) == 6
    assert {each.answer for each in verdict.samples} == {"7", "8"}


def test_without_a_head_the_model_judges_and_that_is_called_a_proxy() -> None:
    fake = branching()
    fake.likelihood = lambda held, token: -0.1 if (b"one t" in bytes(held)) == (token == ord("Y")) else -3.0
    events, verdict = searched(ValueGuidedSettings(block=16), fake)
    assert (verdict.winner, verdict.valued_by) == ("7", "proxy")
    assert "a proxy" in verdict.rule
    assert any(isinstance(each, Notice) and "a proxy" in each.text for each in events)


def test_a_head_that_does_not_fit_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    path = write_head(tmp_path / "h", {"score.weight": [[1.0, 2.0, 3.0]]})
    for run, settings in (
        (value_guided.run, ValueGuidedSettings(head=str(path))),
        (bon.run, BonSettings(head=str(path))),
    ):
        fake = branching()
        with pytest.raises(Incompatible, match="hidden states of 3 numbers, and the model's have 2"):
            drain(run(task(script, fake=fake), settings))  # type: ignore[operator]
        assert fake.decoded == len(b"Q:How many?\nA:")


def test_the_same_seed_searches_in_the_same_way(head: str) -> None:
    settings = ValueGuidedSettings(n=8, width=2, block=16, head=head)
    first, second = (searched(settings, branching())[1] for _ in range(2))
    assert [each.completion.tokens for each in first.samples] == [each.completion.tokens for each in second.samples]


def test_the_limit_of_tokens_holds_for_a_whole_reply(head: str) -> None:
    asked = replace(task(script, fake=branching()), params=SamplingParams(max_tokens=20))
    _, verdict = drain(value_guided.run(asked, ValueGuidedSettings(n=4, width=2, block=16, head=head)))
    assert {len(each.completion.tokens) for each in verdict.samples} == {20}
    assert {each.completion.finish_reason for each in verdict.samples} == {"length"}


def test_a_thought_that_has_used_its_budget_is_closed(head: str) -> None:
    asked = replace(task(script, fake=branching()), params=SamplingParams(think_budget=12, max_tokens=60))
    _, verdict = drain(value_guided.run(asked, ValueGuidedSettings(n=2, width=2, block=8, head=head)))
    assert verdict.chosen is not None
    assert verdict.chosen.thinking.startswith("one s")
    assert len(verdict.chosen.thinking) < len("one six nine zero")


@pytest.mark.parametrize("tokens", [1, 30, 100, 200, 400])
def test_a_budget_holds_and_leaves_an_answer_if_one_fits(head: str, tokens: int) -> None:
    strategy = find("vgs").configured([f"head={head}", "block=16", f"budget={tokens}"])
    events, verdict = drain(strategy.run(task(script, fake=branching())))
    drawn = sum(len(each.completion.tokens) for each in events if isinstance(each, SampleFinished))
    assert verdict.spent == drawn <= tokens
    assert (verdict.winner is not None) == (tokens >= 200)


@pytest.mark.parametrize("after", [*range(12, 240, 12)])
def test_a_stop_gives_the_best_so_far(head: str, after: int) -> None:
    fake = branching()
    settings = ValueGuidedSettings(n=4, width=2, searches=2, block=16, head=head)
    running = value_guided.run(task(script, fake=fake), settings)
    for _ in range(after):
        next(running)
    fake.stop.set()
    events, verdict = drain(running)
    assert not fake.stop.wanted, "the stop was not taken"
    assert verdict.chosen is not None
    assert "stopped in step" in verdict.rule
    assert [each for each in events if isinstance(each, Interrupted)]


def test_a_stop_before_the_first_token_chooses_nothing(head: str) -> None:
    fake = branching()
    fake.stop.set()
    _, verdict = searched(ValueGuidedSettings(head=head), fake)
    assert (verdict.chosen, verdict.samples, verdict.spent) == (None, (), 0)


def test_of_equal_values_each_beam_keeps_one() -> None:
    beams = [Beam(sample=number) for number in range(6)]
    assert [beam.sample for beam in value_guided.best(beams, 2, 3)] == [0, 2, 4]
    assert [beam.sample for beam in value_guided.best([*beams[:5], Beam(sample=5, value=0.6)], 2, 3)] == [5, 0, 2]


def test_settings_that_are_no_search_are_refused() -> None:
    with pytest.raises(UsageError, match="n=8 blocks are no whole number of beams with width=3"):
        find("value-guided").configured(["width=3"])
    with pytest.raises(UsageError, match="there is no such file"):
        find("value-guided").configured(["head=nowhere"])


def test_best_of_n_and_the_weighted_vote_by_a_head(head: str) -> None:
    fake = branching()
    best = drain(bon.run(task(script, fake=fake), BonSettings(n=8, head=head)))[1]
    assert (best.winner, best.rule) == ("7", "the best of 8, judged by a value head")
    summed = drain(bon.run(task(script, fake=branching()), BonSettings(n=8, pick="sum", head=head)))[1]
    weights = {each.answer: round(each.weight, 2) for each in summed.tally}
    # One right answer of value 0.88 against seven wrong ones of 0.12.
    assert weights == {"7": 0.88, "8": 0.83}
    assert summed.valued_by == "head"


def test_the_embedded_model_is_searched_with_a_head_of_its_size(nano_path: Path, tmp_path: Path) -> None:
    path = write_head(tmp_path / "h", {"score.weight": [[0.0] * 256], "score.bias": [1.0]})
    with nano_task(nano_path, "What is 347 + 586?") as asked:
        settings = ValueGuidedSettings(n=4, width=2, block=24, head=str(path))
        _, verdict = drain(value_guided.run(asked, settings))
    assert verdict.winner is not None
    assert {round(each.weight, 3) for each in verdict.samples} == {0.731}
