"""/api/dsr/models, catalog, plan, pull: what is here, what fits, and what comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from dsr.models.model import Model, card_facts, card_markers
from dsr.models.references import parse
from dsr.models.thinking_facts import facts_json
from dsr.serve.child import child_command, child_environment
from dsr.serve.http.body import Body, parsed, read_json
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.serve.http.streams import event
from dsr.serve.names import shown
from dsr.serve.own.commands import command_json
from dsr.serve.pool.pool import ENDING, Seat
from runtime.base.errors import DsrError, NotFound
from runtime.base.quoted import quoted
from runtime.machine.host import probe
from runtime.strategies.strategy import STRATEGIES, StrategyKind

_LONGEST_LINE = 16 << 20  # bytes; a plan lists all files of a repository


class NameBody(Body):
    model: str = Field(min_length=1, max_length=300)


async def models(request: Request, server: Server) -> Response:
    """Every model that can be asked, with what its template knows about thinking, and whether it is open."""
    seats = {seat.name: seat for seat in server.pool.seats}
    found = await server.models()
    rows = await run_in_threadpool(lambda: [_row(model) for model in found])
    default = server.names.default
    rows = [{**row, **_state(seats.get(model.reference))} for row, model in zip(rows, found, strict=True)]
    host = await run_in_threadpool(probe)
    memory = {"total": int(host.memory_total), "available": int(host.memory_available)}
    return JSONResponse({"models": rows, "default": shown(default) if default else None, "memory": memory})


def _row(model: Model) -> dict[str, Any]:
    row: dict[str, Any] = {
        "reference": shown(model),
        "name": model.short_name,
        "quant": model.quant,
        "size": int(model.size),
        "context": None,
        "thinks": False,
        "thinking": None,
        "problem": model.problem,
    }
    try:
        facts = card_facts(model.card)
        row["context"] = model.card.context_length
        row["thinks"] = card_markers(model.card) is not None
        row["thinking"] = facts_json(facts) if facts is not None else None
    except DsrError as error:
        row["problem"] = error.message
    return row


def _state(seat: Seat | None) -> dict[str, Any]:
    if seat is None:
        return {"state": "closed", "memory": 0, "answering": 0}
    facts: dict[str, Any] = {"state": seat.state, "memory": int(seat.need), "answering": seat.users}
    if seat.progress is not None:
        facts["progress"] = {"done": seat.progress.done, "total": seat.progress.total, "job": seat.progress.job}
    return {**facts, **{key: seat.engine.props[key] for key in ("slots", "context") if key in seat.engine.props}}


async def load(request: Request, server: Server) -> Response:
    body, _ = parsed(NameBody, await read_json(request, server.limits))
    model = (await server.named(body.model)).model
    async with server.pool.engine(model.reference) as engine:
        return JSONResponse({"model": shown(model), "state": "open", "props": engine.props})


async def unload(request: Request, server: Server) -> Response:
    body, _ = parsed(NameBody, await read_json(request, server.limits))
    model = (await server.named(body.model)).model
    if not await server.pool.unload(model.reference):
        raise Refused(409, f"{shown(model)} is not open, or answers now")
    return JSONResponse({"model": shown(model), "state": "closed"})


async def catalog(request: Request, server: Server) -> Response:
    """`dsr list --catalog --json`; with ?fits=1 only what fits this machine."""
    fits = ("--fits",) if request.query_params.get("fits") in ("1", "true") else ()
    return JSONResponse(await command_json("list", "--catalog", *fits))


async def plan(request: Request, server: Server) -> Response:
    """`dsr plan MODEL --json` for a model that is here or in the catalogue; without one, what this machine can run."""
    name = request.query_params.get("model", "")
    return JSONResponse(await command_json("plan", *((await _plain(server, name),) if name else ())))


async def pull_plan(request: Request, server: Server) -> Response:
    """`dsr pull MODEL --dry-run --json`: what a pull fetches, so that a person can be asked."""
    return JSONResponse(await command_json("pull", _name(request.query_params.get("model", "")), "--dry-run"))


async def pull(request: Request, server: Server) -> Response:
    """Download a model by its name in the catalogue or its repository; the progress as server-sent events."""
    body, _ = parsed(NameBody, await read_json(request, server.limits))
    return StreamingResponse(_pulling(_name(body.model), server.ending), media_type="text/event-stream")


async def _pulling(name: str, ending: asyncio.Event) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        *child_command("dsr.serve.own.pull_process", name),
        env=child_environment(),
        limit=_LONGEST_LINE,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C at the terminal is the server's
    )
    assert process.stdout is not None
    ended = asyncio.ensure_future(ending.wait())
    try:
        while True:
            reading = asyncio.ensure_future(process.stdout.readline())
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            if not reading.done():
                reading.cancel()
                yield event({"type": "failed", "message": ENDING.message, "hint": "pull again: what came is kept"})
                return
            if not (line := reading.result()):
                break
            yield event(line.decode("utf-8", "replace").strip())
        if await process.wait():
            yield event({"type": "failed", "message": "the pull ended without a word", "hint": None})
    finally:
        ended.cancel()
        if process.returncode is None:
            process.terminate()  # what came is kept, and a later pull resumes
            await process.wait()


async def _plain(server: Server, name: str) -> str:
    """A model that is here by its reference; any other name as it is."""
    try:
        return (await server.named(name)).model.reference
    except DsrError:
        return _name(name)


def _name(name: str) -> str:
    """A name that cannot be an option or a path of this machine. Raises Refused, and as `parse` does."""
    if not name or name.startswith(("-", ".", "/", "~")) or "\\" in name or ".." in name or not name.isprintable():
        raise Refused(400, "model: a short name such as qwen3:8b, or org/repo[:quant]", place="model")
    if parse(name).path is not None:
        raise NotFound(f"there is no model {quoted(name)!r} here", hint="GET /v1/models lists what is here")
    return name


async def strategies(request: Request, server: Server) -> Response:
    """The strategies that a client may choose."""
    return JSONResponse({"strategies": [_strategy(each) for each in STRATEGIES.values() if not each.runs_commands]})


def _strategy(kind: StrategyKind) -> dict[str, Any]:
    settings = dict(each.partition("=")[::2] for each in kind.defaults())
    return {"name": kind.name, "summary": kind.summary, "draws": kind.draws, "settings": settings}


async def history(request: Request, server: Server) -> Response:
    """`dsr bench history --json`: the measurements that were made on this machine."""
    return JSONResponse(await command_json("bench", "history"))
