"""Who may ask: the key, the names under which the server is known (DNS rebinding), and the pages that may read answers.

A page of the web can let a name of its own lead to 127.0.0.1 and then speak to programs there, as if they were its own
site. It cannot choose the Host header, which has that name: so the names are compared. Addresses in numbers cannot be
rebound.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import sha256
from urllib.parse import urlsplit

from dsr.serve.http.errors import Refused
from runtime.base.quoted import quoted

Headers = Iterable[tuple[bytes, bytes]]
# The page itself has no secrets, and a monitor needs no key to see that the server lives.
_WITHOUT_KEY = ("/", "/health", "/v1/health", "/favicon.ico")
_PAGE = "/page/"
_PORTS = {"http": 80, "https": 443}
_LONGEST = 300  # characters of a host or an origin


@dataclass(frozen=True, slots=True)
class Access:
    """`key` is empty where none is asked for. `host` is the address on which the server listens, `hosts` other names
    of it. `origins` are pages ("https://chat.example") that may read answers; "*" are all.
    """

    key: str = field(default="", repr=False)
    host: str = "127.0.0.1"
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    def check(self, path: str, headers: Headers, *, preflight: bool = False) -> None:
        """Raises Refused: 400 or 403 for a wrong Host or Origin, 401 for a missing or wrong key.

        A `preflight` asks on behalf of a page whether it may ask (CORS); browsers send no key with it.
        """
        given = _by_name(headers)
        host = self._check_host(given.get(b"host", []))
        self._check_origin(given.get(b"origin", []), host)
        if self.key and not preflight and not self._is_open(path) and not self._has_key(given):
            raise Refused(
                401, "the key is missing or wrong", hint="send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'"
            )

    def shared_with(self, headers: Headers) -> str | None:
        """The origin of the page that asks, if it is listed; None where no CORS header is wanted."""
        origins = _by_name(headers).get(b"origin", [])
        origin = origins[0].decode("latin-1") if len(origins) == 1 else None
        return origin if origin is not None and ("*" in self.origins or origin in self.origins) else None

    def _check_host(self, given: list[bytes]) -> str:
        if len(given) != 1:
            raise Refused(400, f"a request has one Host header, not {len(given)}")
        netloc = given[0].decode("latin-1")
        name = _host_of(netloc)
        if name is None:
            raise Refused(400, f"the Host header {quoted(netloc[:_LONGEST])!r} is no host")
        if not self._is_own(name):
            raise Refused(
                403,
                f"the server is not known as {quoted(name)!r}",
                hint="dsr serve --allow-host NAME adds a name",
            )
        return netloc

    def _is_own(self, name: str) -> bool:
        if name in ("localhost", self.host.lower(), *(each.lower() for each in self.hosts)):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not is_loopback(self.host) and name == socket.gethostname().lower()
        return address.is_loopback or not is_loopback(self.host)

    def _check_origin(self, given: list[bytes], host: str) -> None:
        if not given:
            return
        origin = given[0].decode("latin-1")
        if len(given) == 1 and ("*" in self.origins or origin in self.origins or _same_site(origin, host)):
            return
        raise Refused(
            403,
            f"pages of {quoted(origin[:_LONGEST])!r} may not ask this server",
            hint="dsr serve --cors ORIGIN allows them",
        )

    def _is_open(self, path: str) -> bool:
        return path in _WITHOUT_KEY or path.startswith(_PAGE)

    def _has_key(self, given: dict[bytes, list[bytes]]) -> bool:
        keys = [*given.get(b"x-api-key", [])]
        for value in given.get(b"authorization", []):
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                keys.append(key.strip())
        wanted = sha256(self.key.encode()).digest()  # of one length, so that comparing takes one time
        found = [hmac.compare_digest(sha256(key).digest(), wanted) for key in keys]
        return any(found)


def is_loopback(host: str) -> bool:
    """Whether only programs of this machine reach `host`, a name or an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _by_name(headers: Headers) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        found.setdefault(name.lower(), []).append(value)
    return found


def _host_of(netloc: str) -> str | None:
    """'Localhost:11500' is localhost; None for what is no host."""
    if not netloc or len(netloc) > _LONGEST or any(each in netloc for each in "/\\@?# \t"):
        return None
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port
    except ValueError:
        return None
    name = (parts.hostname or "").removesuffix(".")
    return name or None


def _same_site(origin: str, host: str) -> bool:
    """Whether a page came from this server. The scheme may differ: a proxy may speak TLS for the server."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _PORTS.get(parts.scheme)
        own = urlsplit(f"{parts.scheme}://{host}")
        return (
            parts.scheme in _PORTS
            and parts.hostname is not None
            and (parts.hostname, port) == (own.hostname, own.port or _PORTS[parts.scheme])
        )
    except ValueError:
        return False
