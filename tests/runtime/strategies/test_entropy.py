"""EM-INF as a strategy: what reaches the sampler."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from runtime.base.errors import UsageError
from runtime.base.types import EntropyMinimisation
from runtime.engine.sequence import Request
from runtime.strategies import entropy
from tests.runtime.strategies.scripted import drain, nano_task, task


def test_one_sample_is_drawn_with_its_entropy_minimised(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = task(lambda question, sample: "<think>so</think>It is \\boxed{5}.")
    seen: list[Request] = []
    stream = chosen.engine.stream
    monkeypatch.setattr(chosen.engine, "stream", lambda requests: (seen.extend(requests), stream(requests))[1])
    _, verdict = drain(entropy.run(chosen, entropy.EntropySettings(threshold=0.5, steps=2)))
    assert [each.params.entropy for each in seen] == [EntropyMinimisation(0.5, 0.05, 0.1, 2, 0.1)]
    assert (verdict.strategy, verdict.winner, verdict.saved) == ("em", "5", 0)


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"steps": -1}, {"threshold": math.nan}, {"kl_weight": -0.1}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        entropy.EntropySettings(**wrong)  # type: ignore[arg-type]


def test_the_embedded_model_is_sharpened(nano_path: Path) -> None:
    winners = set()
    with nano_task(nano_path, "What is 17 + 26?") as asked:
        for seed in range(4):
            again = replace(asked, params=replace(asked.params, temperature=10.0, seed=seed))
            winners.add(drain(entropy.run(again, entropy.EntropySettings()))[1].winner)
    # At the user's temperature of 10 it would be noise.
    assert winners == {"43"}
