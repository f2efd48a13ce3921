"""`dsr bench quality`: what each of several files lost against one reference, on one reading of a text."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dsr.bench.kit.conditions import watching
from dsr.bench.quality.base import Recording, recorded, saved
from dsr.bench.quality.losses import FileLoss, QualityBench
from dsr.loading.load import try_once
from dsr.models.model import Model
from dsr.quantize.imatrix import read_text
from dsr.store.measurement import Measurement
from quant.measure.chunks import ChunkOptions, Text, settle_threads
from quant.measure.texts import HELD_OUT
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import Aborted, DsrError, NotFound, UsageError, VerificationFailed
from runtime.base.files import check_writable
from runtime.base.run import Run
from runtime.base.types import counted
from runtime.gguf.card import ModelCard
from runtime.machine.host import probe

if TYPE_CHECKING:
    from quant.measure.base_file import KeptBase

_CALIBRATED_ON = "quantize.imatrix.dataset"  # as llama-quantize writes it
CONTEXT = 512  # tokens of a chunk where nobody says: llama-perplexity's


@dataclass(frozen=True, slots=True)
class QualityRequest:
    """The options of `dsr bench quality`. `text` None is the built-in one, `chunks` None all of it.

    `base` is the file of the reference's saved output: if it exists, it is used, and `against` may be None; if not, it
    is written.
    """

    against: Model | None
    text: Path | None = None
    chunks: int | None = None
    context: int | None = None
    base: Path | None = None


def measure(
    models: Sequence[Model],
    request: QualityRequest,
    run: Run,
    *,
    keep: Callable[[Measurement], None] = lambda row: None,
) -> QualityBench:
    """Reads the text with the reference, or takes its saved output, then reads it with each model.

    `keep` gets each row at once. A model that fails is in `failed`, and the others are measured.

    Raises UsageError (no reference; too little text), NotFound, BadModelFile, VerificationFailed (a damaged base),
    Incompatible (a base of something else), DoesNotFit, Aborted when nothing was measured yet; DsrError where the base
    cannot be written; and what the first model failed with when all did.
    """
    measured: list[FileLoss] = []
    failed: list[tuple[str, DsrError]] = []
    interrupted = False

    def left_out(local: Model, error: DsrError) -> None:
        failed.append((local.absolute_reference, error))

    source = _source(request, models[0], run)
    readable = _readable(models, source.vocabulary, left_out)
    if not readable:
        raise failed[0][1]
    with source.recording as recording:
        for local, card in readable:
            try:
                made = _measure(local, card, recording, run)
            except Aborted:
                interrupted = True
                break
            except DsrError as error:
                left_out(local, error)
                continue
            measured.append(made)
            keep(made.row(recording.against))
    if not measured:
        raise Aborted if interrupted else failed[0][1]
    return QualityBench(
        against=recording.against,
        reference_perplexity=recording.perplexity,
        measured=tuple(measured),
        failed=tuple(failed),
        interrupted=interrupted,
        base_size=recording.base_size,
        base_share=recording.base_share,
    )


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the recording comes from: nothing is read before it is entered."""

    vocabulary: int
    recording: AbstractContextManager[Recording]


def _source(request: QualityRequest, first: Model, run: Run) -> _Source:
    """The file of the base, or else the reference, after all that can be checked before reading. `first` is the model
    whose chat template the built-in text takes where there is no reference."""
    path, original = request.base, request.against
    card = None if original is None else original.card
    base = None if path is None else _saved(path, request, card)
    if base is not None:
        text = _text(request, card or first.card)
        return _Source(base.facts.vocabulary, nullcontext(saved(base, text, run.listen)))
    if original is None or card is None:
        raise UsageError(
            "nothing to measure against" + (f": {path} is not there yet" if path else ""),
            hint="name the file of the original weights: --against nano-f16.gguf",
        )
    if path is not None:
        _check_place(path)
    options = ChunkOptions(request.context or CONTEXT, request.chunks)
    text = _text(request, card)
    return _Source(card.vocab_size, recorded(original, card, text, options, path, run))


def _saved(path: Path, request: QualityRequest, card: ModelCard | None) -> KeptBase | None:
    """Returns the saved output in a file, None without the file. Raises if it does not fit the request."""
    from quant.measure import base_file

    try:
        base = base_file.read(path)
    except NotFound:
        return None
    facts = base.facts
    if card is not None and card.header_digest != facts.digest:
        raise VerificationFailed(
            f"{path} was recorded of another model: {facts.reference}",
            hint="leave out --against to use it, or give another name to --base",
        )
    if request.context not in (None, facts.context) or request.chunks not in (None, facts.chunks):
        raise UsageError(
            f"{path} holds {counted(facts.chunks, 'chunk')} of {facts.context} tokens",
            hint="leave out --ctx-size and --chunks, or give another name to --base",
        )
    return base


def _check_place(path: Path) -> None:
    """Raises if the base could not be written later."""
    if not path.absolute().parent.is_dir():
        raise NotFound(f"{path.parent}: no such folder", hint=f"mkdir -p {path.parent}")
    with disk_errors(path):
        check_writable(path)


def _text(request: QualityRequest, card: ModelCard) -> Text:
    return HELD_OUT.for_model(card) if request.text is None else read_text(request.text)


def _readable(
    models: Sequence[Model], vocabulary: int, left_out: Callable[[Model, DsrError], None]
) -> list[tuple[Model, ModelCard]]:
    """The models that may be measured, as far as their headers tell."""
    from quant.measure.divergence import check_vocabulary

    found = []
    for local in models:
        try:
            card = local.card
            check_vocabulary(local.path.name, card.vocab_size, vocabulary)
            found.append((local, card))
        except DsrError as error:
            left_out(local, error)
    return found


def _measure(local: Model, card: ModelCard, recording: Recording, run: Run) -> FileLoss:
    from runtime.llama import Scorer

    try_once(local)
    against = recording.against
    with watching(probe()) as watch:
        started = time.perf_counter()
        with Scorer(local.path, window=against.context, run=run) as model:
            settle_threads(model, run.threads)
            report = recording.compare(model, local.path.name)
        seconds = time.perf_counter() - started
    return FileLoss(
        model=local.absolute_reference,
        digest=card.header_digest,
        size=card.size,
        bits_per_weight=card.bits_per_weight,
        report=report,
        conditions=watch.conditions,
        seconds=seconds,
        at=time.time(),
        calibrated_on_text=PurePath(str(card.metadata.get(_CALIBRATED_ON, ""))).name == against.text,
    )
