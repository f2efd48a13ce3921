"""The result of `dsr bench all`: a row for each file, then strategies and experts of the model itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dsr.bench.experts import bench as experts
from dsr.bench.reason import bench as reason
from dsr.models.model import Model
from dsr.store.measurement import Measurement
from runtime.base.errors import DsrError

ITSELF = ""  # stands for a recipe where the file is the model itself


@dataclass(frozen=True, slots=True)
class Answers:
    """Greedy answers to a suite. Shares, 0 to 1; `solved` by the id of the problem."""

    accuracy: float
    low: float
    high: float
    solved: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FileResult:
    """The row of one file; parts that were not measured are None or empty. `recipe` is ITSELF for the model."""

    recipe: str
    name: str
    digest: str
    size: int
    bits_per_weight: float
    quality: Measurement | None
    speed: tuple[Measurement, ...]
    answers: Answers | None

    def json(self) -> dict[str, Any]:
        return {
            "recipe": self.recipe or None,
            "file": self.name,
            "bytes": self.size,
            "bpw": round(self.bits_per_weight, 4),
            "quality": None if self.quality is None else self.quality.json(),
            "speed": [row.json() for row in self.speed],
            "answers": None if self.answers is None else asdict(self.answers),
        }


@dataclass(frozen=True, slots=True)
class ModelResult:
    """One model. `source_bits`: bits per weight of its own file; `left_out`: pairs of a part and why it is missing."""

    name: str
    source_bits: float
    against: str
    suite: str | None
    files: tuple[FileResult, ...]
    strategies: reason.ReasonBench | None
    experts: experts.ExpertsBench | None
    left_out: tuple[tuple[str, str], ...]

    def file(self, recipe: str) -> FileResult | None:
        return next((file for file in self.files if file.recipe == recipe), None)

    def json(self) -> dict[str, Any]:
        return {
            "model": self.name,
            "against": self.against,
            "suite": self.suite,
            "rows": [file.json() for file in self.files],
            "strategies": None if self.strategies is None else self.strategies.json(),
            "experts": None if self.experts is None else self.experts.json(),
            "left_out": [{"what": what, "why": why} for what, why in self.left_out],
        }


@dataclass(frozen=True, slots=True)
class AllBench:
    """All models. `failed` has the models without any result, with their errors."""

    results: tuple[ModelResult, ...]
    failed: tuple[tuple[str, DsrError], ...]
    interrupted: bool

    @property
    def rows(self) -> tuple[Measurement, ...]:
        files = [file for result in self.results for file in result.files]
        return tuple(row for file in files for row in (*([file.quality] if file.quality else []), *file.speed))

    def json(self) -> dict[str, Any]:
        return {
            "models": [result.json() for result in self.results],
            "failed": [{"model": model, "why": error.message} for model, error in self.failed],
            "interrupted": self.interrupted,
        }


def display_name(model: Model) -> str:
    """Returns the name of a model for tables: a file without its folder."""
    return model.reference if model.embedded or model.repo else model.path.name


def solved_problems(bench: reason.ReasonBench) -> Mapping[str, Mapping[str, float]]:
    """Returns, by row label and problem id, the share of right decisions."""
    found: dict[str, dict[str, list[float]]] = {}
    for text in (bench.folder / "verdicts.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        found.setdefault(row["row"], {}).setdefault(row["id"], []).append(float(row["correct"]))
    return {
        line: {problem: sum(each) / len(each) for problem, each in problems.items()} for line, problems in found.items()
    }
