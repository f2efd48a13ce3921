"""Which task a question belongs to: the decision on made-up keys, and on what the embedded model's router says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from dsr.suites import suites
from quant.experts.router_probe import RouterProbe
from quant.experts.task_match import MIN_CERTAINTY, MIN_QUESTIONS, Match, match_task, question_key
from quant.measure.routers import RouterReader, open_router_reader
from quant.sources.gguf_source import GgufSource
from quant.write.execute import quantize
from runtime.base.run import Run

# Of the embedded model's chat template.
BEFORE, AFTER = "<｜begin▁of▁sentence｜><｜User｜>", "<｜Assistant｜><think>\n"
UNRELATED = (
    "What is the capital of France?",
    "Write a poem about the sea.",
    "Write a Python function that sorts a list.",
    "Translate 'good morning' into German.",
    "Explain quantum entanglement to a child.",
    "Give me a recipe for pancakes.",
    "SELECT name FROM users WHERE age > 30; explain this query",
    "Who was the first person on the moon?",
)


def keys(*rows: tuple[float, float]) -> NDArray[np.float32]:
    return np.array(rows, np.float32).reshape(-1, 2)


LINE = keys((0, 0), (1, 0), (2, 0))  # a question may lie 1.5 from one of these
FAR = keys((20, 0), (20, 3), (20, 6))  # and 4.5 from one of these


def test_a_key_is_the_mean_and_the_spread_of_the_logits() -> None:
    np.testing.assert_array_equal(
        question_key(np.array([[1, 3], [3, 7]], np.float32)), np.array([2, 5, 1, 2], np.float32)
    )


def test_the_nearest_question_decides() -> None:
    found = match_task(np.array([2, 0.1], np.float32), {"far": FAR, "line": LINE})
    assert found.task == "line" and [task for task, _ in found.ranking] == ["line", "far"]
    assert found.certainty == pytest.approx(0.994, abs=0.001)
    assert match_task(np.array([20, 2], np.float32), {"far": FAR, "line": LINE}).task == "far"


def test_at_the_limit_of_a_task_a_question_is_as_likely_foreign() -> None:
    assert match_task(np.array([0, 1.5], np.float32), {"line": LINE}).certainty == MIN_CERTAINTY
    assert match_task(np.array([0, 1.49], np.float32), {"line": LINE}).task == "line"
    assert match_task(np.array([0, 1.51], np.float32), {"line": LINE}).task is None
    assert match_task(np.array([9, 9], np.float32), {"line": LINE, "far": FAR}).task is None


def test_between_two_tasks_it_is_neither() -> None:
    found = match_task(np.array([0, 0.6], np.float32), {"line": LINE, "above": LINE + keys((0, 1.2))})
    assert found.task is None
    assert [certainty for _, certainty in found.ranking] == pytest.approx([0.497, 0.497], abs=0.001)


def test_a_task_needs_questions_that_differ() -> None:
    nothing = Match(None, 0.0, ())
    assert match_task(LINE[0], {}) == nothing
    assert match_task(LINE[0], {"two": LINE[:2], "same": keys(*[(1.0, 1.0)] * 5), "none": LINE[:0]}) == nothing
    assert MIN_QUESTIONS == 3 and match_task(LINE[0], {"three": LINE, "two": LINE[:2]}).task == "three"


NUMBERS = st.floats(-1e6, 1e6, width=32)
ROWS = st.lists(st.tuples(NUMBERS, NUMBERS), max_size=6).map(lambda rows: keys(*rows))


@given(st.tuples(NUMBERS, NUMBERS), st.dictionaries(st.sampled_from("abcd"), ROWS))
def test_certainties_are_shares_and_the_first_is_the_largest(
    query: tuple[float, float], tasks: dict[str, NDArray[np.float32]]
) -> None:
    found = match_task(np.array(query, np.float32), tasks)
    shares = [certainty for _, certainty in found.ranking]
    assert shares == sorted(shares, reverse=True) and all(0 <= share <= 1 for share in shares) and sum(shares) < 1.001
    assert found.certainty == (shares[0] if shares else 0)
    assert found.task == (found.ranking[0][0] if found.certainty >= MIN_CERTAINTY else None)


@pytest.fixture(scope="module")
def scout(nano_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RouterReader]:
    out = tmp_path_factory.mktemp("scout") / "scout.gguf"
    with GgufSource(nano_path) as model:
        source = RouterProbe(model)
        quantize(source, source.file_plan(), out, Run(threads=1))
    with open_router_reader(out, 512, Run()) as reader:
        yield reader


def test_nineteen_of_twenty_questions_of_the_embedded_model_find_their_task(scout: RouterReader) -> None:
    def known(question: str) -> NDArray[np.float32]:
        return question_key(scout.first_logits(scout.model.tokenize(BEFORE + question + AFTER)))

    stored: dict[str, list[NDArray[np.float32]]] = {}
    for problem in suites.find("nano-profile").problems:
        stored.setdefault(problem.task, []).append(known(problem.question))
    tasks = {task: np.stack(rows) for task, rows in stored.items()}
    asked = suites.find("nano").problems[::4]
    right = sum(match_task(known(problem.question), tasks).task == problem.task for problem in asked)
    assert right >= 0.95 * len(asked)
    assert [question for question in UNRELATED if match_task(known(question), tasks).task is not None] == []
