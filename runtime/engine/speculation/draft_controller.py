"""Whether drafting pays, measured while it happens. Pure arithmetic over a clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

# Checking fifteen tokens with the pending one costs a CPU six to nine times the time of one, so it pays only where the
# text is copied; longer drafts gain hardly more.
LONGEST_DRAFT = 15

_TRIAL = 200  # tokens after which drafting must have paid, and again every so many
_FIRST_PLAIN = 3  # steps without a draft, to know what they take
_PLAIN_EVERY = 16  # drafted steps after which that is measured again
_WORTHWHILE = 1.2  # the least gain that is expected of a draft
_ADVANCE = 4.0  # steps that may be lost to wrong drafts before any was right
_LOSABLE = 0.01  # of the time so far, that may be lost besides
_LEARNABLE = 0.02  # of the time of all replies, that may go into guesses that nobody checks
_LESSON = 32  # such guesses in a row: as many as it takes to believe in a drafter that was always wrong before
_MEMORY = 0.97  # what a measured cost still counts when the next one comes

# Extra time to check (2, 12) drafted tokens, in steps: about what CPUs need. Measurements take its place.
_PRIOR_COSTS = ((2, 1.2), (12, 4.7))


class DraftController:
    """Seconds per token with and without drafts; says how long a draft may be, and ends what does not pay.

    The cost of checking k tokens is a line through what was measured: a kernel for many rows takes a jump above that
    for one, then each row adds the same. Wrong drafts are paid from the time that right ones saved, and from a small
    advance, so that a text without repetition loses next to nothing. Where drafts are not worth it, some guesses are
    made only to learn whether they would be right by now, as often as a small part of the time has paid for them.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        self._now = now
        self._started = 0.0
        self._plain: deque[float] = deque(maxlen=15)
        # Weighted sums of 1, k, k k, cost, k cost: what a least-squares line needs.
        self._sums = [0.0] * 5
        for drafted, cost in _PRIOR_COSTS:
            self._add(drafted, cost)
        self._whole = self._learning = 0.0  # seconds, of all replies
        self._lesson = 0
        self.begin()

    def begin(self) -> None:
        """A new reply: what it costs to check a draft is known, whether it pays is open again."""
        self.off_after: int | None = None
        self._tokens = 0
        self._seconds = 0.0
        self._saved = 0.0
        self._since_plain = 0

    def start(self) -> None:
        """A step begins, before its draft is made."""
        self._started = self._now()

    def done(self, drafted: int, tokens: int) -> None:
        """The step is over: `drafted` tokens were checked, `tokens` drawn."""
        seconds = self._now() - self._started
        self._whole += seconds
        before = self._tokens
        self._tokens += tokens
        self._seconds += seconds
        if not drafted:
            self._plain.append(seconds)
            self._since_plain = 0
        elif (plain := self._step_seconds()) > 0:
            # A step that another process interrupted says little about drafts.
            jump, each = self._costs()
            seconds = min(seconds, plain * (1 + 2 * (jump + each * drafted)))
            self._saved += tokens * plain - seconds
            self._since_plain += 1
            self._add(drafted, seconds / plain - 1)
        if self._tokens // _TRIAL > before // _TRIAL:
            if self._saved < -_LOSABLE * self._seconds:
                self.off_after = self._tokens
            self._seconds = self._saved = 0.0

    def may_learn(self) -> bool:
        """Whether a guess may be made that nobody checks; never where not even a sure draft would be checked."""
        paid, advance = _LEARNABLE * self._whole - self._learning, _ADVANCE * self._step_seconds()
        if paid >= advance:
            self._lesson = _LESSON
        elif paid < -advance:
            self._lesson = 0
        return self._lesson > 0 and self.worth([1.0] * LONGEST_DRAFT) > 0

    def learnt(self) -> None:
        """Such a guess was made; the step itself begins now."""
        now = self._now()
        self._lesson -= 1
        self._learning += now - self._started
        self._started = now

    def worth(self, chances: Sequence[float]) -> int:
        """How many tokens to check, of a draft whose tokens are right with these chances; 0 if none.

        That many for which the tokens expected from a step grow most against the time it takes.
        """
        if self.off_after is not None or len(self._plain) < _FIRST_PLAIN or self._since_plain >= _PLAIN_EVERY:
            return 0
        if self._saved < -_ADVANCE * self._step_seconds() - _LOSABLE * self._seconds:
            return 0
        jump, each = self._costs()
        best, length = _WORTHWHILE, 0
        alive = expected = 1.0
        for drafted, chance in enumerate(chances, 1):
            alive *= chance
            expected += alive
            gain = expected / (1 + jump + each * drafted)
            if gain > best:
                best, length = gain, drafted
        return length

    def _step_seconds(self) -> float:
        """What a step without a draft takes: the median, which an interruption does not move."""
        return sorted(self._plain)[len(self._plain) // 2] if self._plain else 0.0

    def _add(self, drafted: int, cost: float) -> None:
        new = (1, drafted, drafted * drafted, cost, drafted * cost)
        self._sums = [old * _MEMORY + value for old, value in zip(self._sums, new, strict=True)]

    def _costs(self) -> tuple[float, float]:
        """Extra time of a step that checks a draft, and of each token of it, in steps without a draft."""
        one, k, kk, y, ky = self._sums
        spread = one * kk - k * k
        each = max(0.0, (one * ky - k * y) / spread) if spread > 1e-9 * kk else y / k
        return max(0.0, (y - each * k) / one), each
