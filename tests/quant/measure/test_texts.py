"""The built-in texts: in the models' own formats, mixed, long enough, and none of what is held out in the other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import dsr
from quant.measure.texts import CALIBRATION, HELD_OUT, BuiltIn, render
from runtime.gguf.reader import read_card
from runtime.llama import Scorer

SUITES = Path(dsr.__file__).parent / "data" / "suites"
both = pytest.mark.parametrize("built_in", [CALIBRATION, HELD_OUT], ids=["calibration", "held out"])


def questions(built_in: BuiltIn) -> Iterator[str]:
    """Of the user, earlier ones too, however they are set."""
    for item in built_in.conversations():
        for message in item.messages:
            if message.role == "user":
                yield " ".join(message.content.casefold().split())


def test_the_calibration_text_is_spoken_in_the_models_own_format(nano_path: Path) -> None:
    text = CALIBRATION.for_model(read_card(nano_path)).content
    assert text.startswith(
        "<｜begin▁of▁sentence｜><｜User｜>Find the difference of 97 and 28.<｜Assistant｜><think>\nSubtract"
    )


@both
def test_every_reply_has_a_thought_and_an_end(built_in: BuiltIn, nano_path: Path) -> None:
    text, items = built_in.for_model(read_card(nano_path)).content, built_in.conversations()
    assert text.count("<think>") == text.count("</think>") == len(items)
    assert text.count("<｜end▁of▁sentence｜>") == len(items) + 1  # one has an earlier turn
    for item in items:
        assert item.thinking.strip() and item.answer.strip()
        assert [message.role for message in item.messages] in (["user"], ["user", "assistant", "user"])


def test_without_template_and_markers_the_text_is_plain() -> None:
    item = next(item for item in CALIBRATION.conversations() if len(item.messages) == 3)
    assert render([item], None, None, "") == (
        "How many handshakes are there if 12 people all shake hands with each other once?\n\n"
        "Each of the 12 people shakes 11 hands, and every handshake is counted twice that way: "
        "$12 \\cdot 11 / 2 = \\boxed{66}$.\n\n"
        "And if there are n people, of whom k arrive too late to shake hands with anybody?\n\n"
        "Only n - k people shake hands: (n-k)(n-k-1)/2.\n\n"
        "Then only $n - k$ people take part, so there are $\\frac{(n-k)(n-k-1)}{2}$ handshakes.\n\n"
    )


@both
def test_any_beginning_is_mixed(built_in: BuiltIn) -> None:
    asked = list(questions(built_in))
    assert len(asked) == len(set(asked)) >= 190
    code = [number for number, text in enumerate(asked) if "function" in text or "does" in text]
    assert min(code) < 40 and max(code) > 150


@both
def test_a_model_of_nearly_bytes_reads_more_than_forty_chunks(built_in: BuiltIn, nano_path: Path) -> None:
    with Scorer(nano_path, window=512) as tokenizer:
        assert len(tokenizer.tokenize(built_in.for_model(read_card(nano_path)).content)) > 40 * 512


def test_nothing_of_what_is_held_out_is_calibrated_on() -> None:
    assert not set(questions(HELD_OUT)) & set(questions(CALIBRATION))
    thoughts, answers = (
        {getattr(item, part) for item in CALIBRATION.conversations()} for part in ("thinking", "answer")
    )
    assert not [item.thinking for item in HELD_OUT.conversations() if item.thinking in thoughts]
    # Problems have short answers, which two may share.
    written = [item.answer for item in HELD_OUT.conversations() if not item.answer.startswith("The answer is ")]
    assert len(written) == 41 and not set(written) & answers


@pytest.mark.parametrize("suite", sorted(SUITES.glob("*.jsonl")), ids=lambda path: path.stem)
def test_no_question_of_a_suite_is_held_out(suite: Path) -> None:
    asked = {
        " ".join(json.loads(line)["question"].casefold().split()) for line in suite.read_text("utf-8").splitlines()
    }
    assert len(asked) >= 30
    assert not asked & set(questions(HELD_OUT))


def test_a_model_that_knows_languages_reads_passages_and_a_third_of_the_problems(nano_path: Path) -> None:
    card = replace(read_card(nano_path), vocab_size=32000)
    found = [text.content for text in CALIBRATION.each_for_model(card)]
    passages = CALIBRATION.passages()
    conversations = [text for text in found if text.startswith("<｜begin▁of▁sentence｜>")]
    assert (len(conversations), len(found)) == (80 + 28, 80 + 28 + len(passages))
    assert set(passages) < set(found)
    assert 0.25 < sum(map(len, conversations)) / sum(map(len, found)) < 0.5
    # Any beginning has all kinds.
    assert {text in passages for text in found[:6]} == {True, False}


def test_a_model_for_one_task_reads_no_passages(nano_path: Path) -> None:
    found = {text.content for text in CALIBRATION.each_for_model(read_card(nano_path))}
    assert not found & set(CALIBRATION.passages())
    assert len(found) == len(CALIBRATION.conversations())


def test_nothing_is_measured_on_passages() -> None:
    assert HELD_OUT.passages() == ()
    assert len(CALIBRATION.passages()) > 50


@pytest.mark.parametrize("name", ["problems.txt", "conversations.txt"])
@both
def test_each_file_tells_its_origin_first(built_in: BuiltIn, name: str) -> None:
    text = (Path(dsr.__file__).parents[1] / "quant" / "measure" / "texts" / built_in.folder / name).read_text(
        encoding="utf-8"
    )
    head = text.split("\n====\n")[0]
    assert head.startswith("Calibration text: " if built_in is CALIBRATION else "Held-out text: ")
    assert re.search(r"Licence: that of the\sproject\.$", head)
