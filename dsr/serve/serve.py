"""`dsr serve` in steps: find the models, take the address, build the application, serve until Ctrl-C."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dsr.models import library
from dsr.models.model import Model
from dsr.serve.listen import Address, check_access, check_certificate, sockets_of
from dsr.serve.names import Names
from dsr.serve.pool.engine import ToldFailed
from dsr.serve.pool.pool import Pool, PoolOptions
from dsr.serve.pool.room import Memory
from dsr.ui.console import Console
from runtime.base.errors import DsrError
from runtime.base.types import counted, listed
from runtime.machine.host import probe

_NAMED = 5  # models in the line at the start


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """The options of `dsr serve`. `no_auth`: other machines may ask without a key. `default_model` answers
    requests that name none, unless `models` are given."""

    models: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    default_model: str | None = None
    address: Address = field(default_factory=Address)
    key: str = field(default="", repr=False)
    no_auth: bool = False
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    pool: PoolOptions = field(default_factory=PoolOptions)
    log_file: Path | None = None
    quiet: bool = False


def run(request: ServeRequest) -> None:
    """Serve until Ctrl-C. Raises DsrError for models that are not here, and an address that cannot be had."""
    address = request.address
    check_access(address, request.key, no_auth=request.no_auth)
    check_certificate(address)
    names = Names([library.find(name) for name in request.models] or _usual(request.default_model), request.aliases)
    listeners = sockets_of(address)

    from dsr.serve.http import log
    from dsr.serve.http.access import Access
    from dsr.serve.http.app import make_app
    from dsr.serve.http.loop import serve
    from dsr.serve.http.server import Server

    log.start_log(request.log_file, requests=request.log_file is not None or not request.quiet)
    pool = Pool(request.pool, _memory, report=log.note)
    app = make_app(Server(names, pool, access=Access(request.key, address.host, request.hosts, request.origins)))
    port = listeners[0].getsockname()[1]
    loading: list[asyncio.Task[None]] = []  # the loop keeps no tasks alive

    def started() -> None:
        _say(request, names, port)
        if request.models and names.default is not None:
            loading.append(asyncio.create_task(_load(pool, names.default.reference)))

    serve(app, address, listeners, started)


def _usual(name: str | None) -> list[Model]:
    """The model of the settings, if it is here."""
    with suppress(DsrError):
        return [library.find(name)] if name else []
    return []


async def _load(pool: Pool, reference: str) -> None:
    """Open the model that the person named first, so that its first client need not wait. The log has why it failed."""
    with suppress(ToldFailed, DsrError):
        async with pool.engine(reference):
            pass


def _say(request: ServeRequest, names: Names, port: int) -> None:
    console, address = Console(quiet=request.quiet), request.address
    for line in _start_lines(names, address.url(port)):
        console.say(line, style="plain")
    if address.is_loopback:
        return
    if request.no_auth:
        console.warn(f"--no-auth: everybody who reaches {address.host} can use the models of this machine")
    if address.certificate is None:
        console.warn("texts cross the network unencrypted, and keys too: see --tls-cert")


def _start_lines(names: Names, url: str) -> Iterator[str]:
    models = list(dict.fromkeys(model.short_name for model in names.models()))
    yield f"dsr serves {counted(len(models), 'model')} at {url} until you press Ctrl-C"
    yield f"models: {listed(models, most=_NAMED)}" if models else "no model is here: dsr pull gets one"


def _memory() -> Memory:
    host = probe()
    return Memory(host.memory_total, host.memory_available)
