"""What several samples may still draw together: a number of tokens, or a time. The engine counts, so nothing overruns.

A sample that may draw no more ends as "cancelled", as if the user stopped it. Before that thoughts are closed, so that
answers come: from three quarters of what is left at the beginning of a stage, as for a budget of one thought, but at
most `_ANSWER` tokens or `_ANSWER_SECONDS` per sample are kept back.
"""

from __future__ import annotations

import time
from collections.abc import Callable

# An answer behind a thought: R1 distills write 200 to 500 tokens on contest problems.
_ANSWER = 512
_ANSWER_SECONDS = 60.0


class Allowance:
    """`tokens` and `seconds` from now on, each None without a limit; `within` another allowance that counts, too.

    `spent`: tokens drawn so far, those written by force included. `refused`: something was stopped for want of it.
    """

    def __init__(
        self,
        tokens: int | None = None,
        seconds: float | None = None,
        *,
        within: Allowance | None = None,
        now: Callable[[], float] | None = None,
    ) -> None:
        self._within = within
        self._now: Callable[[], float] = now or (within._now if within is not None else time.monotonic)
        self._tokens = tokens
        self._end = None if seconds is None else self._now() + seconds
        self.spent = 0
        self.refused = False
        self.begin(1)

    @property
    def tokens_left(self) -> int | None:
        """None without a limit of tokens."""
        outer = self._within.tokens_left if self._within is not None else None
        own = None if self._tokens is None else self._tokens - self.spent
        return min((each for each in (own, outer) if each is not None), default=None)

    @property
    def seconds_left(self) -> float | None:
        """None without a limit of time; 0 when it is over."""
        outer = self._within.seconds_left if self._within is not None else None
        own = None if self._end is None else max(self._end - self._now(), 0.0)
        return min((each for each in (own, outer) if each is not None), default=None)

    @property
    def over(self) -> bool:
        """Whether not a single token may be drawn."""
        return self.refused or self.tokens_left == 0 or self.seconds_left == 0

    def begin(self, samples: int) -> None:
        """A stage of so many samples begins: keep something back for their answers."""
        tokens, seconds = self.tokens_left, self.seconds_left
        self._kept_tokens = None if tokens is None else min(tokens // 4, samples * _ANSWER)
        self._kept_seconds = None if seconds is None else min(seconds / 4, samples * _ANSWER_SECONDS)

    @property
    def closing(self) -> bool:
        """Whether thoughts should end now."""
        tokens, seconds = self.tokens_left, self.seconds_left
        return (self._kept_tokens is not None and tokens is not None and tokens <= self._kept_tokens) or (
            self._kept_seconds is not None and seconds is not None and seconds <= self._kept_seconds
        )

    def take(self, tokens: int) -> bool:
        """Whether so many more tokens may be drawn; they then count. Once refused, nothing more is drawn."""
        left = self.tokens_left
        if self.over or (left is not None and tokens > left):
            self.refuse()
            return False
        self._count(tokens)
        return True

    def refuse(self) -> None:
        """Nothing more may be drawn."""
        self.refused = True
        if self._within is not None and self._within.over:
            self._within.refuse()

    def _count(self, tokens: int) -> None:
        self.spent += tokens
        if self._within is not None:
            self._within._count(tokens)
