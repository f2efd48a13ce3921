"""`dsr bench quality`: what each of several files lost against one reference, on one reading of a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsr.library import LocalModel
from dsr.records import Conditions, Figure, Row
from dsr.services.bench.conditions import watching
from dsr.services.chat import reference_of
from dsr.services.imatrix import read_text
from dsr.services.opening import try_once
from quant import calibration
from quant.reading import Reading, Text, chunks, settle_threads
from runtime.backend import Stop
from runtime.card import ModelCard
from runtime.errors import Aborted, DsrError, Incompatible, UsageError, VerificationFailed
from runtime.events import Listener, Notice, ignore
from runtime.gguf import read_card
from runtime.hardware import probe
from runtime.types import ByteCount
from runtime.words import counted

if TYPE_CHECKING:
    from quant.base_file import KeptBase
    from quant.measure import Base, Estimate, Report
    from runtime.llama import Scorer

BUILT_IN = "builtin"
CONTEXT = 512  # tokens of a chunk where nobody says: llama-perplexity's


@dataclass(frozen=True, slots=True)
class QualityRequest:
    """What the options say. `text` None is the built-in one, `chunks` None all of it; `base` is the file that keeps
    what the reference said: used if it is there, then `against` may be None; written if not."""

    against: LocalModel | None
    text: Path | None = None
    chunks: int | None = None
    context: int | None = None
    base: Path | None = None
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class Against:
    """What was measured against. `base` says what was known of the reference's output, "whole" or "kept": the
    likeliest tokens and the mass of the others, from a file. `tokens` are those scored."""

    name: str
    digest: str
    text: str
    text_digest: str
    context: int
    chunks: int
    tokens: int
    base: str

    @property
    def test(self) -> str:
        return f"{self.chunks} x {self.context} of {self.text}"

    @property
    def parameters(self) -> Mapping[str, str | int]:
        return {
            "against": self.name,
            "against_digest": self.digest,
            "text": self.text,
            "text_digest": self.text_digest,
            "context": self.context,
            "chunks": self.chunks,
            "base": self.base,
        }


@dataclass(frozen=True, slots=True)
class Measured:
    """One file: `size` bytes with all parts."""

    model: str
    digest: str
    size: ByteCount
    bits_per_weight: float
    report: Report
    conditions: Conditions
    seconds: float
    at: float

    def row(self, against: Against) -> Row:
        return Row(
            kind="quality",
            model=self.model,
            digest=self.digest,
            size=int(self.size),
            test=against.test,
            parameters=against.parameters,
            figures=figures(self.report, self.bits_per_weight),
            conditions=self.conditions,
            at=self.at,
        )

    def json(self) -> dict[str, Any]:
        report = self.report
        median, at_90, at_95, at_99, _, largest = report.kld_percentiles
        return {
            "model": self.model,
            "bytes": int(self.size),
            "bpw": round(self.bits_per_weight, 4),
            **_json("ppl", report.perplexity),
            "kld_mean": report.kld.value,
            "kld_stderr": report.kld.error,
            "kld_bound": None if report.kld_bound is None else report.kld_bound.value,
            "kld_median": median,
            "kld_90": at_90,
            "kld_95": at_95,
            "kld_99": at_99,
            "kld_max": largest,
            **_json("top1_agreement", report.same_top),
            **_json("probability_rms", report.probability_rms),
            **_json("ln_ppl_ratio", report.log_ratio),
            "tokens": report.tokens,
            "seconds": round(self.seconds, 3),
            "load": self.conditions.load,
            "disturbed": self.conditions.disturbed,
        }


@dataclass(frozen=True, slots=True)
class Quality:
    """What came of it, in the order that was asked for. `failed` are models and why. `base_size`: bytes of the file
    that keeps the reference's output, None without; `base_share` of what llama-perplexity's has."""

    against: Against
    reference_perplexity: Estimate
    measured: tuple[Measured, ...]
    failed: tuple[tuple[str, DsrError], ...]
    interrupted: bool
    base_size: int | None
    base_share: float

    @property
    def rows(self) -> tuple[Row, ...]:
        return tuple(each.row(self.against) for each in self.measured)

    def json(self) -> dict[str, Any]:
        return {
            "reference": {"model": self.against.name, **_json("ppl", self.reference_perplexity)},
            "text": self.against.text,
            "context": self.against.context,
            "chunks": self.against.chunks,
            "tokens": self.against.tokens,
            "base": self.against.base,
            "base_bytes": self.base_size,
            "rows": [each.json() for each in self.measured],
            "failed": [{"model": model, "why": error.message} for model, error in self.failed],
            "interrupted": self.interrupted,
        }


def figures(report: Report, bits_per_weight: float) -> dict[str, Figure]:
    """As rows have them. Of a kept base `kld_mean` is an estimate, and there is `kld_bound`."""
    import math

    count = report.tokens
    ratio = math.exp(report.log_ratio.value)
    found = {
        "ppl": Figure(report.perplexity.value, report.perplexity.error, count),
        "ppl_ratio": Figure(ratio, ratio * report.log_ratio.error, count),
        "kld_mean": Figure(report.kld.value, report.kld.error, count),
    }
    if report.kld_bound is not None:
        found["kld_bound"] = Figure(report.kld_bound.value, report.kld_bound.error, count)
    names = ("kld_median", "kld_90", "kld_95", "kld_99", "kld_99.9", "kld_max")
    found |= {
        name: Figure(value) for name, value in zip(names, report.kld_percentiles, strict=True) if name != "kld_99.9"
    }
    return found | {
        "top1_agreement": Figure(report.same_top.value, report.same_top.error, count),
        "probability_rms": Figure(report.probability_rms.value, report.probability_rms.error, count),
        "bpw": Figure(bits_per_weight),
    }


def run(
    models: Sequence[LocalModel],
    request: QualityRequest,
    *,
    keep: Callable[[Row], None] = lambda row: None,
    stop: Stop | None = None,
    listen: Listener = ignore,
) -> Quality:
    """Read the text with the reference, or take what a file kept of it, then with each model. `keep` is given each row
    as soon as it is measured. A model that fails is told in `failed`, and the others are measured.

    Raises UsageError (no reference; too little text), NotFound, BadModelFile, VerificationFailed (a damaged base),
    Incompatible (a base of something else), DoesNotFit, Aborted when nothing was measured yet; and what the first model
    failed with when all did.
    """
    with ExitStack() as stack:
        known = _known(models, request, stack, stop, listen)
        measured: list[Measured] = []
        failed: list[tuple[str, DsrError]] = []
        interrupted = False
        for local in models:
            try:
                made = _measure(local, known, request.threads, stop, listen)
            except Aborted:
                interrupted = True
                break
            except DsrError as error:
                failed.append((reference_of(local), error))
                listen(Notice(f"{reference_of(local)} is left out: {error.message}"))
                continue
            measured.append(made)
            keep(made.row(known.against))
    if not measured and interrupted:
        raise Aborted
    if not measured:
        raise failed[0][1]
    return Quality(
        against=known.against,
        reference_perplexity=known.perplexity,
        measured=tuple(measured),
        failed=tuple(failed),
        interrupted=interrupted,
        base_size=known.base_size,
        base_share=known.base_share,
    )


@dataclass(frozen=True, slots=True)
class _Known:
    """What the reference said, and how a model is compared with it."""

    against: Against
    vocabulary: int
    perplexity: Estimate
    compare: Callable[[Scorer, str], Report]
    base_size: int | None
    base_share: float


def _known(
    models: Sequence[LocalModel], request: QualityRequest, stack: ExitStack, stop: Stop | None, listen: Listener
) -> _Known:
    against = request.against
    if request.base is not None and request.base.exists():
        return _from_file(request.base, models, request, listen)
    if against is None:
        missing = f"; {request.base} is not there yet" if request.base else ""
        raise UsageError(
            f"nothing to measure against{missing}",
            hint="name the file of the original weights: --against nano-f16.gguf",
        )
    from quant import base_file
    from quant.measure import Base
    from runtime.llama import Scorer

    if request.base is not None and not request.base.absolute().parent.is_dir():
        raise UsageError(f"{request.base.parent}: no such folder")
    card = read_card(against.path)
    text = _text(request, card)
    reading = Reading(request.context or CONTEXT, request.chunks, request.threads)
    if not against.embedded:
        try_once(against.path, card)
    base = stack.enter_context(Base())
    name = reference_of(against)
    with Scorer(against.path, window=reading.context, stop=stop, listen=listen) as model:
        settle_threads(model, request.threads)
        base.record(model, [text], reading, name=against.path.name, listen=listen)
    size = None
    if request.base is not None:
        listen(Notice(f"{request.base}: what {against.path.name} said is written"))
        size = base_file.write(request.base, base, name, card.header_digest, _text_name(request))
    facts = Against(
        name=name,
        digest=card.header_digest,
        text=_text_name(request),
        text_digest=base_file.digest(base.parts),
        context=reading.context,
        chunks=len(base.parts),
        tokens=base.losses.size,
        base="whole",
    )

    def compare(model: Scorer, name: str) -> Report:
        _check_tokens(base, model, text, name)
        return base.compare(model, name=name, listen=listen)

    whole = base_file.llama_size(base.vocab_size, reading.context, len(base.parts))
    return _Known(facts, base.vocab_size, base.perplexity, compare, size, (size or 0) / whole)


def _from_file(path: Path, models: Sequence[LocalModel], request: QualityRequest, listen: Listener) -> _Known:
    from quant import base_file

    kept = base_file.read(path)
    facts = kept.facts
    _check_asked(path, kept, request)
    card = read_card(request.against.path if request.against else models[0].path)
    text = _text(request, card)
    listen(Notice(f"{path}: what {facts.reference} said to {facts.text}, without reading it again"))

    def compare(model: Scorer, name: str) -> Report:
        return kept.compare(model, [text], name=name, listen=listen)

    against = Against(
        name=facts.reference,
        digest=facts.digest,
        text=facts.text,
        text_digest=facts.tokens,
        context=facts.context,
        chunks=facts.chunks,
        tokens=facts.rows,
        base="kept",
    )
    whole = base_file.llama_size(facts.vocabulary, facts.context, facts.chunks)
    return _Known(against, facts.vocabulary, kept.perplexity, compare, kept.size, kept.size / whole)


def _check_asked(path: Path, kept: KeptBase, request: QualityRequest) -> None:
    """Raise where the file holds something else than what is asked for."""
    facts = kept.facts
    if request.against is not None and read_card(request.against.path).header_digest != facts.digest:
        raise VerificationFailed(
            f"{path} was recorded of another model: {facts.reference}",
            hint="leave out --against, or give another name to --base",
        )
    shape = f"{counted(facts.chunks, 'chunk')} of {facts.context} tokens"
    if request.context not in (None, facts.context) or request.chunks not in (None, facts.chunks):
        raise UsageError(f"{path} holds {shape}", hint="leave out --ctx and --chunks, or give another name to --base")


def _measure(local: LocalModel, known: _Known, threads: int | None, stop: Stop | None, listen: Listener) -> Measured:
    from quant.measure import check_vocabulary
    from runtime.llama import Scorer

    card = read_card(local.path)
    check_vocabulary(local.path.name, card.vocab_size, known.vocabulary)
    if not local.embedded:
        try_once(local.path, card)
    with watching(probe()) as watch:
        started = time.perf_counter()
        with Scorer(local.path, window=known.against.context, stop=stop, listen=listen) as model:
            settle_threads(model, threads)
            report = known.compare(model, local.path.name)
        seconds = time.perf_counter() - started
    return Measured(
        model=reference_of(local),
        digest=card.header_digest,
        size=card.size,
        bits_per_weight=card.bits_per_weight,
        report=report,
        conditions=watch.conditions,
        seconds=seconds,
        at=time.time(),
    )


def _check_tokens(base: Base, model: Scorer, text: Text, name: str) -> None:
    """Raise Incompatible for a model that would read other tokens: the same numbers are other words to it."""
    if model.vocab_size == base.vocab_size and chunks(model, [text], base.reading) != base.parts:
        raise Incompatible(f"{name} cuts the text into other tokens than the reference: their vocabularies differ")


def _text(request: QualityRequest, card: ModelCard) -> Text:
    return calibration.built_in(card) if request.text is None else read_text(request.text)


def _text_name(request: QualityRequest) -> str:
    return BUILT_IN if request.text is None else request.text.name


def _json(name: str, estimate: Estimate) -> dict[str, float]:
    error = "top1_stderr" if name == "top1_agreement" else f"{name}_stderr"
    return {name: estimate.value, error: estimate.error}
