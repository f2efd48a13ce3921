"""The address of a server: its sockets, its certificate, and whether it may be reached from other machines."""

from __future__ import annotations

import errno
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dsr.serve.http.access import is_loopback
from runtime.base.errors import DsrError, UsageError

_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # every address, and the one to type on this machine
_BACKLOG = 2048  # connections that wait to be taken, as uvicorn has it; the system may allow fewer


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. `certificate` and `key` are files; without them it speaks plain HTTP."""

    host: str = "127.0.0.1"
    port: int = 11500
    certificate: Path | None = None
    key: Path | None = None

    def url(self, port: int) -> str:
        """What to type into a browser of this machine."""
        host = _ALL.get(self.host, self.host)
        scheme = "https" if self.certificate is not None else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


def check_access(address: Address, key: str, *, no_auth: bool) -> None:
    """Raises UsageError where other machines could use the models without a key."""
    if key and no_auth:
        raise UsageError("--no-auth and a key contradict each other", hint="leave out one; a key may be in DSR_API_KEY")
    if key != key.strip() or not (key.isprintable() and key.isascii()):
        raise UsageError("a key has printable ASCII characters, and no space around them")
    if not (address.is_loopback or key or no_auth):
        raise UsageError(
            f"other machines can reach {address.host or 'every address'}, so dsr serve needs a key",
            hint="set DSR_API_KEY, or add --no-auth if everybody there may use the models",
        )


def sockets_of(address: Address) -> list[socket.socket]:
    """Listening sockets, all on one port. Raises DsrError."""
    try:
        found = socket.getaddrinfo(
            address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )  # fmt: skip
    except (socket.gaierror, UnicodeError):
        raise DsrError(
            f"--host {address.host} is no address of this machine", hint="use 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    made: list[socket.socket] = []
    port = address.port
    try:
        for family, kind, _, _, where in dict.fromkeys(found):
            listener = socket.socket(family, kind)
            made.append(listener)
            if sys.platform != "win32":  # there, it would let two servers listen
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                with suppress(OSError):
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.bind((where[0], port, *where[2:]))
            port = port or listener.getsockname()[1]
            listener.listen(_BACKLOG)
    except OSError as error:
        for each in made:
            each.close()
        raise _cannot_listen(address, error) from None
    return made


def _cannot_listen(address: Address, error: OSError) -> DsrError:
    where = f"{address.host}:{address.port}"
    if error.errno == errno.EADDRINUSE:
        return DsrError(
            f"port {address.port} of {address.host} is taken", hint="choose another one: --port 0 finds one"
        )
    if error.errno == errno.EACCES:
        return DsrError(f"the system does not let you listen on {where}", hint="choose a --port of 1024 or more")
    if error.errno == errno.EADDRNOTAVAIL:
        return DsrError(
            f"{address.host} is no address of this machine", hint="use 127.0.0.1, or 0.0.0.0 for all"
        )  # fmt: skip
    return DsrError(f"cannot listen on {where}: {error.strerror}")


def check_certificate(address: Address) -> None:
    """Raises DsrError for a certificate or key that cannot be used, before anything is loaded."""
    if address.certificate is None:
        if address.key is not None:
            raise UsageError("--tls-key needs --tls-cert")
        return
    for file in _files(address):
        if not file.is_file():
            raise DsrError(f"there is no file {file}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(address.certificate, address.key, password=_no_password)
    except ssl.SSLError as error:
        files = " and ".join(map(str, _files(address)))
        raise DsrError(
            f"{files}: not a certificate and its key ({error.reason or 'no PEM file'})",
            hint="both are PEM files, and the key has no password",
        ) from None
    except OSError as error:
        raise DsrError(f"the certificate cannot be read: {error.strerror or error}") from None


def _files(address: Address) -> Iterator[Path]:
    yield from (file for file in (address.certificate, address.key) if file is not None)


def _no_password() -> str:
    """Nobody is asked at the terminal. (OpenSSL's error follows.)"""
    return ""
