"""Which sampling is recommended, and what the user's options change."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dsr.models.catalog import load
from dsr.models.sampling import ENGINE_DEFAULTS, RecommendedSampling, SamplingRequest, recommended_sampling
from runtime.base.errors import UsageError
from runtime.base.types import SamplingParams
from tests.dsr.chat.chatting import card


def test_sampling_is_what_the_catalogue_or_the_file_says() -> None:
    r1 = next(entry for entry in load().entries if entry.name == "deepseek-r1:7b")
    found = recommended_sampling(r1, card())
    assert (found.params.temperature, found.params.top_p, found.origin) == (0.6, 0.95, "catalogue")
    said = {"general.sampling.temp": 0.699999988079071, "general.sampling.top_p": 0.8, "general.sampling.top_k": 20}
    found = recommended_sampling(None, card(metadata=said))
    params = found.params
    assert (params.temperature, params.top_p, params.top_k, found.origin) == (0.7, 0.8, 20, "model file")
    assert recommended_sampling(None, card()) == RecommendedSampling(ENGINE_DEFAULTS, "default")


def test_the_users_options_win_and_zero_is_an_option() -> None:
    params = SamplingRequest(temperature=0.0, seed=0, stop=("X",)).applied_to(ENGINE_DEFAULTS)
    assert params == replace(ENGINE_DEFAULTS, temperature=0.0, seed=0, stop=("X",))
    with pytest.raises(UsageError, match="temperature must be between 0 and 10"):
        SamplingRequest(temperature=99).applied_to(SamplingParams())


def test_without_a_seed_each_request_gets_its_own() -> None:
    seeds = {SamplingRequest().applied_to(ENGINE_DEFAULTS).seed for _ in range(8)}
    assert len(seeds) > 1
