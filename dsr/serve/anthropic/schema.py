"""Bodies of Anthropic's API (docs.anthropic.com, "Messages"), as far as dsr reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dsr.serve.http.body import Body, Many
from dsr.serve.own_field import DsrOptions


class Block(Body):
    """A part of a message. Which fields it has depends on `type`."""

    type: str
    text: str | None = None
    thinking: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: str | Many[Block] | None = None
    is_error: bool = False


class TurnBody(Body):
    role: Literal["user", "assistant", "system"]
    content: str | Many[Block]


class ToolBody(Body):
    name: str
    description: str = ""
    input_schema: dict[str, Any] = Field(default_factory=dict)
    type: str | None = None


class ToolChoiceBody(Body):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class ThinkingBody(Body):
    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = Field(default=None, ge=0)
    display: str | None = None


class OutputConfig(Body):
    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: dict[str, Any] | None = None


class CountBody(Body):
    """POST /v1/messages/count_tokens. dsr caches each prompt, so that `cache_control` asks for nothing more."""

    model: str | None = None
    messages: Many[TurnBody] = Field(min_length=1)
    system: str | Many[Block] | None = None
    tools: Many[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfig | None = None
    cache_control: dict[str, Any] | None = None
    mcp_servers: Many[dict[str, Any]] | None = None
    context_management: dict[str, Any] | None = None


class MessagesBody(CountBody):
    """POST /v1/messages."""

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: Many[str] = Field(default_factory=list)
    stream: bool = False
    metadata: dict[str, Any] | None = None
    output_format: dict[str, Any] | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    diagnostics: dict[str, Any] | None = None
    container: str | dict[str, Any] | None = None
    dsr: DsrOptions | None = None
