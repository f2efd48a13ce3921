"""Temporal consistency: reading judgements, when it is stable, and whole runs over scripted replies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import NotFound, UsageError
from runtime.base.events import Notice, SampleFinished, SampleNoted
from runtime.strategies import verify
from runtime.strategies.verify import Round, VerifySettings
from tests.runtime.strategies.scripted import backend, completion, drain, nano_task, task


@pytest.mark.parametrize(
    ("judgement", "finding"),
    [
        ("Step 1 is right.\nFirst wrong step: 2", 2),
        ("**First wrong step:** Step 3.", 3),
        ("First wrong step: 1? No.\nFirst wrong step: none", 0),
        ("The first wrong step is 2, since 3 + 4 = 7", 2),
        ("first wrong step: -1", 0),
        ("So the mistake is in step 2.", 2),
        ("All steps are correct.", 0),
        ("First wrong step: 9", None),
        ("Perhaps.", None),
        ("", None),
    ],
)
def test_the_last_statement_of_a_judge_counts(judgement: str, finding: int | None) -> None:
    assert verify.finding_of(judgement, 4) == finding


@given(
    st.text(max_size=200) | st.from_regex(r"(first wrong step[: -]{0,3}(is|step|none|\d+)?\n?){1,3}"), st.integers(1, 9)
)
def test_any_judgement_can_be_read(judgement: str, steps: int) -> None:
    assert verify.finding_of(judgement, steps) in {None, *range(steps + 1)}


@pytest.mark.parametrize(
    ("findings", "before", "found"),
    [
        ([2, 2, 0], None, Round(2, 2)),
        ([2, 0, None], None, Round(0, 1)),
        ([2, 0, 2, 0], 2, Round(2, 2)),
        ([3, 2], None, Round(2, 1)),
        ([None, None], 1, Round(None, 0)),
    ],
)
def test_a_tie_keeps_what_was_found_before(findings: list[int | None], before: int | None, found: Round) -> None:
    assert verify.majority(findings, before) == found


@pytest.mark.parametrize(
    ("history", "stable"),
    [
        ([(2, 3), (2, 3)], False),
        ([(2, 3), (2, 3), (2, 4)], True),
        ([(2, 3), (2, 4), (2, 3)], False),
        ([(0, 5), (2, 3), (2, 3), (2, 3)], True),
        ([(2, 3), (0, 3), (2, 3)], False),
    ],
)
def test_a_majority_is_stable_when_it_stays_and_does_not_shrink(history: list[tuple[int, int]], stable: bool) -> None:
    assert verify.is_stable([Round(*each) for each in history], 3) is stable


def test_steps_are_paragraphs_lines_or_those_of_the_thought() -> None:
    assert verify.steps_of(completion(0, "a\nb\n\nc")) == ["a\nb", "c"]
    assert verify.steps_of(completion(0, "a\nb")) == ["a", "b"]
    assert verify.steps_of(completion(0, "It is 5.", thinking="2 + 3\n= 5")) == ["2 + 3", "= 5", "It is 5."]
    assert verify.steps_of(completion(0, "a\nb", thinking="c\n\nd\ne")) == ["c", "d\ne", "a", "b"]
    assert verify.steps_of(completion(0, "a\nb", thinking="c"), thought=False) == ["a", "b"]
    assert verify.steps_of(completion(0, "It is 5.")) == ["It is 5."]
    assert verify.steps_of(completion(0, " ")) == []
    many = verify.steps_of(completion(0, "\n".join(map(str, range(300)))))
    assert (len(many), many[198], many[199][:7]) == (200, "198", "199\n200")


def with_mistake(question: str, sample: int) -> str:
    if question.startswith("How many?\n\nThis was a first attempt"):
        assert "Step 2 of it was found to be wrong:\nlook at 1\nFirst wrong step: 2" in question
        return "<think>better</think>\\boxed{7}"
    if "Your previous judgement was:\n" in question:
        return question.split("Your previous judgement was:\n")[1].split("\n\nIt may")[0]
    if "First wrong step" in question:
        assert "1. 3 + 4\n2. = 8\n3. \\boxed{8}" in question
        return f"<think>First wrong step: 3</think>look at {sample % 3}\nFirst wrong step: {2 if sample % 3 else 1}"
    return "<think>3 + 4\n= 8</think>\\boxed{8}"


def test_a_step_that_is_found_wrong_is_mended() -> None:
    events, verdict = drain(verify.run(task(with_mistake), VerifySettings(verifiers=3, stable=2, rounds=5, most=0)))
    assert verdict.winner == "7"
    assert verdict.rule == "step 2 was found wrong: 2 of 3 judges after round 3"
    assert [(each.note, each.weight) for each in verdict.samples] == [("solution", 0.0), ("revised", 1.0)]
    notes = Counter(event.text for event in events if isinstance(event, SampleNoted))
    assert list(notes.values()) == [1, 3, 3, 3, 1]
    drawn = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert verdict.spent == sum(len(each.tokens) for each in drawn)
    parts = (drawn[:1], drawn[1:4], drawn[4:7], drawn[7:10], drawn[10:])
    assert verdict.sequential == sum(max(len(each.tokens) for each in part) for part in parts)


def test_a_solution_without_a_wrong_step_stands() -> None:
    def script(question: str, sample: int) -> str:
        return "First wrong step: none" if "First wrong step" in question else "3 + 4 = 7\n\\boxed{7}"

    _, verdict = drain(verify.run(task(script), VerifySettings(most=0)))
    assert (verdict.winner, len(verdict.samples)) == ("7", 1)
    assert verdict.rule == "no wrong step: 5 of 5 judges after round 4"


def test_judges_who_say_nothing_change_nothing() -> None:
    def script(question: str, sample: int) -> str:
        return "Hm." if "First wrong step" in question else "\\boxed{7}"

    events, verdict = drain(verify.run(task(script), VerifySettings(verifiers=2, stable=2)))
    assert (verdict.winner, verdict.rule) == ("7", "the judges named no step")
    assert sum(isinstance(event, SampleFinished) for event in events) == 7


def test_without_a_second_answer_the_first_stands() -> None:
    def script(question: str, sample: int) -> str:
        if "first attempt" in question:
            return ""
        return "First wrong step: 1" if "First wrong step" in question else "\\boxed{7}"

    _, verdict = drain(verify.run(task(script), VerifySettings(verifiers=1, stable=1, most=0)))
    assert (verdict.winner, verdict.rule) == ("7", "step 1 was found wrong: 1 of 1 judges after round 2")


def test_a_solution_too_long_to_be_judged_stands() -> None:
    fake = backend(with_mistake, context=120)
    events, verdict = drain(verify.run(task(with_mistake, fake=fake), VerifySettings()))
    assert (verdict.winner, verdict.rule) == ("8", "not verified")
    assert any(isinstance(event, Notice) and "cannot be verified" in event.text for event in events)


def test_a_judge_that_never_ends_costs_three_votes_at_most() -> None:
    def script(question: str, sample: int) -> str:
        if "First wrong step" in question:
            return "so on " * 5000 if sample == 2 else "Each of the steps is fine. First wrong step: none"
        return "3 + 4 = 7, and so it is seven.\n\\boxed{7}"

    _, verdict = drain(verify.run(task(script), VerifySettings()))
    length = len("3 + 4 = 7, and so it is seven.\n\\boxed{7}")
    assert verdict.winner == "7"
    assert verdict.rule.startswith("no wrong step: not settled, ")
    assert verdict.spent <= 24 * length


def test_a_given_solution_is_checked(tmp_path: Path) -> None:
    def script(question: str, sample: int) -> str:
        if "first attempt" in question:
            return "\\boxed{7}"
        assert "1. 3 + 4\n2. = 8\n3. \\boxed{8}" in question
        return "First wrong step: 2"

    file = tmp_path / "solution.txt"
    file.write_text("3 + 4\n= 8\n\\boxed{8}\n")
    settings = VerifySettings(verifiers=2, stable=1, solution=str(file))
    events, verdict = drain(verify.run(task(script), settings))
    assert (verdict.winner, verdict.rule) == ("7", "step 2 was found wrong: 2 of 2 judges after round 2")
    assert Notice("step 2 is the first wrong one: = 8") in events
    with pytest.raises(NotFound):
        VerifySettings(solution=str(tmp_path / "none.txt"))


def test_judges_see_the_answer_alone_if_the_thought_is_too_long() -> None:
    def script(question: str, sample: int) -> str:
        return (
            "First wrong step: none"
            if "First wrong step" in question
            else f"<think>{'hm ' * 90}</think>a\n\\boxed{{7}}"
        )

    fake = backend(script, context=650)
    events, verdict = drain(verify.run(task(script, fake=fake), VerifySettings(verifiers=1, stable=1, most=0)))
    assert verdict.winner == "7"
    assert any(isinstance(each, Notice) and "they see the answer alone" in each.text for each in events)


@pytest.mark.parametrize("batches", [1, 20, 60, 120, 180, 240])
def test_a_stop_at_any_time_leaves_what_there_is(batches: int) -> None:
    fake = backend(with_mistake)
    fake.abort_after = batches
    _, verdict = drain(verify.run(task(with_mistake, fake=fake), VerifySettings(verifiers=3, stable=2)))
    assert verdict.winner in (None, "8", "7")
    assert verdict.winner is None or batches >= 20


@pytest.mark.parametrize(
    "wrong", [{"verifiers": 0}, {"stable": 0}, {"stable": 5, "rounds": 4}, {"rounds": 101}, {"most": 3}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        VerifySettings(**wrong)


def test_the_embedded_model_verifies(nano_path: Path) -> None:
    with nano_task(nano_path, "What is 3 + 4?") as asked:
        _, verdict = drain(verify.run(asked, VerifySettings(verifiers=2, stable=1, rounds=1)))
    assert verdict.winner is not None
    assert verdict.spent > verdict.sequential > 0
