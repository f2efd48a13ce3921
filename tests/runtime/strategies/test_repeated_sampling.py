"""Repeated sampling with a check: who is checked, who wins, when it stops."""

from __future__ import annotations

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import SampleNoted
from runtime.strategies import repeated_sampling
from runtime.strategies.checker import Checker, Outcome
from runtime.strategies.repeated_sampling import RepeatedSamplingSettings
from tests.runtime.strategies.scripted import backend, drain, sample, task


def of_sample(question: str, sample: int) -> str:
    return f"<think>{'long ' * sample}</think>\\boxed{{{sample}}}"


def test_the_first_that_passes_ends_the_others() -> None:
    settings = RepeatedSamplingSettings(n=6, check='test "$DSR_ANSWER" = 2 && grep -q boxed')
    events, verdict = drain(repeated_sampling.run(task(of_sample), settings))
    assert (verdict.winner, verdict.confidence) == ("2", 1.0)
    assert verdict.rule == "solved: 1 of 3 passed the check"
    assert verdict.saved > 0
    noted = [(event.sample, event.text) for event in events if isinstance(event, SampleNoted)]
    assert noted[:3] == [(0, "check failed"), (1, "check failed"), (2, "check passed")]
    assert sorted(noted[3:]) == [(sample, "stopped: another passed the check") for sample in (3, 4, 5)]
    assert dict(noted) == {each.completion.sample: each.note for each in verdict.samples}
    assert {each.completion.finish_reason for each in verdict.samples if each.completion.sample > 2} == {"cancelled"}


def test_without_stop_all_are_checked_and_coverage_is_told() -> None:
    settings = RepeatedSamplingSettings(n=4, check='test "$DSR_ANSWER" -ge 2', stop=False)
    _, verdict = drain(repeated_sampling.run(task(of_sample), settings))
    assert verdict.rule.startswith("solved: 2 of 4 passed the check (pass@1 0.500, pass@2 0.833, pass@4 1.000)")
    assert verdict.winner in ("2", "3")


def test_nothing_that_failed_can_win() -> None:
    _, verdict = drain(repeated_sampling.run(task(of_sample), RepeatedSamplingSettings(n=3, check="false")))
    assert (verdict.winner, verdict.confidence, verdict.tied) == (None, 0.0, False)
    assert verdict.rule == "unsolved: none of 3 passed the check"
    assert verdict.chosen is not None
    assert len(verdict.tally) == 3


def test_a_program_that_passed_is_itself_the_answer() -> None:
    outcomes: dict[int, Outcome] = {0: "passed"}
    verdict = repeated_sampling.judge([sample(0, "```\nprint(1, 2)\n```\n")], outcomes, RepeatedSamplingSettings())
    assert verdict.winner == "```\nprint(1, 2)\n```"


def test_a_check_that_takes_too_long_has_failed() -> None:
    _, verdict = drain(
        repeated_sampling.run(task(of_sample), RepeatedSamplingSettings(n=1, check="sleep 60", seconds=0.1))
    )
    assert [each.note for each in verdict.samples] == ["check timed out"]


def test_a_check_is_needed_before_anything_is_drawn() -> None:
    fake = backend(of_sample)
    for settings, told in (
        (RepeatedSamplingSettings(), "needs a command"),
        (RepeatedSamplingSettings(check="no-such-command-anywhere"), "cannot be run"),
    ):
        with pytest.raises(UsageError, match=told) as caught:
            drain(repeated_sampling.run(task(of_sample, fake=fake), settings))
        assert caught.value.hint is not None and "--set check=" in caught.value.hint
    assert fake.decoded == 0


def test_a_stop_leaves_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(Checker, "check", lambda self, text, given: checked.append(text) or "failed")
    fake = backend(of_sample)
    fake.abort_after = 33
    _, verdict = drain(repeated_sampling.run(task(of_sample, fake=fake), RepeatedSamplingSettings(n=4, check="false")))
    assert 0 < len(checked) < 4
    assert len(verdict.samples) == 4
    assert verdict.rule == f"unsolved: none of {len(checked)} passed the check"
