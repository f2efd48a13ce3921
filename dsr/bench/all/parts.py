"""The finished parts of `dsr bench all` for one model. The same command resumes with the parts that are missing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from dsr import __version__
from dsr.bench.all.request import SPEED_OF_FILE, SPEED_OF_MODEL, AllRequest, ModelRequest
from dsr.bench.all.rows import ITSELF, Answers, FileResult
from dsr.bench.kit.files import results_folder
from dsr.models.model import Model
from dsr.store.ledger import Ledger
from dsr.store.measurement import Measurement
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card

Part = Literal["file", "quality", "speed", "answers", "strategies", "experts"]


class FinishedParts:
    """A view on the ledger of one model's parts; a context manager.

    A part has a key: its kind, its recipe, and the digest of all conditions that its figures depend on.
    """

    def __init__(
        self, model: Model, card: ModelCard, request: AllRequest, model_request: ModelRequest, threads: int | None
    ) -> None:
        self._model = model
        self._request = request
        self._model_request = model_request
        self._threads = threads
        self._measured: set[str] = set()  # recipes whose speed this run measured
        self.folder: Path = results_folder("all", model.path.stem, card.header_digest[:8])
        self._ledger = Ledger(self.folder / "parts.jsonl", lambda row: tuple(row["key"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._ledger.__exit__(*error)

    def missing(self, part: Part, recipe: str = ITSELF) -> bool:
        """Whether the part must be measured: it is missing, or its speeds were disturbed and --again is given."""
        if self._key(part, recipe) not in self._ledger:
            return True
        doubtful = self._request.again and part == "speed" and recipe not in self._measured
        return doubtful and any(row.conditions.disturbed for row in self._rows(part, recipe))

    def complete(self, recipe: str) -> bool:
        """Whether no part of a file's row is missing."""
        row: tuple[Part, ...] = ("file", "quality", "speed", "answers")
        return not any(self.missing(part, recipe) for part in row if part != "answers" or self._model_request.suite)

    def add(self, part: Part, recipe: str = ITSELF, body: Mapping[str, Any] | None = None) -> None:
        """Saves a part that was missing."""
        if self.missing(part, recipe):
            self._ledger.add({"key": list(self._key(part, recipe)), **(body or {})})
        if part == "speed":
            self._measured.add(recipe)

    def file(self, recipe: str) -> FileResult | None:
        """Returns the row of a file from the parts that are there, None without any."""
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
        if key not in self._ledger:
            return None
        return {name: value for name, value in self._ledger.entry(key).items() if name != "key"}

    def _rows(self, part: Part, recipe: str) -> tuple[Measurement, ...]:
        return tuple(Measurement.of(body) for body in (self._body(part, recipe) or {"rows": []})["rows"])

    def _key(self, part: Part, recipe: str) -> tuple[str, str, str]:
        conditions = json.dumps([__version__, recipe, *self._conditions(part, recipe)])
        return part, recipe, hashlib.sha256(conditions.encode()).hexdigest()[:16]

    def _conditions(self, part: Part, recipe: str) -> list[Any]:
        """Returns all other conditions that the figures of a part depend on."""
        request, model_request = self._request, self._model_request
        suite = model_request.suite.digest if model_request.suite else None
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
                return [suite, limit, request.max_tokens, request.temperature, *model_request.strategies]
            case "experts":
                return [suite, request.questions_of_strategies, request.max_tokens, *model_request.experts]
