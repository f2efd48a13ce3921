"""95 % intervals of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution


def mean_interval(shares: Sequence[float], decisions: int) -> tuple[float, float]:
    """Returns the 95 % interval of the mean of the problems' shares, each 0 to 1, after this number of decisions.

    Wilson's interval (1927), with the number of trials that has the same standard error. With one decision for each
    problem, this is the number of problems. With several, decisions about one problem are similar, so the standard
    error is that of the problems' means. The number of trials is then between problems and decisions.
    """
    count, mean = len(shares), math.fsum(shares) / len(shares)
    spread = math.fsum((share - mean) ** 2 for share in shares)
    # With shares of 0 and 1 alone, spread / count is mean * (1 - mean), and this is count.
    trials = mean * (1 - mean) * count / (spread / count) if spread else count
    return wilson(mean, min(max(trials, count), decisions))


def wilson(share: float, count: float) -> tuple[float, float]:
    """Returns Wilson's 95 % interval for a share of `count` trials."""
    scale = 1 + Z95**2 / count
    middle = (share + Z95**2 / (2 * count)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)
