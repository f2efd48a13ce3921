"""Layers that predict ahead: multi-token prediction (DeepSeek-V3, arXiv 2412.19437, section 2.2).

llama.cpp runs them in a context of their own on the weights of the model. The layer sees, at the place of each token,
that token and the hidden state of the model one place before, and says which token comes next; it has a KV cache of its
own, which must hold every token that the model's holds. Hidden states go in and come out by functions of
src/llama-ext.h; which row belongs to which token is as in common/speculative.cpp (common_speculative_impl_draft_mtp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from llama_cpp import llama_cpp_ext
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.engine.backend import Batch
from runtime.llama.batch import NativeBatch
from runtime.llama.native import log, native

_MTP_CONTEXT = 1  # LLAMA_CONTEXT_TYPE_MTP

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _States:
    """Hidden states of one slot, from position `first` to where it has got to: those of its last batch, not none."""

    first: int
    rows: Rows

    @property
    def end(self) -> int:
        return self.first + len(self.rows)


class MtpLayers:
    """Follows what the model decodes, forks and forgets, and guesses how a slot goes on.

    Tokens are collected and read by the layer together, at the latest when somebody asks for a guess: that is one pass
    through one layer, without logits. So it costs little where nobody asks.
    """

    def __init__(self, model: Any, trunk: Any, params: Any, capacity: int) -> None:
        """`params` are those that the context `trunk` of the model was made with, `capacity` its largest batch.

        Raises EngineFailed. The engine aborts for a file whose layers it cannot use (`runtime.llama.trial`).
        """
        params.ctx_type = _MTP_CONTEXT
        params.ctx_other = trunk
        params.n_rs_seq = 0
        params.n_outputs_max = params.n_seq_max  # the engine aborts below that
        log.take()
        self.context = native.llama_init_from_model(model, params)
        if not self.context:
            raise EngineFailed(
                f"the engine opens no second context of {params.n_ctx} tokens for the MTP layers: {log.take()}"
            )
        self._trunk = trunk
        self._memory = native.llama_get_memory(self.context)
        self._vocab = native.llama_model_get_vocab(model)
        self._vocab_size = int(native.llama_vocab_n_tokens(self._vocab))
        self._width = int(native.llama_model_n_embd_out(model))
        self._capacity = capacity
        self._hidden = np.zeros((capacity, self._width), np.float32)
        self._batch = NativeBatch(capacity, self._hidden)
        self._waiting = Batch()  # decoded by the model, not yet read here; row i goes with row i of `_hidden`
        self._states: dict[int, _States] = {}
        # Of the model every row is wanted, of the layer only those whose logits are.
        llama_cpp_ext.llama_set_embeddings_nextn(trunk, True, False)
        llama_cpp_ext.llama_set_embeddings_nextn(self.context, True, True)

    def close(self) -> None:
        native.llama_free(self.context)

    def set_threads(self, threads: int, batch_threads: int) -> None:
        native.llama_set_n_threads(self.context, threads, batch_threads)

    def decoded(self, batch: Batch) -> None:
        """The model has just decoded `batch`, in which the tokens of a slot are consecutive."""
        if len(self._waiting.tokens) + len(batch.tokens) > self._capacity:
            self._read_waiting()
        hidden = _view(llama_cpp_ext.llama_get_embeddings_nextn(self._trunk), len(batch.tokens), self._width)
        slots = np.array(batch.slots)
        start = len(self._waiting.tokens)
        for slot in dict.fromkeys(batch.slots):
            (places,) = np.nonzero(slots == slot)
            first = batch.positions[places[0]]
            states = hidden[places]  # a copy
            self._hidden[start + places[0]] = self._last_state(slot)
            self._hidden[start + places[1:]] = states[:-1]
            self._states[slot] = _States(first, states)
        self._waiting.tokens += batch.tokens
        self._waiting.positions += batch.positions
        self._waiting.slots += batch.slots

    def fork(self, source: int, target: int) -> None:
        """As `Backend.fork`."""
        self._read_waiting()
        self.trim(target, 0)
        native.llama_memory_seq_cp(self._memory, source, target, -1, -1)
        if source in self._states:
            self._states[target] = self._states[source]

    def trim(self, slot: int, length: int) -> None:
        """As `Backend.trim`."""
        waiting = self._waiting
        forgotten = [s == slot and p >= length for s, p in zip(waiting.slots, waiting.positions, strict=True)]
        if any(forgotten):
            kept = [row for row, gone in enumerate(forgotten) if not gone]
            self._hidden[: len(kept)] = self._hidden[kept]
            waiting.tokens = [waiting.tokens[row] for row in kept]
            waiting.positions = [waiting.positions[row] for row in kept]
            waiting.slots = [waiting.slots[row] for row in kept]
        native.llama_memory_seq_rm(self._memory, slot, length or -1, -1)
        states = self._states.get(slot)
        if states is not None and length < states.end:
            del self._states[slot]
            if length > states.first:
                self._states[slot] = _States(states.first, states.rows[: length - states.first])

    def guess(self, token: int, position: int, count: int) -> list[int]:
        """At most `count` tokens that follow `token`, which is pending at `position`; none that end a reply.

        The slot is the one that the model has decoded so far and no further. A prompt and what was forked from it can
        both be, and say the same.
        """
        slot = next((slot for slot, states in self._states.items() if states.end == position), None)
        if slot is None:
            return []
        self._read_waiting()
        guessed: list[int] = []
        hidden = self._last_state(slot)
        try:
            while len(guessed) < count:
                token, hidden = self._step(slot, token, position + len(guessed), hidden)
                if native.llama_vocab_is_eog(self._vocab, token):
                    break
                guessed.append(token)
        finally:
            # What was guessed is read again when it has proved right, then with the hidden states of the model.
            native.llama_memory_seq_rm(self._memory, slot, position, -1)
        return guessed

    def _step(self, slot: int, token: int, position: int, hidden: Rows) -> tuple[int, Rows]:
        """The most likely next token, and the layer's own hidden state, which stands in for that of the model."""
        batch = Batch()
        batch.add([token], position, slot, output=True)
        self._hidden[0] = hidden
        self._decode(batch)
        logits = _view(native.llama_get_logits_ith(self.context, 0), self._vocab_size)
        state = _view(llama_cpp_ext.llama_get_embeddings_nextn_ith(self.context, 0), self._width)
        return int(logits.argmax()), state

    def _last_state(self, slot: int) -> Rows:
        """The model's hidden state before the next token of a slot; zeros before the first token, as in llama.cpp, and
        where it is not kept.

        That is where a text goes on from a place before its last batch: one state of many, of which only guesses know.
        """
        states = self._states.get(slot)
        if states is None:
            return np.zeros(self._width, np.float32)
        last: Rows = states.rows[-1]
        return last

    def _read_waiting(self) -> None:
        if self._waiting.tokens:
            self._decode(self._waiting)
            self._waiting = Batch()

    def _decode(self, batch: Batch) -> None:
        code = native.llama_decode(self.context, self._batch.fill(batch))
        if code:
            raise EngineFailed(f"the engine failed to decode with the MTP layers (code {code}): {log.take()}")


def _view(address: Any, *shape: int) -> Rows:
    """What the engine has put out, valid until it decodes again."""
    if not address:
        raise EngineFailed("the engine has no hidden states or logits of the MTP layers")
    found: Rows = np.ctypeslib.as_array(address, shape)
    return found
