"""How many connections a download uses: more only while more bring more. Pure.

A server that limits each connection gives twice as much to twice as many. A line that is full gives no more; one that
other downloads share gives more only by taking from them, and less than twice as much. So a larger number stays if it
brings at least half of what its share would be.
"""

from __future__ import annotations

MOST = 8  # connections: as many as huggingface_hub uses (snapshot_download, max_workers)
_FIRST_STEP = 4  # the first larger number: a server that limits each connection should soon get many
_LEAST_SECONDS, _MOST_SECONDS = 0.2, 1.5  # of a measurement
_SURE_SECONDS = 1.0  # of a second one, before a larger number is dropped: a busy machine disturbs a short one
_LEAST_BYTES = 1 << 20
# A new connection becomes faster for some round trips (TCP's slow start). It is not judged before that ends.
_STEADY = 1.2
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0  # seconds until more are tried again


class Growth:
    """The number of connections, `limit`, from one to at most `most`. Times are seconds of one clock."""

    def __init__(self, most: int = MOST) -> None:
        self.limit = 1
        self._most = most
        self._kept: tuple[int, float] | None = None  # a number that stays, and its bytes per second
        self._samples: list[tuple[float, int]] = []
        self._least = _LEAST_SECONDS
        self._pause = _FIRST_PAUSE
        self._again_at = 0.0
        self._step = _FIRST_STEP

    def observe(self, now: float, received: int, busy: int) -> None:
        """Note that `received` bytes came in all until `now`, and that `busy` connections are at work."""
        if busy != self.limit:
            self._samples.clear()
            return
        if len(self._samples) == 1 and self._samples[0][1] == received:
            self._samples.clear()  # the first byte has not come
        self._samples.append((now, received))
        rate = self._rate()
        if rate is not None:
            self._samples.clear()
            self._judge(rate, now)

    def refused(self, now: float, active: int) -> None:
        """The server refuses more requests: never again as many connections as the `active` ones."""
        self._most = max(1, min(self._most, active - 1))
        self.lost(now)

    def lost(self, now: float) -> None:
        """A connection failed while others work: one less, for a while."""
        self._settle(min(max(1, self.limit - 1), self._most), now)

    def alone(self, now: float) -> None:
        """The last connection failed: one at a time, for a while."""
        self._settle(1, now)

    def _rate(self) -> float | None:
        """Bytes per second lately, once they are not much more than a moment before."""
        (begun, first), (end, last) = self._samples[0], self._samples[-1]
        late = end - begun >= _MOST_SECONDS
        recent = [each for each in self._samples if end - each[0] >= self._least and last - each[1] >= _LEAST_BYTES]
        start, first = recent[-1] if recent else (begun, first)
        half, at_half = next(each for each in self._samples if each[0] >= (start + end) / 2)
        if not (recent or late) or not start < half < end:
            return None
        before, after = (at_half - first) / (half - start), (last - at_half) / (end - half)
        return after if after <= before * _STEADY or late else None

    def _judge(self, rate: float, now: float) -> None:
        number, before = self._kept or (self.limit, rate)
        if self.limit <= number:
            self._kept = (self.limit, rate)
            if now >= self._again_at:
                self._try(self.limit * self._step)
                self._step = 2
        elif before <= 0 or rate / before - 1 >= (self.limit / number - 1) / 2:
            self._kept, self._pause, self._least = (self.limit, rate), _FIRST_PAUSE, _LEAST_SECONDS
            self._try(self.limit * 2 if self.limit >= 2 * number else self.limit + 1)
        elif self._least < _SURE_SECONDS:
            self._least = _SURE_SECONDS
        elif self.limit > number + 1:
            self.limit = number + 1
        else:
            self._settle(number, now)

    def _try(self, more: int) -> None:
        self.limit = max(self.limit, min(more, self._most))

    def _settle(self, number: int, now: float) -> None:
        """Stay with this number, and try more after a pause. The pauses double."""
        self.limit, self._kept, self._again_at = number, None, now + self._pause
        self._samples.clear()
        self._least = _LEAST_SECONDS
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)
