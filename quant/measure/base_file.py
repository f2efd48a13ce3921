"""A base model's output on a text in a small file, so that other files can be compared without the base.

llama-perplexity keeps all of the output: 2 bytes for each entry of the vocabulary and scored token (llama.cpp
tools/perplexity/perplexity.cpp). A file of this module takes `SHARE` of that. For each scored token it has

- the largest log-probabilities. How many differs from token to token: over the whole text those above one threshold are
  kept, at least one for each token, since what an entry adds to a divergence grows with its probability.
- the mass of all others, the tail, as one number, and one token of the tail, drawn by its probability.
- the log-probability of the text's own token.

The bound: with the tail merged into one token a divergence can only shrink (the data processing inequality; T.
Cover, J. Thomas, Elements of Information Theory, 2nd edition, theorem 2.7.1, the log sum inequality), so the bound is
below the divergence at every token. The drawn token t replaces the tail's part by its mass times ln(p(t) / q(t)), which
has the right mean: an estimate without bias, whose noise is in its standard error. There is no upper bound.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quant.measure.base_columns import CODE_BITS, LEAST, Columns, choose
from quant.measure.bit_packing import pack, packed_size, unpack
from quant.measure.chunks import LEAST_CHUNK, ChunkOptions, Text, chunks
from quant.measure.divergence import (
    Base,
    Estimate,
    Model,
    Report,
    check_vocabulary,
    log_sum,
    losses_of,
    perplexity_of,
    scored,
    scored_of,
    summarize,
)
from runtime.base.disk_errors import disk_errors
from runtime.base.errors import DsrError, Incompatible, NotFound, VerificationFailed
from runtime.base.events import Listener, ignore
from runtime.base.files import write_atomically

SHARE = 0.01  # of the size that llama-perplexity's file has

_MAGIC = b"dsrbase1"
_LENGTH = struct.Struct("<I")
_SUM = 32  # bytes of the SHA-256 at the end
_LONGEST_HEADER = 4096
_HEADER_ROOM = 640  # that the budget sets aside for the header, the magic and the sum


@dataclass(frozen=True, slots=True)
class Facts:
    """The header of the file. `reference` and `digest` name the base model (`digest` is of its header), `tokens` is the
    digest of all chunks, `loss` the mean negative log-probability of the text's own tokens, `step` the unit of the
    entries' log-probabilities, `count_bits` the width of the numbers of entries."""

    reference: str
    digest: str
    text: str
    tokens: str
    vocabulary: int
    context: int
    chunks: int
    entries: int
    loss: float
    step: float
    count_bits: int

    @property
    def rows(self) -> int:
        return self.chunks * scored_of(self.context)

    @property
    def chunk_options(self) -> ChunkOptions:
        return ChunkOptions(self.context, self.chunks)


class KeptBase:
    """A base that was read from a file. `compare` may be called several times."""

    def __init__(self, facts: Facts, columns: Columns, size: int) -> None:
        """`size`: bytes of the file."""
        self.facts, self.size = facts, size
        self._columns = columns
        self._ends = np.concatenate([[0], np.cumsum(columns.counts, dtype=np.int64)])
        losses = columns.losses.astype(np.float64)
        self._losses = losses + (facts.loss - losses.mean())  # the mean is kept whole

    @property
    def perplexity(self) -> Estimate:
        return perplexity_of(self._losses)

    def compare(
        self, model: Model, texts: Sequence[Text], *, name: str = "the model", listen: Listener = ignore
    ) -> Report:
        """Read the texts with another model. Raises Incompatible for another vocabulary, tokenizer or text."""
        facts = self.facts
        check_vocabulary(name, model.vocab_size, facts.vocabulary)
        parts = chunks(model, texts, facts.chunk_options)
        if digest(parts) != facts.tokens:
            raise Incompatible(
                f"{name} reads other tokens than the base was recorded on: another text, or another tokenizer",
                hint=f"give the same text ({facts.text}), or record again with --against",
            )
        losses, estimates, bounds, agreed = [], [], [], []
        row = 0
        for logits, targets in scored(model, parts, name, listen):
            found, shifted = losses_of(logits, targets)
            estimate, bound = self._divergences(row, shifted)
            losses.append(found)
            estimates.append(estimate)
            bounds.append(bound)
            likeliest = self._columns.ids[self._ends[row : row + len(targets)]]
            agreed.append(likeliest == logits.argmax(axis=1))
            row += len(targets)
        return summarize(self._losses, *map(np.concatenate, (losses, estimates, agreed, bounds)))

    def _divergences(self, first: int, shifted: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The estimate and the bound for the rows from `first` on."""
        columns, count = self._columns, len(shifted)
        here = slice(first, first + count)
        entries = slice(int(self._ends[first]), int(self._ends[first + count]))
        rows = np.repeat(np.arange(count), columns.counts[here])
        ids, drawn = columns.ids[entries], columns.drawn[here]
        logs = columns.codes[entries] * -self.facts.step
        tails = np.exp(columns.tails[here].astype(np.float64))
        # Rounded probabilities are normalised, so that the error of rounding is of second order.
        total = np.bincount(rows, np.exp(logs), count) + tails
        logs -= np.log(total)[rows]
        tails /= total
        whole = log_sum(shifted)
        others = np.exp(shifted)
        others[rows, ids] = 0
        others_mass = others.sum(axis=1, dtype=np.float64) / np.exp(whole)
        heads = np.bincount(rows, np.exp(logs) * (logs - shifted[rows, ids] + whole[rows]), count)
        drawn_logs = columns.drawn_logs[here] - np.log(total)
        estimate = heads + tails * (drawn_logs - shifted[np.arange(count), drawn] + whole)
        bound = heads + tails * (np.log(np.maximum(tails, LEAST)) - np.log(np.maximum(others_mass, LEAST)))
        return estimate, bound


def write(path: Path, base: Base, reference: str, header_digest: str, text: str) -> int:
    """Write the output of a base, whole or not at all; `header_digest` is the reference's. Returns the bytes.

    Raises DoesNotFit (a full disk), DsrError (no place to write to).
    """
    context, count = len(base.parts[0]), len(base.parts)
    each = _entries_of_a_row(base.vocab_size, context, count)
    count_bits = min(int(8 * each).bit_length(), _id_bits(base.vocab_size))
    columns, step = choose(base, each, 2**count_bits - 1)
    facts = Facts(
        reference=reference,
        digest=header_digest,
        text=text,
        tokens=digest(base.parts),
        vocabulary=base.vocab_size,
        context=context,
        chunks=count,
        entries=columns.ids.size,
        loss=float(base.losses.mean()),
        step=step,
        count_bits=count_bits,
    )
    header = json.dumps(asdict(facts)).encode()
    body = b"".join(
        [
            *(column.astype("<f2").tobytes() for column in (columns.losses, columns.tails, columns.drawn_logs)),
            *(pack(getattr(columns, name), width) for name, (_, width) in _packed(facts).items()),
        ]
    )
    data = _MAGIC + _LENGTH.pack(len(header)) + header + body
    data += hashlib.sha256(data).digest()
    with disk_errors(path, "free some space, or give another place with --base FILE"):
        write_atomically(path, data)
    return len(data)


def read(path: Path) -> KeptBase:
    """Raises NotFound, DsrError (cannot be read), VerificationFailed (damaged, or no such file)."""
    try:
        with path.open("rb") as file:
            # A device may have no end, and a file of another kind many gigabytes.
            if not path.is_file() or file.read(len(_MAGIC)) != _MAGIC:
                raise VerificationFailed(f"{path} is no recording of a base model", hint="give another name to --base")
            data = _MAGIC + file.read()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except OSError as error:
        raise DsrError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        facts, columns = _parsed(data)
    except (ValueError, TypeError, KeyError, struct.error, RecursionError, OverflowError, MemoryError) as error:
        raise VerificationFailed(
            f"{path}: a damaged recording: {error}", hint="delete it and record again with --against"
        ) from None
    return KeptBase(facts, columns, len(data))


def llama_size(vocabulary: int, context: int, count: int) -> int:
    """Bytes of the file that llama-perplexity --kl-divergence-base writes for so many chunks."""
    return 20 + count * (4 * context + scored_of(context) * 2 * (2 * ((vocabulary + 1) // 2) + 4))


def _entries_of_a_row(vocabulary: int, context: int, count: int) -> float:
    """How many entries a scored token may have on average."""
    rows = count * scored_of(context)
    id_bits = _id_bits(vocabulary)
    bits = (SHARE * llama_size(vocabulary, context, count) - _HEADER_ROOM) * 8 / rows
    left = bits - 3 * 16 - id_bits
    entries = left / (id_bits + CODE_BITS)
    entries -= int(8 * max(entries, 1)).bit_length() / (id_bits + CODE_BITS)
    return min(max(entries, 1.0), float(vocabulary))


def _parsed(data: bytes) -> tuple[Facts, Columns]:
    """Raises ValueError and the like for anything but what `write` wrote."""
    if len(data) < len(_MAGIC) + _LENGTH.size + _SUM or hashlib.sha256(data[:-_SUM]).digest() != data[-_SUM:]:
        raise ValueError("its check sum is wrong")
    at = len(_MAGIC) + _LENGTH.size
    (length,) = _LENGTH.unpack_from(data, len(_MAGIC))
    if length > _LONGEST_HEADER:
        raise ValueError("its header is too long")
    facts = _facts(json.loads(data[at : at + length]))
    body = memoryview(data)[at + length : -_SUM]
    rows, packed = facts.rows, _packed(facts)
    if len(body) != 6 * rows + sum(packed_size(count, width) for count, width in packed.values()):
        raise ValueError("it has another length than its header says")
    found: dict[str, Any] = {}
    for number, name in enumerate(("losses", "tails", "drawn_logs")):
        found[name] = np.frombuffer(body, "<f2", rows, 2 * rows * number)
    body = body[6 * rows :]
    for name, (count, width) in packed.items():
        size = packed_size(count, width)
        found[name] = unpack(bytes(body[:size]), count, width)
        body = body[size:]
    columns = Columns(**found)
    halves = np.concatenate([columns.losses, columns.tails, columns.drawn_logs])
    if not np.isfinite(halves).all() or columns.losses.min() < 0 or halves[rows:].max() > 0:
        raise ValueError("a log-probability is none")
    if abs(float(columns.losses.mean(dtype=np.float64)) - facts.loss) > 1e-3 * (1 + facts.loss):
        raise ValueError("its log-probabilities have another mean than it says")
    if columns.counts.min() < 1 or int(columns.counts.sum()) != facts.entries:
        raise ValueError("its numbers of entries do not add up")
    if max(columns.ids.max(), columns.drawn.max()) >= facts.vocabulary:
        raise ValueError("it has a token outside of its vocabulary")
    return facts, columns


def _facts(header: Mapping[str, Any]) -> Facts:
    facts = Facts(**header)
    for name, value in asdict(facts).items():
        wanted = Facts.__annotations__[name]
        if type(value).__name__ != wanted:
            raise ValueError(f"{name} is no {wanted}")
    if not (0 < facts.vocabulary < 2**31 and LEAST_CHUNK <= facts.context < 2**31 and 0 < facts.chunks < 2**31):
        raise ValueError("its shape is none")
    if not facts.rows <= facts.entries or not 0 < facts.count_bits <= 32:
        raise ValueError("its numbers of entries are none")
    if not (0 < facts.step < 1e6 and 0 <= facts.loss < 1e6):
        raise ValueError("its scale is none")
    return facts


def _packed(facts: Facts) -> Mapping[str, tuple[int, int]]:
    """The columns of whole numbers: how many, and how many bits each."""
    id_bits = _id_bits(facts.vocabulary)
    return {
        "drawn": (facts.rows, id_bits),
        "counts": (facts.rows, facts.count_bits),
        "ids": (facts.entries, id_bits),
        "codes": (facts.entries, CODE_BITS),
    }


def _id_bits(vocabulary: int) -> int:
    return max(1, (vocabulary - 1).bit_length())


def digest(parts: Sequence[Sequence[int]]) -> str:
    """What tells one reading from another: of all tokens of all chunks, which have one length."""
    return hashlib.sha256(np.asarray(parts, "<i4").tobytes()).hexdigest()
