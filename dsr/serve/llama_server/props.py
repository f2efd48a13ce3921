"""GET /props and /slots: what a model is like, and how busy it is."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr import __version__
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.serve.llama_server.settings import settings_json
from dsr.serve.names import shown

_RANDOM = 2**32 - 1  # LLAMA_DEFAULT_SEED: each request gets a seed of its own


async def props(request: Request, server: Server) -> Response:
    """The properties of ?model=NAME, else of the first model. Loads it."""
    model = (await server.named(request.query_params.get("model"))).model
    async with server.pool.engine(model.reference) as engine:
        found = engine.props
    settings = {"n_ctx": found["longest"], "params": settings_json(found["sampling"], _RANDOM, None)}
    return JSONResponse(
        {
            "default_generation_settings": settings,
            "total_slots": found["slots"],
            "model_alias": shown(model),
            "model_path": model.path.name,  # where it lies is nobody's business
            "chat_template": found["template"],
            "chat_template_caps": {},
            "bos_token": found["bos"],
            "eos_token": found["eos"],
            "modalities": {"vision": False, "audio": False},
            "build_info": f"dsr-{__version__}",
            "is_sleeping": False,
        }
    )


async def slots(request: Request, server: Server) -> Response:
    """The slots of ?model=NAME, else of the first model; none while it is not loaded. Never loads it.

    An answer has no slot of its own, so the first slots are the busy ones.
    """
    model = (await server.named(request.query_params.get("model"))).model
    seat = next((each for each in server.pool.seats if each.name == model.reference and each.state == "open"), None)
    rows: list[dict[str, Any]] = []
    if seat is not None:
        standing, found = seat.engine.standing, seat.engine.props
        busy = standing.drawing + standing.reading
        rows = [
            {"id": number, "n_ctx": found["longest"], "speculative": False, "is_processing": number < busy}
            for number in range(found["slots"])
        ]
    if request.query_params.get("fail_on_no_slot") == "1" and all(each["is_processing"] for each in rows):
        raise Refused(503, "all slots are busy" if rows else "the model is not loaded")
    return JSONResponse(rows)


async def infill(request: Request, server: Server) -> Response:
    raise Refused(501, "dsr has no /infill", hint="send the model's own infill tokens to /completion")
