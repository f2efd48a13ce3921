"""Settings that nobody can draw with are refused with their name and both numbers; the defaults change nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"presence_penalty": 10.5}, "presence-penalty must be between -10 and 10, not 10.5"),
        ({"frequency_penalty": math.nan}, "frequency-penalty must be between -10 and 10, not nan"),
        ({"repeat_penalty": 0.0}, "repeat-penalty must be between 0.1 and 10, not 0"),
        ({"penalty_last_n": -2}, "penalty-last-n must be between -1 and 1,000,000, not -2"),
        ({"dry_multiplier": -1.0}, "dry-multiplier must be between 0 and 100, not -1"),
        ({"dry_base": 0.5}, "dry-base must be between 1 and 10, not 0.5"),
        ({"dry_allowed_length": 0}, "dry-allowed-length must be between 1 and 1,000, not 0"),
        ({"dry_penalty_last_n": 2**31}, "dry-penalty-last-n must be between -1 and 1,000,000, not 2147483648"),
        ({"xtc_probability": 1.5}, "xtc-probability must be between 0 and 1, not 1.5"),
        ({"xtc_threshold": -0.1}, "xtc-threshold must be between 0 and 1, not -0.1"),
        ({"typical_p": 0.0}, "typical-p must be above 0 and at most 1, not 0"),
        ({"top_n_sigma": -1.0}, "top-n-sigma must be between 0 and 100, not -1"),
        ({"dynatemp_range": 11.0}, "dynatemp-range must be between 0 and 10, not 11"),
        ({"dynatemp_exponent": math.inf}, "dynatemp-exponent must be between 0 and 10, not inf"),
        ({"dry_sequence_breakers": ("",)}, "a DRY sequence breaker has 1 to 40 bytes, not ''"),
        ({"dry_sequence_breakers": ("é" * 21,)}, "a DRY sequence breaker has 1 to 40 bytes"),
        ({"dry_sequence_breakers": ("x",) * 65}, "at most 64 DRY sequence breakers, not 65"),
        ({"logit_bias": (("", 1.0),)}, "a logit bias is for a token or a text, not ''"),
        ({"logit_bias": ((-1, 1.0),)}, "a logit bias is for a token or a text, not -1"),
        ({"logit_bias": ((1, math.inf),)}, "a logit bias must be between -100 and 100, or -inf, not inf"),
        ({"logit_bias": ((1, math.nan),)}, "a logit bias must be between -100 and 100, or -inf, not nan"),
        ({"logit_bias": ((1, 0.0),) * 1001}, "at most 1000 logit biases, not 1001"),
    ],
)
def test_a_setting_out_of_range_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        SamplingParams(**given)
    assert caught.value.message.startswith(said)


def test_what_vendors_and_llama_cpp_use_is_possible() -> None:
    SamplingParams(presence_penalty=2.0, penalty_last_n=-1, top_p=0.95, top_k=20, xtc_threshold=1.0)
    SamplingParams(dry_sequence_breakers=(), logit_bias=((0, -math.inf), ("no", 100.0)))
