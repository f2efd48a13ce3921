"""How texts become batches for an embedder, and what may be asked of it. Pure."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from runtime.base.errors import DoesNotFit, UsageError
from runtime.gguf.embedding import Pooling

Vector: TypeAlias = "array[float]"  # of "f": float32


@dataclass(frozen=True, slots=True)
class EmbedOptions:
    """How to open a model for embeddings; `runtime.placement.embedding` decides it.

    Texts have up to `longest` tokens. A batch has `together` tokens of up to `sequences` texts. A longer text is read
    `in_parts`, or has a batch of its own; `room` is the most tokens of any batch.
    """

    pooling: Pooling
    in_parts: bool
    longest: int
    together: int
    room: int
    sequences: int


class TextEmbedder(Protocol):
    """An open model that turns texts into vectors of length 1. `longest`: the most tokens of a text."""

    @property
    def dimensions(self) -> int: ...
    @property
    def longest(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a whole text, with those that begin and end a text of this model."""
        ...

    def shorten(self, tokens: Sequence[int]) -> list[int]:
        """The first `longest` tokens of a text; those that end a text stay at its end."""
        ...

    def embed(self, texts: Sequence[Sequence[int]], dimensions: int | None = None) -> list[Vector]:
        """A vector for each text, in order. With `dimensions` only its first numbers, again of length 1.

        Raises UsageError and DoesNotFit that name the text by its index, EngineFailed, Aborted.
        """
        ...

    def embed_in_steps(self, texts: Sequence[Sequence[int]], dimensions: int | None = None) -> Iterator[list[Vector]]:
        """As `embed`, one batch at each step; a step gives the vectors of the texts that end with it. What is wrong
        with the texts is raised at the first step. Nothing else may be embedded before the last one."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Part:
    """The tokens from `begin` to `end` of the text with this index, in a sequence of its own for the batch.

    `last`: the text ends with it, and its vector can be read."""

    text: int
    begin: int
    end: int
    sequence: int
    last: bool = True


def batches(lengths: Sequence[int], *, size: int, sequences: int, in_parts: bool) -> Iterator[tuple[Part, ...]]:
    """Parts to compute together, in the order of the texts: at most `size` tokens and `sequences` texts.

    A text that is longer than `size` has batches of its own, one after the other if it may be read `in_parts`;
    otherwise all of it lies in one batch.
    """
    batch: list[Part] = []
    tokens = 0
    for index, length in enumerate(lengths):
        if batch and (tokens + length > size or len(batch) == sequences):
            yield tuple(batch)
            batch, tokens = [], 0
        if length <= size or not in_parts:
            batch.append(Part(index, 0, length, len(batch)))
            tokens += length
            continue
        for begin in range(0, length, size):
            end = min(begin + size, length)
            yield (Part(index, begin, end, 0, last=end == length),)
    if batch:
        yield tuple(batch)


def check_texts(texts: Sequence[Sequence[int]], *, longest: int, vocab_size: int) -> None:
    """Raise UsageError or DoesNotFit for the first text that cannot be embedded; indices count from 0."""
    for index, tokens in enumerate(texts):
        if not tokens:
            raise UsageError(f"text {index} is empty: it has no tokens to embed", hint="leave it out")
        if len(tokens) > longest:
            raise DoesNotFit(
                f"text {index} has {len(tokens)} tokens, and the model embeds at most {longest}",
                hint="shorten the text, or split it",
            )
        for token in tokens:
            if not 0 <= token < vocab_size:
                raise UsageError(f"text {index} has the token {token}, and the vocabulary has {vocab_size} tokens")


def check_dimensions(asked: int | None, dimensions: int) -> None:
    """Raise UsageError for a number of dimensions that the model does not give."""
    if asked is not None and not 1 <= asked <= dimensions:
        raise UsageError(f"between 1 and {dimensions} dimensions are possible, not {asked}")


def unit(numbers: Sequence[float], dimensions: int | None = None) -> Vector:
    """The first `dimensions` numbers, divided by their Euclidean length; zeros stay zeros.

    Source: common_embd_normalize of llama.cpp (common/common.cpp), which adds in double precision, too.
    """
    taken = numbers[:dimensions]
    length = math.sqrt(math.fsum(number * number for number in taken))
    return array("f", [number / length for number in taken] if length > 0 else [0.0] * len(taken))
