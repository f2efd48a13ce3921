"""Answers from the paragraphs that matter, with a model that follows a script."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from runtime.base.errors import UsageError
from runtime.base.events import Event, Interrupted, Notice, Progress, SampleFinished
from runtime.strategies.evidence import EvidenceSettings, in_parts, kept, run, runs
from runtime.strategies.paragraphs import Document, Paragraph
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict
from tests.fakes import FakeBackend
from tests.runtime.strategies.scripted import backend, drain, task

QUESTION = "What is the key?"
LINES = [f"Line {number} says nothing of it." for number in range(30)]


def answers(question: str, sample: int) -> str:
    if "Which facts" in question:
        return "The key is 7." if "key is 7" in question else "none"
    return "It is 7." if "key is 7" in question else "I do not know."


def asked(
    place: int = 20, *, longest: int = 2000, likely: Callable[[str], float] | None = None, slots: int = 1
) -> tuple[Task, FakeBackend]:
    """A file of 31 lines, one of which has the key; the fake finds the question likely behind lines with "key"."""
    lines = [*LINES[:place], "The key is 7.", *LINES[place:]]
    fake = backend(answers, slots=slots)

    def likelihood(held: list[int], token: int) -> float:
        text = bytes(each for each in held if each < 256).decode()
        return likely(text) if likely else -0.1 if "key is 7" in text else -2.0

    fake.likelihood = likelihood
    document = Document("notes.txt", "\n\n".join(lines))
    return replace(task(answers, QUESTION, fake=fake), documents=(document,), longest=longest), fake


def found(made: Task, **settings: float) -> tuple[list[Event], Verdict]:
    return drain(run(made, EvidenceSettings(**{"paragraph": 40, "keep": 2, **settings})))  # type: ignore[arg-type]


def test_the_paragraph_is_found_and_the_answer_comes_from_it() -> None:
    events, verdict = found(asked()[0])
    assert verdict.chosen is not None and verdict.chosen.answer == "It is 7."
    assert [each.paragraph.place for each in verdict.evidence] == ["notes.txt, line 41", "notes.txt, line 1"]
    assert [round(each.logprob, 3) for each in verdict.evidence] == [-1.7, -34.0]
    assert verdict.rule == "2 paragraphs of 31 kept"
    told = [event for event in events if isinstance(event, Progress) and event.job == "looking for evidence"]
    assert told[-1].finished and [each.done for each in told] == sorted(each.done for each in told)


def test_only_the_kept_paragraphs_are_in_the_prompt() -> None:
    made, _ = asked()
    asked_for: list[str] = []
    script = made.make_prompt

    def make_prompt(text: str, thinking: bool | None):  # type: ignore[no-untyped-def]
        asked_for.append(text)
        return script(text, thinking)

    found(replace(made, make_prompt=make_prompt))
    assert "Line 0 says" in asked_for[-1] and "The key is 7." in asked_for[-1]
    assert "Line 5 says" not in asked_for[-1]
    assert asked_for[-1].startswith("[file name]: notes.txt, line 1\n") and asked_for[-1].endswith(QUESTION)


def test_paragraphs_are_kept_until_they_hold_the_share() -> None:
    scores = {0: -10.0, 1: -1.0, 2: -1.0, 3: -5.0}
    assert kept(scores, EvidenceSettings(keep=1, share=0.4)) == [1]
    assert kept(scores, EvidenceSettings(keep=1, share=0.9)) == [1, 2]
    assert kept(scores, EvidenceSettings(keep=3, share=0.9)) == [1, 2, 3]
    assert kept(scores, EvidenceSettings(keep=9, share=0.0)) == [1, 2, 3, 0]


def test_paragraphs_that_follow_each_other_are_one() -> None:
    lines = [Paragraph("a", 1, 1, "x", 1), Paragraph("a", 2, 2, "y", 1), Paragraph("b", 1, 1, "z", 1)]
    assert runs(lines, [0, 1, 2]) == [(0, 1), (2, 2)]


def test_what_fits_no_prompt_becomes_a_tree() -> None:
    """All paragraphs are equally likely: leaves are noted, and the root answers from the notes."""
    made, _ = asked(longest=600, likely=lambda text: -1.0)
    _, verdict = found(made, parts=4)
    assert verdict.chosen is not None and verdict.chosen.answer == "It is 7."
    assert [each.note for each in verdict.samples] == ["part 1", "part 2", "part 3", "answer"]
    assert verdict.rule == "30 paragraphs of 31 kept, in 3 parts"


def test_parts_are_limited_and_the_rest_is_told() -> None:
    made, _ = asked(longest=400, likely=lambda text: -1.0)
    _, verdict = found(made, parts=2)
    assert "more had no room" in verdict.rule
    lines = [Paragraph("a", number, number, "x" * 100, 100) for number in range(1, 9)]
    leaves, left_out = in_parts(made, lines, [7, 0, 3], 1)
    assert leaves == [[7]]
    assert left_out == 2


def test_a_stop_while_reading_answers_from_the_best_so_far() -> None:
    """The lines that share words with the question are read first, so the key is found at once."""
    made, fake = asked()
    fake.abort_after = 6

    def go_on(event: Event) -> None:
        if isinstance(event, Notice) and "stopped after" in event.text:
            fake.abort_after = None

    running = run(made, EvidenceSettings(paragraph=40, keep=1))
    events: list[Event] = []
    while True:
        try:
            events.append(next(running))
            go_on(events[-1])
        except StopIteration as end:
            verdict = end.value
            break
    assert verdict.chosen.answer == "It is 7."
    assert "read" in verdict.rule
    assert not any(isinstance(event, Interrupted) for event in events)


def test_a_stop_before_anything_was_read_leaves_paragraphs_with_the_words_of_the_question() -> None:
    made, fake = asked()
    fake.stop.set()  # the first batch takes it
    _, verdict = found(made, keep=1)
    assert verdict.chosen is not None and verdict.chosen.answer == "It is 7."
    assert [(each.paragraph.first, each.logprob) for each in verdict.evidence] == [(41, None)]
    assert verdict.rule == "1 paragraph of 31 kept, 0 read"


def test_half_of_the_time_is_left_for_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("runtime.engine.allowance.time.monotonic", lambda: next(clock))
    made, _ = asked()
    _, verdict = found(made.within(seconds=150))
    assert verdict.chosen is not None and verdict.chosen.answer == "It is 7."
    assert verdict.rule.endswith(" read")


def test_a_second_stop_ends_the_answer() -> None:
    made, fake = asked()
    fake.abort_after = 6
    events, verdict = found(made, keep=1)
    assert sum(isinstance(event, Interrupted) for event in events) == 1
    assert verdict.chosen is not None and verdict.chosen.finish_reason == "cancelled"


def test_without_a_text_the_question_is_answered() -> None:
    events, verdict = drain(run(task(answers, QUESTION), EvidenceSettings()))
    assert verdict.chosen is not None and verdict.chosen.answer == "I do not know."
    assert verdict.strategy == "evidence"
    assert sum(isinstance(event, SampleFinished) for event in events) == 1


@pytest.mark.parametrize("settings", [{"paragraph": 5}, {"keep": 0}, {"parts": 0}, {"share": 1.5}])
def test_settings_have_ranges(settings: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        EvidenceSettings(**settings)  # type: ignore[arg-type]
