"""Sampling settings: the user's, the recommendation for a model, and how both are told."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, cast

from dsr.models.catalog import CatalogEntry, Sampling
from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams
from runtime.gguf.card import ModelCard

# llama.cpp's own defaults (common/common.h), for models about which neither the catalogue nor the file says anything.
ENGINE_DEFAULTS = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)
# A recommendation that does not name a filter does not want it. Only top-k stays, which costs nothing in quality.
_NO_FILTERS = replace(ENGINE_DEFAULTS, top_p=1.0, min_p=0.0)
# The keys that llama.cpp's converter writes from generation_config.json (gguf-py constants.py, Keys.General), and the
# kind of their values. Mirostat replaces the whole chain of samplers, and no vendor of a reasoning model asks for it:
# its keys are left out.
_KEYS_OF_FILE: dict[str, tuple[str, type]] = {
    "top_p": ("top_p", float),
    "min_p": ("min_p", float),
    "top_k": ("top_k", int),
    "xtc_probability": ("xtc_probability", float),
    "xtc_threshold": ("xtc_threshold", float),
    "penalty_last_n": ("penalty_last_n", int),
    "penalty_repeat": ("repeat_penalty", float),
}
# The settings that change how a token is drawn, in the order in which they are told.
SETTINGS = (
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_p", "top_k", "min_p", "typical_p", "top_n_sigma",
    "presence_penalty", "frequency_penalty", "repeat_penalty", "penalty_last_n", "dry_multiplier", "dry_base",
    "dry_allowed_length", "dry_penalty_last_n", "dry_sequence_breakers", "xtc_probability", "xtc_threshold",
    "logit_bias",
)  # fmt: skip
# These are told in any case, and others where they have an effect.
_ALWAYS = ("temperature", "top_p", "top_k")
_NEUTRAL = SamplingParams(temperature=0.0, top_p=1.0, top_k=0)


@dataclass(frozen=True, slots=True)
class RecommendedSampling:
    params: SamplingParams
    origin: Literal["catalogue", "model file", "default"]


@dataclass(frozen=True, slots=True)
class SamplingRequest(Sampling):
    """The sampling options of a user, with the names of `SamplingParams`; None means: as recommended for the model."""

    seed: int | None = None
    max_tokens: int | None = None
    think_budget: int | None = None
    stop: tuple[str, ...] = ()
    dry_sequence_breakers: tuple[str, ...] | None = None
    logit_bias: tuple[tuple[int | str, float], ...] | None = None
    top_logprobs: int | None = None
    end_loops: bool | None = None

    def applied_to(self, defaults: SamplingParams) -> SamplingParams:
        """`defaults` with the user's options; the seed is random where the user gives none. Raises UsageError."""
        options = {field.name: getattr(self, field.name) for field in fields(self)}
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        return replace(defaults, **{"seed": secrets.randbits(32), **given})

    def with_usual(self, usual: Mapping[str, Any]) -> SamplingRequest:
        """These options, and those of the settings file where the user gave none."""
        missing = {name: value for name, value in usual.items() if getattr(self, name) is None}
        return replace(self, **missing)


def recommended_sampling(entry: CatalogEntry | None, card: ModelCard) -> RecommendedSampling:
    """The recommendation of the catalogue, else of the model file, else the engine's own defaults.

    What the catalogue could not verify gives way to the model file, whose values are the vendor's own.
    """
    advice = _sampling_of_entry(entry)
    if entry is not None and advice is not None and entry.verified("sampling"):
        return RecommendedSampling(advice, "catalogue")
    said = _sampling_of_file(card)
    if said is not None:
        return RecommendedSampling(said, "model file")
    return RecommendedSampling(advice, "catalogue") if advice else RecommendedSampling(ENGINE_DEFAULTS, "default")


def _sampling_of_entry(entry: CatalogEntry | None) -> SamplingParams | None:
    advice = entry.sampling if entry is not None else None
    if advice is None or advice.temperature is None:
        return None
    return replace(_NO_FILTERS, **cast(Any, advice.given))


def _sampling_of_file(card: ModelCard) -> SamplingParams | None:
    """The recommendation of the file; None where it has none, or one that cannot be drawn with."""
    temperature = card.metadata.get("general.sampling.temp")
    if not isinstance(temperature, float):
        return None
    said: dict[str, Any] = {"temperature": round(temperature, 4)}
    for key, (name, kind) in _KEYS_OF_FILE.items():
        value = card.metadata.get(f"general.sampling.{key}")
        if type(value) is kind:  # a boolean is no number
            said[name] = round(cast(float, value), 4)
    try:
        return replace(_NO_FILTERS, **said)
    except UsageError:
        return None


def effective(params: SamplingParams) -> dict[str, Any]:
    """The settings that have an effect and differ from llama.cpp's; temperature, top-p and top-k in any case."""
    shown = set(_ALWAYS) | {name for name in SETTINGS if getattr(params, name) != getattr(_NEUTRAL, name)}
    dry = {name for name in shown if name.startswith("dry_")}
    shown -= set() if params.dry_multiplier else dry
    shown -= set() if params.penalises else {"penalty_last_n"}
    shown -= set() if params.xtc_probability else {"xtc_threshold"}
    shown -= set() if params.dynatemp_range else {"dynatemp_exponent"}
    return {name: getattr(params, name) for name in SETTINGS if name in shown}


def sampling_json(params: SamplingParams) -> dict[str, Any]:
    """All settings by name. A bias is a text such as "1234=-5", because JSON has no -inf."""
    body = {name: getattr(params, name) for name in SETTINGS}
    biases = [bias_text(*each) for each in params.logit_bias]
    return {**body, "dry_sequence_breakers": list(params.dry_sequence_breakers), "logit_bias": biases}


def sampling_words(params: SamplingParams) -> list[str]:
    """'temp 0.6', 'top-p 0.95', 'top-k 20', 'presence-penalty 1.5': the settings that have an effect, by option."""
    return [f"{option_name(name)} {option_value(value)}" for name, value in effective(params).items()]


def option_name(setting: str) -> str:
    """The option of a setting: 'temperature' -> 'temp', 'dry_sequence_breakers' -> 'dry-sequence-breaker'."""
    renamed = {"temperature": "temp", "dry_sequence_breakers": "dry-sequence-breaker", "top_logprobs": "logprobs"}
    return renamed.get(setting, setting.replace("_", "-"))


def option_value(value: Any) -> str:
    """A value as its option takes it; 'off' for a limit that is not set."""
    if value is None:
        return "off"
    if isinstance(value, float):
        return f"{value:g}"
    if not isinstance(value, tuple):
        return str(value)
    return " ".join(bias_text(*each) if isinstance(each, tuple) else repr(each) for each in value) or "none"


def bias_text(token: int | str, bias: float) -> str:
    """A logit bias as `logit_bias_of` reads it."""
    plain = isinstance(token, int) or not (token.isdecimal() or token.startswith('"'))
    return f"{token}={bias:g}" if plain else f'"{token}"={bias:g}'


def logit_bias_of(text: str) -> tuple[int | str, float]:
    """TOKEN=BIAS: a token's number, or a text; a text in double quotes may be a number. Raises UsageError."""
    name, equals, number = text.rpartition("=")
    try:
        bias = float(number)
    except ValueError:
        bias = math.nan
    if not equals or not name or math.isnan(bias):
        raise UsageError(
            f"a logit bias is TOKEN=BIAS, not {text!r}", hint="such as 1234=-5, 'Hello=2' or '</think>=-inf'"
        )
    if len(name) > 2 and name[0] == name[-1] == '"':
        return name[1:-1], bias
    return (int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else name), bias


def breakers_of(texts: tuple[str, ...]) -> tuple[str, ...]:
    r"""DRY sequence breakers, in which \n and \t are spelled out; "none" alone is no breaker. Raises UsageError."""
    if "none" in texts:
        if len(texts) > 1:
            raise UsageError("the DRY sequence breaker none cannot be combined with others")
        return ()
    return tuple(text.replace("\\n", "\n").replace("\\t", "\t") for text in texts)
