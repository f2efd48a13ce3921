"""Scores of samples, against figures worked out by hand."""

from __future__ import annotations

import math

import pytest

from runtime.base.types import TokenStatistics
from runtime.engine import confidence
from runtime.engine.confidence import RunningMean

FORCED = TokenStatistics(math.nan, math.nan, math.nan)


def made(*confidences: float) -> list[TokenStatistics]:
    return [TokenStatistics(-1.0, each, 2 * each) for each in confidences]


def test_a_running_mean_is_there_when_its_window_is_full() -> None:
    running = RunningMean(3)
    assert [running.add(value) for value in (1, 2, 3, math.nan, 10)] == [None, None, 2, 2, 5]


def test_a_group_is_the_lowest_mean_of_neighbours() -> None:
    sample = [*made(8, 8, 2), FORCED, *made(4, 9, 9)]
    assert confidence.lowest_group(sample, 2) == 3
    assert confidence.lowest_group(sample, 100) == pytest.approx(40 / 6)
    assert confidence.tail_confidence(sample, 2) == 9
    assert confidence.mean_confidence(sample) == pytest.approx(40 / 6)
    # The groups of two are 8, 5, 3, 6.5, 9; the lowest two fifths are 3 and 5.
    assert confidence.bottom_groups(sample, 2, share=0.4) == 4
    assert confidence.self_certainty(sample) == pytest.approx(80 / 6)


def test_the_probability_of_a_sample_is_the_geometric_mean() -> None:
    sample = [TokenStatistics(math.log(p), 0, 0) for p in (0.5, 0.5, 0.125)]
    assert confidence.probability([FORCED, *sample]) == pytest.approx((0.5 * 0.5 * 0.125) ** (1 / 3))


def test_a_sample_without_tokens_has_no_confidence() -> None:
    for score in (confidence.probability, confidence.mean_confidence, confidence.lowest_group,
                  confidence.bottom_groups, confidence.tail_confidence, confidence.self_certainty):  # fmt: skip
        assert score([]) == score([FORCED]) == 0.0


@pytest.mark.parametrize(
    ("lengths", "window"), [([], 16), ([20, 30, 40], 16), ([400, 100, 900], 100), ([90_000], 2048)]
)
def test_the_window_is_scaled_to_the_traces(lengths: list[int], window: int) -> None:
    assert confidence.window_for(lengths) == window
