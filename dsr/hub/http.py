"""The HTTP client of all requests, and its retries: which failures are worth another try, and how long to wait.

The only importer of httpx2, the client that huggingface_hub itself is built on. Redirects are followed here, because
httpx2 reads the body of each whole. limits.py bounds what an answer may send.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from dsr.hub.limits import Meter, MeteredBackend, NotUnderstood, TooSlow, too_long
from runtime.base.errors import DsrError, NetworkError
from runtime.base.events import Listener, Notice
from runtime.base.quoted import spelled

if TYPE_CHECKING:
    from http.cookiejar import CookieJar

    import httpx2
    from httpx2 import Response as Response

_BUSY = (408, 425, 429, 500, 502, 503, 504)
_REDIRECTS = 10
# One coding only: a few bytes that are compressed twice become terabytes.
_CODINGS = ("", "identity", "gzip", "x-gzip", "deflate")
# A slow server is seldom faster a moment later.
_TRIES_OF_A_SLOW_SERVER = 2


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again. `stall_seconds` without a byte count as a failure; `tries` failures in a row are an error.

    The pauses between tries double, from `first_pause` seconds. Data that arrives starts the count again.
    `origin` is added to the name that dsr gives itself.
    """

    stall_seconds: float = 10.0
    tries: int = 6
    first_pause: float = 1.0
    longest_pause: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    origin: str = ""


class Transient(Exception):
    """A failure after which another try makes sense.

    `wait` are the seconds that the server asks for. `tries` is the number of tries, if it is not the policy's.
    `busy`: the server is there, and refuses for now.
    """

    def __init__(self, reason: str, wait: float | None = None, tries: int | None = None, *, busy: bool = False) -> None:
        super().__init__(reason)
        self.busy = busy
        self.reason = reason
        self.wait = wait
        self.tries = tries


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
        if self._failures >= min(policy.tries, failure.tries or policy.tries):
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


class Client:
    """The client of all requests: uses the environment's proxies, and follows redirects within limits.

    Use as a context manager. Raises DsrError if the proxies or certificates of the environment cannot be used.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._meter = Meter(policy.stall_seconds)
        self._client = new_client(policy, self._meter)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    @contextmanager
    def get(self, url: str, headers: Mapping[str, str], most: int, seconds: float = float("inf")) -> Iterator[Response]:
        """The answer to a GET request after all redirects, its body not read yet.

        The body may have `most` bytes as they are sent, and take `seconds`. `history` are the redirects; their bodies
        are not read. The token is not sent to another host: httpx2 drops `Authorization` at another origin.
        """
        self._meter.begin()
        request = self._client.build_request("GET", url, headers=headers)
        history: list[Response] = []
        while True:
            response = self._client.send(request, stream=True)
            try:
                _check_redirect(response)
                if response.next_request is None or not response.has_redirect_location:
                    coding = response.headers.get("content-encoding", "").strip().lower()
                    if coding not in _CODINGS:
                        raise NotUnderstood(f"dsr did not ask for the compression {spelled(coding)}")
                    response.history = history
                    self._meter.body(most, seconds)
                    yield response
                    return
            finally:
                response.close()
            if len(history) == _REDIRECTS:
                raise NetworkError(
                    f"{response.request.url.host} redirects more than {_REDIRECTS} times",
                    hint="check HF_ENDPOINT and the proxy",
                )
            history.append(response)
            request = response.next_request


def new_client(policy: RetryPolicy, meter: Meter | None = None) -> httpx2.Client:
    """httpx2's client whose connections pass a meter. It follows no redirects and keeps no cookies."""
    import httpx2

    from dsr import __version__

    meter = meter or Meter(policy.stall_seconds)
    agent = f"dsr/{__version__}" + (f"; origin/{policy.origin}" if policy.origin else "")
    try:
        client = httpx2.Client(
            timeout=policy.stall_seconds,
            headers={"User-Agent": agent, "Accept-Encoding": "identity"},
            cookies=_no_cookies(),
        )
    except (ImportError, OSError, ValueError, httpx2.InvalidURL) as error:  # an SSLError is an OSError
        raise DsrError(
            f"the proxy or the certificates of the environment cannot be used: {error}",
            hint="check HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR",
        ) from error
    # httpx2 has no public way to say this for the transports that it makes for the environment's proxies.
    for transport in (client._transport, *client._mounts.values()):
        if transport is not None:
            pool: Any = transport._pool  # type: ignore[attr-defined]
            pool._network_backend = MeteredBackend(pool._network_backend, meter)
    return client


def _no_cookies() -> CookieJar:
    from http.cookiejar import CookieJar, DefaultCookiePolicy

    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def _check_redirect(response: Response) -> None:
    """Raise NetworkError for a redirect from https to http, or to an invalid address."""
    if not response.has_redirect_location:
        return
    host, target = response.request.url.host, response.next_request
    if target is None:
        raise NotUnderstood(f"{host} redirects to an invalid address")
    if response.request.url.scheme == "https" and target.url.scheme != "https":
        raise NetworkError(
            f"{host} redirects from https to {target.url.scheme} at {target.url.host}: refused",
            hint="check HF_ENDPOINT and the proxy",
        )


def read(response: Response, most: int) -> bytes:
    """The whole body, without compression. Raises NotUnderstood if it has more than `most` bytes."""
    data = bytearray()
    for chunk in response.iter_bytes():
        data += chunk
        if len(data) > most:
            raise too_long(most)
    return bytes(data)


def next_cursor(response: Response) -> str:
    """The cursor of the next page (`Link: <...&cursor=...>; rel="next"`), empty without one.

    The address itself is not followed: a mirror may name the host behind it, which must not get the token.
    """
    found = re.search(r"<([^<>]{1,4000})>[^<>]{0,100}rel=\"?next\b", response.headers.get("link", ""))
    return parse_qs(urlsplit(found[1]).query).get("cursor", [""])[0] if found else ""


@contextmanager
def connecting(policy: RetryPolicy) -> Iterator[None]:
    """Within the block a failure of the connection raises Transient, and an untrusted certificate NetworkError."""
    import httpx2

    try:
        yield
    except TooSlow as error:
        raise Transient(str(error), tries=_TRIES_OF_A_SLOW_SERVER) from error
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError) as error:
        raise NetworkError(f"dsr cannot open the address: {error}", hint="check HF_ENDPOINT and the proxy") from error
    except httpx2.RequestError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise NetworkError(
                f"the certificate of {error.request.url.host} is not trusted: {error}",
                hint="if your network has certificates of its own, set SSL_CERT_FILE to a file with them",
            ) from error
        raise _as_transient(error, policy) from error


def _as_transient(error: httpx2.RequestError, policy: RetryPolicy) -> Transient:
    """The failure with a reason that a person understands."""
    import httpx2

    if isinstance(error, httpx2.ReadTimeout | httpx2.WriteTimeout):
        return Transient(f"no data for {policy.stall_seconds:g} s")
    if isinstance(error, httpx2.TimeoutException):
        return Transient(f"no connection within {policy.stall_seconds:g} s")
    if isinstance(error, httpx2.DecodingError):
        return Transient("the compressed answer is damaged")
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
    return Transient(reason, _wait_of(headers), busy=True)


def refused(response: Response) -> Transient | None:
    """The failure of a busy server, or of a storage host whose signed link has expired; None for any other answer.

    Storage hosts refuse an expired link with 403 (S3, CloudFront), and some with 400, 401 or 410. The hub then gives
    a new one. The hub's own refusals have an X-Error-Code.
    """
    if failure := busy(response.status_code, response.headers):
        return failure
    elsewhere = response.history and response.url.netloc != response.history[0].url.netloc
    if elsewhere and response.status_code in (400, 401, 403, 410) and "x-error-code" not in response.headers:
        return Transient(f"the storage host refuses its own link (HTTP {response.status_code})")
    return None


def _wait_of(headers: Mapping[str, str]) -> float | None:
    """Seconds of `Retry-After` (RFC 9110 10.2.3: a number or a date) or of the hub's `RateLimit:
    ...;r=0;t=55`.
    """
    text = headers.get("retry-after", "").strip()
    if number(text) is not None:
        return number(text)
    if text:
        try:
            return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
        except (ValueError, TypeError, OverflowError):
            return None
    limit = re.search(r"\br\s*=\s*0\b[^=]*\bt\s*=\s*(\d+)", headers.get("ratelimit", ""))
    return number(limit[1]) if limit else None


def number(text: str) -> int | None:
    """The number that a header gives in digits; None for other text, and for numbers above 10^18."""
    return int(text) if len(text) <= 18 and text.isascii() and text.isdigit() else None
