"""Multi-token prediction: extra layers that predict further tokens (DeepSeek-V3, arXiv 2412.19437, section 2.2).

llama.cpp runs them in a second context on the weights of the model. At each position the layer gets the token and the
model's hidden state of the position before, and predicts the next token. Its own KV cache must hold every token that
the model's cache holds. Hidden states are read and set by functions of src/llama-ext.h; the order of rows is that of
common/speculative.cpp (common_speculative_impl_draft_mtp).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.base.errors import EngineFailed
from runtime.engine.backend import Batch
from runtime.llama.batch import NativeBatch
from runtime.llama.bindings import llama_cpp_ext
from runtime.llama.native import log, native

_MTP_CONTEXT = 1  # LLAMA_CONTEXT_TYPE_MTP

Rows = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _States:
    """The hidden states of one slot's last batch, from position `first` on; at least one row."""

    first: int
    rows: Rows

    @property
    def end(self) -> int:
        return self.first + len(self.rows)


class MtpLayers:
    """The MTP layers of a model. They follow every decode, fork and trim, and guess the next tokens of a slot.

    Tokens are collected and read together, at the latest before a guess. That is one pass through one layer without
    logits, so it costs little if there are no guesses.
    """

    def __init__(self, model: Any, trunk: Any, params: Any, capacity: int) -> None:
        """`params` are those of the model's context `trunk`, and `capacity` is its largest batch.

        Raises EngineFailed. The engine aborts for unusable MTP layers, so try the file first
        (`runtime.llama.trial_process`).
        """
        params.ctx_type = _MTP_CONTEXT
        params.ctx_other = trunk
        params.n_rs_seq = 0
        params.swa_full = True  # one layer; this class trims and copies it as if it kept every cell
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
        # The model outputs the hidden state of every row, the layer only those of rows with logits.
        llama_cpp_ext.llama_set_embeddings_nextn(trunk, True, False)
        llama_cpp_ext.llama_set_embeddings_nextn(self.context, True, True)

    def close(self) -> None:
        native.llama_free(self.context)

    def set_threads(self, threads: int, batch_threads: int) -> None:
        native.llama_set_n_threads(self.context, threads, batch_threads)

    def decoded(self, batch: Batch) -> None:
        """Take in a `batch` that the model has just decoded. The tokens of a slot are consecutive."""
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
            self._states.pop(slot, None)  # the latest comes last
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
        """At most `count` tokens that follow the pending `token` at `position`, without tokens that end a reply.

        The slot is the latest that the model has decoded exactly up to `position`. If a prompt and its forks all match,
        their guesses are the same.
        """
        slot = next((slot for slot, states in reversed(self._states.items()) if states.end == position), None)
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
            # Accepted guesses are read again later, with the hidden states of the model.
            native.llama_memory_seq_rm(self._memory, slot, position, -1)
        return guessed

    def _step(self, slot: int, token: int, position: int, hidden: Rows) -> tuple[int, Rows]:
        """The most likely next token and the layer's own hidden state, which replaces the model's."""
        batch = Batch()
        batch.add([token], position, slot, output=True)
        self._hidden[0] = hidden
        self._decode(batch)
        logits = _view(native.llama_get_logits_ith(self.context, 0), self._vocab_size)
        state = _view(llama_cpp_ext.llama_get_embeddings_nextn_ith(self.context, 0), self._width)
        return int(logits.argmax()), state

    def _last_state(self, slot: int) -> Rows:
        """The model's hidden state before the next token of a slot.

        Zeros before the first token, as in llama.cpp, and after a trim to a position before the last batch, where the
        state is not kept. That only weakens some guesses.
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
    """A view of the engine's output, valid until the next decode."""
    if not address:
        raise EngineFailed("the engine has no hidden states or logits of the MTP layers")
    found: Rows = np.ctypeslib.as_array(address, shape)
    return found
