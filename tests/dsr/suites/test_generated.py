"""Suites that dsr makes itself."""

from __future__ import annotations

import re

import pytest

from dsr.suites.generated import GENERATED
from dsr.suites.suites import all_suites, find
from runtime.base.errors import UsageError


def test_seeds_make_the_same_solutions_everywhere() -> None:
    wrong, right = find("errors:steps=3", limit=2).problems
    assert (wrong.id, wrong.answer, wrong.task) == ("errors-0-96390a", "1", "wrong step")
    assert (right.answer, right.task) == ("-1", "all right")


@pytest.mark.parametrize("seed", range(3))
def test_the_label_is_the_first_step_whose_sum_is_wrong(seed: int) -> None:
    for problem in find(f"errors:seed={seed}:steps=7", limit=60).problems:
        sums = re.findall(r"(\d+) ([-+*]) (\d+) = (-?\d+)\.", problem.question)
        assert len(sums) == 7
        value = {"+": int.__add__, "-": int.__sub__, "*": int.__mul__}
        bad = [n for n, (a, sign, b, c) in enumerate(sums) if value[sign](int(a), int(b)) != int(c)]
        assert bad == ([] if problem.answer == "-1" else [int(problem.answer)])
        starts = [int(a) for a, *_ in sums[1:]]
        assert starts == [int(c) for *_, c in sums[:-1]]
        assert all(int(c) >= 0 for *_, c in sums)


def test_a_number_is_hidden_at_its_depth() -> None:
    [problem] = find("passkey:words=600:depth=0.5", limit=1).problems
    lines = problem.question.split("\n")
    assert (
        lines[len(lines[:-2]) // 2]
        == f"The pass key is {problem.answer}. Remember it. {problem.answer} is the pass key."
    )
    assert abs(len(problem.question.split()) - 600) < 30
    assert (problem.task, problem.level) == ("600 words", "depth 0.5")
    assert problem.is_solved_by(problem.answer) and not problem.is_solved_by("12345")


def test_without_settings_lengths_and_depths_take_turns() -> None:
    problems = find("passkey").problems
    assert len(problems) == 25 and len({(each.task, each.level) for each in problems}) == 25


def test_more_questions_begin_with_the_same_ones() -> None:
    few, many = find("errors", limit=3), find("errors", limit=9)
    assert many.problems[:3] == few.problems and many.digest == few.digest
    assert find("errors:seed=1", limit=3).digest != few.digest
    assert len(find("errors:size=4", limit=9).problems) == 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("errors:step=3", "errors has no setting 'step=3'"),
        ("errors:steps=1", "steps is between 2 and 50, not 1"),
        ("errors:steps=three", "errors: steps takes a number, not 'three'"),
        ("passkey:depth=2", "depth is between 0 (the beginning) and 1 (the end), not 2"),
        ("passkey:words=3", "words is between 20 and 1000000, not 3"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        find(name)
    assert raised.value.message == message


def test_choices_have_one_right_answer() -> None:
    problems = find("choices").problems
    assert len(problems) == 140
    for problem in problems:
        assert len(set(problem.choices)) == 4
        right = problem.choices[problem.right_choice]
        assert problem.is_solved_by(problem.answer) and problem.is_solved_by(right)
        others = [text for text in problem.choices if text != right]
        assert not any(problem.is_solved_by(text) for text in others)
    first = problems[0]
    assert (first.choices, first.answer) == (("Dublin", "Lima", "Stockholm", "Paris"), "D")


def test_every_suite_is_listed() -> None:
    names = [line.name for line in all_suites()]
    assert names[:3] == ["nano", "nano-profile", "basics"]
    assert set(GENERATED) | {"choices", "code", "refusals", "gym:laptop", "gsm8k"} <= set(names)
