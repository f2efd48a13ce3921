"""`dsr bench reason` from its options to its table, with a fake model and with the embedded one."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr import paths, predictions
from dsr.cli import app
from dsr.measurements import Measurements
from dsr.services.chat import SamplingRequest
from dsr.services.opening import OpenModel
from dsr.services.plan.forecast import Forecast
from dsr.services.reason import bench
from dsr.services.reason.bench import Bench, BenchRequest
from dsr.services.reason.pace import Pace
from dsr.services.reason.report import as_csv, as_markdown, conditions, table, title, warnings
from dsr.services.reason.report import rows as kept_rows
from dsr.services.reason.samples import completion_of, packed, row_of, unpacked
from dsr.suites import Problem
from runtime import strategies
from runtime.backend import Batch
from runtime.errors import Aborted, Incompatible, UsageError, VerificationFailed
from runtime.events import Event, Progress
from runtime.gguf import read_card
from runtime.site import Device, Site, Speed
from runtime.strategies import Strategy, direct
from runtime.strategies.task import Task
from runtime.types import Completion, TokenStatistics
from runtime.verdict import Verdict
from tests.dsr.chatting import card, local_model, open_model
from tests.fakes import FakeBackend, saying
from tests.peers import recount

# What the fake model says, by the last digit of the seed: sample s of every problem says REPLIES[s].
REPLIES = (
    "<think>a</think>\\boxed{2}",
    "<think>bb</think>\\boxed{3}",
    "<think>c</think>\\boxed{2}",
    "<think>d</think>so",
)
SUITE = (
    '{"id": "one", "question": "1 + 1?", "answer": "2"}\n'
    '{"id": "two", "question": "1 + 2?", "answer": "3"}\n'
    '{"id": "three", "question": "4 / 2?", "answer": "2.0"}\n'
)


@dataclass
class Fake:
    """The model that the service opens; `opens` counts how often."""

    model: OpenModel
    opens: int = 0

    @property
    def backend(self) -> FakeBackend:
        assert isinstance(self.model.backend, FakeBackend)
        return self.model.backend


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    made = Fake(open_model(*REPLIES, slots=3))

    @contextmanager
    def opened(*_: object, **__: object) -> Iterator[OpenModel]:
        made.opens += 1
        yield made.model

    monkeypatch.setattr(bench, "opened", opened)
    monkeypatch.setattr(bench, "read_card", lambda path: card())
    return made


@pytest.fixture
def request_(tmp_path: Path) -> BenchRequest:
    (tmp_path / "s.jsonl").write_text(SUITE, encoding="utf-8")
    return BenchRequest(
        suite=str(tmp_path / "s.jsonl"),
        strategies=("greedy", "direct", "vote", "first-finish", "pass"),
        samples=4,
        sampling=SamplingRequest(temperature=1.0),
        out=tmp_path / "out",
    )


def run(request: BenchRequest, **more: Any) -> Bench:
    return bench.run(local_model(), request, **more)


def saved(request: BenchRequest, name: str = "samples") -> list[dict[str, Any]]:
    assert request.out is not None
    return [json.loads(line) for line in (request.out / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def rows(made: Bench) -> dict[str, tuple[float, int, int]]:
    return {s.line.label: (round(s.accuracy, 4), s.problems, s.decisions) for s in made.scores}


def test_one_set_of_draws_serves_the_whole_table(fake: Fake, request_: BenchRequest) -> None:
    found = rows(run(request_))
    # Two of the four samples say 2, one 3, one nothing; the problems want 2, 3 and 2.
    assert found["direct"] == (round((0.5 + 0.25 + 0.5) / 3, 4), 3, 12)
    assert found["vote n=4 stop=none"] == (0.6667, 3, 3)
    assert found["vote n=2 stop=none"][1:] == (3, 6)
    assert found["greedy"] == (0.6667, 3, 3)
    assert found["pass@2 (oracle)"] == (round((5 / 6 + 1 / 2 + 5 / 6) / 3, 4), 3, 3)
    assert found["pass@4 (oracle)"] == (1.0, 3, 3)
    assert len(saved(request_)) == 12 and len(saved(request_, "greedy")) == 3


def test_a_sample_s_row_has_all_that_is_judged(fake: Fake, request_: BenchRequest) -> None:
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
    back = completion_of(json.loads(json.dumps(row_of(Problem("p", "q", "1"), sample, 3))))
    assert replace(back, statistics=()) == replace(sample, tokens=(0, 0), statistics=())
    assert back.statistics[0] == statistics[0] and str(back.statistics[1]) == str(statistics[1])
    assert unpacked(packed(())) == ()


def test_seeds_do_not_depend_on_the_order_of_drawing(fake: Fake, request_: BenchRequest) -> None:
    run(replace(request_, sampling=SamplingRequest(temperature=1.0, seed=5), samples=2, strategies=("direct",)))
    assert {(row["id"], row["sample"]): row["seed"] for row in saved(request_)} == {
        ("one", 0): 5,
        ("one", 1): 6,
        ("two", 0): 1005,
        ("two", 1): 1006,
        ("three", 0): 2005,
        ("three", 1): 2006,
    }


def test_what_is_there_is_judged_without_the_model(fake: Fake, request_: BenchRequest) -> None:
    first = run(request_)
    again = run(request_)
    assert fake.opens == 1
    assert table(again) == table(first)
    more = run(replace(request_, strategies=("short-m:n=4:m=2",)))
    assert fake.opens == 1 and [score.problems for score in more.scores] == [3]


def test_more_problems_or_samples_draw_only_what_is_missing(fake: Fake, request_: BenchRequest) -> None:
    run(replace(request_, limit=1, samples=2, strategies=("direct",)))
    assert [(row["id"], row["sample"]) for row in saved(request_)] == [("one", 0), ("one", 1)]
    run(replace(request_, limit=2, samples=3, strategies=("direct",)))
    assert {(row["id"], row["sample"]) for row in saved(request_)} == {(i, s) for i in ("one", "two") for s in range(3)}
    assert len(saved(request_)) == 6


def test_a_kill_in_the_middle_of_a_row_costs_that_row(fake: Fake, request_: BenchRequest) -> None:
    whole = table(run(request_))
    assert request_.out is not None
    file = request_.out / "samples.jsonl"
    data = file.read_bytes()
    file.write_bytes(data[: len(data) * 2 // 3])
    left = len(saved_lines(file))
    assert [row[1:5] for row in table(run(request_))] == [row[1:5] for row in whole]
    assert left < 12 and len(saved(request_)) == 12


def saved_lines(file: Path) -> list[bytes]:
    return [line for line in file.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"sampling": SamplingRequest(temperature=0.5)}, "temperature was 1.0, now 0.5"),
        ({"sampling": SamplingRequest(temperature=1.0, seed=1)}, "seed was 0, now 1"),
        ({"think": False}, "thinking was None, now False"),
    ],
)
def test_samples_of_other_settings_are_not_mixed(
    fake: Fake, request_: BenchRequest, change: dict[str, Any], told: str
) -> None:
    run(request_)
    with pytest.raises(UsageError) as raised:
        run(replace(request_, **change))
    assert told in raised.value.message and fake.opens == 1


def test_samples_of_another_model_or_suite_are_not_mixed(
    fake: Fake, request_: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_)
    Path(request_.suite).write_text(SUITE.replace("4 / 2?", "6 / 3?"), encoding="utf-8")
    with pytest.raises(UsageError, match="suite was"):
        run(request_)
    monkeypatch.setattr(bench, "read_card", lambda path: replace(card(), header_digest="1" * 64))
    with pytest.raises(UsageError, match="model was 00000000, now 11111111"):
        run(request_)


def test_a_folder_of_something_else_is_left_alone(fake: Fake, request_: BenchRequest) -> None:
    assert request_.out is not None
    request_.out.mkdir()
    (request_.out / "run.json").write_text("[]")
    with pytest.raises(UsageError, match="is not what dsr bench wrote"):
        run(request_)
    assert fake.opens == 0


def test_a_damaged_row_is_named(fake: Fake, request_: BenchRequest) -> None:
    run(request_)
    assert request_.out is not None
    file = request_.out / "samples.jsonl"
    file.write_bytes(b"{}\n" + file.read_bytes())
    with pytest.raises(VerificationFailed, match=r"samples\.jsonl, line 1: is damaged"):
        run(request_)


def test_without_a_folder_settings_have_their_own(fake: Fake, request_: BenchRequest) -> None:
    first = run(replace(request_, out=None)).folder
    assert first == run(replace(request_, out=None, limit=1)).folder
    assert first.name.startswith("fake-s-")
    assert first != run(replace(request_, out=None, sampling=SamplingRequest(temperature=0.7))).folder


def test_ctrl_c_judges_what_is_there_and_goes_on_later(fake: Fake, request_: BenchRequest) -> None:
    fake.backend.abort_after = 60
    stopped = run(request_)
    assert stopped.interrupted and warnings(stopped)[0].startswith("stopped: lines stand on ")
    drawn = len(saved(request_))
    assert 4 <= drawn < 12
    assert rows(stopped)["direct"][1] < 3
    assert not any(row["finish_reason"] == "cancelled" for row in saved(request_))
    fake.backend.abort_after = None
    whole = run(request_)
    assert not whole.interrupted and rows(whole)["direct"][1:] == (3, 12)


def test_ctrl_c_before_the_first_answer(fake: Fake, request_: BenchRequest) -> None:
    fake.backend.abort_after = 2
    with pytest.raises(Aborted, match="what was drawn is kept in"):
        run(request_)


def test_what_draws_for_itself_is_kept_by_problem(
    fake: Fake, request_: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def again(task: Task, settings: direct.Settings) -> Generator[Event, None, Verdict]:
        asked.append((task.question, task.params.seed))
        return (yield from direct.run(task, settings))

    own = Strategy("again", "for tests", direct.Settings, again)
    monkeypatch.setattr(strategies, "STRATEGIES", {**strategies.STRATEGIES, "again": own})
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
    fake: Fake, request_: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Strategy("again", "for tests", direct.Settings, direct.run)
    monkeypatch.setattr(strategies, "STRATEGIES", {**strategies.STRATEGIES, "again": own})
    fake.backend.abort_after = 40
    request = replace(request_, strategies=("again",))
    assert run(request).interrupted
    kept = [row["id"] for row in saved(request, "again")]
    assert kept == ["one"]
    fake.backend.abort_after = None
    assert rows(run(request))["again"] == (0.6667, 3, 3)


def test_a_strategy_that_this_model_cannot_do_does_not_end_the_bench(
    fake: Fake, request_: BenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: Task, settings: direct.Settings) -> Generator[Event, None, Verdict]:
        yield from ()
        raise Incompatible("no end of thought")

    own = Strategy("broken", "for tests", direct.Settings, broken)
    monkeypatch.setattr(strategies, "STRATEGIES", {**strategies.STRATEGIES, "broken": own})
    made = run(replace(request_, strategies=("broken", "direct")))
    assert [score.line.label for score in made.scores] == ["direct"]
    assert warnings(made) == ["broken could not be run: no end of thought"]


def test_samples_that_came_to_their_limit_are_told(fake: Fake, request_: BenchRequest) -> None:
    made = run(replace(request_, sampling=SamplingRequest(temperature=1.0, max_tokens=5)))
    assert made.unfinished == 12
    assert warnings(made) == ["12 samples came to the limit of tokens before the end"]


def test_progress_counts_samples(fake: Fake, request_: BenchRequest) -> None:
    heard: list[Event] = []
    run(replace(request_, strategies=("direct",)), listen=heard.append)
    steps = [event for event in heard if isinstance(event, Progress)]
    assert [event.done for event in steps if event.job == "samples"] == list(range(13))
    assert steps[-1] == Progress("judging", "", 3, 3, "steps")


def test_a_seed_without_room_is_refused(fake: Fake, request_: BenchRequest) -> None:
    with pytest.raises(UsageError, match="leaves no room for 3 problems"):
        run(replace(request_, sampling=SamplingRequest(seed=2**32 - 1)))


def test_the_recount_agrees_and_would_notice(
    fake: Fake, request_: BenchRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run(request_)
    assert request_.out is not None
    assert recount.main(request_.out) == 0
    assert "vote n=4 stop=none: 3 of 3 winners agree\n" in capsys.readouterr().out
    verdicts = request_.out / "verdicts.jsonl"
    text = verdicts.read_text(encoding="utf-8")
    verdicts.write_text(text.replace('"winner": "2"', '"winner": "3"'), encoding="utf-8")
    assert recount.main(request_.out) == 1


def foretold(fake: Fake, nano_path: Path) -> None:
    """The machine is known to compute nano at 20 GB/s."""
    speed = Speed(20e9, {}, {}, attention={"F16": 1e10}, per_layer=1e-5)
    site = Site("test", (Device("CPU", "cpu", 16 << 30, 16 << 30, speed),))
    fake.model = replace(fake.model, forecast=Forecast(read_card(nano_path), site, 1000, 3, "f16", 100 << 20))


def test_how_fast_samples_were_drawn_is_held_against_what_was_foretold(
    fake: Fake, request_: BenchRequest, nano_path: Path
) -> None:
    foretold(fake, nano_path)
    made = run(request_)
    assert made.run is not None
    assert (made.run.model, made.run.context, made.run.samples) == ("fake:1b", 1000, 3)
    assert made.run.predicted.memory == 100 << 20
    assert made.run.predicted.tokens_per_second > 0 and made.run.measured.tokens_per_second > 0
    assert predictions.load(paths.predictions_file()) == (made.run,)
    assert made.json()["prediction"]["predicted"] == asdict(made.run.predicted)
    assert run(request_).run is None  # nothing was left to draw
    assert run(request_).json()["prediction"] is None
    assert len(predictions.load(paths.predictions_file())) == 1


def test_what_a_strategy_draws_for_itself_counts_too(fake: Fake, request_: BenchRequest, nano_path: Path) -> None:
    foretold(fake, nano_path)
    assert run(replace(request_, strategies=("tree",))).run is not None


def test_a_pass_of_the_engine_is_counted_by_its_size(nano_path: Path) -> None:
    speed = Speed(20e9, {}, {}, attention={"F16": 1e10}, per_layer=1e-5)
    site = Site("test", (Device("CPU", "cpu", 16 << 30, 16 << 30, speed),))
    forecast = Forecast(read_card(nano_path), site, 1000, 3, "f16", 100 << 20)
    pace = Pace(forecast)
    backend = FakeBackend(saying("x", after="q"), slots=3)
    watched = pace.watched(backend)
    for position in range(40):
        batch = Batch()
        batch.add([ord("q")], position, 0, output=True)
        watched.decode(batch)
    with pace.running():
        pass
    found = pace.compared("fake")
    assert found is not None
    # 40 tokens one after the other, with 0 to 39 before them.
    assert found.predicted.tokens_per_second == pytest.approx(40 / forecast.seconds([40], 0), rel=0.01)
    assert (backend.decoded, watched.context) == (40, 1000)
    assert Pace(None).compared("fake") is None


def test_csv_and_markdown(fake: Fake, request_: BenchRequest) -> None:
    made = run(replace(request_, strategies=("direct", "vote:n=4:stop=none")))
    written = list(csv.DictReader(as_csv(made).splitlines()))
    assert [row["row"] for row in written] == ["direct", "vote n=4 stop=none"]
    assert (written[1]["settings"], written[1]["accuracy"], written[1]["decisions"]) == (
        "n=4 stop=none",
        "0.666667",
        "3",
    )
    page = as_markdown(made, "dsr bench reason fake:1b")
    assert page.startswith("# fake:1b on s: 3 problems, 4 samples each\n\n    dsr bench reason fake:1b\n\n")
    assert "| `vote n=4 stop=none` | 66.7 | 20.8 to 93.9 | " in page
    assert title(made) == "fake:1b on s: 3 problems, 4 samples each"
    assert conditions(made) == "temperature 1.0, top-p 0.95, top-k 40, min-p 0.05, seed 0"


def test_each_line_is_a_row_that_history_keeps(fake: Fake, request_: BenchRequest) -> None:
    greedy, vote = kept_rows(run(replace(request_, strategies=("greedy", "vote:n=4:stop=none"))))
    assert (vote.kind, vote.model, vote.digest, vote.test) == ("reason", "fake:1b", "0" * 64, "vote n=4 stop=none")
    assert (vote.parameters["suite"], vote.parameters["problems"], vote.parameters["temperature"]) == ("s", 3, 1.0)
    accuracy = vote.figures["accuracy"]
    # Wilson's interval of two of three is from 0.208 to 0.939.
    assert (round(accuracy.mean, 4), accuracy.count) == (0.6667, 3) and accuracy.error is not None
    assert accuracy.error == pytest.approx((0.939 - 0.208) / 2 / 1.96, abs=1e-3)
    assert greedy.test == "greedy" and set(greedy.figures) == {"accuracy", "tokens", "chain", "seconds"}
    assert json.loads(json.dumps(vote.json()))["parameters"]["seed"] == 0


def test_the_embedded_model_at_the_terminal(tmp_path: Path) -> None:
    command = ["bench", "reason", "nano", "--limit", "2", "--samples", "2", "--temp", "1", "-t", "1", "--slots", "2"]
    files = ["--csv", str(tmp_path / "t.csv"), "--markdown", str(tmp_path / "t.md"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*command, "--strategies", "greedy,direct,vote", *files])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].split() == ["strategy", "right", "95", "%", "tokens", "chain", "seconds"]
    assert "nano on nano: 2 problems, 2 samples each; temperature 1.0" in done.stderr
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 1 + len(done.stdout.splitlines()) - 1
    assert "| `direct` |" in (tmp_path / "t.md").read_text()
    assert recount.main(tmp_path / "out") == 0
    with Measurements(paths.measurements_file()) as store:
        before = store.list(kind="reason", model="nano")
    assert {kept.row.test for kept in before} >= {"greedy", "direct"}
    again = CliRunner().invoke(app, [*command, "--strategies", "direct", "-o", str(tmp_path / "out"), "--json"])
    said = json.loads(again.stdout)
    assert (said["schema"], said["model"], said["suite"], said["problems"]) == ("dsr.bench-reason/1", "nano", "nano", 2)
    [row] = said["rows"]
    assert (row["row"], row["draws"], row["oracle"], row["decisions"]) == ("direct", "shared", False, 4)
    assert said["interrupted"] is False and said["skipped"] == [] and said["prediction"] is None
    with Measurements(paths.measurements_file()) as store:
        assert store.list(kind="reason", model="nano") == before  # nothing new was drawn


def test_a_bad_line_of_a_user_s_suite_ends_it_before_the_model_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"id": "a", "question": "q", "answer": "1"}\nnonsense\n')
    done = CliRunner().invoke(app, ["bench", "reason", "nano", "--suite", str(file)])
    assert done.exit_code == 2
    assert f"error: {file}, line 2: is no JSON" in " ".join(done.stderr.split())
