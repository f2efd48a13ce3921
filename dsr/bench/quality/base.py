"""What the reference says of a text: it reads it now, or a file kept it of an earlier reading."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsr.bench.quality.losses import Against
from dsr.loading.load import try_once
from dsr.models.model import Model
from quant.measure.chunks import ChunkOptions, Text, chunks, settle_threads
from quant.measure.texts import HELD_OUT
from runtime.base.errors import Incompatible
from runtime.base.events import Listener
from runtime.base.run import Run
from runtime.gguf.card import ModelCard

if TYPE_CHECKING:
    from quant.measure.base_file import KeptBase
    from quant.measure.divergence import Base, Estimate, Report
    from runtime.llama import Scorer

BUILT_IN = "builtin"


@dataclass(frozen=True, slots=True)
class Recording:
    """`compare` reads the text with a model, which it calls by the name that it is given. `base_size`: bytes of the
    file that keeps what was said, None without; `base_share` of what llama-perplexity's has."""

    against: Against
    perplexity: Estimate
    compare: Callable[[Scorer, str], Report]
    base_size: int | None
    base_share: float


@contextmanager
def recorded(
    local: Model,
    card: ModelCard,
    text: Text,
    options: ChunkOptions,
    path: Path | None,
    run: Run,
) -> Iterator[Recording]:
    """Let a model read the text, and write to `path` what is to be kept of it."""
    from quant.measure import base_file
    from quant.measure.divergence import Base
    from runtime.llama import Scorer

    try_once(local)
    with Base() as base:
        with Scorer(local.path, window=options.context, run=run) as model:
            settle_threads(model, run.threads)
            base.record(model, [text], options, name=local.path.name, listen=run.listen)
        against = Against(
            name=local.absolute_reference,
            digest=card.header_digest,
            text=BUILT_IN if text.name == HELD_OUT.name else text.name,
            text_digest=base_file.digest(base.parts),
            context=options.context,
            chunks=len(base.parts),
            tokens=base.losses.size,
            base="whole",
        )
        size = None if path is None else base_file.write(path, base, against.name, against.digest, against.text)
        llama_size = base_file.llama_size(base.vocab_size, options.context, len(base.parts))

        def compare(model: Scorer, name: str) -> Report:
            _check_tokens(base, model, text, name)
            return base.compare(model, name=name, listen=run.listen)

        yield Recording(against, base.perplexity, compare, size, (size or 0) / llama_size)


def saved(base: KeptBase, text: Text, listen: Listener) -> Recording:
    """What a file kept, to be compared on the same text."""
    from quant.measure import base_file

    facts = base.facts
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
    llama_size = base_file.llama_size(facts.vocabulary, facts.context, facts.chunks)

    def compare(model: Scorer, name: str) -> Report:
        return base.compare(model, [text], name=name, listen=listen)

    return Recording(against, base.perplexity, compare, base.size, base.size / llama_size)


def _check_tokens(base: Base, model: Scorer, text: Text, name: str) -> None:
    """Raise Incompatible for a model that would read other tokens: the same numbers are other words to it."""
    if model.vocab_size == base.vocab_size and chunks(model, [text], base.options) != base.parts:
        raise Incompatible(f"{name} cuts the text into other tokens than the reference: their vocabularies differ")
