"""The loss of a smaller model: perplexity, KL divergence from its source, agreement on the top token.

Chunks and scores follow llama-perplexity (llama.cpp tools/perplexity/perplexity.cpp), so the numbers agree with its: of
each chunk the second half is scored, where every token has at least half a chunk before it. The uncertainties are
standard errors that treat tokens as independent. Neighbouring tokens are not, so the true errors are somewhat larger.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from quant.measure.chunks import ChunkOptions, Text, Tokenizer, chunks, settle_threads
from quant.measure.moments import sequences
from runtime.base.errors import DoesNotFit, EngineFailed, Incompatible
from runtime.base.events import Listener, Progress, ignore
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from runtime.placement.trial import try_file

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9, 100.0)

# Rows that are compared at once: with 152 000 tokens of vocabulary some 40 MB for each array.
_ROWS = 64
_LOWEST = -60000.0  # within float16


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and its standard error."""

    value: float
    error: float

    def __str__(self) -> str:
        return f"{self.value:.4f} ± {self.error:.4f}"


@dataclass(frozen=True, slots=True)
class Report:
    """A model against its base on `tokens` scored tokens.

    `log_ratio` is ln(perplexity / base perplexity), `kld` the mean KL divergence of the base from the model in nats,
    `kld_percentiles` its distribution over tokens at PERCENTILES (the last is the largest), `same_top` the share of
    tokens where both find the same token most likely, `probability_rms` the root of the mean square of what the
    probabilities of the text's own tokens changed by.

    `kld_bound` is None if the whole output of the base was compared. Otherwise the divergence is at least this mean,
    `kld` is an estimate without bias, and the percentiles are those of the bounds (quant.measure.base_file).
    """

    base_perplexity: Estimate
    perplexity: Estimate
    log_ratio: Estimate
    kld: Estimate
    kld_percentiles: tuple[float, ...]
    same_top: Estimate
    probability_rms: Estimate
    tokens: int
    kld_bound: Estimate | None = None


class Model(Tokenizer, Protocol):
    """The part of a model that scoring needs: runtime.llama.Scorer, or a fake."""

    @property
    def vocab_size(self) -> int: ...
    def score(self, tokens: Sequence[int], first: int = 0) -> Iterator[NDArray[np.float32]]: ...


def perplexity(
    path: Path,
    texts: Sequence[Text],
    options: ChunkOptions,
    run: Run,
) -> tuple[Estimate, int]:
    """The perplexity of a model on texts, and how many tokens were scored.

    Raises UsageError (too little text), EngineFailed, DoesNotFit, Aborted.
    """
    from runtime.llama import Scorer

    with Scorer(path, window=options.context, run=run) as model:
        settle_threads(model, run.threads)
        parts = parts_of(model, texts, options)
        rows = scored(model, parts, path.name, run.listen, whole=options.whole)
        losses = [losses_of(logits, targets)[0] for logits, targets in rows]
    found = np.concatenate(losses)
    return perplexity_of(found), found.size


def compare(
    base: Path,
    other: Path,
    texts: Sequence[Text],
    options: ChunkOptions,
    run: Run,
) -> Report:
    """Compare `other` with `base`. They are opened one after the other, never both at once.

    Raises what `perplexity` does, and Incompatible for two vocabularies."""
    from runtime.llama import Scorer

    for path in (base, other):
        try_file(read_card(path), run)
    with Base() as kept:
        with Scorer(base, window=options.context, run=run) as model:
            settle_threads(model, run.threads)
            kept.record(model, texts, options, name=base.name, listen=run.listen)
        with Scorer(other, window=options.context, run=run) as model:
            settle_threads(model, run.threads)
            return kept.compare(model, name=other.name, listen=run.listen)


class Base:
    """The base model's output in an unnamed temporary file: `record` once, `compare` as often as needed.

    The file holds each logit less the row's largest, as float16: 2 bytes for each scored token and entry of the
    vocabulary. Rows are normalised when they are read, so the effect of rounding shrinks with the divergence. A model
    against itself measures below 1e-6 nats (nano 2.8e-8). Larger divergences are correct to 1 in 1000
    (tests/quant/measure/test_divergence.py).
    """

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: where the file is put; the system's temporary folder by default."""
        self._folder = folder or Path(tempfile.gettempdir())
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self.parts: tuple[tuple[int, ...], ...] = ()
        self.vocab_size = 0
        self.options = ChunkOptions()
        self._whole = False
        self.losses: NDArray[np.float64] = np.zeros(0)  # of the text's own tokens

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def perplexity(self) -> Estimate:
        return perplexity_of(self.losses)

    def record(
        self,
        model: Model,
        texts: Sequence[Text],
        options: ChunkOptions,
        *,
        name: str = "the base model",
        listen: Listener = ignore,
    ) -> None:
        """Read the texts with the base model. Raises DoesNotFit when the disk has no room for its output."""
        self.options, self._whole = options, options.whole
        self._record(model, parts_of(model, texts, options), name, listen)

    def record_whole(self, model: Model, parts: Sequence[tuple[int, ...]], *, name: str, listen: Listener) -> None:
        """As `record`, for sequences of which each token but the last is scored."""
        self._whole = True
        self._record(model, parts, name, listen)

    def _record(self, model: Model, parts: Sequence[tuple[int, ...]], name: str, listen: Listener) -> None:
        self.parts, self.vocab_size = tuple(parts), model.vocab_size
        rows = sum(len(part) - 1 - (0 if self._whole else len(part) // 2) for part in parts)
        needed = ByteCount(rows * self.vocab_size * 2)
        free = ByteCount(shutil.disk_usage(self._folder).free)
        hint = "measure fewer chunks, or set TMPDIR to a folder with more room"
        if needed > free:
            raise DoesNotFit(f"{self._folder}: the output of {name} takes {needed}, and {free} are free", hint=hint)
        losses = []
        try:
            self._file = self._stack.enter_context(tempfile.TemporaryFile(dir=self._folder))  # noqa: SIM115 (closed by __exit__)
            for logits, targets in scored(model, self.parts, name, listen, whole=self._whole):
                found, shifted = losses_of(logits, targets)
                losses.append(found)
                self._file.write(np.maximum(shifted, _LOWEST).astype(np.float16).data)
            self._file.flush()
        except OSError as error:
            raise DoesNotFit(f"{self._folder}: {error.strerror or error}", hint=hint) from error
        self.losses = np.concatenate(losses)

    def compare(self, model: Model, *, name: str = "the model", listen: Listener = ignore) -> Report:
        """Read the same tokens with another model."""
        check_vocabulary(name, model.vocab_size, self.vocab_size)
        losses, divergences, agreed = [], [], []
        rows = self._rows()
        for logits, targets in scored(model, self.parts, name, listen, whole=self._whole):
            kept = rows(len(targets))
            found, shifted = losses_of(logits, targets)
            losses.append(found)
            divergences.append(_divergences(kept, shifted))
            agreed.append(kept.argmax(axis=1) == logits.argmax(axis=1))
        return summarize(self.losses, np.concatenate(losses), np.concatenate(divergences), np.concatenate(agreed))

    def log_probabilities(self) -> Iterator[NDArray[np.float32]]:
        """The base model's log-probabilities in blocks (rows, vocabulary), from the beginning."""
        rows = self._rows()
        for start in range(0, self.losses.size, _ROWS):
            yield _normalised(rows(min(_ROWS, self.losses.size - start)))

    def _rows(self) -> Callable[[int], NDArray[np.float16]]:
        """A function that returns the next rows, starting with the first."""
        if self._file is None:
            raise ValueError("nothing was recorded")
        file, width = self._file, self.vocab_size
        file.seek(0)
        return lambda count: np.frombuffer(file.read(count * width * 2), np.float16).reshape(count, width)


def check_vocabulary(name: str, size: int, base_size: int) -> None:
    """Raise Incompatible where two models have vocabularies of different sizes."""
    if size != base_size:
        raise Incompatible(
            f"{name} has {size} tokens in its vocabulary, and its base {base_size}: their outputs cannot be compared"
        )


def summarize(
    base_losses: NDArray[np.float64],
    losses: NDArray[np.float64],
    divergences: NDArray[np.float64],
    agreed: NDArray[np.bool_],
    bounds: NDArray[np.float64] | None = None,
) -> Report:
    """Returns the report of values per token. Losses are negative log-probabilities of the text's own tokens. `bounds`
    are lower bounds of the divergences, where `divergences` are estimates."""
    return Report(
        base_perplexity=perplexity_of(base_losses),
        perplexity=perplexity_of(losses),
        log_ratio=_mean(losses - base_losses),
        kld=_mean(divergences),
        kld_percentiles=tuple(
            float(value) for value in np.percentile(divergences if bounds is None else bounds, PERCENTILES)
        ),
        same_top=_mean(agreed.astype(np.float64)),
        probability_rms=_root(_mean((np.exp(-losses) - np.exp(-base_losses)) ** 2)),
        tokens=losses.size,
        kld_bound=None if bounds is None else _mean(bounds),
    )


def scored_of(context: int) -> int:
    """How many tokens of a chunk are scored."""
    return context - 1 - context // 2


def parts_of(model: Tokenizer, texts: Sequence[Text], options: ChunkOptions) -> tuple[tuple[int, ...], ...]:
    """The sequences of tokens to read: chunks, or whole texts. Raises UsageError for too little text."""
    if options.whole:
        return sequences(model, texts, options.context)[: options.limit]
    return chunks(model, texts, options)


def scored(
    model: Model, parts: Sequence[Sequence[int]], name: str, listen: Listener, *, whole: bool = False
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Blocks of at most _ROWS rows of logits with the tokens that came next. Views, valid until the next block.

    Of each part the second half is scored, or with `whole` all of it."""
    total = sum(map(len, parts))
    for number, tokens in enumerate(parts):
        row = first = 0 if whole else len(tokens) // 2
        for logits in model.score(tokens, first):
            for start in range(0, len(logits), _ROWS):
                targets = np.asarray(tokens[row + 1 : row + 1 + min(_ROWS, len(logits) - start)], np.int64)
                row += len(targets)
                # The last token of a chunk has no next token to score.
                if targets.size:
                    yield logits[start : start + len(targets)], targets
        listen(Progress("measuring", name, sum(map(len, parts[: number + 1])), total, "tokens"))


def losses_of(
    logits: NDArray[np.float32], targets: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """The negative log-probability of each row's target, and the logits less each row's largest."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    losses = log_sum(shifted) - shifted[np.arange(len(targets)), targets]
    if not np.isfinite(losses).all():
        raise EngineFailed("the model's output is not finite: its weights are damaged or too coarse")
    return losses, shifted


def log_sum(shifted: NDArray[np.float32]) -> NDArray[np.float64]:
    """ln of each row's sum of exponentials; the row's largest is 0."""
    total: NDArray[np.float64] = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    return total


def _divergences(kept: NDArray[np.float16], shifted: NDArray[np.float32]) -> NDArray[np.float64]:
    """KL(base || model) of each row in nats, from shifted logits of both."""
    base = _normalised(kept)
    difference = base - (shifted - log_sum(shifted).astype(np.float32)[:, None])
    found: NDArray[np.float64] = np.multiply(np.exp(base), difference, out=difference).sum(axis=1, dtype=np.float64)
    return found


def _normalised(kept: NDArray[np.float16]) -> NDArray[np.float32]:
    base = kept.astype(np.float32)
    base -= log_sum(base).astype(np.float32)[:, None]
    return base


def _mean(values: NDArray[np.float64]) -> Estimate:
    error = float(values.std(ddof=1) / np.sqrt(values.size)) if values.size > 1 else 0.0
    return Estimate(float(values.mean()), error)


def _root(square: Estimate) -> Estimate:
    root = float(np.sqrt(square.value))
    return Estimate(root, square.error / (2 * root) if root else 0.0)


def perplexity_of(losses: NDArray[np.float64]) -> Estimate:
    """From negative log-probabilities of the text's own tokens."""
    mean = _mean(losses)
    value = float(np.exp(mean.value))
    return Estimate(value, value * mean.error)
