"""Bodies of Ollama's API (its docs/api.md), as far as dsr reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dsr.serve.http.body import Body, Many
from dsr.serve.own_field import DsrOptions


class Options(Body):
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    typical_p: float | None = None
    seed: int | None = None
    num_predict: int | None = None
    num_ctx: int | None = None
    stop: Many[str] | str | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    mirostat: int | None = None
    tfs_z: float | None = None


class CallFunction(Body):
    name: str
    arguments: dict[str, Any] = Field(default_factory=dict)


class Call(Body):
    function: CallFunction
    id: str | None = None


class ChatMessage(Body):
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    thinking: str | None = None
    images: Many[str] | None = None
    tool_calls: Many[Call] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class Drawing(Body):
    """What /api/chat and /api/generate share. `keep_alive`: seconds, or a text such as "5m"."""

    model: str
    format: str | dict[str, Any] | None = None
    options: Options | None = None
    stream: bool = True
    think: bool | Literal["low", "medium", "high", "max"] | None = None
    keep_alive: int | float | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    truncate: bool | None = None
    shift: bool | None = None
    dsr: DsrOptions | None = None


class ChatBody(Drawing):
    messages: Many[ChatMessage] = Field(default_factory=list)
    tools: Many[dict[str, Any]] | None = None


class GenerateBody(Drawing):
    prompt: str = ""
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: Many[int] | None = None
    raw: bool = False
    images: Many[str] | None = None


class ShowBody(Body):
    model: str | None = None
    name: str | None = None
    verbose: bool = False
