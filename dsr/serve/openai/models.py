"""GET /v1/models."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.models.model import Model
from dsr.serve.http.server import Server
from dsr.serve.names import ANY, shown


async def list_models(request: Request, server: Server) -> Response:
    return JSONResponse({"object": "list", "data": [_row(model, server) for model in await server.models()]})


async def show_model(request: Request, server: Server) -> Response:
    """Raises NotFound."""
    return JSONResponse(_row((await server.named(request.path_params["name"])).model, server))


def _row(model: Model, server: Server) -> dict[str, Any]:
    aliases = [each for each in server.names.aliases if each != ANY] if model is server.names.default else []
    return {
        "id": shown(model),
        "object": "model",
        "created": int(model.path.stat().st_mtime),
        "owned_by": "dsr",
        **({"aliases": aliases} if aliases else {}),
    }
