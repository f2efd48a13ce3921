"""A vote is the same however many samples are drawn at once, as far as the engine allows: for Q8_0 and Q4_0."""

from __future__ import annotations

from pathlib import Path

import pytest

from quant.recipe.mixtures import standard
from quant.sources.source import GgufSource
from quant.write.execute import quantize
from runtime.base.run import Run
from runtime.strategies import vote
from runtime.strategies.verdict import Verdict
from tests.runtime.strategies.scripted import drain, nano_task

QUESTIONS = ("What is 347 + 586?", "Write 'igloo' backwards.")


@pytest.fixture(scope="module", params=["q8_0", "q4_0"])
def model(request: pytest.FixtureRequest, nano_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "q8_0":
        return nano_path
    out = tmp_path_factory.mktemp("models") / "nano-q4_0.gguf"
    with GgufSource(nano_path) as source:
        plan = standard(request.param, source)
        quantize(source, plan, out, Run(threads=1), allow_requantize=True)
    return out


def verdict(model: Path, question: str, slots: int) -> Verdict:
    with nano_task(model, question, slots=slots) as task:
        return drain(vote.run(task, vote.VoteSettings(n=8, stop="none")))[1]


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_tally_of_a_seed_does_not_depend_on_the_slots(model: Path, question: str) -> None:
    found = [verdict(model, question, slots) for slots in (1, 4, 8)]
    assert [(each.winner, each.tally, each.tied) for each in found] == [
        (found[0].winner, found[0].tally, found[0].tied)
    ] * 3
    lengths = [[len(each.completion.tokens) for each in one.samples] for one in found]
    assert lengths == [lengths[0]] * 3
    assert [max(each.completion.slots for each in one.samples) for one in found] == [1, 4, 8]
