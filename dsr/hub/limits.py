"""How much an answer may send and how long it may take, judged where its bytes arrive.

httpx2 limits the time of a single read only. A server that sends one byte a second, or status 100 without end,
passes that limit for ever. So each read of the network passes a `Meter`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from runtime.base.errors import VerificationFailed
from runtime.base.types import ByteCount

# In this many times the stall limit (10 s by default) the answer to a request begins, redirects included, and
# LEAST_RATE is kept.
_WINDOW = 3
LEAST_RATE = 1 << 10  # bytes a second: a 4 GB model would take 45 days
_MOST_BEFORE_THE_BODY = 1 << 20  # of all answers of a chain of redirects; h11 allows 100 KiB for one set of headers
_MOST_UNANNOUNCED = 64 << 10  # the body of an answer that no one asked to be longer, such as a token


class TooSlow(Exception):
    """An answer does not begin in time, or arrives at less than LEAST_RATE."""


class NotUnderstood(VerificationFailed):
    """The hub's answer has another form than the hub's interface, or is too long. `why` is a part of a sentence."""

    def __init__(self, why: str, host: str = "") -> None:
        self.why = why
        answered = f" ({host} answered)" if host else ""
        super().__init__(
            f"the hub's answer is not understood: {why}", hint=f"check HF_ENDPOINT and the proxy{answered}"
        )


class Meter:
    """Counts the bytes and seconds of one request at a time. `stall_seconds` is the time limit of a single read."""

    def __init__(self, stall_seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._window = _WINDOW * stall_seconds
        self._now = now
        self.begin()

    def begin(self) -> None:
        """A request begins: count its headers, and those of all redirects."""
        self._ends = self._now() + self._window
        self._last = self._ends
        self._in_headers = True
        self._received = 0
        self._most = _MOST_BEFORE_THE_BODY

    def body(self, most: int = _MOST_UNANNOUNCED, seconds: float = float("inf")) -> None:
        """The body begins: allow it `most` bytes as they are sent, at LEAST_RATE, and `seconds` in total."""
        self._in_headers = False
        self._received = 0
        self._most = most
        self._last = self._now() + seconds
        self._ends = self._now() + self._window

    def seconds_left(self) -> float:
        """How long the next read may wait. Raises TooSlow."""
        now = self._now()
        if now >= self._last:
            raise TooSlow(f"no answer within {self._window:g} s" if self._in_headers else "the answer takes too long")
        if now >= self._ends:
            if self._received < LEAST_RATE * self._window:
                raise TooSlow(f"less than {ByteCount(LEAST_RATE)} a second")
            self._received = 0
            self._ends = now + self._window
        return min(self._ends, self._last) - now

    def count(self, length: int) -> None:
        """Note received bytes. Raises NotUnderstood for more than the answer may have."""
        self._received += length
        self._most -= length
        if self._most < 0:
            what = "headers" if self._in_headers else "a body"
            raise NotUnderstood(f"it sends {what} without end")


class MeteredBackend:
    """httpcore2's interface of the network (`NetworkBackend`), whose connections pass a meter."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def connect_tcp(self, host: str, port: int, timeout: float | None = None, **options: Any) -> MeteredStream:
        wait = _shorter(timeout, self._meter.seconds_left())
        return MeteredStream(self._inner.connect_tcp(host, port, timeout=wait, **options), self._meter)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class MeteredStream:
    """httpcore2's `NetworkStream`, whose reads pass a meter."""

    def __init__(self, inner: Any, meter: Meter) -> None:
        self._inner = inner
        self._meter = meter

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        wait = _shorter(timeout, self._meter.seconds_left())
        try:
            data: bytes = self._inner.read(max_bytes, timeout=wait)
        except Exception:
            if wait != timeout:
                self._meter.seconds_left()  # raises TooSlow, where it was the meter that cut the wait short
            raise
        self._meter.count(len(data))
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, timeout=timeout)

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> MeteredStream:
        wait = _shorter(timeout, self._meter.seconds_left())
        return MeteredStream(self._inner.start_tls(ssl_context, server_hostname, timeout=wait), self._meter)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)

    def close(self) -> None:
        self._inner.close()


def _shorter(timeout: float | None, left: float) -> float:
    return left if timeout is None else min(timeout, left)


def too_long(most: int) -> NotUnderstood:
    return NotUnderstood(f"it is longer than {ByteCount(most)}")
