"""How many tokens of context a model gets, and how many samples share them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr.loading.context import context_for_host, slots_for
from dsr.loading.options import LoadOptions
from runtime.base.errors import DoesNotFit, UsageError
from runtime.gguf.reader import read_card
from runtime.gguf.rope import Yarn
from runtime.machine.machine import free_for
from runtime.placement.memory import need
from tests.dsr.loading.loading import MIB, host


def test_by_default_it_is_the_training_context_where_that_fits(nano_path: Path) -> None:
    assert context_for_host(read_card(nano_path), host(8 << 30), LoadOptions()) == 2048


def test_by_default_it_is_what_fits_where_the_training_context_does_not(nano_path: Path) -> None:
    card = read_card(nano_path)
    assert context_for_host(card, host(102_500_000), LoadOptions()) == 768
    assert context_for_host(card, host(102_500_000), LoadOptions(kv_type="q8_0")) == 1536


def test_samples_drawn_together_get_room_beyond_the_training_context(nano_path: Path) -> None:
    card, vote = read_card(nano_path), LoadOptions(slots=8, reply_tokens=4096)
    assert context_for_host(card, host(8 << 30), vote) == 8 * 2048
    assert context_for_host(card, host(8 << 30), LoadOptions(slots=8, reply_tokens=300)) == 2400
    assert context_for_host(card, host(8 << 30), LoadOptions(slots=8)) == 2048
    assert context_for_host(card, host(8 << 30), LoadOptions(slots=100, reply_tokens=4096)) == 32768
    assert context_for_host(card, host(8 << 30), LoadOptions(slots=200, reply_tokens=4096)) == 200 * 256
    assert context_for_host(card, host(8 << 30), LoadOptions(context=600, slots=8, reply_tokens=4096)) == 600


def test_with_yarn_the_context_grows_to_what_the_positions_reach(nano_path: Path) -> None:
    card, yarn = read_card(nano_path), Yarn(2.5, 2048)
    assert context_for_host(card, host(8 << 30), LoadOptions(yarn=yarn)) == 5120
    assert context_for_host(card, host(8 << 30), LoadOptions(yarn=yarn, slots=2, reply_tokens=9999)) == 10240
    assert context_for_host(card, host(102_500_000), LoadOptions(yarn=yarn)) == 768


def test_where_memory_is_short_they_share_what_there_is(nano_path: Path) -> None:
    card, vote = read_card(nano_path), LoadOptions(slots=8, reply_tokens=4096)
    assert context_for_host(card, host(129_900_000), vote) == 8192
    assert context_for_host(card, host(102_500_000), vote) == 768
    assert slots_for(768, vote) == 3
    assert (slots_for(16384, vote), slots_for(100, vote)) == (8, 1)


def test_memory_alone_limits_an_asked_context_here(nano_path: Path) -> None:
    card = read_card(nano_path)
    assert context_for_host(card, host(8 << 30), LoadOptions(context=300)) == 300
    assert context_for_host(card, host(8 << 30), LoadOptions(context=100_000)) == 100_000


def test_an_asked_context_beyond_memory_is_refused_with_both_numbers(nano_path: Path) -> None:
    with pytest.raises(DoesNotFit) as caught:
        context_for_host(read_card(nano_path), host(120 * MIB), LoadOptions(context=100_000))
    assert caught.value.message == (
        "a context of 100000 tokens needs 393.0 MiB in addition to the weights, and 108.0 MiB of memory is free"
    )
    assert caught.value.hint == "try --ctx-size 2048, or --kv-type q8_0, which halves it"
    assert caught.value.exit_code == 5


@pytest.mark.parametrize("context", [2**31, 2**32 + 512, 2**60])
def test_absurd_contexts_are_refused_at_once(nano_path: Path, context: int) -> None:
    with pytest.raises(DoesNotFit, match=f"a context of {context} tokens needs"):
        context_for_host(read_card(nano_path), host(64 << 30), LoadOptions(context=context))


def test_a_model_larger_than_memory_is_refused_unless_a_context_forces_it(nano_path: Path) -> None:
    card = read_card(nano_path)
    with pytest.raises(DoesNotFit, match=r"needs 81\.6 MiB, and 72\.9 MiB of memory is free") as caught:
        context_for_host(card, host(84_900_000), LoadOptions())
    assert caught.value.hint is not None
    assert "smaller quantization" in caught.value.hint
    assert context_for_host(card, host(84_900_000), LoadOptions(context=256)) == 256
    with pytest.raises(DoesNotFit, match="a context of 2048 tokens needs"):
        context_for_host(card, host(84_900_000), LoadOptions(context=2048))


def test_more_slots_need_more_memory(nano_path: Path) -> None:
    card = read_card(nano_path)
    one, many = (context_for_host(card, host(101_500_000), LoadOptions(slots=slots)) for slots in (1, 128))
    assert one == 512
    assert many == 256


def test_drafts_need_more_memory(nano_path: Path) -> None:
    card = read_card(nano_path)
    barely = host(free_for(need(card, 768).total))
    assert [context_for_host(card, barely, LoadOptions(draft=draft)) for draft in (None, "ngram")] == [768, 512]


def test_an_unknown_cache_type_is_refused(nano_path: Path) -> None:
    with pytest.raises(UsageError, match="'q3_0' is not a type of KV cache"):
        context_for_host(read_card(nano_path), host(8 << 30), LoadOptions(kv_type="q3_0"))
