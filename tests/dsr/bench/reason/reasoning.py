"""A bench of reasoning with a fake model, which says what is written here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dsr.bench.reason import bench
from dsr.bench.reason.bench import ReasonBench, ReasonRequest
from dsr.loading.load import LoadedModel
from dsr.models.sampling import SamplingRequest
from runtime.base.run import Run
from tests.dsr.chat.chatting import a_model, card, open_model, with_card
from tests.fakes import FakeBackend

# What the fake model says, by the last digit of the seed: sample s of every problem says REPLIES[s].
REPLIES = (
    "<think>a</think>\\boxed{2}",
    "<think>bb</think>\\boxed{3}",
    "<think>c</think>\\boxed{2}",
    "<think>d</think>so",
)
SUITE = (
    '{"id": "one", "question": "1 + 1?", "answer": "2"}\n'
    '{"id": "two", "question": "1 + 2?", "answer": "3"}\n'
    '{"id": "three", "question": "4 / 2?", "answer": "2.0"}\n'
)


@dataclass
class Fake:
    """The model that the service opens; `opens` counts how often."""

    model: LoadedModel
    opens: int = 0

    @property
    def backend(self) -> FakeBackend:
        assert isinstance(self.model.backend, FakeBackend)
        return self.model.backend


def faked(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The service opens this model from now on."""
    made = Fake(open_model(*REPLIES, slots=3))

    @contextmanager
    def load(*_: object, **__: object) -> Iterator[LoadedModel]:
        made.opens += 1
        yield made.model

    monkeypatch.setattr(bench, "load", load)
    return made


def request_in(folder: Path) -> ReasonRequest:
    """Its suite and its samples are in the folder."""
    (folder / "s.jsonl").write_text(SUITE, encoding="utf-8")
    return ReasonRequest(
        suite=str(folder / "s.jsonl"),
        strategies=("greedy", "direct", "vote", "first-finish", "pass"),
        samples=4,
        sampling=SamplingRequest(temperature=1.0),
        out=folder / "out",
    )


def run(request: ReasonRequest, **more: Any) -> ReasonBench:
    return bench.measure(with_card(a_model(), card()), request, Run(**more))


def saved(request: ReasonRequest, name: str = "samples") -> list[dict[str, Any]]:
    assert request.out is not None
    return [json.loads(line) for line in (request.out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def rows(made: ReasonBench) -> dict[str, tuple[float, int, int]]:
    return {s.row.label: (round(s.accuracy, 4), s.problems, s.decisions) for s in made.scores}
