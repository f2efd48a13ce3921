"""What a base model said to a text, kept small, so that other files are measured later without the base.

llama-perplexity keeps all of it, 2 bytes for each entry of the vocabulary and scored token (llama.cpp
tools/perplexity/perplexity.cpp). A file of this module takes `SHARE` of that. For each scored token it has

- the largest log-probabilities. How many differs from token to token: over the whole text those above one threshold are
  kept, at least one for each token, since what an entry adds to a divergence grows with its probability.
- the mass of all others, the tail, as one number, and one token of the tail, drawn by its probability.
- the log-probability of the text's own token.

What that bounds: with the tail merged into one token a divergence can only shrink (the data processing inequality; T.
Cover, J. Thomas, Elements of Information Theory, 2nd edition, theorem 2.7.1, the log sum inequality), so the bound is
below the divergence at every token. The drawn token t replaces the tail's part by its mass times ln(p(t) / q(t)), which
has the right mean: an estimate without bias, whose noise is in its standard error. From above nothing is bounded.
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

from quant.bits import pack, packed_size, unpack
from quant.measure import (
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
from quant.output import disk_errors
from quant.reading import LEAST_CHUNK, Reading, Text, chunks
from runtime.errors import DsrError, Incompatible, NotFound, VerificationFailed
from runtime.events import Listener, ignore
from runtime.files import write_atomically

SHARE = 0.01  # of the size that llama-perplexity's file has

_MAGIC = b"dsrbase1"
_LENGTH = struct.Struct("<I")
_SUM = 32  # bytes of the SHA-256 at the end
_LONGEST_HEADER = 4096
_HEADER_ROOM = 640  # that the budget sets aside for the header, the magic and the sum
_CODE_BITS = 12  # of an entry's log-probability: its rounding moves a divergence by less than 1e-6 nats
_LEAST = 1e-300  # a mass that stands for none
_SEED = 0  # of the tokens drawn from the tails, so that the same recording gives the same file


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file is about. `reference` and `digest` name the base model (the digest that of its header), `tokens` is
    the digest of all chunks, `loss` the mean negative log-probability of the text's own tokens, `step` the unit of the
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
    def reading(self) -> Reading:
        return Reading(self.context, self.chunks)


@dataclass(frozen=True, slots=True)
class Columns:
    """One value for each scored token: the log-probability of the text's own token (negative), of the tail, of a token
    drawn from the tail, that token, and how many entries there are; then those of all tokens one after the other,
    likeliest first."""

    losses: NDArray[np.float16]
    tails: NDArray[np.float16]
    drawn_logs: NDArray[np.float16]
    drawn: NDArray[np.uint32]
    counts: NDArray[np.uint32]
    ids: NDArray[np.uint32]
    codes: NDArray[np.uint32]


class KeptBase:
    """A base that was read from a file: compared with as often as needed."""

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
        parts = chunks(model, texts, facts.reading)
        if digest(parts) != facts.tokens:
            raise Incompatible(
                f"{name} reads other tokens than the base was recorded on: another text, or another tokenizer",
                hint=f"give the same text ({facts.text}), or record anew with --against",
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
        # Rounded probabilities are made to sum to 1 again, so that what rounding took is of second order.
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
        bound = heads + tails * (np.log(np.maximum(tails, _LEAST)) - np.log(np.maximum(others_mass, _LEAST)))
        return estimate, bound


def write(path: Path, base: Base, reference: str, header_digest: str, text: str) -> int:
    """Write what a base recorded, whole or not at all; `header_digest` is the reference's. Returns the bytes.

    Raises DoesNotFit (a full disk), DsrError (no place to write to).
    """
    context, count = len(base.parts[0]), len(base.parts)
    each = _entries_of_a_row(base.vocab_size, context, count)
    count_bits = min(int(8 * each).bit_length(), _id_bits(base.vocab_size))
    columns, step = _columns(base, each, 2**count_bits - 1)
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
    with disk_errors(path):
        write_atomically(path, data)
    return len(data)


def read(path: Path) -> KeptBase:
    """Raises NotFound, DsrError (cannot be read), VerificationFailed (damaged, or no such file)."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except OSError as error:
        raise DsrError(f"{path}: cannot be read: {error.strerror or error}") from error
    if not data.startswith(_MAGIC):
        raise VerificationFailed(f"{path} is no recording of a base model", hint="give another name to --base")
    try:
        facts, columns = _parsed(data)
    except (ValueError, TypeError, KeyError, struct.error, RecursionError, OverflowError, MemoryError) as error:
        raise VerificationFailed(
            f"{path}: a damaged recording: {error}", hint="delete it and record anew with --against"
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
    entries = left / (id_bits + _CODE_BITS)
    entries -= int(8 * max(entries, 1)).bit_length() / (id_bits + _CODE_BITS)
    return min(max(entries, 1.0), float(vocabulary))


def _columns(base: Base, each: float, most: int) -> tuple[Columns, float]:
    """What is kept: `each` entries for a scored token on average, at most `most`; and the unit of their logarithms."""
    last = _threshold(base, int((each - 1) * base.losses.size))
    random = np.random.default_rng(_SEED)
    tails, drawn_logs, drawn, counts, ids, logs = [], [], [], [], [], []
    for block in base.log_probabilities():
        rows, entries = _chosen(block, last, most)
        counts.append(np.bincount(rows, minlength=len(block)))
        ids.append(entries)
        logs.append(block[rows, entries])
        masses = np.exp(block, dtype=np.float64)
        masses[rows, entries] = 0
        reached = np.cumsum(masses, axis=1)
        tail = reached[:, -1]
        lot = (reached < (tail * random.random(len(block)))[:, None]).sum(axis=1)
        tails.append(np.log(np.maximum(tail, _LEAST)))
        drawn.append(lot)
        drawn_logs.append(block[np.arange(len(block)), lot])
    found = -np.concatenate(logs).astype(np.float64)
    step = max(float(found.max()), 1e-6) / (2**_CODE_BITS - 1)
    half = np.finfo(np.float16)
    columns = Columns(
        losses=np.minimum(base.losses, float(half.max)).astype(np.float16),
        tails=np.concatenate(tails).astype(np.float16),
        drawn_logs=np.maximum(np.concatenate(drawn_logs), float(half.min)).astype(np.float16),
        drawn=np.concatenate(drawn).astype(np.uint32),
        counts=np.concatenate(counts).astype(np.uint32),
        ids=np.concatenate(ids).astype(np.uint32),
        codes=np.rint(found / step).astype(np.uint32),
    )
    return columns, step


def _threshold(base: Base, budget: int) -> int:
    """The last level of log-probability, as `_levels` numbers them, that may be kept if `budget` entries are, beside
    the likeliest of each row; -1 for none."""
    counts = np.zeros(2**15, np.int64)
    for block in base.log_probabilities():
        levels = _levels(block)
        likeliest = levels[np.arange(len(block)), block.argmax(axis=1)]
        counts += np.bincount(levels.ravel(), minlength=counts.size)
        counts -= np.bincount(likeliest, minlength=counts.size)
    return int(np.searchsorted(np.cumsum(counts), budget, side="right")) - 1


def _levels(block: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Log-probabilities as numbers that grow as they fall: the bits of a float16 without its sign."""
    halves = np.minimum(-block, np.float32(65504)).astype(np.float16)
    return halves.view(np.uint16) & np.uint16(0x7FFF)


def _chosen(block: NDArray[np.float32], last: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and tokens of the entries to keep, each row's likeliest first."""
    wanted = _levels(block).astype(np.int32) <= last
    wanted[np.arange(len(block)), block.argmax(axis=1)] = True
    rows, ids = np.nonzero(wanted)
    order = np.lexsort((-block[rows, ids], rows))
    rows, ids = rows[order], ids[order]
    starts = np.searchsorted(rows, np.arange(len(block)))
    keep = np.arange(rows.size) - starts[rows] < most
    return rows[keep], ids[keep]


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
    if not np.isfinite(halves).all() or halves[rows:].max() > 0:
        raise ValueError("a log-probability is none")
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
        "codes": (facts.entries, _CODE_BITS),
    }


def _id_bits(vocabulary: int) -> int:
    return max(1, (vocabulary - 1).bit_length())


def digest(parts: Sequence[Sequence[int]]) -> str:
    """What tells one reading from another: of all tokens of all chunks, which have one length."""
    return hashlib.sha256(np.asarray(parts, "<i4").tobytes()).hexdigest()
