"""Bodies of llama-server's own routes (tools/server/README.md and server-schema.cpp), as far as dsr reads them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dsr.serve.http.body import Body, Many

# Fields that dsr knows and does not have, with the values that ask for nothing.
NOT_HERE: dict[str, tuple[Any, ...]] = {
    "mirostat": (0,),
    "n_indent": (0,),
    "t_max_predict_ms": (0, -1),
    "post_sampling_probs": (False,),
    "lora": ([],),
    "adaptive_target": (-1,),
}


class CompletionBody(Body):
    """POST /completion. The defaults are the model's own."""

    prompt: Any
    model: str | None = None
    n_predict: int | None = None
    max_tokens: int | None = None
    n_cmpl: int | None = Field(default=None, ge=1, le=64)
    n: int | None = Field(default=None, ge=1, le=64)
    stream: bool = False
    stop: str | Many[str] | None = None
    seed: int | None = None
    temperature: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_n_sigma: float | None = None
    typical_p: float | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    repeat_last_n: int | None = None
    repeat_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    dry_sequence_breakers: Many[str] | None = None
    samplers: Many[str] | None = None
    logit_bias: Many[Any] | dict[str, Any] | None = None
    ignore_eos: bool = False
    n_probs: int | None = Field(default=None, ge=0, le=100)
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    cache_prompt: bool = True
    return_tokens: bool = False
    timings_per_token: bool = False
    return_progress: bool = False
    response_fields: Many[str] | None = None


class TokenizeBody(Body):
    content: str = ""
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    model: str | None = None


class DetokenizeBody(Body):
    tokens: Many[int] = Field(default_factory=list)
    model: str | None = None
