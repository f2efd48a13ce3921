"""Judges quantized files by whole texts: each begins in an empty context, and every token counts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from quant.measure import texts
from quant.measure.chunks import Text
from quant.measure.divergence import log_sum
from quant.measure.moments import sequences
from runtime.base.run import Run
from runtime.gguf.reader import read_card
from runtime.llama import Scorer

_WINDOW = 2048
_PIECE = 512  # tokens of each topic of Python's manual
_ROWS = 64  # compared at once: with 262,144 tokens of vocabulary 67 MB for each array
_LOWEST = -60000.0  # within float16
_PROBLEMS = Path(texts.__file__).parent / "held_out" / "problems.txt"


@dataclass(frozen=True, slots=True)
class Judged:
    """Texts as sequences of tokens; `digest` is of the tokens."""

    name: str
    parts: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        return sum(map(len, self.parts))

    @property
    def digest(self) -> str:
        return hashlib.sha256(repr(self.parts).encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Loss:
    """Sums over the tokens of each text: of the KL divergence in nats, of the tokens, and of those where both models
    find the same token most likely."""

    sums: tuple[float, ...]
    counts: tuple[int, ...]
    same: tuple[int, ...]

    @property
    def mean(self) -> float:
        return sum(self.sums) / sum(self.counts)

    @property
    def error(self) -> float:
        """The standard error of the mean; a text is one draw."""
        sums, counts = np.array(self.sums), np.array(self.counts)
        return _spread(sums - self.mean * counts) / float(counts.sum())

    @property
    def same_top(self) -> float:
        return sum(self.same) / sum(self.counts)

    def ratio(self, other: Loss) -> tuple[float, float]:
        """This loss as a share of another on the same texts, and its standard error: the texts are paired."""
        found = sum(self.sums) / sum(other.sums)
        differences = np.array(self.sums) - found * np.array(other.sums)
        return found, _spread(differences) / sum(other.sums)

    def __str__(self) -> str:
        return f"{self.mean:.3g} ± {self.error:.2g}, same top token {self.same_top:.2%}"


def _spread(values: NDArray[np.float64]) -> float:
    count = len(values)
    return float(np.sqrt(np.square(values).sum() * count / max(count - 1, 1)))


def held_out(model: Path, most: int, *, problems: bool = False) -> Judged:
    """The built-in conversations for losses, in the model's template; `problems`: of nano's families alone."""
    known = _PROBLEMS.read_text(encoding="utf-8") if problems else ""
    found = zip(texts.HELD_OUT.conversations(), texts.HELD_OUT.each_for_model(read_card(model)), strict=True)
    chosen = [text for item, text in found if not problems or item.messages[-1].content in known]
    with Scorer(model, window=_WINDOW) as opened:
        return Judged("problems" if problems else "conversations", sequences(opened, chosen, _WINDOW, most))


def manual(model: Path, most: int) -> Judged:
    """The beginnings of the topics of Python's language reference, as `help()` shows them, in a fixed order."""
    from pydoc_data.topics import topics

    names = sorted(topics, key=lambda name: hashlib.sha256(name.encode()).digest())
    found: list[tuple[int, ...]] = []
    with Scorer(model, window=_PIECE) as opened:
        for name in names:
            found += sequences(opened, [Text(name, topics[name])], _PIECE, _PIECE)[:1]
            if sum(map(len, found)) >= most:
                break
    return Judged("manual", tuple(found))


class Reference:
    """The outputs of the original model on texts, in an unnamed file. A context manager.

    The file has each logit less the largest of its row, as float16, and rows are normalised when they are read: a
    model against itself measures below 1e-6 nats.
    """

    def __init__(self, model: Path, judged: Judged, folder: Path, threads: int) -> None:
        self._judged, self._threads = judged, threads
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed by __exit__)
        for _, rows in self._outputs(model):
            self._file.write(np.maximum(_shifted(rows), _LOWEST).astype(np.float16).data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._file.close()

    def loss(self, model: Path) -> Loss:
        """The loss of a file with the same vocabulary."""
        count = len(self._judged.parts)
        sums, same = np.zeros(count), np.zeros(count, np.int64)
        self._file.seek(0)
        for number, rows in self._outputs(model):
            kept = np.frombuffer(self._file.read(rows.size * 2), np.float16).reshape(rows.shape)
            base, other = _normalised(kept.astype(np.float32)), _normalised(_shifted(rows))
            sums[number] += (np.exp(base) * (base - other)).sum(dtype=np.float64)
            same[number] += int((kept.argmax(axis=1) == rows.argmax(axis=1)).sum())
        counts = tuple(map(len, self._judged.parts))
        return Loss(tuple(map(float, sums)), counts, tuple(map(int, same)))

    def _outputs(self, model: Path) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The number of each text with blocks of its logits, (tokens, vocabulary)."""
        with Scorer(model, window=_WINDOW, run=Run(threads=self._threads)) as opened:
            for number, tokens in enumerate(self._judged.parts):
                for block in opened.score(tokens):
                    for start in range(0, len(block), _ROWS):
                        yield number, block[start : start + _ROWS]


def _shifted(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(rows - rows.max(axis=1, keepdims=True))


def _normalised(shifted: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(shifted - log_sum(shifted).astype(np.float32)[:, None])
