"""`dsr bench quality`: what each of several files lost against one reference, on one reading of a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dsr.library import LocalModel
from dsr.records import Row
from dsr.services.bench.conditions import watching
from dsr.services.bench.losses import Against, Measured, Quality
from dsr.services.chat import reference_of
from dsr.services.imatrix import read_text
from dsr.services.opening import try_once
from quant import calibration
from quant.reading import Reading, Text, chunks, settle_threads
from runtime.backend import Stop
from runtime.card import ModelCard
from runtime.errors import Aborted, DsrError, Incompatible, NotFound, UsageError, VerificationFailed
from runtime.events import Listener, ignore
from runtime.gguf import read_card
from runtime.hardware import probe
from runtime.words import counted

if TYPE_CHECKING:
    from quant.base_file import KeptBase
    from quant.measure import Base, Estimate, Report
    from runtime.llama import Scorer

BUILT_IN = "builtin"
_CALIBRATED_ON = "quantize.imatrix.dataset"  # as llama-quantize writes it
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
    measured: list[Measured] = []
    failed: list[tuple[str, DsrError]] = []
    interrupted = False

    def left_out(local: LocalModel, error: DsrError) -> None:
        failed.append((reference_of(local), error))

    plan = _plan(request, models[0])
    cards = _checked(models, plan.vocabulary, left_out)
    if not cards:
        raise failed[0][1]
    with ExitStack() as stack:
        known = _recorded(plan, request, stack, stop, listen)
        for local, card in cards:
            try:
                made = _measure(local, card, known, plan.text, request.threads, stop, listen)
            except Aborted:
                interrupted = True
                break
            except DsrError as error:
                left_out(local, error)
                continue
            measured.append(made)
            keep(made.row(known.against))
    if not measured:
        raise Aborted if interrupted else failed[0][1]
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
    perplexity: Estimate
    compare: Callable[[Scorer, str], Report]
    base_size: int | None
    base_share: float


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is known before a model reads anything. Without a kept base there is a reference."""

    reference: ModelCard | None
    kept: KeptBase | None
    vocabulary: int
    text: Text


def _plan(request: QualityRequest, first: LocalModel) -> _Plan:
    """`first` is the model whose chat template the built-in text takes where there is no reference."""
    from quant import base_file

    path, against = request.base, request.against
    card = None if against is None else read_card(against.path)
    if path is not None and path.exists():
        kept = base_file.read(path)
        _check_asked(path, kept, request, card)
        return _Plan(card, kept, kept.facts.vocabulary, _text(request, card or read_card(first.path)))
    if card is None:
        raise UsageError(
            "nothing to measure against" + (f": {path} is not there yet" if path else ""),
            hint="name the file of the original weights: --against nano-f16.gguf",
        )
    if path is not None and not path.absolute().parent.is_dir():
        raise NotFound(f"{path.parent}: no such folder", hint=f"mkdir -p {path.parent}")
    return _Plan(card, None, card.vocab_size, _text(request, card))


def _checked(
    models: Sequence[LocalModel], vocabulary: int, left_out: Callable[[LocalModel, DsrError], None]
) -> list[tuple[LocalModel, ModelCard]]:
    """The models that may be measured, as far as their headers tell."""
    from quant.measure import check_vocabulary

    found = []
    for local in models:
        try:
            card = read_card(local.path)
            check_vocabulary(local.path.name, card.vocab_size, vocabulary)
            found.append((local, card))
        except DsrError as error:
            left_out(local, error)
    return found


def _recorded(plan: _Plan, request: QualityRequest, stack: ExitStack, stop: Stop | None, listen: Listener) -> _Known:
    """Read the text with the reference, unless a file kept what it said."""
    if plan.kept is not None:
        return _from_file(plan.kept, plan.text, listen)
    from quant import base_file
    from quant.measure import Base
    from runtime.llama import Scorer

    against, card, text = request.against, plan.reference, plan.text
    assert against is not None and card is not None
    reading = Reading(request.context or CONTEXT, request.chunks, request.threads)
    if not against.embedded:
        try_once(against.path, card)
    base = stack.enter_context(Base())
    with Scorer(against.path, window=reading.context, stop=stop, listen=listen) as model:
        settle_threads(model, request.threads)
        base.record(model, [text], reading, name=against.path.name, listen=listen)
    name, size = reference_of(against), None
    if request.base is not None:
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
    return _Known(facts, base.perplexity, compare, size, (size or 0) / whole)


def _from_file(kept: KeptBase, text: Text, listen: Listener) -> _Known:
    from quant import base_file

    facts = kept.facts

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
    return _Known(against, kept.perplexity, compare, kept.size, kept.size / whole)


def _check_asked(path: Path, kept: KeptBase, request: QualityRequest, reference: ModelCard | None) -> None:
    """Raise where the file holds something else than what is asked for."""
    facts = kept.facts
    if reference is not None and reference.header_digest != facts.digest:
        raise VerificationFailed(
            f"{path} was recorded of another model: {facts.reference}",
            hint="leave out --against to use it, or give another name to --base",
        )
    shape = f"{counted(facts.chunks, 'chunk')} of {facts.context} tokens"
    if request.context not in (None, facts.context) or request.chunks not in (None, facts.chunks):
        raise UsageError(f"{path} holds {shape}", hint="leave out --ctx and --chunks, or give another name to --base")


def _measure(
    local: LocalModel,
    card: ModelCard,
    known: _Known,
    text: Text,
    threads: int | None,
    stop: Stop | None,
    listen: Listener,
) -> Measured:
    from runtime.llama import Scorer

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
        flattered=PurePath(str(card.metadata.get(_CALIBRATED_ON, ""))).name == text.name,
    )


def _check_tokens(base: Base, model: Scorer, text: Text, name: str) -> None:
    """Raise Incompatible for a model that would read other tokens: the same numbers are other words to it."""
    if model.vocab_size == base.vocab_size and chunks(model, [text], base.reading) != base.parts:
        raise Incompatible(f"{name} cuts the text into other tokens than the reference: their vocabularies differ")


def _text(request: QualityRequest, card: ModelCard) -> Text:
    return calibration.built_in(card) if request.text is None else read_text(request.text)


def _text_name(request: QualityRequest) -> str:
    return BUILT_IN if request.text is None else request.text.name
