"""The query "embed": texts become vectors, one batch between two steps of the engine."""

from __future__ import annotations

import base64
import sys
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dsr.serve.process.answering import broken, failed
from dsr.serve.told import Result, Told
from runtime.base.errors import DsrError
from runtime.engine.embedding import TextEmbedder, Vector, check_dimensions, check_texts


@dataclass(slots=True)
class _Job:
    """Texts that become vectors. `steps` yields those of the texts that end with a batch."""

    number: int
    tell: Callable[[Told], None]
    tokens: list[int]
    steps: Iterator[list[Vector]]
    vectors: list[str] = field(default_factory=list)
    withdrawn: bool = False


class Embedding:
    """Answers queries, the first come first. `begin` runs in any thread, `step` in that of the engine."""

    def __init__(self, embedder: TextEmbedder) -> None:
        self.embedder = embedder
        self._jobs: deque[_Job] = deque()

    @property
    def busy(self) -> bool:
        return bool(self._jobs)

    def begin(self, number: int, given: Mapping[str, Any], tell: Callable[[Told], None]) -> None:
        """Take the query of this number. `given`: "texts" (a text or its tokens), "dimensions" or None, "truncate".

        The result has "vectors" (float32, little-endian, base64), and the "tokens" of each text. Raises DsrError.
        """
        embedder, texts = self.embedder, given["texts"]
        read = [embedder.tokenize(text) if isinstance(text, str) else list(text) for text in texts]
        if given.get("truncate"):
            read = [embedder.shorten(tokens) for tokens in read]
        check_dimensions(given.get("dimensions"), embedder.dimensions)
        check_texts(read, longest=embedder.longest, vocab_size=embedder.vocab_size)
        steps = embedder.embed_in_steps(read, given.get("dimensions"))
        self._jobs.append(_Job(number, tell, [len(tokens) for tokens in read], steps))

    def withdraw(self, number: int) -> None:
        """Nobody wants this result any more."""
        for job in [*self._jobs]:
            if job.number == number:
                job.withdrawn = True

    def step(self) -> None:
        """Compute one batch of the first query, and tell its result once it is complete."""
        job = self._jobs[0]
        last: Told | None = None
        try:
            vectors = None if job.withdrawn else next(job.steps, None)
            if vectors is None:
                last = Result({"vectors": job.vectors, "tokens": job.tokens})
            else:
                job.vectors += map(_wired, vectors)
        except DsrError as error:
            last = failed(error)
        except Exception as error:
            last = broken(error)
        if last is not None:
            self._jobs.popleft()
            job.tell(last)

    def props(self) -> dict[str, Any]:
        return {"embeddings": True, "dimensions": self.embedder.dimensions, "longest": self.embedder.longest}


def _wired(vector: Vector) -> str:
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    return base64.b64encode(vector.tobytes()).decode("ascii")
