"""The answers of a batch, drawn together or in turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsr.chat.batch.draw import Batch
from dsr.chat.batch.questions import Question
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.models import library
from runtime.base.errors import Aborted, Lost
from runtime.base.run import Run
from runtime.base.types import Message, SamplingParams
from runtime.engine.grammar import Grammar
from runtime.engine.prompt_options import PromptOptions
from runtime.strategies import strategy
from tests.dsr.chat.chatting import open_model
from tests.fakes import END, FakeBackend

PARAMS = SamplingParams(temperature=0)
BATCH = Batch(PARAMS, PromptOptions())


def questions(*texts: str) -> dict[str, Question]:
    return {text: Question(number, (Message("user", text),)) for number, text in enumerate(texts, 1)}


def echo(held: list[int], seed: int) -> int:
    """Says the question again, then ends."""
    text = bytes(token for token in held if token < 256).decode()
    asked, _, said = text.rpartition("assistant:")
    question = asked.rpartition("user: ")[2].removesuffix("\n")
    return ord(question[len(said)]) if len(said) < len(question) else END


def echoing(slots: int) -> tuple[FakeBackend, LoadedModel]:
    loaded = open_model("", slots=slots)
    backend = FakeBackend(echo, slots=slots)
    return backend, replace(loaded, backend=backend)


@pytest.mark.parametrize("slots", [1, 3])
def test_every_question_gets_its_answer(slots: int) -> None:
    _, loaded = echoing(slots)
    asked = questions("one", "three", "seventeen", "two")
    results = dict(BATCH.results(loaded, asked))
    assert {key: each["answer"] for key, each in results.items()} == {key: key for key in asked}
    assert all(each["failure"] is None and each["finish_reason"] == "stop" for each in results.values())


def test_short_answers_end_first() -> None:
    _, loaded = echoing(4)
    order = [key for key, _ in BATCH.results(loaded, questions("a long question", "short"))]
    assert order == ["short", "a long question"]


def test_slots_are_never_empty_while_questions_wait() -> None:
    backend, loaded = echoing(4)
    list(BATCH.results(loaded, questions(*(f"q{number:02}" for number in range(40)))))
    assert sum(size == 4 for size in backend.batches) > 10


def test_a_question_that_does_not_fit_is_told_and_the_others_go_on() -> None:
    _, loaded = echoing(2)
    asked = questions("a", "x" * 2000, "b")
    results = dict(BATCH.results(loaded, asked))
    assert [results[each]["answer"] for each in "ab"] == ["a", "b"]
    said = "the prompt is 2017 tokens long, and 1000 is the most for a prompt with its answer"
    assert (results["x" * 2000]["answer"], results["x" * 2000]["failure"]) == (None, said)


def test_a_stop_ends_the_batch_with_what_is_there() -> None:
    backend, loaded = echoing(1)
    results = []
    for key, _ in BATCH.results(loaded, questions("a", "b", "c")):
        results.append(key)
        backend.stop.set()
    assert results == ["a"]


def test_a_lost_file_is_an_error() -> None:
    backend, loaded = echoing(1)
    backend.abort_after, backend.abort_with = 2, Lost("the file is gone")
    with pytest.raises(Lost):
        list(BATCH.results(loaded, questions("abc")))
    assert not isinstance(Aborted(), Lost)


@pytest.mark.parametrize("name", ["vote", "first-finish"])
def test_a_strategy_answers_one_question_after_another(name: str) -> None:
    _, loaded = echoing(4)
    batch = replace(BATCH, strategy=strategy.find(name).configured(n=4))
    results = list(batch.results(loaded, questions("12", "13")))
    assert [(key, each["answer"]) for key, each in results] == [("12", "12"), ("13", "13")]
    assert results[0][1]["verdict"]["winner"] == "12"


def test_a_grammar_holds_for_each_answer() -> None:
    _, loaded = echoing(2)
    batch = replace(BATCH, grammar=Grammar("gbnf", "yes|no"))
    results = dict(batch.results(loaded, questions("yes", "maybe")))
    assert {key: each["answer"] for key, each in results.items()} == {"yes": "yes", "maybe": "no"}


def test_nano_answers_together_as_alone(nano_path: Path) -> None:
    asked = questions(*(f"What is {number} + 586?" for number in range(340, 346)))
    params = SamplingParams(temperature=0, max_tokens=200)
    with load(library.find(str(nano_path)), LoadOptions(context=2048, slots=3), Run(threads=1)) as loaded:
        results = dict(replace(BATCH, params=params).results(loaded, asked))
    assert {key: each["answer"] for key, each in results.items()} == {
        f"What is {number} + 586?": f"The answer is \\boxed{{{number + 586}}}." for number in range(340, 346)
    }
