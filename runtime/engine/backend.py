"""The interface between the engine and a model. `runtime.llama` implements it; tests/fakes.py has a fake."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from runtime.base.types import Logprobs, SamplingParams, TokenStatistics
from runtime.engine.grammar import Grammar

# The most tokens of one pass through the graph: llama.cpp's default (n_ubatch). It would split a larger batch into such
# passes anyway, without progress in between. A model from the disk may get more.
ROWS = 512

# The most prompt tokens of a batch in which samples draw, too: a running answer waits for one chunk at most.
# Larger ones read hardly faster on a CPU, whose kernels are busy from about 32 rows on.
CHUNK = 128

# Spare sequences keep earlier texts, in cells that all sequences share. Recurrent states and windows are not shared, so
# such models get one spare sequence only.
_SPARE = 16
_MOST_SEQUENCES = 255  # LLAMA_MAX_SEQ of src/llama-cparams.h is 256


class Constraint(Protocol):
    """How far one answer has come in its grammar. It belongs to the backend that made it."""

    @property
    def complete(self) -> bool:
        """Whether the grammar has come to its end: nothing but the end of the reply may follow."""
        ...

    def permits(self, token: int) -> bool:
        """Whether the grammar allows this token now. Any end-of-generation token, if the answer may end here."""
        ...

    def accept(self, token: int) -> None:
        """The answer goes on with a token that the grammar allows."""
        ...


class Draw(Protocol):
    """Draws the next token from one row of logits of the last decode, with its own random state."""

    def __call__(
        self, row: int, reply: Sequence[int] = (), constraint: Constraint | None = None, also: Sequence[int] = ()
    ) -> int:
        """`reply` are all tokens of the reply so far, which penalties count behind the prompt. It only grows.

        With a `constraint`, only the tokens that it allows can be drawn, and those in `also`; no other token takes part
        in any step of the sampler. Raises OutOfGrammar if there is none, or finding them takes too much work.
        """
        ...


def keeps_windows_alone(window: int, context: int, slots: int, batch: int) -> bool:
    """Whether layers that see `window` tokens cache the windows alone: one for each sequence, and one batch.

    All numbers are tokens, except `slots`. If the windows are not smaller than the context, the layers cache the whole
    context, in cells that sequences share.
    """
    return window > 0 and window * (slots + 1) + batch < context


def sequences_for(slots: int, *, shares_cells: bool) -> int:
    """The number of sequences in a cache where up to `slots` samples draw."""
    return max(slots + 1, min(slots + _SPARE, _MOST_SEQUENCES)) if shares_cells else slots + 1


@dataclass(slots=True)
class Batch:
    """Tokens to decode together. Row i is `tokens[i]` at `positions[i]` of the sequence in `slots[i]`.

    `outputs` are the rows whose logits are wanted, ascending; no more than the backend's `most_outputs`. With `hidden`,
    the hidden states of these rows are wanted, too; every row is then an output.
    """

    tokens: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    hidden: bool = False

    def add(self, tokens: list[int], position: int, slot: int, *, output: bool) -> None:
        """Append consecutive tokens of one sequence; `output` asks for the logits of the last of them."""
        count = len(tokens)
        self.tokens += tokens
        self.positions += range(position, position + count)
        self.slots += [slot] * count
        if output:
            self.outputs.append(len(self.tokens) - 1)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The part of a sequence's state that trimming cannot bring back, taken after `length` tokens.

    That is the state of recurrent layers and the cells of a sliding window. `size` is in bytes. `data` belongs to the
    backend that made it.
    """

    length: int
    size: int
    data: Any


@dataclass(slots=True)
class PassProgress:
    """Lets the engine hear how far a long pass has come: `listen` gets the share that is computed, between 0 and 1."""

    listen: Callable[[float], None] = lambda _: None


class Backend(Protocol):
    """A loaded model with a KV cache of `context` cells, shared by `sequences`, of which `slots` may draw at once.

    Sequences are numbered from 0. Each holds the tokens of one text, and several may share the cells of a beginning.
    """

    @property
    def slots(self) -> int: ...
    @property
    def sequences(self) -> int:
        """The number of sequences, at least one more than `slots`."""
        ...

    @property
    def cuts_anywhere(self) -> bool:
        """Whether `trim` can go back to any length. False for recurrent layers and sliding windows."""
        ...

    @property
    def can_graft(self) -> bool:
        """Whether `graft` is possible: only if `cuts_anywhere`, and keys can be shifted to other positions."""
        ...

    @property
    def context(self) -> int: ...
    @property
    def longest(self) -> int:
        """The most tokens of one sequence, prompt and answer: no more than `context`, nor than the positions reach."""
        ...

    @property
    def batch_size(self) -> int:
        """The most tokens that one batch may hold."""
        ...

    @property
    def chunk_size(self) -> int:
        """The most prompt tokens of a batch in which samples draw, too."""
        ...

    @property
    def most_outputs(self) -> int:
        """The most output rows of one batch: one per slot, or the rows of a draft that is checked."""
        ...

    def tokenize(self, text: str, *, add_bos: bool = False, literal: Sequence[int] = ()) -> list[int]:
        """Token ids of a text in which special tokens are spelled out; the spellings at `literal` offsets are text.

        `add_bos`: begin with the token that begins every text of this model, if the text does not do so itself. The
        token that ends a text is never added.
        """
        ...

    def piece(self, token: int) -> bytes:
        """The bytes of a token; empty for control tokens, except those named visible when the model was opened."""
        ...

    def ends(self, token: int) -> bool:
        """Whether the token ends a reply (any end-of-generation token of the vocabulary)."""
        ...

    def decode(self, batch: Batch) -> None:
        """Compute a batch. Raises NoRoom (cache unchanged), Aborted (after `Stop.set`) or EngineFailed."""
        ...

    def sampler(self, params: SamplingParams, seed: int, prompt: Sequence[int] = ()) -> Draw:
        """A sampler of its own for one sequence, which begins behind `prompt`. Raises UsageError for `logit_bias`."""
        ...

    def constraint(self, grammar: Grammar, begun: str = "") -> Constraint:
        """The beginning of an answer in this grammar, behind the text `begun`.

        Raises UsageError for a grammar that cannot be used, or if `begun` is not in it.
        """
        ...

    def statistics(self, row: int, token: int) -> TokenStatistics:
        """How sure the model was when `token` was drawn from a row of the last decode."""
        ...

    def logprobs(self, row: int, token: int, count: int) -> Logprobs:
        """The log-probability of `token` in a row of the last decode, and the `count` likeliest tokens with theirs.

        They are those of the model, whatever a sampler, a bias or a grammar made of them.
        """
        ...

    def hidden_state(self, row: int) -> tuple[float, ...]:
        """The hidden state of a row of the last decode, which asked for it: the input of the output matrix."""
        ...

    def fork(self, source: int, target: int) -> None:
        """Let `target` hold exactly what `source` holds. The earlier tokens of `target` are forgotten."""
        ...

    def trim(self, slot: int, length: int) -> bool:
        """Forget positions from `length` on. False if that is not possible; nothing has changed then.

        Length 0 is always possible.
        """
        ...

    def earliest(self, slot: int) -> int:
        """The shortest length above 0 to which `trim` can go back; at most the present length."""
        ...

    def checkpoint(self, slot: int) -> Checkpoint | None:
        """What `restore` needs to come back to the present length; None if the slot is empty or has no such state."""
        ...

    def restore(self, checkpoint: Checkpoint, slot: int) -> bool:
        """Go back to the checkpoint's length in a slot that holds its tokens, and perhaps more.

        False if that is not possible; the slot is empty then.
        """
        ...

    def graft(self, source: int, begin: int, end: int, target: int) -> None:
        """Append the positions from `begin` to `end` of `source` to `target`; `source` is empty then.

        No other sequence may hold these cells, because they change their positions. Only if `can_graft`.
        """
        ...

    def save(self, slot: int) -> bytes | None:
        """The whole state of a slot for `load` in another process; None if this is not possible."""
        ...

    def load(self, slot: int, data: bytes) -> bool:
        """Let a slot hold a saved state. False if it is refused; the slot is empty then."""
        ...
