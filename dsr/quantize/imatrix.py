"""`dsr imatrix`: from a model and texts to an importance matrix, and what it covers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dsr.models.model import Model
from dsr.models.reach import check_chunks
from quant.measure import imatrix
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.imatrix import Coverage, Imatrix
from quant.measure.texts import CALIBRATION
from quant.sources.source import GgufSource
from runtime.base import texts as base_texts
from runtime.base.errors import UsageError
from runtime.base.run import Run
from runtime.base.types import ByteCount, counted
from runtime.gguf.tensor_name import parse_name

_LAYERS_NAMED = 4


@dataclass(frozen=True, slots=True)
class ImatrixRequest:
    """`texts` are files, none for the built-in text; `chunks` None is all of it; `add` are matrices to merge in.
    `moments` is a folder for the second moments of the same texts, None to collect none."""

    out: Path
    texts: tuple[Path, ...] = ()
    chunks: int | None = None
    context: int = 512
    add: tuple[Path, ...] = ()
    moments: Path | None = None
    force: bool = False


@dataclass(frozen=True, slots=True)
class ImatrixMade:
    path: Path
    size: ByteCount
    matrix: Imatrix
    coverage: tuple[Coverage, ...]
    seconds: float
    moments: Path | None = None

    def json(self, reference: str) -> dict[str, Any]:
        return {
            "model": reference,
            "file": str(self.path),
            "bytes": int(self.size),
            "entries": len(self.matrix.entries),
            "chunks": self.matrix.chunk_count,
            "context": self.matrix.chunk_size,
            "tokens": self.matrix.chunk_count * self.matrix.chunk_size,
            "datasets": list(self.matrix.datasets),
            "routed_layers": len(self.matrix.routing),
            "coverage": [
                {
                    "name": row.name,
                    "experts": row.experts,
                    "unseen": list(row.unseen),
                    "least": row.least,
                    "median": row.median,
                }
                for row in self.coverage
            ],
            "moments": None if self.moments is None else str(self.moments),
            "seconds": round(self.seconds, 3),
        }


def make(model: Model, request: ImatrixRequest, run: Run) -> ImatrixMade:
    """Collect an importance matrix and write it. Errors of the request are found before the model is loaded.

    Raises UsageError, NotFound, BadModelFile, Incompatible (a matrix to add is of another model), DoesNotFit, Aborted.
    """
    from dsr.loading.tried_files import try_once
    from quant.measure.calibrate import collect

    started = time.perf_counter()
    card = model.card
    check_chunks(card, request.context)
    _check_out(request, card.files)
    earlier = [imatrix.read(path) for path in request.add]
    texts = [read_text(path) for path in request.texts] or [CALIBRATION.for_model(card)]
    try_once(model, run)
    found = collect(model.path, texts, ChunkOptions(request.context, request.chunks), run)
    matrix = imatrix.merge([found, *earlier]) if earlier else found
    imatrix.write(request.out, matrix)
    if request.moments is not None:
        from dsr.quantize import moments
        from quant.round.moments import source_digest

        with GgufSource(model.path) as source:
            digest = source_digest(source)
        given = texts if request.texts else ()
        most = None if request.chunks is None else request.chunks * request.context
        moments.collect(model.path, digest, given, most, request.moments, run)
    return ImatrixMade(
        path=request.out,
        size=ByteCount(request.out.stat().st_size),
        matrix=matrix,
        coverage=matrix.coverage(),
        seconds=time.perf_counter() - started,
        moments=request.moments,
    )


def coverage_in_words(coverage: Sequence[Coverage]) -> str:
    """How many experts saw tokens, for a mixture of experts; nothing for a dense model."""
    rows = _routed(coverage)
    if not rows:
        return ""
    seen = sum(row.experts - len(row.unseen) for row in rows)
    least = min(row.least for row in rows)
    median = sorted(row.median for row in rows)[len(rows) // 2]
    return f"{seen} of {sum(row.experts for row in rows)} experts seen; tokens each: least {least}, median {median:.0f}"


def unseen_in_words(coverage: Sequence[Coverage]) -> str | None:
    """The warning about experts that no token was sent to; None when there are none."""
    rows = [row for row in _routed(coverage) if row.unseen]
    if not rows:
        return None
    named = [f"layer {parse_name(row.name).layer}: {', '.join(map(str, row.unseen))}" for row in rows[:_LAYERS_NAMED]]
    rest = f"; and in {counted(len(rows) - _LAYERS_NAMED, 'more layer')}" if len(rows) > _LAYERS_NAMED else ""
    count = sum(len(row.unseen) for row in rows)
    return (
        f"{counted(count, 'expert')} saw no token ({'; '.join(named)}{rest}): "
        "quantizing takes the mean of their layer; more text, or text of another kind, may reach them"
    )


def _routed(coverage: Sequence[Coverage]) -> list[Coverage]:
    """One row for each layer: gate, up and down of an expert see the same tokens."""
    return [row for row in coverage if row.name.endswith("ffn_down_exps.weight")]


def _check_out(request: ImatrixRequest, files: Sequence[Path]) -> None:
    out = request.out
    if out.is_dir():
        raise UsageError(f"{out} is a folder", hint="give the name of the file to write: -o FILE")
    if out.exists() and any(out.samefile(file) for file in (*files, *request.texts) if file.exists()):
        raise UsageError(f"{out} is also an input: it would be overwritten", hint="give another name: -o FILE")
    if out.exists() and not request.force:
        raise UsageError(f"{out} exists already", hint="give another name with -o FILE, or --force")


def read_text(path: Path) -> Text:
    # llama.cpp's tools drop one line end at the end of a file.
    return Text(path.name, base_texts.read_text(path).removesuffix("\n"))
