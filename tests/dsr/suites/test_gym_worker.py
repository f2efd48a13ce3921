"""The process with reasoning-gym, in this one, with a library that obeys the interface of `reasoning_gym.factory`."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass, field
from enum import Enum
from types import ModuleType
from typing import Any

import pytest

from dsr.suites import gym_worker


class Style(Enum):
    PLAIN = "plain"
    LATEX = "latex"


@dataclass
class Config:
    max_value: int = 9
    share: float = 0.5
    shout: bool = False
    kinds: list[str] = field(default_factory=lambda: ["a", "b"])
    signs: tuple[str, ...] = ("+", "-")
    style: Style = Style.PLAIN
    seed: int | None = None
    size: int = 500


class Dataset:
    """Its questions depend on the size, as those of acre do."""

    def __init__(self, config: Config) -> None:
        self.config = config

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index == 7:
            raise RuntimeError("no such question")
        return {"question": f"{index} of {self.config.size}", "answer": None if index == 2 else index, "metadata": {}}

    def score_answer(self, answer: str, entry: dict[str, Any]) -> float:
        return 1.0 if answer == str(entry["answer"]) else 0.0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = ModuleType("reasoning_gym.factory")
    factory.DATASETS = {"tens": (Dataset, Config)}  # type: ignore[attr-defined]
    factory.create_dataset = lambda name, **config: Dataset(Config(**config))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reasoning_gym", ModuleType("reasoning_gym"))
    monkeypatch.setitem(sys.modules, "reasoning_gym.factory", factory)


def told(monkeypatch: pytest.MonkeyPatch, *asked: dict[str, Any]) -> list[dict[str, Any]]:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(json.dumps(each) + "\n" for each in asked)))
    monkeypatch.setattr(sys, "stdout", out)
    gym_worker.main()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_questions_are_those_of_one_size_and_answers_are_scored(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made, right, wrong = told(
        monkeypatch,
        {"name": "tens", "config": {"seed": "1"}, "count": 3},
        {"name": "tens", "config": {"seed": "1"}, "index": 1, "answer": "1"},
        {"name": "tens", "config": {"seed": "1"}, "index": 1, "answer": "2"},
    )
    assert made["entries"] == [
        {"question": "0 of 1000", "answer": "0"},
        {"question": "1 of 1000", "answer": "1"},
        {"question": "2 of 1000", "answer": ""},
    ]
    assert (right, wrong) == ({"score": 1.0}, {"score": 0.0})


def test_a_setting_has_the_type_of_its_default(library: None) -> None:
    texts = {
        "max_value": "50",
        "share": "1",
        "shout": "true",
        "kinds": "b|c",
        "signs": "*|/",
        "style": "latex",
        "seed": "4",
    }
    _, config = gym_worker._dataset("tens", texts)
    assert config == {
        "max_value": 50, "share": 1.0, "shout": True, "kinds": ["b", "c"], "signs": ("*", "/"), "style": Style.LATEX,
        "seed": 4,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "error", "known"),
    [
        ({"name": "tons", "config": {}}, "reasoning-gym has no task 'tons'", ["tens"]),
        (
            {"name": "tens", "config": {"max": "1"}},
            "tens has no setting 'max'",
            ["kinds", "max_value", "share", "shout", "signs", "style"],
        ),
        ({"name": "tens", "config": {"max_value": "x"}}, "ValueError: invalid literal for int()", []),
        ({"name": "tens", "config": {}, "index": 7, "answer": "7"}, "RuntimeError: no such question", []),
    ],
)
def test_what_cannot_be_made_is_told(
    asked: dict[str, Any], error: str, known: list[str], library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    [said] = told(monkeypatch, {"count": 1, **asked})
    assert said["error"].startswith(error) and said["known"] == known
