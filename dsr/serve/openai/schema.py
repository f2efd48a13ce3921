"""Bodies of OpenAI's API (github.com/openai/openai-openapi), as far as dsr reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dsr.serve.http.body import Body


class StreamOptions(Body):
    include_usage: bool = False


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class DsrOptions(Body):
    """dsr's own field: how to draw. `{"vote": 8}` is short for `{"strategy": "vote", "set": {"n": 8}}`."""

    vote: int | None = Field(default=None, ge=1, le=255)
    strategy: str | None = None
    set: dict[str, str | int | float | bool] = Field(default_factory=dict)
    think_budget: int | None = Field(default=None, ge=0)
    keep_thoughts: bool = False
    events: bool = False
    timeout: float | None = Field(default=None, gt=0)  # seconds


class Drawing(Body):
    """The sampling fields that OpenAI's and llama-server's routes share."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    n: int | None = Field(default=None, ge=1, le=64)
    max_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    typical_p: float | None = None
    logit_bias: dict[str, float] | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    dsr: DsrOptions | None = None


class ChatBody(Drawing):
    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
