"""Figures as text, and their intervals."""

from __future__ import annotations

import math

from dsr.bench.kit.intervals import wilson
from dsr.store.measurement import Figure

_Z = 1.96  # standard errors on each side of a 95 % interval


def interval(figure: Figure) -> tuple[float, float]:
    """The 95 % interval of a normal distribution; the mean twice if it was measured once."""
    half = _Z * abs(figure.error or 0.0)
    return figure.mean - half, figure.mean + half


def share_interval(figure: Figure) -> tuple[float, float]:
    """Wilson's 95 % interval of a share. Rows keep half of its width / 1.96 as the error, which gives the trials."""
    share = min(max(figure.mean, 0.0), 1.0)
    half = _Z * abs(figure.error) if figure.error is not None else 0.0
    if not 1e-6 < half < 0.5:
        return wilson(share, max(figure.count, 1))
    # With u = z^2 / trials, half^2 (1 + u)^2 = share (1 - share) u + u^2 / 4, and one of the solutions is positive.
    a, b = 0.25 - half**2, 2 * half**2 - share * (1 - share)
    u = (b + math.sqrt(b**2 + 4 * a * half**2)) / (2 * a)
    return wilson(share, _Z**2 / u)


def plus_minus(figure: Figure, digits: int) -> str:
    """'0.0123 ± 0.0004': the mean and the standard error."""
    error = "" if figure.error is None else f" ± {figure.error:.{digits}f}"
    return f"{figure.mean:.{digits}f}{error}"


def rounded(figure: Figure, digits: int) -> str:
    """The mean with `digits` significant digits, and the error with as many decimals."""
    whole = len(f"{abs(figure.mean):.0f}")
    return plus_minus(figure, max(digits - whole, 0))


def divergence(figure: Figure) -> str:
    """The KLD in nats; values below 0.00001 are rounding errors."""
    if abs(figure.mean) < 1e-5:
        return "< 0.00001"
    return plus_minus(figure, 5 if abs(figure.mean) < 0.01 else 4)


def speed(figure: Figure) -> str:
    return rounded(figure, 3)


def share(figure: Figure) -> str:
    """'85.0 % (64 to 95)'."""
    low, high = share_interval(figure)
    return f"{100 * figure.mean:.1f} % ({100 * low:.0f} to {100 * high:.0f})"
