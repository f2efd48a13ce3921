"""`dsr bench reason` from its options to its table, with a fake model and with the embedded one."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.bench.reason.bench import ReasonRequest
from dsr.bench.reason.tables import as_csv, as_markdown, conditions, outcomes, task_table, title, warnings
from dsr.cli import app
from dsr.models.sampling import SamplingRequest
from dsr.store import paths
from dsr.store.measurements import Measurements
from runtime.base.errors import Incompatible
from runtime.base.events import Event
from runtime.strategies import direct
from runtime.strategies.strategy import STRATEGIES, StrategyKind
from runtime.strategies.task import Task
from runtime.strategies.verdict import Verdict
from tests.dsr.bench.reason.reasoning import Fake, rows, run, saved
from tests.peers import recount


def test_one_set_of_draws_serves_the_whole_table(fake: Fake, request_: ReasonRequest) -> None:
    found = rows(run(request_))
    # Two of the four samples say 2, one 3, one nothing; the problems want 2, 3 and 2.
    assert found["direct"] == (round((0.5 + 0.25 + 0.5) / 3, 4), 3, 12)
    assert found["vote n=4 stop=none"] == (0.6667, 3, 3)
    assert found["vote n=2 stop=none"][1:] == (3, 6)
    assert found["greedy"] == (0.6667, 3, 3)
    assert found["pass@2 (oracle)"] == (round((5 / 6 + 1 / 2 + 5 / 6) / 3, 4), 3, 3)
    assert found["pass@4 (oracle)"] == (1.0, 3, 3)
    assert len(saved(request_)) == 12 and len(saved(request_, "greedy")) == 3


def test_a_strategy_that_this_model_cannot_do_does_not_end_the_bench(
    fake: Fake, request_: ReasonRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(task: Task, settings: direct.DirectSettings) -> Generator[Event, None, Verdict]:
        yield from ()
        raise Incompatible("no end of thought")

    own = StrategyKind("broken", "for tests", direct.DirectSettings, broken)
    monkeypatch.setitem(STRATEGIES, "broken", own)
    made = run(replace(request_, strategies=("broken", "direct")))
    assert [score.row.label for score in made.scores] == ["direct"]
    assert warnings(made) == ["broken could not be run: no end of thought"]


def test_samples_that_came_to_their_limit_are_told(fake: Fake, request_: ReasonRequest) -> None:
    made = run(replace(request_, sampling=SamplingRequest(temperature=1.0, max_tokens=5)))
    assert made.unfinished == 12
    assert warnings(made) == ["12 samples reached the token limit"]


def test_the_recount_agrees_and_would_notice(
    fake: Fake, request_: ReasonRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    run(request_)
    assert request_.out is not None
    assert recount.main(request_.out) == 0
    assert "vote n=4 stop=none: 3 of 3 winners agree\n" in capsys.readouterr().out
    verdicts = request_.out / "verdicts.jsonl"
    text = verdicts.read_text(encoding="utf-8")
    verdicts.write_text(text.replace('"winner": "2"', '"winner": "3"'), encoding="utf-8")
    assert recount.main(request_.out) == 1


def test_csv_and_markdown(fake: Fake, request_: ReasonRequest) -> None:
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


def test_each_line_is_a_row_that_history_keeps(fake: Fake, request_: ReasonRequest) -> None:
    greedy, vote = run(replace(request_, strategies=("greedy", "vote:n=4:stop=none"))).measurements
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
    shown = done.stdout.split("\n\n")
    assert len((tmp_path / "t.csv").read_text().splitlines()) == len(shown[0].splitlines())
    assert shown[1].splitlines()[0].split()[:5] == ["task", "problems", "greedy", "one", "vote"]
    assert "| `direct` |" in (tmp_path / "t.md").read_text()
    assert recount.main(tmp_path / "out") == 0
    with Measurements(paths.measurements_file()) as store:
        before = store.list(kind="reason", model="nano")
    assert {kept.row.test for kept in before} >= {"greedy", "direct"}
    again = CliRunner().invoke(app, [*command, "--strategies", "direct", "-o", str(tmp_path / "out"), "--json"])
    said = json.loads(again.stdout)
    assert (said["schema"], said["model"], said["suite"], said["problems"]) == ("dsr.bench.reason/1", "nano", "nano", 2)
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
    assert f"error: {file}, line 2: is not JSON" in " ".join(done.stderr.split())


def test_each_strategy_alone_draws_the_same_samples_again(fake: Fake, request_: ReasonRequest) -> None:
    request = replace(request_, strategies=("greedy", "direct", "vote:n=2:stop=none", "pass"), alone=2)
    made = run(request)
    assert [(score.row.label, score.problems) for score in made.alone] == [
        ("greedy", 2), ("direct", 2), ("vote n=2 stop=none", 2),
    ]  # fmt: skip
    assert request.out is not None
    alone = {line["id"]: line for line in saved(request, "alone-vote-n=2-stop=none")}
    assert set(alone) == {"one", "two"}
    shared = {(line["id"], line["sample"]): line for line in saved(request)}
    for each in alone["two"]["drawn"]:
        assert each["answer"] == shared["two", each["sample"]]["answer"]
    opens = fake.opens
    assert run(request).alone[2].tokens == made.alone[2].tokens and fake.opens == opens
    page = as_markdown(made, "dsr bench reason fake:1b --alone 2")
    assert "| strategy alone | problems | right | tokens | chain | seconds |" in page


def test_one_strategy_s_gain_is_told(fake: Fake, request_: ReasonRequest) -> None:
    made = run(replace(request_, strategies=("greedy", "direct", "vote:n=4:stop=none")))
    assert outcomes(made) == ["cannot tell: greedy, vote 4"]
    assert made.json()["comparisons"][0]["references"][0]["row"] == "direct"
    assert "| strategy | against one sample | minus direct | minus greedy | minus vote 4 |" in as_markdown(made, "x")


def test_the_length_of_right_and_of_wrong_samples(fake: Fake, request_: ReasonRequest) -> None:
    made = run(replace(request_, strategies=("direct",)))
    drawn = saved(request_)
    right = [line["tokens"] for line in drawn if line["correct"]]
    wrong = [line["tokens"] for line in drawn if not line["correct"]]
    assert len(right) == 5 and len(wrong) == 7
    [score] = made.scores
    assert (score.right_length, score.wrong_length) == (sum(right) / 5, sum(wrong) / 7)
    assert task_table(made).rows[-1][-2:] == (f"{sum(right) / 5:.0f}", f"{sum(wrong) / 7:.0f}")


def test_choices_are_scored_without_drawing(tmp_path: Path) -> None:
    command = ["bench", "reason", "nano", "--suite", "choices", "--score", "likelihood", "--limit", "3", "-t", "1"]
    done = CliRunner().invoke(app, [*command, "-o", str(tmp_path / "out"), "--no-log", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert [row["row"] for row in said["rows"]] == ["choice by letter", "choice by text", "choice by text per byte"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "likelihood.jsonl").read_text().splitlines()]
    assert len(lines) == 3 and all(len(line["letter"]) == len(line["text"]) == 4 for line in lines)
    assert all(value < 0 for line in lines for value in (*line["letter"], *line["text"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--score", "likelihood"],
            "nano: the question 777-214 has no choices, and --score likelihood compares choices",
        ),
        (["--score", "letters"], "--score is answers or likelihood, not 'letters'"),
        (["--score", "likelihood", "--alone", "3"], "--score likelihood draws nothing"),
        (["--suite", "gym:"], "gym: names no task"),
    ],
)
def test_what_cannot_be_scored_is_refused(options: list[str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dsr.suites.gym.version", lambda: "0.1.25")
    done = CliRunner().invoke(app, ["bench", "reason", "nano", *options])
    assert done.exit_code == 2 and message in " ".join(done.stderr.split())


def test_code_without_a_sandbox_is_refused_before_anything_is_drawn(
    fake: Fake, request_: ReasonRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.confined.box.why_not", lambda: "this is a test")
    with pytest.raises(Incompatible, match="no sandbox for untrusted commands: this is a test"):
        run(replace(request_, suite="code", limit=1))
    assert fake.opens == 0


def test_the_suites_are_listed_without_a_model() -> None:
    done = CliRunner().invoke(app, ["bench", "reason", "--list-suites"])
    assert done.exit_code == 0 and "gym:laptop" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_finding_errors_has_an_f1(fake: Fake, request_: ReasonRequest) -> None:
    assert request_.out is not None
    rows_ = [
        {"id": "one", "problem": "1 + 1?", "steps": ["1 + 1 = 2.", "So 2.", "Yes.", "Yes."], "label": 2},
        {"id": "two", "problem": "1 + 2?", "steps": ["1 + 2 = 3."], "label": -1},
        {"id": "three", "problem": "1 + 3?", "steps": ["1 + 3 = 4.", "So 4.", "Yes."], "label": 2},
    ]
    Path(request_.suite).write_text("\n".join(map(json.dumps, rows_)))
    made = run(replace(request_, strategies=("greedy", "direct")))
    # The fake finds step 2 in half of its replies and never says -1.
    assert [row[:4] for row in task_table(made).rows] == [
        ("wrong step", "2", "100", "50"),
        ("all right", "1", "0", "0"),
        ("all", "3", "67", "33"),
        ("F1", "", "0", "0"),
    ]
