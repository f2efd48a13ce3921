"""/api/dsr/conversations: the store of `dsr chat` and `dsr history`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal, TypeVar

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from dsr.serve.http.body import Body, Many, parsed, read_json
from dsr.serve.http.errors import Refused
from dsr.serve.http.server import Server
from dsr.store import paths
from dsr.store.conversations import Conversations, StoredConversation, Summary, Turn
from runtime.base.quoted import quoted
from runtime.base.types import Message, ToolCall

Value = TypeVar("Value")
_MOST_LISTED = 200
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")  # SQLite's numbers are below 2**63


class CallBody(Body):
    id: str
    name: str
    arguments: str


class TurnBody(Body):
    role: Literal["user", "assistant", "tool"]
    content: str
    thinking: str = ""
    stats: dict[str, Any] | None = None
    calls: list[CallBody] = Field(default_factory=list)
    call_id: str = ""
    name: str = ""

    @property
    def message(self) -> Message:
        calls = tuple(ToolCall(each.id, each.name, each.arguments) for each in self.calls)
        return Message(self.role, self.content, self.thinking, calls, self.call_id, self.name)


class ConversationBody(Body):
    """A new conversation, or one that `/export?format=json` wrote."""

    model: str = Field(max_length=300)
    system: str = ""
    title: str | None = Field(default=None, max_length=200)
    messages: Many[TurnBody] = Field(default_factory=list)


class TurnsBody(Body):
    """Turns to append. `replace_last`: they take the place of the last question and its answer."""

    messages: Many[TurnBody] = Field(min_length=1)
    replace_last: bool = False


class WholeBody(Body):
    """All turns of a conversation, as they are now."""

    model: str = Field(max_length=300)
    system: str = ""
    messages: Many[TurnBody] = Field(min_length=1)


class TitleBody(Body):
    title: str = Field(min_length=1, max_length=200)


async def listed(request: Request, server: Server) -> Response:
    """The last used ones, or those that mention ?search=."""
    text = request.query_params.get("search", "")
    found = await _with_store(lambda store: store.search(text, _MOST_LISTED) if text else store.list(_MOST_LISTED))
    return JSONResponse({"conversations": [_summary(each) for each in found]})


async def create(request: Request, server: Server) -> Response:
    body, _ = parsed(ConversationBody, await read_json(request, server.limits))

    def store_it(store: Conversations) -> int:
        number = store.begin(body.model, body.system)
        store.extend(number, _turns(body.messages))
        if body.title:
            store.rename(number, body.title)
        return number

    return JSONResponse({"id": await _with_store(store_it)}, 201)


async def show(request: Request, server: Server) -> Response:
    return JSONResponse(_whole(await _get(request)))


async def append(request: Request, server: Server) -> Response:
    body, _ = parsed(TurnsBody, await read_json(request, server.limits))
    number = _number(request)

    def append_to(store: Conversations) -> None:
        store.get(number)
        if body.replace_last:
            store.drop_last_question(number)
        store.extend(number, _turns(body.messages))

    await _with_store(append_to)
    return JSONResponse({"id": number})


async def replace(request: Request, server: Server) -> Response:
    body, _ = parsed(WholeBody, await read_json(request, server.limits))
    number = _number(request)
    turns = _turns(body.messages)
    await _with_store(lambda store: store.replace(number, body.model, body.system, turns))
    return JSONResponse({"id": number})


async def rename(request: Request, server: Server) -> Response:
    body, _ = parsed(TitleBody, await read_json(request, server.limits))
    number = _number(request)
    await _with_store(lambda store: store.rename(number, body.title))
    return JSONResponse({"id": number, "title": body.title})


async def delete(request: Request, server: Server) -> Response:
    number = _number(request)
    await _with_store(lambda store: store.delete(number))
    return JSONResponse({"deleted": number})


async def export(request: Request, server: Server) -> Response:
    """As Markdown, or as the JSON that `create` takes."""
    found = await _get(request)
    form = request.query_params.get("format", "markdown")
    if form == "json":
        return _file(json.dumps(_whole(found), ensure_ascii=False, indent=1), found.id, "json", "application/json")
    if form == "markdown":
        return _file(_markdown(found), found.id, "md", "text/markdown")
    raise Refused(400, "format is markdown or json", place="format")


def _file(text: str, number: int, ending: str, media_type: str) -> Response:
    told = {"Content-Disposition": f'attachment; filename="dsr-conversation-{number}.{ending}"'}
    return Response(text, headers=told, media_type=media_type)


def _markdown(found: StoredConversation) -> str:
    parts = [f"# {found.title or 'Conversation'}", f"{found.model}, {found.started:%Y-%m-%d %H:%M} UTC"]
    if found.system:
        parts += ["## System", found.system]
    for turn in found.turns:
        parts.append({"user": "## Question", "tool": f"## Result of {turn.name}"}.get(turn.role, "## Answer"))
        if turn.thinking:
            quoted = "\n".join(f"> {line}" for line in turn.thinking.splitlines())
            parts.append(quoted)
        parts += [turn.content] if turn.content else []
        parts += [f"Calls `{each.name}` with `{each.arguments}`" for each in turn.calls]
    return "\n\n".join(parts) + "\n"


async def _get(request: Request) -> StoredConversation:
    number = _number(request)
    return await _with_store(lambda store: store.get(number))


def _number(request: Request) -> int:
    given: str = request.path_params["id"]
    if not _NUMBER.fullmatch(given):
        raise Refused(404, f"there is no conversation {quoted(given[:40])}")
    return int(given)


async def _with_store(work: Callable[[Conversations], Value]) -> Value:
    """The result of `work` in another thread: SQLite may wait for a lock."""

    def run() -> Value:
        with Conversations(paths.conversations_file()) as store:
            return work(store)

    return await run_in_threadpool(run)


def _turns(given: Sequence[TurnBody]) -> list[Turn]:
    return [Turn.of(each.message, each.stats) for each in given]


def _summary(one: Summary) -> dict[str, Any]:
    return {
        "id": one.id,
        "started": one.started.isoformat(),
        "model": one.model,
        "title": one.title,
        "turns": one.turns,
    }


def _whole(found: StoredConversation) -> dict[str, Any]:
    return {
        "schema": "dsr.conversation/1",
        "id": found.id,
        "started": found.started.isoformat(),
        "model": found.model,
        "system": found.system,
        "title": found.title,
        "messages": [_turn(turn) for turn in found.turns],
    }


def _turn(turn: Turn) -> dict[str, Any]:
    stats = dict(turn.stats) if turn.stats is not None else None
    told: dict[str, Any] = {"role": turn.role, "content": turn.content, "thinking": turn.thinking, "stats": stats}
    if turn.calls:
        told["calls"] = [asdict(each) for each in turn.calls]
    if turn.role == "tool":
        told |= {"call_id": turn.call_id, "name": turn.name}
    return told
