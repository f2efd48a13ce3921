"""The sampling that a model's makers recommend, and the user's changes to it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal

from dsr.models.catalog import CatalogEntry
from runtime.base.types import SamplingParams
from runtime.gguf.card import ModelCard

# llama.cpp's own defaults (common/common.h), for models about which neither the catalogue nor the file says anything.
ENGINE_DEFAULTS = SamplingParams(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05)


@dataclass(frozen=True, slots=True)
class RecommendedSampling:
    params: SamplingParams
    origin: Literal["catalogue", "model file", "default"]


@dataclass(frozen=True, slots=True)
class SamplingRequest:
    """The sampling options of a user; None means: as recommended for the model."""

    temperature: float | None = None
    top_p: float | None = None
    min_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    think_budget: int | None = None
    stop: tuple[str, ...] = ()

    def applied_to(self, defaults: SamplingParams) -> SamplingParams:
        """`defaults` with the user's options; the seed is random where the user gives none. Raises UsageError."""
        options = {
            "temperature": self.temperature,
            "top_p": self.top_p,
            "min_p": self.min_p,
            "top_k": self.top_k,
            "max_tokens": self.max_tokens,
            "think_budget": self.think_budget,
        }
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
        seed = secrets.randbits(32) if self.seed is None else self.seed
        return replace(defaults, seed=seed, stop=self.stop, **given)


def recommended_sampling(entry: CatalogEntry | None, card: ModelCard) -> RecommendedSampling:
    """The recommendation of the catalogue, else of the model file, else the engine's own defaults."""
    advice = entry.sampling if entry is not None else None
    if advice is not None and advice.temperature is not None:
        params = SamplingParams(
            temperature=advice.temperature,
            top_p=advice.top_p if advice.top_p is not None else 1.0,
            top_k=advice.top_k if advice.top_k is not None else ENGINE_DEFAULTS.top_k,
            min_p=advice.min_p or 0.0,
        )
        return RecommendedSampling(params, "catalogue")
    # Keys written by llama.cpp's converter from generation_config.json (gguf-py constants.py, Keys.General).
    temperature = card.metadata.get("general.sampling.temp")
    if isinstance(temperature, float):
        top_p, top_k = card.metadata.get("general.sampling.top_p"), card.metadata.get("general.sampling.top_k")
        params = SamplingParams(
            temperature=round(temperature, 4),
            top_p=round(top_p, 4) if isinstance(top_p, float) else 1.0,
            top_k=top_k if isinstance(top_k, int) else ENGINE_DEFAULTS.top_k,
        )
        return RecommendedSampling(params, "model file")
    return RecommendedSampling(ENGINE_DEFAULTS, "default")
