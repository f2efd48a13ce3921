"""`dsr serve` in steps: find the models, build the application, listen until Ctrl-C."""

from __future__ import annotations

from dataclasses import dataclass, field

from dsr.models import library
from dsr.serve.names import Names
from dsr.serve.pool.pool import Pool, PoolOptions
from dsr.serve.pool.room import Memory
from runtime.base.errors import DsrError
from runtime.machine.host import probe


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """The options of `dsr serve`."""

    models: tuple[str, ...] = ()
    host: str = "127.0.0.1"
    port: int = 11500
    pool: PoolOptions = field(default_factory=PoolOptions)


def run(request: ServeRequest) -> None:
    """Serve until Ctrl-C. Raises DsrError for models that are not here, and an address that cannot be had."""
    import uvicorn

    from dsr.serve.http.app import make_app
    from dsr.serve.http.server import Server

    names = Names([library.find(name) for name in request.models])
    pool = Pool(request.pool, _memory)
    app = make_app(Server(names, pool))
    config = uvicorn.Config(
        app, host=request.host, port=request.port, log_config=None, access_log=False, server_header=False,
        timeout_graceful_shutdown=5, http="httptools", ws="none", lifespan="on",
    )  # fmt: skip
    try:
        uvicorn.Server(config).run()
    except SystemExit as error:  # how uvicorn ends when it cannot listen
        raise DsrError(f"cannot listen on {request.host}:{request.port}") from error


def _memory() -> Memory:
    host = probe()
    return Memory(host.memory_total, host.memory_available)
