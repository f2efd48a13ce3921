"""Saved states and checkpoints of the real engine's cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from runtime.llama import LlamaBackend
from tests.runtime.native_engine import SUM, WORD, asked, batch, row_of, small


def read(backend: LlamaBackend, question: str, slot: int = 0) -> list[int]:
    """Let a slot hold a question without its last token; returns all tokens."""
    tokens = backend.tokenize(asked(question))
    backend.decode(batch(tokens[:-1], slot=slot, output=False))
    return tokens


def last_row(backend: LlamaBackend, tokens: list[int], slot: int = 0) -> np.ndarray:
    backend.decode(batch(tokens[-1:], len(tokens) - 1, slot))
    return row_of(backend, 0)


def test_a_saved_sequence_continues_in_another_process(nano_path: Path) -> None:
    with small(nano_path) as backend:
        tokens = read(backend, SUM)
        state = backend.save(0)
        assert state is not None
        expected = last_row(backend, tokens)
    with small(nano_path) as other:
        assert other.load(1, state)
        assert np.array_equal(last_row(other, tokens, slot=1), expected)


def test_an_empty_sequence_has_no_state(backend: LlamaBackend) -> None:
    assert backend.save(3) is None
    assert backend.checkpoint(3) is None


def test_a_state_that_is_refused_leaves_the_sequence_empty(nano_path: Path) -> None:
    with small(nano_path, kv_type="q8_0") as backend:
        read(backend, SUM)
        other_type = backend.save(0)
    with small(nano_path) as backend:
        tokens = read(backend, SUM)
        state = backend.save(0)
        assert state is not None and other_type is not None
        for wrong in (other_type, state[:-1], state + b"\0", state[: len(state) // 2], b"", bytes(len(state))):
            read(backend, WORD, slot=1)
            assert not backend.load(1, wrong)
            assert backend._cache.length(1) == 0
        # The others are whole.
        backend.trim(0, 0)
        assert backend.load(0, state)
        last_row(backend, tokens)


def test_a_state_without_room_is_refused(nano_path: Path) -> None:
    with small(nano_path, context=512) as large:
        large.decode(batch([9] * 400, output=False))
        state = large.save(0)
    with small(nano_path) as backend:
        assert state is not None
        assert not backend.load(0, state)
        backend.decode(batch([9] * 256, output=False))  # no cell is lost


def test_a_model_whose_cache_can_be_cut_anywhere_needs_no_checkpoint(backend: LlamaBackend) -> None:
    read(backend, SUM)
    assert backend.cuts_anywhere
    assert backend.checkpoint(0) is None
    assert backend.earliest(0) == 1


def test_a_few_sequences_more_than_samples_keep_earlier_texts(backend: LlamaBackend) -> None:
    assert (backend.slots, backend.sequences) == (8, 24)
    tokens = read(backend, SUM, slot=23)
    backend.fork(23, 0)
    first = last_row(backend, tokens, slot=23)
    assert np.array_equal(last_row(backend, tokens), first)
