"""The body of POST /v1/responses, as far as dsr reads it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dsr.serve.http.body import Body, Many
from dsr.serve.openai.schema import Effort, Labels, StreamOptions
from dsr.serve.own_field import DsrOptions


class Item(Body):
    """One item of the input. Which fields it has depends on `type`; without one it is a message."""

    type: str | None = None
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Many[dict[str, Any]] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | Many[dict[str, Any]] | None = None
    encrypted_content: str | None = None


class Reasoning(Body):
    summary: str | None = None
    generate_summary: str | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None
    effort: Effort | None = None


class TextOptions(Body):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesBody(Labels):
    model: str | None = None
    input: str | Many[Item]
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = True
    stream: bool | None = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    reasoning: Reasoning | None = None
    tools: Many[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = True
    text: TextOptions | None = None
    background: bool | None = False
    truncation: str | None = None
    include: Many[str] | None = None
    stream_options: StreamOptions | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    seed: int | None = None
    conversation: str | dict[str, Any] | None = None
    prompt: dict[str, Any] | None = None
    max_tool_calls: int | None = None
    moderation: dict[str, Any] | None = None
    context_management: Many[dict[str, Any]] | None = None
    dsr: DsrOptions | None = None
