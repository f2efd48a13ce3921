"""How long one text of a model may be, in words and in limits."""

from __future__ import annotations

import pytest

from dsr.models.reach import check_chunks, describe_reach, farthest, reach_of
from runtime.base.errors import DoesNotFit
from runtime.gguf.rope import Yarn
from tests.dsr.loading.test_reach import card, qwen3


def test_trained_and_reachable_length_in_words() -> None:
    assert (
        describe_reach(card(), None)
        == "8192 tokens, as trained; perhaps up to 16384 with --rope yarn:2, untested by its vendor"
    )
    assert describe_reach(card(40960, "qwen3"), qwen3()) == (
        "40960 tokens, as trained; up to 131072 with --rope yarn:4"
    )
    assert describe_reach(card(architecture="mamba"), None) == "8192 tokens, as trained"


def test_the_reach_is_the_trained_length_without_yarn() -> None:
    assert reach_of(card(), None) == 8192
    assert reach_of(card(), Yarn(1.5, 8192)) == 12288
    assert farthest(card(architecture="rwkv7"), None) is None


def test_chunks_that_are_longer_than_the_training_are_refused() -> None:
    check_chunks(card(), 8192)
    with pytest.raises(DoesNotFit, match="chunks of 8193 tokens are too long for Fake") as caught:
        check_chunks(card(), 8193)
    assert caught.value.hint == "use --ctx-size 8192"
