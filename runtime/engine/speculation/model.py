"""Drafts from a second, smaller model with the same vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.base.common_prefix import common_length
from runtime.base.errors import Aborted, Incompatible
from runtime.base.types import SamplingParams
from runtime.engine.backend import Backend, Batch
from runtime.engine.speculation.draft_controller import LONGEST_DRAFT
from runtime.engine.speculation.drafter import Acceptance, Worth
from runtime.gguf.card import ModelCard
from runtime.gguf.values import ArrayValue

_SLOT = 0
_EXPECTED = 0.95  # of its tokens, those that are right: hopeful, because only drafts can be judged
_PADDING = 1024  # how many tokens the vocabularies of one family differ by: the rows that round a matrix up


class ModelDrafter:
    """Writes on greedily. `vocabulary` is the number of tokens that both models spell alike, from the first on.

    Its KV cache keeps what a new text has in common with the one before; wrong guesses are forgotten.
    """

    kind = "model"

    def __init__(self, backend: Backend, vocabulary: int) -> None:
        self._backend = backend
        self._vocabulary = vocabulary
        self._draw = backend.sampler(SamplingParams(temperature=0), 0)
        # One chance for all tokens of a draft, as Leviathan et al. assume (arXiv 2211.17192, section 3.1): then a guess
        # of one token tells something about long ones.
        self._acceptance = Acceptance([_EXPECTED])
        self._text: list[int] = []
        self._guess: list[int] = []
        self._cached = 0  # so many tokens of text and guess are in the cache
        self._lost = False  # whether the text has a token that this model does not know
        backend.trim(_SLOT, 0)

    def begin(self, tokens: Sequence[int]) -> None:
        self._forget(common_length(self._text, tokens))
        self._text, self._guess, self._lost = [], [], False
        self._add(tokens)
        # What is long is read now, so that the first guess takes no longer than others.
        if self._can_go_on(1):
            self._read(self._text[:-1])

    def follow(self, tokens: Sequence[int]) -> None:
        self._acceptance.judge(0, self._guess, tokens)
        self._forget(len(self._text) + common_length(self._guess, tokens))
        self._guess = []
        self._add(tokens)

    def propose(self, most: int, worth: Worth) -> list[int]:
        return self._guessed(worth(self._acceptance.chances(0, min(most, LONGEST_DRAFT))))

    def learn(self) -> None:
        self._guessed(1)

    def _guessed(self, count: int) -> list[int]:
        if not count or not self._can_go_on(count):
            return []
        # The last token is read again even when it is known: the logits behind it are gone.
        self._forget(len(self._text) - 1)
        while len(self._guess) < count:
            token = self._draw(self._read([*self._text, *self._guess] if self._guess else self._text))
            if token >= self._vocabulary or self._backend.ends(token):
                break
            self._guess.append(token)
        return self._guess

    def _add(self, tokens: Sequence[int]) -> None:
        self._text += tokens
        self._lost = self._lost or any(token >= self._vocabulary for token in tokens)

    def _can_go_on(self, count: int) -> bool:
        return not self._lost and 0 < len(self._text) <= self._backend.context - count

    def _forget(self, length: int) -> None:
        """Keep at most `length` tokens in the cache; none where the model cannot forget a part."""
        if self._cached > length:
            self._cached = length if self._backend.trim(_SLOT, length) else 0
            if not self._cached:
                self._backend.trim(_SLOT, 0)

    def _read(self, tokens: list[int]) -> int:
        """Have `tokens` in the cache, which holds the first of them; the row that tells what comes next."""
        row = 0
        while self._cached < len(tokens):
            part = tokens[self._cached : self._cached + self._backend.batch_size]
            batch = Batch()
            batch.add(part, self._cached, _SLOT, output=True)
            try:
                self._backend.decode(batch)
            except Aborted:
                # Parts of the aborted batch may be in the cache.
                self._backend.trim(_SLOT, self._cached)
                raise
            self._cached += len(part)
            row = len(part) - 1
        return row


def common_vocabulary(target: ModelCard, draft: ModelCard) -> int:
    """How many tokens both models spell alike, from the first on. Raises Incompatible for different vocabularies.

    Files of one family differ in how many unused tokens pad the vocabulary, so a difference at the end is none.
    """
    ours, theirs = _spellings(target), _spellings(draft)
    same = common_length(ours, theirs)
    if not same or max(len(ours), len(theirs)) - same > _PADDING:
        raise Incompatible(
            f"{draft.name} cannot draft for {target.name}: their vocabularies differ from token {same} on",
            hint="choose a smaller model of the same family, or --draft ngram",
        )
    return same


def _spellings(card: ModelCard) -> list[bytes]:
    listed = card.metadata.get("tokenizer.ggml.tokens")
    return listed.raw_strings() if isinstance(listed, ArrayValue) and listed.type == "str" else []
