"""The body of POST /completion becomes an ask."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from dsr.models.sampling import SamplingRequest
from dsr.serve.ask import Ask
from dsr.serve.formats import grammar_of
from dsr.serve.http.errors import Refused
from dsr.serve.llama_server.schema import NOT_HERE, CompletionBody
from dsr.serve.shared_fields import stops_of, token_of

_RANDOM = (-1, 2**32 - 1)  # LLAMA_DEFAULT_SEED is the second
_MOST_PROMPTS = 64
# The order of the samplers (runtime/llama/chain.py), and what leaves one out.
_CHAIN: dict[str, dict[str, float]] = {
    "penalties": {"repeat_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0},
    "dry": {"dry_multiplier": 0.0},
    "top_n_sigma": {"top_n_sigma": 0.0},
    "top_k": {"top_k": 0},
    "typ_p": {"typical_p": 1.0},
    "top_p": {"top_p": 1.0},
    "min_p": {"min_p": 0.0},
    "xtc": {"xtc_probability": 0.0},
    "temperature": {"temperature": 1.0, "dynatemp_range": 0.0},
}
_OTHER_NAMES = {"typical_p": "typ_p", "typical": "typ_p"}
_AS_THEY_ARE = (
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_p", "min_p", "typical_p", "xtc_probability",
    "xtc_threshold", "repeat_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier", "dry_base",
    "dry_allowed_length", "dry_penalty_last_n",
)  # fmt: skip


def completion_ask(body: CompletionBody, client: str) -> Ask:
    """The ask, without its prompt: texts and tokens may be mixed there, which the engine resolves.

    Raises Refused, UsageError.
    """
    _check_not_here(body.model_extra or {})
    most = body.n_predict if body.n_predict is not None else body.max_tokens
    sampling = SamplingRequest(
        **{name: getattr(body, name) for name in _AS_THEY_ARE},
        top_k=None if body.top_k is None else max(0, body.top_k),
        top_n_sigma=None if body.top_n_sigma is None else max(0.0, body.top_n_sigma),
        penalty_last_n=body.repeat_last_n,
        dry_sequence_breakers=None if body.dry_sequence_breakers is None else tuple(body.dry_sequence_breakers),
        seed=None if body.seed is None or body.seed in _RANDOM else body.seed % 2**32,
        # Nothing is drawn for 0, and the prompt stays cached: one token is drawn then, which the reply leaves out.
        max_tokens=None if most is None or most < 0 else max(1, most),
        stop=tuple(filter(None, stops_of(body.stop))),
        logit_bias=_biases(body.logit_bias) or None,
        top_logprobs=body.n_probs or (0 if body.stream or body.return_tokens else None),
    )
    if sampling.temperature is not None and sampling.temperature < 0:
        sampling = replace(sampling, temperature=0.0)
    return Ask(
        prompt="",
        sampling=_in_chain(sampling, body.samplers),
        samples=body.n_cmpl or body.n or 1,
        grammar=grammar_of(None, body.json_schema, body.grammar),
        client=client,
    )


def told_fields(body: CompletionBody, unknown: Sequence[str]) -> tuple[str, ...]:
    """The fields that the reply tells to be without effect."""
    neutral = {name for name in unknown if name in NOT_HERE}
    again = () if body.cache_prompt else ("cache_prompt",)
    return (*(name for name in unknown if name not in neutral), *again)


def _check_not_here(extra: Mapping[str, Any]) -> None:
    for name, neutral in NOT_HERE.items():
        if name in extra and extra[name] not in neutral:
            raise Refused(400, f"{name}: dsr does not have it", place=name)


def _in_chain(sampling: SamplingRequest, samplers: Sequence[str] | None) -> SamplingRequest:
    """The settings with those samplers alone. Raises Refused for one that dsr lacks, and for another order."""
    if samplers is None:
        return sampling
    names = [_OTHER_NAMES.get(each, each) for each in samplers]
    if [each for each in _CHAIN if each in names] != names:
        order = ", ".join(_CHAIN)
        raise Refused(400, f"samplers: dsr has these, in this order: {order}", place="samplers")
    neutral: dict[str, Any] = {}
    for name, values in _CHAIN.items():
        if name not in names:
            neutral |= values
    return replace(sampling, **neutral)


def _biases(given: Sequence[Any] | Mapping[str, Any] | None) -> tuple[tuple[int | str, float], ...]:
    """[[token or text, bias], ...] or {token or text: bias}; the bias `false` forbids. Raises Refused."""
    rows = [[token_of(key), bias] for key, bias in given.items()] if isinstance(given, Mapping) else given or ()
    biases: list[tuple[int | str, float]] = []
    for row in rows:
        token, bias = row if isinstance(row, (list, tuple)) and len(row) == 2 else (None, None)
        if bias is False:
            bias = -math.inf
        if not isinstance(token, (int, str)) or isinstance(token, bool) or isinstance(bias, bool):
            raise Refused(400, "logit_bias: pairs of a token or a text and a number", place="logit_bias")
        if not isinstance(bias, (int, float)):
            raise Refused(400, "logit_bias: pairs of a token or a text and a number", place="logit_bias")
        biases.append((token, float(bias)))
    return tuple(biases)


# A prompt that is mixed from texts and tokens.
Mixed = tuple[int | str, ...]


def prompts_of(given: Any) -> tuple[list[str | Mixed], bool]:
    """The prompts, and whether the reply is a list. Raises Refused.

    A prompt is a text, a list of tokens and texts, or {"prompt_string": text}. A list is one prompt if it holds a
    token and no list or object (server-common.cpp, tokenize_input_prompts).
    """
    if isinstance(given, list) and not _is_mixed(given):
        if not 1 <= len(given) <= _MOST_PROMPTS:
            raise Refused(400, f"prompt: 1 to {_MOST_PROMPTS} prompts, not {len(given)}", place="prompt")
        return [_prompt(each, f"prompt.{number}") for number, each in enumerate(given)], len(given) > 1
    return [_prompt(given, "prompt")], False


def _is_mixed(given: list[Any]) -> bool:
    plain = all(isinstance(each, (int, str)) for each in given)
    return plain and any(isinstance(each, int) for each in given)


def _prompt(given: Any, place: str) -> str | Mixed:
    if isinstance(given, str):
        return given
    if isinstance(given, dict) and isinstance(given.get("prompt_string"), str):
        if given.get("multimodal_data"):
            raise Refused(400, f"{place}.multimodal_data: dsr reads text alone", place=f"{place}.multimodal_data")
        text: str = given["prompt_string"]
        return text
    if isinstance(given, list) and given and _is_mixed(given) and not any(isinstance(each, bool) for each in given):
        return tuple(given)
    raise Refused(400, f"{place}: a text, or a list of tokens and texts", place=place)
