"""Scores of a whole sample, from how sure the model was of each token (`TokenStatistics`). Forced tokens do not count.

DeepConf's are means of the token confidence over all tokens, the last ones, or sliding groups (arXiv 2508.15260,
section 3; github.com/facebookresearch/deepconf). Each score is larger the surer the model was.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

from runtime.base.types import TokenStatistics

# DeepConf's window, for samples of tens of thousands of tokens. `window_for` scales it to shorter ones.
WINDOW = 2048
_LEAST_WINDOW = 16


class RunningMean:
    """The mean of the last `window` numbers; NaN is left out."""

    __slots__ = ("_kept", "_sum", "_window")

    def __init__(self, window: int) -> None:
        self._window = window
        self._kept: deque[float] = deque()
        self._sum = 0.0

    def add(self, value: float) -> float | None:
        """The mean with `value`, None before the window is full."""
        if not math.isnan(value):
            self._kept.append(value)
            self._sum += value
            if len(self._kept) > self._window:
                self._sum -= self._kept.popleft()
        return self._sum / self._window if len(self._kept) == self._window else None


def window_for(lengths: Sequence[int]) -> int:
    """The window for samples of these lengths: a quarter of the median length, at least 16 and at most WINDOW."""
    middle = sorted(lengths)[len(lengths) // 2] if lengths else 0
    return min(max(middle // 4, _LEAST_WINDOW), WINDOW)


def mean_logprob(statistics: Sequence[TokenStatistics]) -> float:
    """The mean log-probability of the drawn tokens; 0 without tokens, where the reply ends at once."""
    return _mean(each.logprob for each in _drawn(statistics))


def probability(statistics: Sequence[TokenStatistics]) -> float:
    """The geometric mean of the probabilities of the tokens drawn: exp(mean log p). 0 without tokens."""
    return math.exp(mean_logprob(statistics)) if _drawn(statistics) else 0.0


def mean_confidence(statistics: Sequence[TokenStatistics]) -> float:
    return _mean(each.confidence for each in _drawn(statistics))


def tail_confidence(statistics: Sequence[TokenStatistics], window: int = WINDOW) -> float:
    return _mean([each.confidence for each in _drawn(statistics)][-window:])


def lowest_group(statistics: Sequence[TokenStatistics], window: int = WINDOW) -> float:
    """The lowest mean of a group of `window` neighbouring tokens; of all where there are fewer."""
    return min(_groups(statistics, window), default=mean_confidence(statistics))


def bottom_groups(statistics: Sequence[TokenStatistics], window: int = WINDOW, share: float = 0.1) -> float:
    """The mean over the lowest `share` of the groups."""
    groups = sorted(_groups(statistics, window)) or [mean_confidence(statistics)]
    return _mean(groups[: max(1, int(len(groups) * share))])


def self_certainty(statistics: Sequence[TokenStatistics]) -> float:
    """The mean KL divergence from the uniform distribution (arXiv 2502.18581)."""
    return _mean(each.certainty for each in _drawn(statistics))


def _drawn(statistics: Sequence[TokenStatistics]) -> list[TokenStatistics]:
    return [each for each in statistics if not math.isnan(each.logprob)]


def _groups(statistics: Sequence[TokenStatistics], window: int) -> Iterator[float]:
    running = RunningMean(window)
    means = (running.add(each.confidence) for each in _drawn(statistics))
    return (mean for mean in means if mean is not None)


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else 0.0
