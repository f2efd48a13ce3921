"""Tree of Thoughts: what is read from replies, what is kept, and whole searches over scripted replies."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.base.errors import UsageError
from runtime.base.events import Notice, SampleFinished, SampleNoted
from runtime.strategies import tree
from runtime.strategies.thoughts import State, choice_of, lines_of, value_of
from runtime.strategies.tree import TreeSettings, with_paper_values
from tests.runtime.strategies.scripted import backend, drain, nano_task, task


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        ("3 * 8 = 24\nsure", 20.0),
        ("I am sure it fails.\n**Impossible**\n", 0.001),
        ("unlikely\nlikely", 1.0),
        ("It is unlikely.", None),
        ("", None),
    ],
)
def test_the_last_word_of_a_judge_is_its_value(reply: str, value: float | None) -> None:
    assert value_of(reply) == value


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("Choice 1 is short.\nThe best choice is 12.", 11),
        ("the best choice is **Choice 3**, not 4", 2),
        ("I like\n2", 1),
        ("The best choice is 13", None),
        ("The best choice is 0", None),
        ("none of them", None),
        ("", None),
    ],
)
def test_a_vote_names_its_choice_with_all_digits(reply: str, choice: int | None) -> None:
    assert choice_of(reply, 12) == choice


def test_proposals_are_lines_without_bullets() -> None:
    assert lines_of("- add\n\n2. take away\n (3) halve\n* -5 + 3 = -2\n") == [
        "add",
        "take away",
        "halve",
        "-5 + 3 = -2",
    ]


@given(st.text(max_size=200), st.integers(1, 20))
def test_any_reply_can_be_read(reply: str, choices: int) -> None:
    assert choice_of(reply, choices) in {None, *range(choices)}
    assert value_of(reply) in (None, 20.0, 1.0, 0.001)
    assert all(line and "\n" not in line for line in lines_of(reply))


def test_what_the_paper_has_stands_in_for_zero() -> None:
    assert with_paper_values(TreeSettings()) == TreeSettings("generic", "sample", "vote", 2, 1, 5, 5)
    assert with_paper_values(TreeSettings(task="game24")) == TreeSettings("game24", "propose", "value", 3, 5, 1, 3)
    assert with_paper_values(TreeSettings(generate="propose", keep=2)) == TreeSettings(
        "generic", "propose", "vote", 2, 2, 1, 5
    )
    assert with_paper_values(TreeSettings(task="game24", generate="sample")).n_generate == 5


def test_the_best_are_kept_and_of_equals_the_first() -> None:
    states = [State((name,)) for name in ("a", "b", "c", "d")]
    assert [each.text for each in tree.best(states, [1.0, 3.0, 1.0, 3.0], 3)] == ["b", "d", "a"]
    assert tree.distinct([State(("Add  it",)), State(("b",)), State(("add it",))]) == [
        State(("Add  it",)),
        State(("b",)),
    ]


def of_game(question: str, sample: int) -> str:
    if question.startswith("Judge"):
        numbers = question.rstrip().splitlines()[-1]
        good = numbers in ("4 9 13", "6 9 13", "4 6")
        return f"<think>impossible?</think>{numbers}\n{'sure' if good else 'impossible'}"
    numbers = question.split("Input: ")[-1].splitlines()[0]
    return "<think>5 + 5 = 10</think>" + {
        "4 9 10 13": "10 - 4 = 6 (left: 6 9 13)\n4 + 9 = 14 (left: 10 13 14)\n4 + 9 = 13 (left: 10 13 13)",
        "6 9 13": "13 - 9 = 4 (left: 4 6)\n13 - 9 = 4 (left: 4 6)\n13 + 9 = 22 (left: 6 22)",
        "4 6": "4 + 6 = 10 (left: 10)\n6 * 4 = 24 (left: 24)",
    }.get(numbers, "")


def test_the_game_of_24_is_played_to_its_end() -> None:
    events, verdict = drain(tree.run(task(of_game, "4 9 10 13", fake=backend(of_game)), TreeSettings(task="game24")))
    assert (verdict.winner, verdict.confidence, verdict.tied) == ("(10 - 4) * (13 - 9)", 1.0, False)
    assert verdict.chosen is not None
    assert verdict.chosen.answer.endswith("6 * 4 = 24 (left: 24)\nAnswer: (10 - 4) * (13 - 9) = 24")
    # Two right first steps; then one path twice and another, each judged by three; at the end code knows the value.
    notes = Counter(event.text for event in events if isinstance(event, SampleNoted))
    assert notes == {
        "step 1: thinking ahead": 1,
        "step 1: judging": 6,
        "step 2: thinking ahead": 2,
        "step 2: judging": 6,
        "step 3: answering": 2,
    }
    drawn = [event.completion for event in events if isinstance(event, SampleFinished)]
    assert len({each.sample for each in drawn}) == len(drawn) == 17
    assert verdict.spent == sum(len(each.tokens) for each in drawn)
    assert 0 < verdict.sequential < verdict.spent


def test_without_a_path_nobody_wins() -> None:
    def script(question: str, sample: int) -> str:
        return "1 + 1 = 3 (left: 1 1 3)"

    _, verdict = drain(tree.run(task(script, "1 1 1 1"), TreeSettings(task="game24")))
    assert (verdict.winner, verdict.rule) == (None, "no path to 24; 0 paths were left")
    assert verdict.chosen is not None


def of_words(question: str, sample: int) -> str:
    if "The best choice is" in question:
        wanted = "boxed{2}" if "boxed" in question else "plan 2"
        choice = next(block for block in question.split("Choice ")[1:] if wanted in block)
        return f"<think>hm</think>The best choice is {choice.split(':')[0]}."
    if "Write the next step" in question:
        return f"<think>so</think>plan {sample}"
    if "plan 2" in question:
        return f"<think>so</think>As in plan 2: \\boxed{{{'2' if sample % 2 else '3'}}}"
    return "no plan"


def test_a_plan_is_voted_on_and_then_an_answer() -> None:
    events, verdict = drain(tree.run(task(of_words), TreeSettings()))
    assert verdict.winner == "2"
    assert verdict.rule == "the best of 2 paths, chosen by vote"
    assert [each.weight for each in verdict.samples] == [1.0, 0.0]
    notes = Counter(event.text for event in events if isinstance(event, SampleNoted))
    assert list(notes.values()) == [5, 5, 5, 5]


def test_proposals_are_judged_once_each() -> None:
    def script(question: str, sample: int) -> str:
        if "Propose" in question:
            return "- double it\n- halve it\n- Double  it"
        if "one word only" in question:
            return "likely" if "halve" in question else "impossible"
        return "\\boxed{4}" if "halve" in question else "\\boxed{16}"

    events, verdict = drain(tree.run(task(script), TreeSettings(generate="propose", evaluate="value", n_evaluate=2)))
    assert verdict.winner == "4"
    notes = Counter(event.text for event in events if isinstance(event, SampleNoted))
    assert notes == {"step 1: thinking ahead": 1, "step 1: judging": 4, "step 2: answering": 1}


def test_without_a_thought_the_question_is_answered_as_it_is() -> None:
    def script(question: str, sample: int) -> str:
        return "\\boxed{9}" if question == "How many?" else ""

    _, verdict = drain(tree.run(task(script), TreeSettings()))
    assert verdict.winner == "9"


@pytest.mark.parametrize("batches", [1, 10, 100, 150, 200, 400])
def test_a_stop_at_any_time_leaves_what_there_is(batches: int) -> None:
    fake = backend(of_words)
    fake.abort_after = batches
    _, verdict = drain(tree.run(task(of_words, fake=fake), TreeSettings()))
    assert verdict.winner in (None, "2", "3")
    assert verdict.spent >= sum(len(each.completion.tokens) for each in verdict.samples)


@pytest.mark.parametrize("wrong", [{"steps": -1}, {"keep": 101}, {"task": "game24", "steps": 2}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        TreeSettings(**wrong)  # type: ignore[arg-type]


def test_the_embedded_model_grows_a_tree(nano_path: Path) -> None:
    with nano_task(nano_path, "What is 3 + 4?") as asked:
        _, verdict = drain(tree.run(asked, TreeSettings(n_generate=2, n_evaluate=2)))
    assert verdict.strategy == "tree"
    assert verdict.spent > verdict.sequential > 0


SUDOKU = "1 2 3 4\n3 4 1 2\n2 1 4 _\n4 3 _ _"


def test_a_sudoku_is_solved_and_checked_by_code() -> None:
    def script(question: str, sample: int) -> str:
        board = question.split("empty cell.\n\n")[1].split("\n\nFill")[0]
        # The first proposal breaks a rule.
        if board.splitlines()[3] == "4 3 _ _":
            return "row 4, column 3 = 1\nrow 4, column 3 = 2\nrow 3, column 4 = 3"
        return "row 4, column 4 = 1\nrow 3, column 4 = 3"

    _, verdict = drain(tree.run(task(script, SUDOKU), TreeSettings(task="sudoku")))
    assert verdict.winner == "1 2 3 4\n3 4 1 2\n2 1 4 3\n4 3 2 1"
    assert verdict.rule.startswith("a checked answer; ")


def test_a_state_that_led_nowhere_is_not_tried_again() -> None:
    asked: list[str] = []

    def script(question: str, sample: int) -> str:
        if question.startswith("How many?"):
            asked.append(question.split("promising:\n")[1])
            return "\\boxed{8}"
        return "- halve\n- double\n- halve"

    settings = TreeSettings(generate="propose", evaluate="likelihood", search="depth", check="grep -q 7", n_generate=1)
    _, verdict = drain(tree.run(task(script), settings))
    assert verdict.winner is None
    assert verdict.rule.startswith("no answer was accepted; ")
    assert len(set(asked)) == 2
    assert verdict.chosen is not None and verdict.chosen.answer == "\\boxed{8}"


def test_a_search_goes_on_until_an_answer_passes_the_check() -> None:
    def script(question: str, sample: int) -> str:
        if question.startswith("How many?"):
            return "\\boxed{7}" if "double" in question else "\\boxed{8}"
        return "- halve\n- double"

    settings = TreeSettings(generate="propose", evaluate="likelihood", search="depth", check="grep -q 7", n_generate=1)
    _, verdict = drain(tree.run(task(script), settings))
    assert (verdict.winner, verdict.rule) == ("7", "a checked answer; 4 states visited, 2 dead ends")


def test_visits_are_limited() -> None:
    def script(question: str, sample: int) -> str:
        return "\\boxed{8}" if question.startswith("How many?") else "- halve\n- double"

    settings = TreeSettings(
        generate="propose", evaluate="likelihood", search="depth", check="grep -q 7", n_generate=1, visits=2
    )
    _, verdict = drain(tree.run(task(script), settings))
    assert "2 states visited" in verdict.rule


def test_a_generic_tree_says_that_votes_were_better() -> None:
    events, _ = drain(tree.run(task(lambda question, sample: "\\boxed{8}"), TreeSettings()))
    [text] = [event.text for event in events if isinstance(event, Notice) and event.text.startswith("tree: ")]
    assert "% right where a vote of at most as many tokens had" in text
    with pytest.raises(UsageError, match="check needs a search that goes on"):
        TreeSettings(check="true")
