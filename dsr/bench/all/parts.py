"""The parts of rows, kept as soon as they are measured: the same command goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from dsr import __version__
from dsr.bench.all.request import SPEED_OF_FILE, SPEED_OF_MODEL, AllRequest, ModelRequest
from dsr.bench.all.result import ITSELF, Answers, FileResult
from dsr.models.model import Model
from dsr.store import paths
from dsr.store.ledger import Ledger
from dsr.store.measurement import Measurement
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card

Part = Literal["file", "quality", "speed", "answers", "strategies", "experts"]


class FinishedParts:
    """A context manager. A part is named by what it is of, and by all that makes it differ."""

    def __init__(
        self, model: Model, card: ModelCard, request: AllRequest, wanted: ModelRequest, threads: int | None
    ) -> None:
        self._model = model
        self._request = request
        self._wanted = wanted
        self._threads = threads
        self._anew: set[str] = set()  # the recipes whose speed was measured since this was opened
        name = re.sub(r"[^\w.=-]+", "-", model.path.stem).strip("-.") or "model"
        self.folder: Path = paths.cache_folder() / "bench-all" / f"{name}-{card.header_digest[:8]}"
        self._kept = Ledger(self.folder / "parts.jsonl", lambda row: tuple(row["key"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._kept.__exit__(*error)

    def missing(self, part: Part, recipe: str = ITSELF) -> bool:
        """Whether it is to be measured: it is not there, or was disturbed, and shall be measured again."""
        if self._key(part, recipe) not in self._kept:
            return True
        doubtful = self._request.again and part == "speed" and recipe not in self._anew
        return doubtful and any(row.conditions.disturbed for row in self._rows(part, recipe))

    def complete(self, recipe: str) -> bool:
        """Whether nothing of the row of a file is missing."""
        row: tuple[Part, ...] = ("file", "quality", "speed", "answers")
        return not any(self.missing(part, recipe) for part in row if part != "answers" or self._wanted.suite)

    def add(self, part: Part, recipe: str = ITSELF, body: Mapping[str, Any] | None = None) -> None:
        """Keep a part that was missing."""
        if self.missing(part, recipe):
            self._kept.add({"key": list(self._key(part, recipe)), **(body or {})})
        if part == "speed":
            self._anew.add(recipe)

    def file(self, recipe: str) -> FileResult | None:
        """The row of a file as far as it is there."""
        facts = self._body("file", recipe)
        if facts is None:
            return None
        answers, quality = self._body("answers", recipe), self._rows("quality", recipe)
        return FileResult(
            recipe=recipe,
            name=facts["name"],
            digest=facts["digest"],
            size=facts["size"],
            bits_per_weight=facts["bits"],
            quality=quality[0] if quality else None,
            speed=self._rows("speed", recipe),
            answers=None if answers is None else Answers(**answers),
        )

    def _body(self, part: Part, recipe: str) -> dict[str, Any] | None:
        key = self._key(part, recipe)
        return (
            {name: value for name, value in self._kept.row(key).items() if name != "key"} if key in self._kept else None
        )

    def _rows(self, part: Part, recipe: str) -> tuple[Measurement, ...]:
        return tuple(Measurement.of(body) for body in (self._body(part, recipe) or {"rows": []})["rows"])

    def _key(self, part: Part, recipe: str) -> tuple[str, str, str]:
        told = json.dumps([__version__, recipe, *self._conditions(part, recipe)])
        return part, recipe, hashlib.sha256(told.encode()).hexdigest()[:16]

    def _conditions(self, part: Part, recipe: str) -> list[Any]:
        """What else makes a part differ."""
        request, wanted = self._request, self._wanted
        suite = wanted.suite.digest if wanted.suite else None
        match part:
            case "file":
                return []
            case "quality":
                against = read_card((request.against or self._model).path).header_digest
                return [against, request.chunks]
            case "speed":
                return [asdict(SPEED_OF_FILE if recipe else SPEED_OF_MODEL), self._threads]
            case "answers":
                return [suite, request.limit, request.max_tokens]
            case "strategies":
                limit = request.questions_of_strategies
                return [suite, limit, request.max_tokens, request.temperature, *wanted.strategies]
            case "experts":
                return [suite, request.questions_of_strategies, request.max_tokens, *wanted.experts]
