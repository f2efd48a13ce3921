"""The settings of a completion in llama-server's words (server-task.cpp, task_params::to_json)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from runtime.base.types import SamplingParams

_NEUTRAL = SamplingParams(temperature=0.0, top_p=1.0, top_k=0)
_SAMPLERS = ["penalties", "dry", "top_n_sigma", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
_NAMES = (
    "temperature", "dynatemp_range", "dynatemp_exponent", "top_k", "top_p", "min_p", "top_n_sigma", "xtc_probability",
    "xtc_threshold", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty", "dry_multiplier",
    "dry_base", "dry_allowed_length", "dry_penalty_last_n",
)  # fmt: skip
# Samplers that dsr does not have, as llama.cpp tells that they are off (common/common.h).
_OFF = {
    "mirostat": 0, "mirostat_tau": 5.0, "mirostat_eta": 0.1, "adaptive_target": -1.0, "adaptive_decay": 0.9,
}  # fmt: skip


def settings_json(sampling: Mapping[str, Any], seed: int, most: int | None) -> dict[str, Any]:
    """`sampling` has the settings that have an effect, as `Begun`; `most` is the limit of tokens."""
    values = {name: sampling.get(name, getattr(_NEUTRAL, name)) for name in _NAMES}
    limit = -1 if most is None else most
    return {
        "seed": seed,
        **values,
        "repeat_last_n": sampling.get("penalty_last_n", _NEUTRAL.penalty_last_n),
        "dry_sequence_breakers": [*sampling.get("dry_sequence_breakers", _NEUTRAL.dry_sequence_breakers)],
        **_OFF,
        "logit_bias": [_bias(token, bias) for token, bias in sampling.get("logit_bias", ())],
        "max_tokens": limit,
        "n_predict": limit,
        "samplers": [*_SAMPLERS],
    }


def _bias(token: int | str, bias: float) -> dict[str, Any]:
    """JSON has no -inf, which forbids a token; null stands for it."""
    return {"token": token, "bias": bias if math.isfinite(bias) else None}
