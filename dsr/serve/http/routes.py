"""Endpoints of an API: a handler gets the request and the server, and raises what is wrong."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from dsr.serve import account
from dsr.serve.http.errors import CLIENT_LEFT, Fault, Refused, fault_of
from dsr.serve.http.server import Server
from dsr.serve.pool.engine import ToldFailed
from runtime.base.errors import DsrError

Handler = Callable[[Request, Server], Awaitable[Response]]
_log = logging.getLogger("dsr.serve")


@dataclass(frozen=True, slots=True)
class Endpoint:
    method: str
    path: str
    handler: Handler


@dataclass(frozen=True, slots=True)
class Api:
    """Endpoints whose errors have one form."""

    error_body: Callable[[Fault], dict[str, Any]]
    endpoints: tuple[Endpoint, ...]

    def routes(self, server: Server) -> list[Route]:
        return [Route(each.path, self._guarded(each, server), methods=[each.method]) for each in self.endpoints]

    def _guarded(self, endpoint: Endpoint, server: Server) -> Callable[[Request], Awaitable[Response]]:
        async def handle(request: Request) -> Response:
            account.current().route = endpoint.path
            try:
                return await endpoint.handler(request, server)
            except ClientDisconnect:
                return Response(status_code=CLIENT_LEFT)
            except (DsrError, Refused, ToldFailed) as error:
                return self.failed(error)
            except Exception as error:
                _log.exception("a request failed")
                return self.failed(error)

        return handle

    def failed(self, error: Exception) -> Response:
        """`error` as an answer of this API."""
        fault = fault_of(error)
        return JSONResponse(self.error_body(fault), fault.status, fault.headers)
