"""Bytes and seconds of a step whose weights are partly on the disk."""

from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtime.from_disk.forecast import SHOWN, DiskLayer, Forecast, forecast, smallest_memory

MB = 1_000_000
# 10 layers of 64 experts of 1 MB, of which a token uses 8: 640 MB, 80 MB for each token.
UNIFORM = (DiskLayer(MB, 64, 8),) * 10


def test_with_equal_use_the_hit_rate_is_the_share_of_the_experts_in_memory() -> None:
    half = forecast(UNIFORM, 336 * MB, 100e6, 0.5)  # 16 MB of them are for the layer that computes and the next one
    assert half.needed == 80 * MB
    assert half.hit_rate == pytest.approx(0.5)
    assert half.read == pytest.approx(40 * MB)
    assert (half.disk_seconds, half.compute_seconds) == (pytest.approx(0.4), pytest.approx(0.51))  # 1 ms a layer
    assert half.seconds == pytest.approx(0.51 + SHOWN * 0.4)
    assert half.disk_bound == pytest.approx(2.5)
    assert half.compute_bound == pytest.approx(1 / 0.51)


def test_the_smallest_memory_holds_what_a_token_uses_in_a_layer_and_what_is_read_ahead() -> None:
    assert smallest_memory(UNIFORM) == 16 * MB
    assert smallest_memory([DiskLayer(MB, 64, 8), DiskLayer(3 * MB, 64, 8), DiskLayer(2 * MB, 64, 8)]) == 40 * MB
    assert forecast(UNIFORM, 16 * MB, 1e9, 0.1).hit_rate == 0


def test_used_experts_are_kept() -> None:
    # A quarter of the experts gets 3/4 of the picks: chances 0.375 and 0.0417.
    skewed = DiskLayer(MB, 64, 8, (9.0,) * 16 + (1.0,) * 48)
    assert skewed.met() == pytest.approx(8)
    assert forecast([skewed], 24 * MB, 1e9, 0.1).hit_rate == pytest.approx(0.75)  # 8 MB compute, 16 MB are kept
    assert forecast([DiskLayer(MB, 64, 8)], 24 * MB, 1e9, 0.1).hit_rate == pytest.approx(0.25)


def test_an_expert_is_used_at_most_once_by_a_token() -> None:
    assert DiskLayer(1, 4, 2, (100, 1, 1, 1)).chances() == pytest.approx((1, 1 / 3, 1 / 3, 1 / 3))
    assert DiskLayer(1, 4, 2, (5, 0, 0, 0)).chances() == pytest.approx((1, 1 / 3, 1 / 3, 1 / 3))
    assert DiskLayer(1, 4, 2, (0, 0, 0, 0)).chances() == (0.5, 0.5, 0.5, 0.5)


def test_samples_together_read_an_expert_once() -> None:
    one, eight = (forecast(UNIFORM, 16 * MB, 100e6, 0.5, tokens) for tokens in (1, 8))
    assert eight.needed / MB == pytest.approx(640 * (1 - (1 - 8 / 64) ** 8))  # 420 MB, not 640
    assert eight.disk_bound > one.disk_bound


def test_a_prompt_reads_each_expert_once_per_chunk() -> None:
    chunk = forecast(UNIFORM, 320 * MB, 100e6, 5.0, 512)
    assert chunk.needed / MB == pytest.approx(640)
    assert chunk.read / MB == pytest.approx(640 - (320 - 128))  # two layers are in use, the rest is kept


def test_a_dense_layer_is_read_for_each_token() -> None:
    dense = (DiskLayer(100 * MB),) * 6
    assert smallest_memory(dense) == 300 * MB
    assert forecast(dense, 300 * MB, 1e9, 0.1).read == 600 * MB
    assert forecast(dense, 500 * MB, 1e9, 0.1).read == 400 * MB
    assert forecast(dense, 500 * MB, 1e9, 0.1, 4).read == 400 * MB


def test_everything_in_memory_is_bounded_by_computing_alone() -> None:
    whole = forecast(UNIFORM, 656 * MB, 100e6, 0.5)
    assert (whole.read, whole.hit_rate, whole.disk_bound) == (0, 1, math.inf)
    assert whole.tokens_per_second == pytest.approx(1 / 0.51)
    assert Forecast(1, 0, 0, 0, 0).tokens_per_second == math.inf


@pytest.mark.parametrize("given", [(0, 1, 1), (1, 4, 5), (1, 4, 0), (1, 4, 2, (1.0, 1.0)), (1, 2, 1, (1.0, -1.0))])
def test_impossible_layers_are_refused(given: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="of"):
        DiskLayer(*given)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    picks=st.lists(st.floats(0, 1000), min_size=4, max_size=20),
    used=st.integers(1, 4),
    memory=st.integers(0, 30),
    tokens=st.integers(1, 9),
)
def test_more_memory_never_reads_more(picks: list[float], used: int, memory: int, tokens: int) -> None:
    layers = (DiskLayer(1, len(picks), used, tuple(picks)), DiskLayer(1, len(picks), used))
    assert layers[0].met() == pytest.approx(used)
    less, more = (forecast(layers, each, 1.0, 1.0, tokens) for each in (memory, memory + 1))
    assert 0 <= more.read <= less.read + 1e-9 <= less.needed + 2e-9
