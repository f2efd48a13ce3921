"""`dsr bench experts` from its options to its table, with the embedded model and with made-up figures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr.bench.experts import bench, generate, tables
from dsr.bench.experts.bench import CaseResult, ExpertsBench, ExpertsBenchRequest
from dsr.bench.experts.cases import Case, Cases, Kind, digest
from dsr.bench.experts.chart import chart
from dsr.cli import app
from dsr.models.library import find
from dsr.store import paths
from dsr.store.measurement import Conditions, Figure
from dsr.store.measurements import Measurements
from quant.experts.prune_plan import RANDOM, plan_random
from quant.measure.divergence import Estimate
from runtime.base.errors import Aborted, Incompatible, NotFound
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.base.types import ByteCount
from tests.quant.experts.test_prune_plan import card as mixture
from tests.quant.experts.test_prune_plan import profile, routing
from tests.quant.models import model as dense_model

TASKS = ("reverse", "boolean")
HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.0)
FIGURES = ("task", "keep", "kept", "profile", "accuracy", "n", "kld", "bytes", "tokens_per_second")


def questions(suite: str, each: int) -> str:
    """The first questions of two tasks of a built-in suite."""
    file = Path(bench.__file__).parents[2] / "data" / "suites" / f"{suite}.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    chosen = [row for task in TASKS for row in [row for row in rows if row["task"] == task][:each]]
    return "".join(json.dumps(row) + "\n" for row in chosen)


ONE_THREAD = Run(threads=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two suites, and dsr's own folder with all that was measured."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "asked.jsonl").write_text(questions("nano", 2), encoding="utf-8")
    (folder / "profiled.jsonl").write_text(questions("nano-profile", 3), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def request_(home: Path) -> ExpertsBenchRequest:
    return ExpertsBenchRequest(
        suite=str(home / "asked.jsonl"),
        keeps=("100%", "auto", "25%"),
        profiles=str(home / "profiled.jsonl"),
        max_tokens=120,
        slots=4,
    )


@pytest.fixture(scope="module")
def made(home: Path, request_: ExpertsBenchRequest) -> ExpertsBench:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DSR_HOME", str(home / "dsr"))
        return bench.measure(find("nano"), request_, ONE_THREAD)


@pytest.fixture(autouse=True)
def _at_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_HOME", str(home / "dsr"))


def test_every_way_to_choose_experts_has_a_row_for_each_task(made: ExpertsBench) -> None:
    found = [(row.case.task, row.case.keep, row.case.kind, row.case.seed) for row in made.rows]
    expected: list[tuple[str, str, str, int | None]] = [(task, "100%", "own", None) for task in TASKS]
    for keep in ("auto", "25%"):
        expected += [(task, keep, kind, None) for kind in ("own", "merged", "other") for task in TASKS]
        expected += [(task, keep, "random", seed) for task in TASKS for seed in (0, 1, 2)]
    assert found == expected
    assert (made.experts, made.active, made.problems, made.missing) == (16, 4, 4, 0)


def test_a_row_tells_what_was_measured(made: ExpertsBench) -> None:
    whole, own = made.rows[0].json(), next(row for row in made.rows if row.case.keep == "25%").json()
    assert list(FIGURES) == [name for name in own if name in FIGURES]
    assert (whole["kept"], whole["n"], whole["kld"], whole["bytes"]) == (16, 2, 0.0, find("nano").size)
    assert (own["kept"], own["score"], own["seed"]) == (4, "easy-ep", None)
    # Twelve of sixteen experts less: a little more than half of this model's weights.
    assert 0.35 < own["bytes"] / whole["bytes"] < 0.45
    assert whole["memory"] - own["memory"] == pytest.approx(whole["bytes"] - own["bytes"], rel=0.01)
    assert own["tokens_per_second"] > 0
    assert 0 < own["kld"] < next(row.kld.value for row in made.rows if row.case.kind == "random")


def test_another_task_s_experts_are_those_of_its_profile(made: ExpertsBench) -> None:
    by = {(row.case.task, row.case.kind): row for row in made.rows if row.case.keep == "25%"}
    assert digest(by["reverse", "other"].case.plan) == digest(by["boolean", "own"].case.plan)
    assert by["reverse", "other"].kld.value > by["reverse", "own"].kld.value
    assert by["reverse", "merged"].case.plan.tasks == TASKS


def test_what_was_measured_is_not_measured_again(
    made: ExpertsBench, request_: ExpertsBenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the model was opened")

    monkeypatch.setattr(generate, "load", refuse)
    monkeypatch.setattr(bench.profile, "make_profiles", refuse)
    assert bench.measure(find("nano"), replace(request_, keeps=("100%", "25%")), ONE_THREAD).rows == tuple(
        row for row in made.rows if row.case.keep != "auto"
    )


def test_stopped_it_shows_what_is_there_and_goes_on(made: ExpertsBench, request_: ExpertsBenchRequest) -> None:
    stop, request = Stop(), replace(request_, keeps=("100%", "25%"), max_tokens=90)

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.job == "answering" and event.done == 9:
            stop.set()

    found = bench.measure(find("nano"), request, Run(stop, listen, threads=1))
    assert found.interrupted
    assert 2 <= len(found.rows) < 14 and len(found.rows) + found.missing == 14
    assert tables.warnings(found)[0] == f"stopped: {found.missing} of 14 figures are missing"
    again = bench.measure(find("nano"), request, ONE_THREAD)
    assert not again.interrupted and again.rows[:2] == found.rows[:2]


def test_stopped_before_anything_it_says_so(made: ExpertsBench, request_: ExpertsBenchRequest) -> None:
    stop = Stop()
    stop.set()
    with pytest.raises(Aborted, match="the answers so far are saved in"):
        bench.measure(find("nano"), replace(request_, keeps=("100%",), max_tokens=60), Run(stop, threads=1))


def test_all_scores_have_a_curve_of_the_task_s_own_profile(made: ExpertsBench, request_: ExpertsBenchRequest) -> None:
    found = bench.measure(find("nano"), replace(request_, keeps=("25%",), score="all", limit=1), ONE_THREAD)
    assert [(line.keep, line.label) for line in tables.case_groups(found)] == [
        ("25%", "easy-ep"), ("25%", "mass"), ("25%", "probability"), ("25%", "counts"), ("25%", "tcess"),
    ]  # fmt: skip
    assert {row.case.kind for row in found.rows} == {"own"}


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["bench", "experts", "nano", *arguments])


def test_the_command_prints_json(made: ExpertsBench, request_: ExpertsBenchRequest, tmp_path: Path) -> None:
    page, same = tmp_path / "page.md", ("--suite", request_.suite, "--slots", "4", "-t", "1", "-n", "120")
    result = command(*same, "--keep", "100%, 25%,100%", "--json", "--markdown", str(page))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["schema"] == "dsr.bench.experts/1"
    assert found["rows"] == [row.json() for row in made.rows if row.case.keep != "auto"]
    assert "| 100% | 16 | all |" in page.read_text(encoding="utf-8")


def test_the_table_is_as_wide_as_a_terminal(made: ExpertsBench, request_: ExpertsBenchRequest) -> None:
    same = ("--suite", request_.suite, "--slots", "4", "-t", "1", "-n", "120")
    result = command(*same, "--keep", "100%,auto,25%")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[0].split() == [
        "keep", "kept", "chosen", "by", "right", "95", "%", "KLD", "size", "memory", "tok/s",
    ]  # fmt: skip
    assert max(map(len, result.stdout.splitlines())) <= 80
    quiet = command(*same, "--keep", "100%", "--quiet").stdout
    assert quiet.startswith("100%\town\t")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep", "3"), "3 experts are too few for a layer: each token uses 4"),
        (("--keep", "half"), "--keep half: neither a number of experts nor a percentage"),
        (("--keep", " , "), "--keep names no number of experts"),
        (("--score", "best"), "'best' is not a score"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(arguments: tuple[str, ...], message: str) -> None:
    result = command(*arguments)
    assert result.exit_code == 2
    assert f"error: {message}" in result.stderr


def test_a_dense_model_is_refused(tmp_path: Path) -> None:
    path = dense_model(tmp_path / "dense.gguf")
    with pytest.raises(Incompatible, match="is a dense model"):
        bench.measure(replace(find("nano"), path=path, files=(path,)), ExpertsBenchRequest(), Run())


def test_questions_to_profile_with_are_asked_for(
    request_: ExpertsBenchRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSR_HOME", "/nowhere")
    with pytest.raises(NotFound, match="there is no profile of reverse, boolean") as raised:
        bench.measure(replace(find("nano"), embedded=False), replace(request_, profiles=None), Run())
    assert raised.value.hint is not None and raised.value.hint.startswith("use --profiles SUITE ")


# What a table makes of rows.


def row(
    task: str, keep: str, kept: int, kind: Kind, solved: str, kld: float = 0.0, seed: int | None = None
) -> CaseResult:
    plan = plan_random(mixture(experts=8, used=2), kept, 0)
    case = Case(task, keep, kind, RANDOM if kind == "random" else "easy-ep", plan, seed)
    return CaseResult(
        case, tuple(letter == "1" for letter in solved), Estimate(kld, 0), ByteCount(2**20), 2**21, 500, 2.0
    )


def benched(*rows: CaseResult) -> ExpertsBench:
    origins = dict.fromkeys((each.case.task for each in rows), "a test")
    return ExpertsBench(
        "m", "s", 8, 2, 8, ExpertsBenchRequest(), origins, Path("folder"), rows, 0, "0" * 64, 100, HERE, 0.0
    )


MADE_UP = benched(
    row("a", "100%", 8, "own", "1111"),
    row("b", "100%", 8, "own", "1110"),
    row("a", "auto", 2, "own", "1110", 0.002),
    row("b", "auto", 5, "own", "1110", 0.008),
    *(row("a", "auto", 2, "random", "1000", 0.5, seed) for seed in (0, 1, 2)),
    *(row("b", "auto", 5, "random", solved, 0.3, seed) for seed, solved in enumerate(("0000", "1000", "1100"))),
)


def test_lines_are_means_over_tasks_and_seeds() -> None:
    assert [line[:7] for line in tables.table(MADE_UP).rows] == [
        ("a", "100%", "8", "all", "87.5", "53-98", "0.0000"),
        ("b", "auto", "3.5", "own", "75.0", "41-93", "0.0050"),
        ("c", "auto", "3.5", "random", "25.0", "9-54", "0.4000"),
    ]
    assert tables.table(MADE_UP).rows[0][7:] == ("1.00 MiB", "2.00 MiB", "250")


def test_the_chart_has_a_mark_for_each_line_of_the_table() -> None:
    found = chart(MADE_UP)
    assert [(mark.label, mark.across, mark.up, mark.series) for mark in found.marks] == [
        ("all", 8.0, 87.5, ""),
        ("auto", 3.5, 75.0, "own"),
        ("auto", 3.5, 25.0, "random"),
    ]
    assert found.series == ("own", "random", "")


def test_each_task_has_its_own_figures() -> None:
    assert [(each.headings, each.rows) for each in tables.details(MADE_UP)] == [
        (("own", "100%", "auto"), (("a", "100 51-100", "2: 75 30-95"), ("b", "75 30-95", "5: 75 30-95"))),
        (("random", "100%", "auto"), (("a", "100 51-100", "2: 25 5-70"), ("b", "75 30-95", "5: 25 8-56"))),
    ]
    assert list(tables.details(benched(*(each for each in MADE_UP.rows if each.case.task == "a")))) == []


def test_the_findings_are_what_was_promised() -> None:
    assert tables.findings(MADE_UP) == [
        "keep auto: 85.7 % of the accuracy with all experts, at worst 75.0 % (a), with 44 % of the experts",
        "keep auto: +50.0 points compared with random experts",
    ]


def test_lines_that_lack_a_task_are_not_compared() -> None:
    stopped = replace(MADE_UP, rows=MADE_UP.rows[:7], missing=3)
    assert [finding.split(":")[0] for finding in tables.findings(stopped)] == ["keep auto"]
    assert tables.warnings(stopped) == [
        "stopped: 3 of 10 figures are missing",
        "rows have different tasks, so you cannot compare them",
    ]


def test_a_model_that_solves_nothing_keeps_nothing() -> None:
    found = benched(row("a", "100%", 8, "own", "00"), row("a", "auto", 4, "own", "00"))
    assert tables.findings(found) == ["keep auto: the model with all experts solves no problem"]


def test_all_experts_are_the_same_for_every_score() -> None:
    profiles = {task: profile({0: routing([*range(8)])}, task) for task in "ab"}
    found = list(Cases(mixture(), profiles, ["100%", "50%"], ["mass", "counts"], ("own",), 0).all({}))
    assert [(case.score, case.keep, case.task) for case in found] == [
        ("mass", "100%", "a"), ("mass", "100%", "b"), ("mass", "50%", "a"), ("mass", "50%", "b"),
        ("counts", "50%", "a"), ("counts", "50%", "b"),
    ]  # fmt: skip


def test_the_automatic_number_of_a_task_is_that_of_its_random_experts() -> None:
    profiles = {task: profile({0: routing([*range(8)])}, task) for task in "ab"}
    auto = {("easy-ep", "a"): 3, ("easy-ep", "b"): 5, ("easy-ep", ""): 6}
    kinds: tuple[Kind, ...] = ("own", "merged", "other", "random")
    found = list(Cases(mixture(), profiles, ["auto"], ["easy-ep"], kinds, 7).all(auto))
    assert [(case.task, case.kind, case.plan.keep) for case in found if case.seed in (None, 7)] == [
        ("a", "own", 3), ("b", "own", 5), ("a", "merged", 6), ("b", "merged", 6),
        ("a", "other", 3), ("b", "other", 5), ("a", "random", 3), ("b", "random", 5),
    ]  # fmt: skip
    assert sorted({case.seed for case in found if case.seed is not None}) == [7, 8, 9]


def test_each_task_is_a_row_that_history_keeps() -> None:
    whole, *_, last = MADE_UP.measurements
    assert (whole.kind, whole.model, whole.digest, whole.size) == ("experts", "m", "0" * 64, 100)
    assert whole.test == "a: own 8 of 8, easy-ep" and whole.parameters["kept"] == 8
    assert (whole.figures["accuracy"].mean, whole.figures["accuracy"].count) == (1.0, 4)
    assert whole.figures["tokens_per_second"] == Figure(250.0) and whole.figures["bytes"] == Figure(2**20)
    assert last.conditions == HERE and len(MADE_UP.measurements) == len({r.test for r in MADE_UP.measurements})


def test_an_automatic_number_is_told_from_the_same_number_that_was_asked_for() -> None:
    half, auto = benched(row("a", "25%", 2, "own", "1110"), row("a", "auto", 2, "own", "1110")).measurements
    assert (half.test, auto.test) == ("a: own 2 of 8, easy-ep", "a: own auto 2 of 8, easy-ep")
    assert (half.parameters["keep"], auto.parameters["keep"]) == ("25%", "auto")


def test_the_history_gets_what_it_does_not_have(made: ExpertsBench, request_: ExpertsBenchRequest) -> None:
    same = ("--suite", request_.suite, "--slots", "4", "-t", "1", "-n", "120")

    def kept_after(keep: str) -> int:
        assert command(*same, "--keep", keep, "--quiet").exit_code == 0
        with Measurements(paths.measurements_file()) as store:
            return len(store.list(kind="experts", model="nano"))

    with Measurements(paths.measurements_file()) as store:
        for each in store.list(kind="experts"):
            store.delete(each.id)
    assert kept_after("100%") == 2
    assert kept_after("100%") == 2  # nothing new
    assert kept_after("100%,25%") == 2 + 2 * 3 + 2 * 3
