"""The application: every API's routes, and what is done around all of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.anthropic import routes as anthropic
from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.http.server import Server
from dsr.serve.llama_server import routes as llama_server
from dsr.serve.ollama import routes as ollama
from dsr.serve.openai import routes as openai
from dsr.serve.openai.errors import error_body
from dsr.serve.own import routes as own
from dsr.serve.page import routes as page


def make_app(server: Server) -> Starlette:
    """The application; its lifespan starts and ends the pool."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await server.pool.start()
        yield
        await server.pool.close()

    apis = (openai.API, anthropic.API, ollama.API, llama_server.API, own.API, page.API, _COMMON)
    return Starlette(routes=[route for api in apis for route in api.routes(server)], lifespan=lifespan)


async def _health(request: Request, server: Server) -> Response:
    return JSONResponse({"status": "ok"})


_COMMON = Api(error_body, (Endpoint("GET", "/health", _health),))
