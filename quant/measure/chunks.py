"""Splits texts into chunks of tokens as llama.cpp's tools do, for calibration and measurements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from runtime.base.errors import UsageError
from runtime.base.types import counted
from runtime.machine import threads
from runtime.machine.host import probe

# llama-imatrix ignores shorter chunks, and they have too little context for a measurement.
LEAST_CHUNK = 16


@dataclass(frozen=True, slots=True)
class Text:
    """`name` is the name of the file, or of a built-in text (quant.measure.texts)."""

    name: str
    content: str


@dataclass(frozen=True, slots=True)
class ChunkOptions:
    """Texts are read in chunks of `context` tokens, at most `limit` of them (None: all). Raises UsageError.

    `whole`: each text begins in an empty context and is read to its end, in pieces of `context` tokens where it is
    longer, and every token is scored; chunks are of the joined texts, and the second half of each is scored."""

    context: int = 512
    limit: int | None = None
    whole: bool = False

    def __post_init__(self) -> None:
        if self.context < LEAST_CHUNK:
            raise UsageError(f"a chunk must have at least {LEAST_CHUNK} tokens, not {self.context}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"at least 1 chunk must be read, not {self.limit}")


class Tokenizer(Protocol):
    """The part of a model that cutting a text needs."""

    @property
    def first_token(self) -> int | None: ...
    def tokenize(self, text: str, *, add_bos: bool = False) -> list[int]: ...


def chunks(model: Tokenizer, texts: Sequence[Text], options: ChunkOptions) -> tuple[tuple[int, ...], ...]:
    """Returns the texts one after the other as chunks of tokens. An incomplete last chunk is dropped.

    Where the model wants a first token, it takes the place of each chunk's first (llama.cpp tools/imatrix/imatrix.cpp
    and tools/perplexity/perplexity.cpp). Raises UsageError for texts that do not fill one chunk.
    """
    size, most = options.context, options.limit
    tokens: list[int] = []
    for text in texts:
        tokens += model.tokenize(text.content, add_bos=not tokens)
        if most is not None and len(tokens) >= most * size:
            break
    starts = range(0, len(tokens) - size + 1, size)[:most]
    if not starts:
        raise UsageError(
            f"the text has {counted(len(tokens), 'token')}, and one chunk has {size}",
            hint="give more text" + (f", or --ctx-size {len(tokens) // 2}" if len(tokens) >= 2 * LEAST_CHUNK else ""),
        )
    first = model.first_token
    head = () if first is None else (first,)
    return tuple((*head, *tokens[start + len(head) : start + size]) for start in starts)


def settle_threads(model: threads.Threaded, asked: int | None) -> int:
    """Set `asked` threads, or the number with which this machine is fastest now; return how many."""
    counts = (asked,) if asked else threads.candidates(probe().cores)
    return threads.measure(model, counts)
