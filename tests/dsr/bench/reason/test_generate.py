"""Which samples a bench of reasoning draws and keeps, with a fake model; and that it goes on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dsr.bench.reason import bench
from dsr.bench.reason.bench import ReasonRequest
from dsr.bench.reason.samples import pack, sample_entry, saved_completion, unpack
from dsr.bench.reason.tables import table, warnings
from dsr.models.sampling import SamplingRequest
from dsr.suites.judging import Judging
from dsr.suites.problem import Suite, SuiteProblem
from runtime.base.errors import Aborted, DsrError, UsageError, VerificationFailed
from runtime.base.events import Event, Progress
from runtime.base.run import Run
from runtime.base.types import Completion, TokenStatistics
from runtime.engine.prompt_options import PromptOptions
from runtime.strategies import direct
from runtime.strategies.strategy import STRATEGIES, StrategyKind
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict
from tests.dsr.bench.reason.reasoning import SUITE, Fake, rows, run, saved
from tests.dsr.chat.chatting import a_model, card, with_card


def test_a_sample_s_row_has_all_that_is_judged(fake: Fake, request_: ReasonRequest) -> None:
    run(request_)
    [row] = [row for row in saved(request_) if (row["id"], row["sample"]) == ("two", 1)]
    assert {key: row[key] for key in row if key not in ("seconds", "statistics", "probability", "slots")} == {
        "id": "two",
        "sample": 1,
        "seed": 1001,
        "found": "3",
        "correct": True,
        "tokens": 26,
        "thinking_tokens": 10,
        "finish_reason": "stop",
        "thought_closed_by": "model",
        "confidence": 4.0,
        "lowest_group": 4.0,
        "self_certainty": 2.0,
        "thinking": "bb",
        "answer": "\\boxed{3}",
    }
    assert row["probability"] == pytest.approx(0.60653066)


def test_a_sample_survives_its_row() -> None:
    statistics = (TokenStatistics(-0.5, 4.0, 2.0), TokenStatistics(float("nan"), float("nan"), float("nan")))
    sample = Completion(3, "t", "\\boxed{1}", (7, 8), 1, "length", 0.5, 4, "budget", statistics)
    back = saved_completion(
        json.loads(json.dumps(sample_entry(SuiteProblem("p", "q", "1"), sample, 3, Judging(Suite("s", ())))))
    )
    assert replace(back, statistics=()) == replace(sample, tokens=(0, 0), statistics=())
    assert back.statistics[0] == statistics[0] and str(back.statistics[1]) == str(statistics[1])
    assert unpack(pack(())) == ()


def test_seeds_do_not_depend_on_the_order_of_drawing(fake: Fake, request_: ReasonRequest) -> None:
    run(replace(request_, sampling=SamplingRequest(temperature=1.0, seed=5), samples=2, strategies=("direct",)))
    assert {(row["id"], row["sample"]): row["seed"] for row in saved(request_)} == {
        ("one", 0): 5,
        ("one", 1): 6,
        ("two", 0): 1005,
        ("two", 1): 1006,
        ("three", 0): 2005,
        ("three", 1): 2006,
    }


def test_what_is_there_is_judged_without_the_model(fake: Fake, request_: ReasonRequest) -> None:
    first = run(request_)
    again = run(request_)
    assert fake.opens == 1
    assert table(again) == table(first)
    more = run(replace(request_, strategies=("short-m:n=4:m=2",)))
    assert fake.opens == 1 and [score.problems for score in more.scores] == [3]


def test_more_problems_or_samples_draw_only_what_is_missing(fake: Fake, request_: ReasonRequest) -> None:
    run(replace(request_, limit=1, samples=2, strategies=("direct",)))
    assert [(row["id"], row["sample"]) for row in saved(request_)] == [("one", 0), ("one", 1)]
    run(replace(request_, limit=2, samples=3, strategies=("direct",)))
    assert {(row["id"], row["sample"]) for row in saved(request_)} == {(i, s) for i in ("one", "two") for s in range(3)}
    assert len(saved(request_)) == 6


def test_a_kill_in_the_middle_of_a_row_costs_that_row(fake: Fake, request_: ReasonRequest) -> None:
    whole = table(run(request_)).rows
    assert request_.out is not None
    file = request_.out / "samples.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])
    left = len(saved_lines(file))
    assert [row[1:5] for row in table(run(request_)).rows] == [row[1:5] for row in whole]
    assert left < 12 and len(saved(request_)) == 12


def saved_lines(file: Path) -> list[bytes]:
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sampling": SamplingRequest(temperature=0.5)}, "temperature was 1.0, now 0.5"),
        ({"sampling": SamplingRequest(temperature=1.0, seed=1)}, "seed was 0, now 1"),
        ({"sampling": SamplingRequest(temperature=1.0, presence_penalty=1.5)}, "presence_penalty was None, now 1.5"),
        ({"asked": PromptOptions(thinking=False)}, "thinking was None, now False"),
    ],
)
def test_samples_of_other_settings_are_not_mixed(
    fake: Fake, request_: ReasonRequest, change: dict[str, Any], told: str
) -> None:
    run(request_)
    with pytest.raises(UsageError) as raised:
        run(replace(request_, **change))
    assert told in raised.value.message and fake.opens == 1


def test_samples_of_another_model_or_suite_are_not_mixed(fake: Fake, request_: ReasonRequest) -> None:
    run(request_)
    Path(request_.suite).write_text(SUITE.replace("4 / 2?", "6 / 3?"), encoding="utf-8")
    with pytest.raises(UsageError, match="suite was"):
        run(request_)
    other = with_card(a_model(), replace(card(), header_digest="1" * 64))
    with pytest.raises(UsageError, match="model was 00000000, now 11111111"):
        bench.measure(other, request_, Run())


def test_a_folder_of_something_else_is_left_alone(fake: Fake, request_: ReasonRequest) -> None:
    assert request_.out is not None
    request_.out.mkdir()
    (request_.out / "run.json").write_text("[]")
    with pytest.raises(UsageError, match="dsr bench did not write this file"):
        run(request_)
    assert fake.opens == 0


def test_a_folder_inside_of_a_file_is_named(fake: Fake, request_: ReasonRequest) -> None:
    assert request_.out is not None
    request_.out.write_text("")
    with pytest.raises(DsrError, match="cannot be read: Not a directory"):
        run(request_)


def test_a_damaged_row_is_named(fake: Fake, request_: ReasonRequest) -> None:
    run(request_)
    assert request_.out is not None
    file = request_.out / "samples.jsonl"
    file.write_bytes(b"{}\n" + file.read_bytes())
    with pytest.raises(VerificationFailed, match=r"samples\.jsonl, line 1 is damaged"):
        run(request_)


def test_without_a_folder_settings_have_their_own(fake: Fake, request_: ReasonRequest) -> None:
    first = run(replace(request_, out=None)).folder
    assert first == run(replace(request_, out=None, limit=1)).folder
    assert first.name.startswith("fake-s-")
    assert first != run(replace(request_, out=None, sampling=SamplingRequest(temperature=0.7))).folder


def test_ctrl_c_judges_what_is_there_and_goes_on_later(fake: Fake, request_: ReasonRequest) -> None:
    fake.backend.abort_after = 60
    stopped = run(request_)
    assert stopped.interrupted and warnings(stopped)[0].startswith("stopped: the rows use ")
    drawn = len(saved(request_))
    assert 4 <= drawn < 12
    assert rows(stopped)["direct"][1] < 3
    assert not any(row["finish_reason"] == "cancelled" for row in saved(request_))
    fake.backend.abort_after = None
    whole = run(request_)
    assert not whole.interrupted and rows(whole)["direct"][1:] == (3, 12)


def test_ctrl_c_before_the_first_answer(fake: Fake, request_: ReasonRequest) -> None:
    fake.backend.abort_after = 2
    with pytest.raises(Aborted, match="the samples so far are saved in"):
        run(request_)


def test_what_draws_for_itself_is_kept_by_problem(
    fake: Fake, request_: ReasonRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def again(task: Task, settings: direct.DirectSettings) -> Generator[Event, None, Verdict]:
        asked.append((task.question, task.params.seed))
        return (yield from direct.run(task, settings))

    own = StrategyKind("again", "for tests", direct.DirectSettings, again)
    monkeypatch.setitem(STRATEGIES, "again", own)
    request = replace(request_, strategies=("again",))
    first = run(request)
    assert asked == [("1 + 1?", 0), ("1 + 2?", 1000), ("4 / 2?", 2000)]
    assert rows(first)["again"] == (0.6667, 3, 3)
    assert table(run(request)) == table(first) and len(asked) == 3
    kept = saved(request, "again")
    assert [(row["id"], row["winner"], row["correct"]) for row in kept] == [
        ("one", "2", 1.0),
        ("two", "2", 0.0),
        ("three", "2", 1.0),
    ]
    assert [each["answer"] for each in kept[0]["drawn"]] == ["\\boxed{2}"]


def test_ctrl_c_in_a_strategy_that_draws_for_itself(
    fake: Fake, request_: ReasonRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = StrategyKind("again", "for tests", direct.DirectSettings, direct.run)
    monkeypatch.setitem(STRATEGIES, "again", own)
    fake.backend.abort_after = 40
    request = replace(request_, strategies=("again",))
    assert run(request).interrupted
    kept = [row["id"] for row in saved(request, "again")]
    assert kept == ["one"]
    fake.backend.abort_after = None
    assert rows(run(request))["again"] == (0.6667, 3, 3)


def test_progress_counts_samples(fake: Fake, request_: ReasonRequest) -> None:
    heard: list[Event] = []
    run(replace(request_, strategies=("direct",)), listen=heard.append)
    steps = [event for event in heard if isinstance(event, Progress)]
    assert [event.done for event in steps if event.job == "samples"] == list(range(13))
    assert steps[-1] == Progress("judging", "", 3, 3, "steps")


def test_a_seed_without_room_is_refused(fake: Fake, request_: ReasonRequest) -> None:
    with pytest.raises(UsageError, match="is too large for 3 problems"):
        run(replace(request_, sampling=SamplingRequest(seed=2**32 - 1)))
