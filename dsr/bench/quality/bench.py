"""Measures the loss of files against one reference for `dsr bench quality`. The reference reads the text once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from dsr.bench.kit.conditions import watching
from dsr.bench.quality.rows import FileLoss, LossReference, QualityBench
from dsr.loading.tried_files import try_once
from dsr.models.model import Model
from dsr.models.reach import check_chunks
from dsr.quantize.imatrix import read_text
from dsr.store.measurement import Measurement
from quant.measure.chunks import ChunkOptions, Text, settle_threads
from quant.measure.texts import HELD_OUT
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import Aborted, DsrError, Incompatible, NotFound, UsageError, VerificationFailed
from runtime.base.events import Listener
from runtime.base.files import check_writable
from runtime.base.run import Run
from runtime.base.types import counted
from runtime.gguf.card import ModelCard
from runtime.machine.host import probe

if TYPE_CHECKING:
    from quant.measure.base_file import KeptBase
    from quant.measure.divergence import Base, Estimate, Report
    from runtime.llama import Scorer

_CALIBRATED_ON = "quantize.imatrix.dataset"  # as llama-quantize writes it
CONTEXT = 512  # default tokens of a chunk, as in llama-perplexity
_LONGEST = 2048  # default tokens of a whole text: longer ones are read in pieces
BUILT_IN = "builtin"


@dataclass(frozen=True, slots=True)
class QualityRequest:
    """The options of `dsr bench quality`. `text` None is the built-in one, `chunks` None all of it. `whole`: read whole
    conversations instead of chunks. A base file has chunks alone: raises UsageError.

    `base` is the file of the reference's saved output: if it exists, it is used, and `against` may be None; if not, it
    is written.
    """

    against: Model | None
    text: Path | None = None
    chunks: int | None = None
    context: int | None = None
    base: Path | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.whole and self.base is not None:
            raise UsageError(
                "a base file holds chunks, and --whole reads conversations",
                hint="leave out --base, and name the reference: --against",
            )


def measure(
    models: Sequence[Model],
    request: QualityRequest,
    run: Run,
    *,
    keep: Callable[[Measurement], None] = lambda row: None,
) -> QualityBench:
    """Reads the text with the reference, or loads its saved output, then reads it with each model.

    `keep` gets each row at once. If a model fails, it is in `failed` and the others are measured.

    Raises UsageError (no reference; too little text), NotFound, BadModelFile, VerificationFailed (a damaged base
    file), Incompatible (a base file of another text), DoesNotFit, DsrError (the base file cannot be written). Raises
    Aborted if nothing was measured yet, and the first model's error if all models failed.
    """
    measured: list[FileLoss] = []
    failed: list[tuple[str, DsrError]] = []
    interrupted = False

    def leave_out(model: Model, error: DsrError) -> None:
        failed.append((model.absolute_reference, error))

    source = _source(request, models[0], run)
    readable = _readable(models, source.vocabulary, leave_out)
    if not readable:
        raise failed[0][1]
    with source.output as output:
        for model, card in readable:
            try:
                made = _measure(model, card, output, run)
            except Aborted:
                interrupted = True
                break
            except DsrError as error:
                leave_out(model, error)
                continue
            measured.append(made)
            keep(made.measurement(output.reference))
    if not measured:
        raise Aborted if interrupted else failed[0][1]
    return QualityBench(
        reference=output.reference,
        reference_perplexity=output.perplexity,
        measured=tuple(measured),
        failed=tuple(failed),
        interrupted=interrupted,
        base_size=output.base_size,
        base_share=output.base_share,
    )


@dataclass(frozen=True, slots=True)
class ReferenceOutput:
    """The reference's output for a text, to compare models with.

    `compare` reads the text with a model of the given name. `base_size`: bytes of the base file, None without;
    `base_share`: the same as a share of llama-perplexity's base file.
    """

    reference: LossReference
    perplexity: Estimate
    compare: Callable[[Scorer, str], Report]
    base_size: int | None
    base_share: float


@contextmanager
def _read_reference(
    reference: Model,
    card: ModelCard,
    texts: Sequence[Text],
    options: ChunkOptions,
    path: Path | None,
    run: Run,
) -> Iterator[ReferenceOutput]:
    """Reads the texts with the reference. Writes the base file if there is a `path`."""
    from quant.measure import base_file
    from quant.measure.divergence import Base
    from quant.round.moments import text_digest
    from runtime.llama import Scorer

    try_once(reference, run)
    with Base() as base:
        with Scorer(reference.path, window=options.context, run=run) as scorer:
            settle_threads(scorer, run.threads)
            base.record(scorer, texts, options, name=reference.path.name, listen=run.listen)
        made = LossReference(
            name=reference.absolute_reference,
            digest=card.header_digest,
            text=BUILT_IN if texts[0].name == HELD_OUT.name else texts[0].name,
            text_digest=text_digest(base.parts) if options.whole else base_file.digest(base.parts),
            context=options.context,
            chunks=len(base.parts),
            tokens=base.losses.size,
            base="whole",
            whole=options.whole,
        )
        size = None if path is None else base_file.write(path, base, made.name, made.digest, made.text)
        llama_size = base_file.llama_size(base.vocab_size, options.context, len(base.parts))

        def compare(scorer: Scorer, name: str) -> Report:
            _check_tokens(base, scorer, texts, name)
            return base.compare(scorer, name=name, listen=run.listen)

        yield ReferenceOutput(made, base.perplexity, compare, size, (size or 0) / llama_size)


def _saved_output(base: KeptBase, text: Text, listen: Listener) -> ReferenceOutput:
    """Returns the output that a base file holds, for comparisons on the same text."""
    from quant.measure import base_file

    facts = base.facts
    made = LossReference(
        name=facts.reference,
        digest=facts.digest,
        text=facts.text,
        text_digest=facts.tokens,
        context=facts.context,
        chunks=facts.chunks,
        tokens=facts.rows,
        base="kept",
    )
    llama_size = base_file.llama_size(facts.vocabulary, facts.context, facts.chunks)

    def compare(scorer: Scorer, name: str) -> Report:
        return base.compare(scorer, [text], name=name, listen=listen)

    return ReferenceOutput(made, base.perplexity, compare, base.size, base.size / llama_size)


def _check_tokens(base: Base, scorer: Scorer, texts: Sequence[Text], name: str) -> None:
    """Raises Incompatible for a model that splits the text into other tokens: the same ids would mean other words."""
    from quant.measure.divergence import parts_of

    if scorer.vocab_size == base.vocab_size and parts_of(scorer, texts, base.options) != base.parts:
        raise Incompatible(f"{name} splits the text into other tokens than the reference: their vocabularies differ")


@dataclass(frozen=True, slots=True)
class _Source:
    """Where the reference's output comes from. Nothing is read before the context manager is entered."""

    vocabulary: int
    output: AbstractContextManager[ReferenceOutput]


def _source(request: QualityRequest, first: Model, run: Run) -> _Source:
    """Returns the base file or the reference, after all checks that need no reading.

    Without a reference, the built-in text uses the chat template of the model `first`.
    """
    path, original = request.base, request.against
    card = None if original is None else original.card
    base = None if path is None else _read_base(path, request, card)
    if base is not None:
        (text,) = _texts(request, card or first.card)
        return _Source(base.facts.vocabulary, nullcontext(_saved_output(base, text, run.listen)))
    if original is None or card is None:
        raise UsageError(
            "no reference to compare with" + (f": {path} does not exist yet" if path else ""),
            hint="name the file of the original weights: --against nano-f16.gguf",
        )
    if path is not None:
        _check_place(path)
    longest = min(_LONGEST, card.context_length) if request.whole else CONTEXT
    options = ChunkOptions(request.context or longest, request.chunks, request.whole)
    check_chunks(card, options.context)
    texts = _texts(request, card)
    return _Source(card.vocab_size, _read_reference(original, card, texts, options, path, run))


def _read_base(path: Path, request: QualityRequest, card: ModelCard | None) -> KeptBase | None:
    """Returns the saved output in a file, None without the file. Raises if it does not fit the request."""
    from quant.measure import base_file

    try:
        base = base_file.read(path)
    except NotFound:
        return None
    facts = base.facts
    if card is not None and card.header_digest != facts.digest:
        raise VerificationFailed(
            f"{path} is the output of another model: {facts.reference}",
            hint="leave out --against to use it, or choose another name for --base",
        )
    if request.context not in (None, facts.context) or request.chunks not in (None, facts.chunks):
        raise UsageError(
            f"{path} holds {counted(facts.chunks, 'chunk')} of {facts.context} tokens",
            hint="leave out --ctx-size and --chunks, or choose another name for --base",
        )
    return base


def _check_place(path: Path) -> None:
    """Raises if the base could not be written later."""
    if not path.absolute().parent.is_dir():
        raise NotFound(f"{path.parent}: no such folder", hint=f"mkdir -p {path.parent}")
    with disk_errors(path):
        check_writable(path)


def _texts(request: QualityRequest, card: ModelCard) -> Sequence[Text]:
    """Returns the text, or each conversation of the built-in one if they are read whole."""
    if request.text is not None:
        return (read_text(request.text),)
    return HELD_OUT.each_for_model(card) if request.whole else (HELD_OUT.for_model(card),)


def _readable(
    models: Sequence[Model], vocabulary: int, leave_out: Callable[[Model, DsrError], None]
) -> list[tuple[Model, ModelCard]]:
    """Returns the models whose headers can be read and whose vocabularies have the right size."""
    from quant.measure.divergence import check_vocabulary

    found = []
    for model in models:
        try:
            card = model.card
            check_vocabulary(model.path.name, card.vocab_size, vocabulary)
            found.append((model, card))
        except DsrError as error:
            leave_out(model, error)
    return found


def _measure(model: Model, card: ModelCard, output: ReferenceOutput, run: Run) -> FileLoss:
    from runtime.llama import Scorer

    try_once(model, run)
    reference = output.reference
    with watching(probe()) as watch:
        started = time.perf_counter()
        with Scorer(model.path, window=reference.context, run=run) as scorer:
            settle_threads(scorer, run.threads)
            report = output.compare(scorer, model.path.name)
        seconds = time.perf_counter() - started
    return FileLoss(
        model=model.absolute_reference,
        digest=card.header_digest,
        size=card.size,
        bits_per_weight=card.bits_per_weight,
        report=report,
        conditions=watch.conditions,
        seconds=seconds,
        at=time.time(),
        calibrated_on_text=PurePath(str(card.metadata.get(_CALIBRATED_ON, ""))).name == reference.text,
    )
