"""Replies as small instruct models write them, in pairs that a person called equal or different.

`pairs.jsonl`: `a` and `b` are whole replies to one question; `drawn` says which of them SmolLM2-135M, Gemma-3-270M or
Qwen2.5-Coder-0.5B wrote, the others were written in their manner. One half was looked at while the rules were made;
docs/log.md has the rates that the others had when they were looked at first.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from runtime.answers import are_equal, extract

PAIRS = [json.loads(line) for line in (Path(__file__).parent / "pairs.jsonl").read_text("utf-8").splitlines()]


def counted_as_one(pair: dict[str, Any]) -> bool:
    a, b = extract(pair["a"]), extract(pair["b"])
    return a is not None and b is not None and are_equal(a, b)


@pytest.mark.parametrize(
    ("half", "count", "allowed"), [("built on", 150, 0.03), ("held out", 150, 0.03), ("fresh", 60, 0.1)]
)
def test_pairs_are_judged_as_a_person_does(half: str, count: int, allowed: float) -> None:
    pairs = [pair for pair in PAIRS if pair["half"] == half]
    wrong = [pair for pair in pairs if counted_as_one(pair) is not pair["equal"]]
    assert len(pairs) == count
    assert len(wrong) <= allowed * count, wrong


def test_different_answers_are_never_counted_as_one() -> None:
    assert [pair for pair in PAIRS if not pair["equal"] and counted_as_one(pair)] == []
