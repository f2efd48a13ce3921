"""The application: every API's routes, and what is done around all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from dsr.serve.anthropic import routes as anthropic
from dsr.serve.http.common import common_api
from dsr.serve.http.errors import Refused
from dsr.serve.http.gate import Gate
from dsr.serve.http.metrics import Metrics
from dsr.serve.http.routes import Api
from dsr.serve.http.server import Server
from dsr.serve.llama_server import routes as llama_server
from dsr.serve.ollama import routes as ollama
from dsr.serve.openai import routes as openai
from dsr.serve.own import routes as own
from dsr.serve.page import routes as page
from runtime.base.quoted import quoted

_LONGEST_PATH = 200  # characters of a path in a message


def make_app(server: Server) -> Gate:
    """The application; its lifespan starts and ends the pool."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await server.pool.start()
        yield
        await server.pool.close()

    metrics = Metrics(server.pool)
    apis = (openai.API, anthropic.API, ollama.API, llama_server.API, own.API, page.API, common_api(metrics))
    api_of = partial(_api_of, apis)

    async def unknown(request: Request, error: Exception) -> Response:
        """A path or a method that no API has."""
        assert isinstance(error, HTTPException)
        asked = f"{request.method} {quoted(request.url.path[:_LONGEST_PATH])}"
        response = api_of(request.url.path).failed(Refused(error.status_code, f"there is no {asked} here"))
        response.headers.update(error.headers or {})
        return response

    routes = [route for api in apis for route in api.routes(server)]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={404: unknown, 405: unknown})
    return Gate(app, server, api_of, metrics)


def _api_of(apis: Sequence[Api], path: str) -> Api:
    """The API with the endpoint that begins most like `path`; of equal ones the first."""
    return max(apis, key=lambda api: max(_same_parts(each.path, path) for each in api.endpoints))


def _same_parts(one: str, other: str) -> int:
    count = 0
    for left, right in zip(one.split("/"), other.split("/"), strict=False):
        if left != right:
            break
        count += 1
    return count
