"""How many experts a task needs: choosing from a curve, finding it by halving, measuring it on the embedded model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime.llama
from quant.experts import prune_search
from quant.experts.profile import Profile
from quant.experts.prune_plan import PrunePlan, plan_prune, plan_random
from quant.experts.prune_search import (
    KLD_LIMIT,
    KldMeter,
    KldPoint,
    MaskedModel,
    bisect_keep,
    kld_curve,
    search_keep,
    smallest_keep,
)
from quant.measure.calibrate import collect
from quant.measure.chunks import ChunkOptions, Text
from quant.measure.divergence import Estimate
from runtime.base.errors import Aborted, UsageError
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from tests.quant.experts.test_prune_plan import card as header_only
from tests.quant.experts.test_prune_plan import profile as made_up
from tests.quant.experts.test_prune_plan import routing

RUN = Run(threads=1)

SUMS = "".join(
    f"What is {n} plus {2 * n + 1}? {n} + {2 * n + 1} = {3 * n + 1}. It is {3 * n + 1}.\n" for n in range(60)
)
WORDS = "Tom has 3 red apples and gives 2 of them to Mary. The word backwards is sdrawkcab, letter by letter. " * 7


def point(keep: int, kld: float) -> KldPoint:
    return KldPoint(keep, "task", Estimate(kld, 0.0), Estimate(1.0, 0.0))


@pytest.fixture(scope="module")
def nano(nano_path: Path) -> ModelCard:
    return read_card(nano_path)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where figures are kept for the next test."""
    return tmp_path_factory.mktemp("kld")


@pytest.fixture(scope="module")
def sums(nano_path: Path) -> Profile:
    return profiled(nano_path, "sums", SUMS)


@pytest.fixture(scope="module")
def words(nano_path: Path) -> Profile:
    return profiled(nano_path, "words", WORDS)


def profiled(path: Path, task: str, text: str) -> Profile:
    found = collect(path, [Text(task, text)], ChunkOptions(context=64), Run(threads=1))
    return Profile(task, found.routing, found.routed_tokens, 4, np.zeros((0, 4), np.float32), "a test", text)


def test_the_smallest_keep_has_all_larger_numbers_below_the_limit() -> None:
    measured = [point(4, 0.005), point(6, 0.02), point(8, 0.01), point(12, 0.002), point(16, 0.0)]
    assert smallest_keep(measured) == point(8, 0.01)
    assert smallest_keep([point(12, 0.011), point(16, 0.0)]) == point(16, 0.0)
    assert smallest_keep(measured[:2]) is None
    assert smallest_keep([]) is None


class Made:
    """A KldMeter that knows what each number does; `asked` are the numbers that it was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, needed: int) -> None:
        self.asked: list[int] = []
        self.needed = needed
        monkeypatch.setattr(prune_search, "KldMeter", lambda *_, **__: self)

    def __enter__(self) -> Made:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def measure(self, plan: PrunePlan) -> KldPoint:
        self.asked.append(plan.keep)
        return point(plan.keep, 0.0 if plan.keep == plan.experts else 0.001 if plan.keep >= self.needed else 0.5)


@given(needed=st.integers(1, 40))
def test_the_bisection_finds_the_smallest_number(needed: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        made = Made(patch, needed)
        mixture = header_only(experts=32, used=2)
        found = search_keep(mixture, [made_up({0: routing([*range(32)])})], cache=Path("nowhere"), run=RUN)
    chosen = smallest_keep(found)
    assert chosen is not None
    assert chosen.keep == min(max(needed, 2), 32)
    assert len(made.asked) <= 7
    assert [each.keep for each in found] == sorted({*made.asked})


@given(experts=st.integers(2, 40), needed=st.integers(1, 40))
def test_the_bisection_reports_its_progress(experts: int, needed: int) -> None:
    mixture, heard = header_only(experts=experts, used=2), list[Event]()
    profiles = [made_up({0: routing([*range(experts)])})]
    with pytest.MonkeyPatch.context() as patch:
        bisect_keep(cast("KldMeter", Made(patch, needed)), mixture, profiles, listen=heard.append)
    steps = [(event.done, event.total) for event in heard if isinstance(event, Progress)]
    assert [done for done, _ in steps[:-1]] == [*range(len(steps) - 1)]
    assert len(steps) - 1 <= steps[-1][0] == steps[-1][1]


def test_groups_stay_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch, 9)
    grouped = header_only(experts=16, used=2, expert_group_count=4, expert_group_used_count=2)
    found = search_keep(grouped, [made_up({0: routing([1] * 16)})], cache=Path("nowhere"), run=RUN)
    assert set(made.asked) <= {8, 12, 16}
    assert smallest_keep(found) == point(12, 0.001)


def test_divergence_grows_with_every_missing_expert(nano: ModelCard, sums: Profile, cache: Path) -> None:
    found = kld_curve(nano, [sums], (16, 12, 8, 4), cache=cache, run=RUN)
    assert [each.keep for each in found] == [16, 12, 8, 4]
    divergences = [each.kld.value for each in found]
    assert divergences[0] == 0
    assert divergences == sorted(divergences)
    assert 0.01 < divergences[-1] < 5
    assert all(0 < each.kld.error < each.kld.value for each in found[1:])
    assert 0 < found[-1].same_top.value < found[1].same_top.value <= 1


def test_chosen_experts_do_less_harm_than_random_ones(nano: ModelCard, sums: Profile, cache: Path) -> None:
    with MaskedModel(nano, RUN) as masked, KldMeter(masked, [sums], cache) as meter:
        chosen, lot = meter.measure(plan_prune(nano, [sums], 8)), meter.measure(plan_random(nano, 8, seed=1))
    assert chosen.kld.value < lot.kld.value / 3


def test_the_task_with_the_largest_divergence_counts(
    nano: ModelCard, sums: Profile, words: Profile, tmp_path: Path
) -> None:
    [both] = kld_curve(nano, [sums, words], [8], cache=tmp_path, run=RUN)
    plan_of_both = plan_prune(nano, [sums, words], 8)
    with MaskedModel(nano, RUN) as masked, KldMeter(masked, [sums, words], tmp_path) as meter:
        assert meter.measure(plan_of_both) == both
    each = {}
    for one in (sums, words):
        with MaskedModel(nano, RUN) as masked, KldMeter(masked, [one], tmp_path) as meter:
            each[one.task] = meter.measure(plan_of_both).kld.value
    assert both.task == max(each, key=lambda task: each[task])
    assert len(list(tmp_path.glob("sums-words-*.json"))) == 1


def test_fewer_active_experts_diverge_more(nano: ModelCard, sums: Profile, tmp_path: Path) -> None:
    [few] = kld_curve(nano, [sums], [16], active=2, cache=tmp_path, run=RUN)
    assert few.kld.value > 0.001


def test_nothing_is_measured_twice(
    nano: ModelCard, sums: Profile, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = search_keep(nano, [sums], cache=cache, run=RUN)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(runtime.llama, "MaskedScorer", refuse)
    assert search_keep(nano, [sums], cache=cache, run=RUN) == first
    with pytest.raises(AssertionError):
        search_keep(nano, [sums], "counts", cache=tmp_path, run=RUN)


def test_the_chosen_number_is_below_the_limit_and_one_less_is_not(nano: ModelCard, sums: Profile, cache: Path) -> None:
    chosen = smallest_keep(search_keep(nano, [sums], cache=cache, run=RUN))
    assert chosen is not None
    assert 4 < chosen.keep < 16
    assert chosen.kld.value <= KLD_LIMIT
    [less] = kld_curve(nano, [sums], [chosen.keep - 1], cache=cache, run=RUN)
    assert less.kld.value > KLD_LIMIT


def test_a_short_text_is_one_chunk_and_a_shorter_one_is_refused(nano: ModelCard, sums: Profile, tmp_path: Path) -> None:
    [found] = kld_curve(nano, [replace(sums, text=SUMS[:200])], [4], cache=tmp_path, run=RUN)
    assert found.kld.value > 0
    with pytest.raises(UsageError, match="the text of the profile of sums is too short for a measurement: 2 tokens"):
        kld_curve(nano, [replace(sums, text="1")], [4], cache=tmp_path, run=RUN)


def test_a_stop_aborts_the_measurement(nano: ModelCard, sums: Profile, tmp_path: Path) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Aborted):
        kld_curve(nano, [sums], [8], cache=tmp_path, run=Run(stop, threads=1))
    assert not list(tmp_path.iterdir())
