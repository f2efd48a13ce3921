"""Coverage: how often at least one of several samples is right (arXiv 2407.21787; formula of arXiv 2107.03374)."""

from __future__ import annotations

from fractions import Fraction
from math import comb


def pass_at_k(n: int, correct: int, k: int) -> float:
    """The unbiased estimate, from `n` samples of which `correct` are right, that one of `k` is.

    1 - C(n - correct, k) / C(n, k): of all choices of k samples, those with a right one. Raises ValueError unless
    0 <= correct <= n and 1 <= k <= n.
    """
    if not (0 <= correct <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} cannot be told from {correct} of {n}")
    return float(1 - Fraction(comb(n - correct, k), comb(n, k)))
