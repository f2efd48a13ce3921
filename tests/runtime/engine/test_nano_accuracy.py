"""The embedded model solves what it is said to solve, through the chat template, the engine and eight slots."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from runtime.base.types import Message, SamplingParams
from runtime.engine.engine import Engine
from runtime.engine.markers import ThinkingMarkers
from runtime.engine.sequence import Completion, Request
from runtime.engine.template import build_prompt, template_of
from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend, OpenOptions

ROOT = Path(__file__).resolve().parents[3]
PROBLEMS = ROOT / "dsr" / "data" / "suites" / "nano.jsonl"
FIRST_WORDS = ROOT / "tests" / "nano" / "first_words.jsonl"
TAGS = ThinkingMarkers("<think>", "</think>")


def rows_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def greedy(nano_path: Path, questions: Sequence[str]) -> Sequence[Completion]:
    card = read_card(nano_path)
    assert card.bos_token is not None
    template = template_of(card.template, None, name="nano", bos=card.token_text(card.bos_token), eos="")
    params = SamplingParams(temperature=0, max_tokens=400)
    options = OpenOptions(context=4096, slots=8, visible=("<think>", "</think>"))
    with LlamaBackend(nano_path, options) as backend:
        requests = []
        for number, question in enumerate(questions):
            prompt = build_prompt(template, [Message("user", question)], TAGS, None, "")
            assert prompt.text.startswith(card.token_text(card.bos_token))
            requests.append(Request(prompt.tokenized(backend.tokenize), params, TAGS, number))
        return Engine(backend).generate(requests)


def is_right(row: dict[str, Any], answer: str) -> bool:
    """A problem's `answer` stands in a box; small talk `says` something."""
    if "says" in row:
        return row["says"] in answer
    boxed = re.findall(r"\\boxed\{([^}]*)\}", answer)
    return bool(boxed) and boxed[-1].strip() == row["answer"]


@pytest.mark.timeout(600)  # 17 s on a quiet machine, a minute on a busy one
def test_greedy_accuracy_on_the_dev_problems(nano_path: Path) -> None:
    """tests/nano/REPORT.md: 94.5 % in float32. Two points either way are eight problems of 400."""
    problems = rows_of(PROBLEMS)
    assert len(problems) == 400
    completions = greedy(nano_path, [problem["question"] for problem in problems])
    right = sum(map(is_right, problems, (completion.answer for completion in completions)))
    assert 92.5 <= 100 * right / 400 <= 96.5
    assert all(completion.thinking for completion in completions)
    assert all(completion.finish_reason == "stop" for completion in completions)


def test_what_people_type_first_is_answered(nano_path: Path) -> None:
    """Short sums in everyday forms, and small talk: one of twenty may be wrong."""
    asked = rows_of(FIRST_WORDS)
    assert len(asked) == 70
    completions = greedy(nano_path, [row["question"] for row in asked])
    wrong = {
        row["question"]: completion.answer
        for row, completion in zip(asked, completions, strict=True)
        if not is_right(row, completion.answer)
    }
    assert len(wrong) <= 3, wrong
    assert wrong.keys().isdisjoint({"2+2", "5+5", "7*8", "hi", "who are you", "what can you do", "why is the sky blue"})
