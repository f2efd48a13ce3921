"""Saved states and checkpoints of the real engine's cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.llama import LlamaBackend, cache
from runtime.llama.bindings import native
from runtime.llama.cache import Window, keys_can_shift
from tests import hybrids, nextn
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


@pytest.mark.parametrize("kv_type", ["f16", "f32"])
@pytest.mark.parametrize("begin", [0, 5, 90])
def test_moved_cells_are_as_if_read_at_their_new_positions(nano_path: Path, kv_type: str, begin: int) -> None:
    with small(nano_path, kv_type=kv_type) as backend:
        tokens = read(backend, SUM)
        expected = last_row(backend, tokens)
        backend.decode(batch(tokens[:-1], begin, slot=1, output=False))
        assert backend.can_graft
        backend.graft(1, begin, begin + len(tokens) - 1, 2)
        assert (backend._cache.length(1), backend._cache.length(2)) == (0, len(tokens) - 1)
        found = last_row(backend, tokens, slot=2)
        # Shifted keys are rounded once more, and the rounding of activations to 8 bits makes more of it.
        assert np.abs(found - expected).max() < 0.02 * np.ptp(expected)
        assert found.argmax() == expected.argmax()


def test_keys_that_the_engine_cannot_turn_are_not_moved(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("q8_0", "bf16"):
        with small(nano_path, kv_type=kind) as backend:
            assert not backend.can_graft
    with small(nano_path) as backend:
        params = backend._context_params()
        assert keys_can_shift(backend._model, params)
        params.rope_scaling_type = native.LLAMA_ROPE_SCALING_TYPE_YARN
        assert not keys_can_shift(backend._model, params)
        texts = {"general.architecture": "deepseek2", "deepseek2.rope.scaling.type": "yarn"}
        monkeypatch.setattr(cache, "_metadata", lambda model, key: texts[key])
        assert not keys_can_shift(backend._model, backend._context_params())


def test_a_part_of_a_sequence_follows_on_another(nano_path: Path) -> None:
    with small(nano_path) as backend:
        tokens = read(backend, SUM)
        held = len(tokens) - 1
        backend.decode(batch(tokens[:6], slot=1, output=False))
        backend.graft(0, 6, held, 1)
        assert (backend._cache.length(0), backend._cache.length(1)) == (0, held)
        moved = last_row(backend, tokens, slot=1)
        read(backend, SUM, slot=2)
        assert np.abs(moved - last_row(backend, tokens, slot=2)).max() < 0.02 * np.ptp(moved)


# Models that cannot go back to any length

HELD, MORE, NEXT = 300, 70, [11, 12, 13]  # tokens; the window of the tiny model has 128
RECURRENT = [kind for kind in hybrids.KINDS if kind != "gemma3"]


def kind_path(folder: Path, nano: Path, kind: str) -> Path:
    return hybrids.make(kind, folder / f"{kind}.gguf", nano)


def words(backend: LlamaBackend, count: int, seed: int = 0) -> list[int]:
    """Tokens of no meaning."""
    return [20 + (7 * number + 31 * seed + number * number) % 400 for number in range(count)]


def after(backend: LlamaBackend, tokens: list[int], slot: int = 0) -> np.ndarray:
    """The logits after `tokens` more in a slot."""
    backend.decode(batch(tokens, backend._cache.length(slot), slot))
    return row_of(backend, len(tokens) - 1)


def close(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the order of sums."""
    return bool(np.abs(one - other).max() < 2e-3 * np.ptp(other))


@pytest.mark.parametrize("kind", hybrids.KINDS)
def test_a_restored_checkpoint_continues_like_a_text_that_is_read_again(
    tmp_path: Path, nano_path: Path, kind: str
) -> None:
    with small(kind_path(tmp_path, nano_path, kind), context=1024, slots=2) as backend:
        beginning, more = words(backend, HELD), words(backend, MORE, seed=1)
        after(backend, beginning)
        made = backend.checkpoint(0)
        assert made is not None and made.length == HELD and made.size == len(made.data)
        wrong = after(backend, [*more, *NEXT])
        assert backend.restore(made, 0)
        assert backend._cache.length(0) == HELD
        restored = after(backend, NEXT)
        after(backend, beginning, slot=1)
        again = after(backend, NEXT, slot=1)
        assert close(restored, again)
        assert not close(restored, wrong)
        # Once more, and in a copy: a checkpoint is not used up.
        backend.fork(0, 2)
        assert backend.restore(made, 2)
        assert close(after(backend, NEXT, slot=2), again)


@pytest.mark.parametrize("kind", hybrids.KINDS)
def test_a_copy_and_its_source_go_on_without_each_other(tmp_path: Path, nano_path: Path, kind: str) -> None:
    with small(kind_path(tmp_path, nano_path, kind), context=1024, slots=2) as backend:
        beginning, more = words(backend, HELD), words(backend, MORE, seed=1)
        after(backend, beginning)
        backend.fork(0, 1)
        after(backend, more, slot=1)
        source = after(backend, NEXT)
        copy = after(backend, NEXT, slot=1)
        after(backend, beginning, slot=2)
        assert close(after(backend, NEXT, slot=2), source)
        backend.trim(2, 0)
        after(backend, [*beginning, *more], slot=2)
        assert close(after(backend, NEXT, slot=2), copy)


@pytest.mark.parametrize("kind", hybrids.KINDS)
def test_a_saved_state_of_every_kind_continues_elsewhere(tmp_path: Path, nano_path: Path, kind: str) -> None:
    path = kind_path(tmp_path, nano_path, kind)
    with small(path, context=1024) as backend:
        after(backend, words(backend, HELD))
        state = backend.save(0)
        expected = after(backend, NEXT)
    with small(path, context=512, slots=3) as other:
        assert state is not None and other.load(2, state)
        assert close(after(other, NEXT, slot=2), expected)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_recurrent_model_goes_back_only_by_a_checkpoint(tmp_path: Path, nano_path: Path, kind: str) -> None:
    with small(kind_path(tmp_path, nano_path, kind), context=1024) as backend:
        assert (backend.sequences, backend.cuts_anywhere, backend.earliest(0)) == (2, False, 1)
        assert not backend.can_graft
        after(backend, words(backend, HELD))
        assert backend.earliest(0) == HELD
        assert not backend.trim(0, HELD - 1)
        assert backend.trim(0, HELD)
        assert backend._cache.length(0) == HELD
        assert backend.trim(0, 0)
        assert backend.checkpoint(0) is None


def test_a_checkpoint_of_tokens_that_are_gone_is_refused(tmp_path: Path, nano_path: Path) -> None:
    with small(kind_path(tmp_path, nano_path, "gemma3"), context=1024) as backend:
        after(backend, words(backend, HELD))
        made = backend.checkpoint(0)
        assert made is not None
        backend.trim(0, 0)
        after(backend, words(backend, 20))
        assert not backend.restore(made, 0)
        assert backend._cache.length(0) == 0


def test_a_window_model_goes_back_as_far_as_its_window_is_whole(tmp_path: Path, nano_path: Path) -> None:
    with small(kind_path(tmp_path, nano_path, "gemma3"), context=4096) as backend:
        assert (backend.sequences, backend.cuts_anywhere) == (2, False)
        tokens = [words(backend, 512, seed) for seed in range(4)]
        for each in tokens:
            after(backend, each)
        earliest = backend.earliest(0)
        assert 1024 < earliest <= 2048 - 512 + 128
        assert not backend.trim(0, earliest - 1)
        assert backend._cache.length(0) == 2048
        assert backend.trim(0, earliest)
        back = after(backend, NEXT)
        whole = [token for each in tokens for token in each]
        for start in range(0, earliest, 512):
            after(backend, whole[start : min(start + 512, earliest)], slot=1)
        assert close(after(backend, NEXT, slot=1), back)


def test_a_window_cache_has_room_for_all_that_its_sequences_see(tmp_path: Path, nano_path: Path) -> None:
    """Long prompts in every sequence, batch after batch, with copies between them: no cell is lost on the way."""
    with small(kind_path(tmp_path, nano_path, "gemma3"), context=8192, slots=4) as backend:
        after(backend, words(backend, 512))
        for turn in range(3):
            for slot in range(1, backend.sequences):
                backend.fork(0, slot)
                after(backend, words(backend, 200, seed=slot), slot)
            after(backend, words(backend, 512, seed=9 + turn))
        expected = after(backend, NEXT)
        for slot in range(1, backend.sequences):
            backend.trim(slot, 0)
        after(backend, words(backend, 512), slot=1)
        for turn in range(3):
            after(backend, words(backend, 512, seed=9 + turn), slot=1)
        assert close(after(backend, NEXT, slot=1), expected)


def test_a_full_cache_of_windows_goes_back_anywhere(tmp_path: Path, nano_path: Path) -> None:
    with small(kind_path(tmp_path, nano_path, "gemma3"), context=4096, kv_full=True) as backend:
        assert (backend.sequences, backend.cuts_anywhere) == (17, True)
        after(backend, words(backend, 512))
        after(backend, words(backend, 512, seed=1))
        assert backend.checkpoint(0) is None
        assert backend.earliest(0) == 1
        assert backend.trim(0, 100)
        back = after(backend, NEXT)
        after(backend, words(backend, 100), slot=1)
        assert close(after(backend, NEXT, slot=1), back)


@pytest.mark.parametrize(
    ("window", "first", "earliest"),
    [
        (Window(128), 0, 1), (Window(128), 1, 128), (Window(128), 500, 627), (Window(1), 7, 7),
        (Window(128, chunked=True), 0, 1), (Window(128, chunked=True), 1, 128), (Window(128, chunked=True), 128, 128),
        (Window(128, chunked=True), 129, 256),
    ],
)  # fmt: skip
def test_how_far_a_window_goes_back(window: Window, first: int, earliest: int) -> None:
    assert window.earliest(first) == earliest


def test_rejected_drafts_are_trimmed_from_a_window_model_at_any_time(tmp_path: Path, nano_path: Path) -> None:
    with small(kind_path(tmp_path, nano_path, "gemma3"), context=2048) as backend:
        after(backend, words(backend, HELD))
        for turn in range(60):
            length = backend._cache.length(0)
            after(backend, words(backend, 16, seed=turn))
            assert backend.trim(0, length + 1 + turn % 15)


def test_a_rejected_draft_is_undone_and_then_copied_by_a_model_with_states_after_each_token(
    tmp_path: Path, nano_path: Path
) -> None:
    path = nextn.recurrent(tmp_path / "ahead.gguf", nano_path)
    tokens = [nextn.FIRST + number % 20 for number in range(40)]
    with small(path, context=512, slots=2, drafted=4, mtp=True) as backend:
        after(backend, tokens)
        assert backend.earliest(0) == 40 - 4
        after(backend, tokens[:3])
        assert backend.earliest(0) == 41  # not 40: no state before the batch is kept
        assert not backend.trim(0, 40)
        assert backend.trim(0, 42)
        assert backend.earliest(0) == 42  # once only
        assert not backend.trim(0, 41)
        backend.fork(0, 1)
        assert backend.earliest(1) == 42
        made = backend.checkpoint(0)
        assert made is not None and made.length == 42
        copy, back = after(backend, tokens[5:8], slot=1), after(backend, tokens[5:8])
        after(backend, [*tokens, *tokens[:2]], slot=2)
        again = after(backend, tokens[5:8], slot=2)
        assert close(copy, again) and close(back, again)
        assert backend.restore(made, 0)
        assert backend.earliest(0) == 42
        assert close(after(backend, tokens[5:8]), again)
