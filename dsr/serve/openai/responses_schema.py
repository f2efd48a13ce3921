"""The body of POST /v1/responses, as far as dsr reads it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dsr.serve.http.body import Body
from dsr.serve.openai.schema import DsrOptions


class Item(Body):
    """One item of the input. Which fields it has depends on `type`; without one it is a message."""

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | list[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[dict[str, Any]] | None = None


class Reasoning(Body):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None


class TextOptions(Body):
    format: dict[str, Any] | None = None


class ResponsesBody(Body):
    model: str | None = None
    input: str | list[Item]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = True
    stream: bool | None = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: Reasoning | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    text: TextOptions | None = None
    metadata: dict[str, Any] | None = None
    background: bool | None = False
    truncation: str | None = None
    user: str | None = None
    include: list[str] | None = Field(default=None)
    dsr: DsrOptions | None = None
