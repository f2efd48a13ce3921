"""The HTTP client of all requests, and its retries: which failures are worth another try, and how long to wait.

The only importer of httpx2, the client that huggingface_hub itself is built on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from runtime.base.errors import NetworkError
from runtime.base.events import Listener, Notice

if TYPE_CHECKING:
    import httpx2
    from httpx2 import Client as Client
    from httpx2 import Response as Response

_BUSY = (408, 425, 429, 500, 502, 503, 504)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. `stall_seconds` without a byte count as a failure; `tries` failures in a row are an error.

    The pauses between tries double, from `first_pause` seconds. Data that arrives starts the count again.
    """

    stall_seconds: float = 10.0
    tries: int = 6
    first_pause: float = 1.0
    longest_pause: float = 300.0
    sleep: Callable[[float], None] = time.sleep


class Transient(Exception):
    """A failure after which another try makes sense. `wait` are the seconds that the server asks for."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait = wait


class Retries:
    """Counts failures in a row and sleeps after each. Raises NetworkError after the last that the policy allows."""

    def __init__(self, what: str, policy: RetryPolicy, listen: Listener) -> None:
        self._what = what
        self._policy = policy
        self._listen = listen
        self._failures = 0

    def reset(self) -> None:
        self._failures = 0

    def wait_after(self, failure: Transient) -> None:
        self._failures += 1
        policy = self._policy
        if self._failures >= policy.tries:
            raise NetworkError(
                f"{self._what}: {failure.reason} (tried {self._failures} times)",
                hint="check the network and the proxy, then repeat the command: it resumes a download",
            )
        pause = policy.first_pause * 2 ** (self._failures - 1) if failure.wait is None else failure.wait
        if pause > policy.longest_pause:
            raise NetworkError(
                f"{self._what}: {failure.reason}, and asks to wait {pause:.0f} s",
                hint="repeat the command after that time",
            )
        self._listen(Notice(f"{self._what}: {failure.reason}; trying again in {pause:.0f} s"))
        policy.sleep(pause)


def new_client(policy: RetryPolicy) -> Client:
    """The client of all requests: uses the environment's proxies, follows redirects, but not from https to http.

    The token is not sent to another host: httpx2 drops `Authorization` at another origin.
    """
    import httpx2

    from dsr import __version__

    return httpx2.Client(
        follow_redirects=True,
        max_redirects=10,
        timeout=policy.stall_seconds,
        headers={"User-Agent": f"dsr/{__version__}"},
        event_hooks={"response": [refuse_downgrade]},
    )


def refuse_downgrade(response: Response) -> None:
    if response.has_redirect_location and response.request.url.scheme == "https":
        target = response.request.url.join(response.headers["location"])
        if target.scheme != "https":
            raise NetworkError(
                f"{response.request.url.host} redirects from https to {target.scheme} at {target.host}: refused",
                hint="check HF_ENDPOINT and the proxy",
            )


@contextmanager
def connecting(policy: RetryPolicy) -> Iterator[None]:
    """Within the block a failure of the connection raises Transient, and endless redirects raise NetworkError."""
    import httpx2

    try:
        yield
    except httpx2.TooManyRedirects as error:
        raise NetworkError(
            f"{error.request.url.host} redirects in circles", hint="check HF_ENDPOINT and the proxy"
        ) from error
    except httpx2.RequestError as error:
        raise _as_transient(error, policy) from error


def _as_transient(error: httpx2.RequestError, policy: RetryPolicy) -> Transient:
    """The failure with a reason that a person understands."""
    import httpx2

    if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return Transient(f"no data for {policy.stall_seconds:g} s")
    if isinstance(error, httpx2.TimeoutException):
        return Transient(f"no connection within {policy.stall_seconds:g} s")
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.ReadError):
        return Transient("the connection broke")
    if isinstance(error, httpx2.ProxyError):
        return Transient(f"the proxy refuses: {error}")
    return Transient(f"cannot reach {error.request.url.host}: {error}")


def busy(status: int, headers: Mapping[str, str]) -> Transient | None:
    """The failure of a busy server (429, 5xx) with the wait that it asks for; None for any other status."""
    if status not in _BUSY:
        return None
    reason = "too many requests (HTTP 429)" if status == 429 else f"the server answers HTTP {status}"
    return Transient(reason, _wait_of(headers))


def _wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Retry-After` (RFC 9110 10.2.3: a number or a date) or of the hub's `RateLimit:
    ...;r=0;t=55`.
    """
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return None
    limit = re.search(r"\br\s*=\s*0\b.*\bt\s*=\s*(\d+)", headers.get("ratelimit", ""))
    return float(limit[1]) if limit else None
