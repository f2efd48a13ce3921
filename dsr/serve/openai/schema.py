"""Bodies of OpenAI's API (github.com/openai/openai-openapi), as far as dsr reads them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from dsr.serve.http.body import Body, Many
from dsr.serve.own_field import DsrOptions

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = False


class ChatMessage(Body):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | Many[dict[str, Any]] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    name: str | None = None
    tool_calls: Many[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class Labels(Body):
    """Fields for OpenAI's own accounts and caches. They change no answer, and dsr keeps none of them."""

    user: str | None = None
    metadata: dict[str, Any] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    service_tier: str | None = None


class Drawing(Labels):
    """The sampling fields that OpenAI's and llama-server's routes share."""

    model: str | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: str | Many[str] | None = None
    n: int | None = Field(default=None, ge=1, le=64)
    max_tokens: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    typical_p: float | None = None
    logit_bias: dict[str, float] | None = Field(default=None, max_length=1000)
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    dsr: DsrOptions | None = None


class ChatBody(Drawing):
    messages: Many[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None
    tools: Many[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    reasoning_effort: Effort | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    add_generation_prompt: bool | None = None
    continue_final_message: bool | None = None
    audio: dict[str, Any] | None = None
    function_call: str | dict[str, Any] | None = None
    functions: Many[dict[str, Any]] | None = None
    modalities: Many[str] | None = None
    moderation: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    store: bool | None = False
    verbosity: str | None = None
    web_search_options: dict[str, Any] | None = None
