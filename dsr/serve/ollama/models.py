"""GET /api/tags, /api/ps, /api/version, POST /api/show."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr import __version__
from dsr.models.catalog import parameter_count
from dsr.models.model import Model, card_facts, card_markers
from dsr.models.sampling import effective
from dsr.serve.http.body import parsed, read_json
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.serve.names import shown
from dsr.serve.ollama.schema import ShowBody
from dsr.serve.pool.pool import Seat
from runtime.base.errors import DsrError
from runtime.gguf.embedding import made_for_embeddings

_NEVER = timedelta(days=36_500)  # a model that stays: Ollama's field has a date all the same


async def tags(request: Request, server: Server) -> Response:
    rows = await run_in_threadpool(lambda: [_row(model) for model in server.names.models()])
    return JSONResponse({"models": rows})


async def ps(request: Request, server: Server) -> Response:
    models = {model.reference: model for model in await server.models()}
    seats = [seat for seat in server.pool.seats if seat.state == "open" and seat.name in models]
    return JSONResponse({"models": [_open_row(seat, models[seat.name]) for seat in seats]})


async def version(request: Request, server: Server) -> Response:
    return JSONResponse({"version": __version__})


async def show(request: Request, server: Server) -> Response:
    body, _ = parsed(ShowBody, await read_json(request, server.limits))
    name = body.model or body.name
    if not name:
        raise Refused(400, "model: the name of a model", place="model")
    model = (await server.named(name)).model
    return JSONResponse(await run_in_threadpool(lambda: _described(model)))


def _described(model: Model) -> dict[str, Any]:
    card = model.card
    facts = card_facts(card)
    abilities = ["embedding" if made_for_embeddings(card) else "completion"]
    abilities += ["thinking"] if card_markers(card) is not None else []
    abilities += ["tools"] if facts is not None and facts.tools else []
    texts = {key: value for key, value in card.metadata.items() if isinstance(value, (str, int, float, bool))}
    settings = effective(model.sampling.params)
    return {
        "modelfile": f"# served by dsr\nFROM {shown(model)}\n",
        "parameters": "\n".join(f"{name} {value}" for name, value in settings.items()),
        "template": card.template or "",
        "details": _details(model),
        "model_info": {key: value for key, value in texts.items() if key != "tokenizer.chat_template"},
        "capabilities": abilities,
        "modified_at": _modified(model),
    }


def _row(model: Model) -> dict[str, Any]:
    return {
        "name": shown(model),
        "model": shown(model),
        "modified_at": _modified(model),
        "size": int(model.size),
        "digest": model.digests[0] if model.digests else "",
        "details": _details(model),
    }


def _open_row(seat: Seat, model: Model) -> dict[str, Any]:
    leaves = datetime.now(UTC) + (_NEVER if seat.keep_alive is None else timedelta(seconds=seat.keep_alive))
    return {
        **_row(model),
        "expires_at": leaves.isoformat(),
        "size_vram": 0,
        "context_length": seat.engine.props["longest"],
    }


def _details(model: Model) -> dict[str, Any]:
    try:
        family, count = model.card.architecture, parameter_count(model.card.parameters)
    except DsrError:
        family, count = "", ""
    return {
        "parent_model": "",
        "format": "gguf",
        "family": family,
        "families": [family],
        "parameter_size": count,
        "quantization_level": model.quant or "",
    }


def _modified(model: Model) -> str:
    return datetime.fromtimestamp(model.path.stat().st_mtime, UTC).isoformat()
