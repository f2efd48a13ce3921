"""Headers estimated from the catalogue weigh what published files weigh."""

from __future__ import annotations

from typing import Any

import pytest

from dsr.models.catalog import load
from dsr.plan.estimate import estimated_card, mixtures
from runtime.placement.memory import need


@pytest.mark.parametrize("entry", load().entries, ids=lambda entry: entry.name)
def test_an_estimate_has_the_weights_that_the_catalogue_tells(entry: Any) -> None:
    for quant in mixtures(entry):
        card = estimated_card(entry, quant)
        assert card.parameters == pytest.approx(entry.parameters, rel=0.03)
        # Half of what a token meets is guessed to be routed; DeepSeek V2 Lite is off most.
        assert card.active_parameters == pytest.approx(entry.active_parameters, rel=0.25)
        assert need(card, 8192).total > card.weights_size


def test_an_estimate_weighs_about_what_published_files_do() -> None:
    """Qwen3-8B-Q4_K_M.gguf has 5.03 GB, gpt-oss-20b-mxfp4.gguf 12.1 GB, DeepSeek-R1-Q4_K_M 404 GB (their pages)."""
    sizes = {("qwen3:8b", "Q4_K_M"): 5.03e9, ("gpt-oss:20b", "MXFP4"): 12.1e9, ("deepseek-r1:671b", "Q4_K_M"): 404e9}
    for (name, quant), size in sizes.items():
        entry = next(e for e in load().entries if e.name == name)
        assert estimated_card(entry, quant).weights_size == pytest.approx(size, rel=0.05)


# What can I run?
