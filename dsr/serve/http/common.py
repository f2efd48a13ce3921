"""/health and /metrics."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.http.metrics import Metrics
from dsr.serve.http.routes import Api, Endpoint
from dsr.serve.http.server import Server
from dsr.serve.openai.errors import error_body


def common_api(metrics: Metrics) -> Api:
    """The routes that belong to no API."""

    async def show_metrics(request: Request, server: Server) -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Api(
        error_body,
        (
            Endpoint("GET", "/health", _health),
            Endpoint("GET", "/v1/health", _health),
            Endpoint("GET", "/metrics", show_metrics),
        ),
    )


async def _health(request: Request, server: Server) -> Response:
    """Says that the server lives, also while models load. Needs no key, and names no model."""
    states = [seat.state for seat in server.pool.seats]
    return JSONResponse({"status": "ok", "models": {state: states.count(state) for state in ("open", "loading")}})
