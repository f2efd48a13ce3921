"""`dsr bench speed` with the embedded model: what is decoded, what becomes of it, and what happens when it fails."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dsr.bench.kit.energy import EnergyMeter
from dsr.bench.speed import bench, tables, worker
from dsr.bench.speed.bench import SpeedJob, SpeedRequest, jobs, measure
from dsr.cli import app
from dsr.loading.load import LoadedModel, load
from dsr.loading.options import LoadOptions
from dsr.loading.predict import Predictor
from dsr.models.library import find
from dsr.models.model import Model
from dsr.store import paths
from dsr.store.measurement import Conditions, Figure, Measurement
from dsr.store.measurements import Measurements
from runtime.base.errors import UsageError
from runtime.base.events import Event, Progress
from runtime.base.run import Run, Stop
from runtime.engine.backend import Batch
from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend
from runtime.machine.machine import Device, Machine, Speed
from tests.dsr.chat.chatting import card

SMALL = SpeedRequest(prompts=(8,), generated=(4,), votes=(1, 2), threads=(1,), repetitions=2)
HERE = Conditions("a processor", 2, 8 << 30, "0.1", "0.3.36", load=0.0)


def job_of(nano_path: Path, request: SpeedRequest = SMALL) -> SpeedJob:
    [made] = jobs(find("nano"), read_card(nano_path), request)
    return made


def row(test: str, figures: dict[str, Figure], **more: Any) -> Measurement:
    parameters = {"threads": 1, "kv_type": "f16"}
    return replace(Measurement("speed", "a/nano.gguf", "d", 13_000_000, test, parameters, figures, HERE, 1.0), **more)


def test_every_size_is_measured_at_every_depth() -> None:
    request = SpeedRequest(prompts=(512, 64), generated=(128,), depths=(0, 256), votes=(1, 4))
    assert [test.name for test in request.tests()] == [
        "pp512",
        "pp64",
        "pp512 @ d256",
        "pp64 @ d256",
        "tg128",
        "tg128 @ d256",
        "votes 1",
        "votes 4",
        "ttft512",
        "ttft64",
        "memory",
        "load",
    ]


def test_a_zero_leaves_tests_out() -> None:
    assert [t.name for t in SpeedRequest((0,), (0,), votes=(2,)).tests()] == ["memory", "load"]
    assert [t.name for t in SpeedRequest((0,), (4,), votes=(0,)).tests()] == ["tg4", "memory", "load"]


def test_the_context_has_room_for_every_test() -> None:
    made = jobs(
        find("nano"), card(), SpeedRequest(prompts=(64,), depths=(0, 200), threads=(1, 2), kv_types=("f16", "q8_0"))
    )
    assert [(job.threads, job.load.kv_type) for job in made] == [(1, "f16"), (2, "f16"), (1, "q8_0"), (2, "q8_0")]
    # 8 samples of 256 tokens, the least that each of several is given; 256 + 8 * 128 would be less.
    assert {(job.load.slots, job.load.context) for job in made} == {(8, 2048)}
    [deep] = jobs(find("nano"), card(), SpeedRequest((100,), (0,), (900,), (0,), threads=(1,)))
    assert (deep.load.slots, deep.load.context) == (1, 1024)


def test_what_is_longer_than_the_model_sees_is_refused() -> None:
    with pytest.raises(UsageError, match="pp512 @ d600 needs 1112 tokens, but the model's context has 1000"):
        jobs(find("nano"), card(), SpeedRequest(depths=(0, 600)))


def test_senseless_requests_are_refused() -> None:
    with pytest.raises(UsageError, match="not a type of KV cache"):
        SpeedRequest(kv_types=("q9",))
    with pytest.raises(UsageError, match="at most 255 samples"):
        SpeedRequest(votes=(256,))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """(tokens, the first one's position, rows whose logits are wanted) of each batch that is decoded."""
    seen: list[tuple[int, int, int]] = []
    decode = LlamaBackend.decode

    def watched(self: LlamaBackend, batch: Batch) -> None:
        seen.append((len(batch.tokens), batch.positions[0], len(batch.outputs)))
        decode(self, batch)

    monkeypatch.setattr(LlamaBackend, "decode", watched)
    return seen


def test_a_prompt_is_read_behind_its_depth_in_passes(nano_path: Path, batches: list[tuple[int, int, int]]) -> None:
    request = SpeedRequest((600,), (0,), (20,), (0,), threads=(1,), repetitions=2)
    job = job_of(nano_path, request)
    rows = dict(worker.measure_job(replace(job, tests=job.tests[:1])))
    # The cache is filled once; the prompt is read to warm up, and twice for the clock.
    assert batches == [(20, 0, 1), *[(512, 20, 0), (88, 532, 1)] * 3]
    assert rows[0].test == "pp600 @ d20" and rows[0].figures["tokens_per_second"].count == 2


def test_single_tokens_are_decoded_and_none_is_drawn(
    nano_path: Path, batches: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaBackend, "sampler", None)
    job = job_of(nano_path, SpeedRequest((0,), (3,), (0,), (0,), threads=(1,), repetitions=1))
    [(_, made)] = worker.measure_job(replace(job, tests=job.tests[:1]))
    assert batches == [(1, 0, 1), (1, 0, 1), (1, 1, 1), (1, 2, 1)]
    assert made.test == "tg3" and made.figures["tokens_per_second"].error is None


def test_votes_share_their_prompt_and_never_end(
    nano_path: Path, batches: list[tuple[int, int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaBackend, "ends", lambda self, token: True)
    job = job_of(nano_path, SpeedRequest((0,), (3,), (0,), (2,), threads=(1,), repetitions=1))
    [(_, made)] = worker.measure_job(replace(job, tests=job.tests[1:2]))
    # The prompt is read once, but for its last token, which each sample decodes itself.
    assert batches == [(255, 0, 0), (2, 255, 2), (2, 255, 2), (2, 256, 2), (2, 257, 2)]
    assert made.test == "votes 2" and made.parameters["votes"] == 2


def test_the_first_token_waits_for_the_whole_prompt(nano_path: Path, batches: list[tuple[int, int, int]]) -> None:
    job = job_of(nano_path)
    [test] = [test for test in job.tests if test.kind == "first token"]
    rows = list(worker.measure_job(replace(job, tests=(test,))))
    assert batches == [(7, 0, 0), (1, 7, 1)] * 3
    assert [r.figures["seconds"].count for _, r in rows] == [1, 2]


def test_joules_are_told_where_the_machine_tells_them(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "energy").write_text("7")
    monkeypatch.setattr(EnergyMeter, "joules", lambda self, before: 2.0)
    monkeypatch.setattr(worker.energy, "meter", lambda: EnergyMeter((tmp_path / "energy",), (0,)))
    job = job_of(nano_path)
    rows = dict(worker.measure_job(replace(job, tests=job.tests[:2])))
    assert rows[0].figures["joules_per_token"] == Figure(0.25, 0.0, 2)
    assert rows[1].figures["joules_per_token"] == Figure(0.5, 0.0, 2)


def test_what_was_foretold_stands_beside(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = Speed(20e9, {}, {}, attention={"F16": 1e10}, per_layer=1e-5)
    machine = Machine("test", (Device("CPU", "cpu", 16 << 30, 16 << 30, known),))
    forecast = Predictor(read_card(nano_path), machine, 512, 2, "f16", 100 << 20)

    @contextmanager
    def foretold(*arguments: Any, **options: Any) -> Iterator[LoadedModel]:
        with load(*arguments, **options) as model:
            yield replace(model, predictor=forecast)

    monkeypatch.setattr(worker, "load", foretold)
    rows = {made.test: made for _, made in worker.measure_job(job_of(nano_path))}
    votes = rows["votes 2"].figures["predicted_tokens_per_second"].mean
    assert votes == pytest.approx(8 / forecast.seconds([4, 4], 256))
    prompt = rows["pp8"].figures["predicted_tokens_per_second"].mean
    assert prompt == pytest.approx(8 / forecast.reading(8, 0))
    first = rows["ttft8"].figures["predicted_seconds"].mean
    assert first == pytest.approx(forecast.reading(7, 0) + forecast.seconds([1], 7))
    # Measured in this process, which has more in its memory than a model.
    assert rows["memory"].figures["bytes"].mean > 30_000_000 < rows["memory"].figures["predicted_bytes"].mean
    assert "predicted_tokens_per_second" not in rows["load"].figures


def test_given_threads_are_foretold_too(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int | None, bool]] = []

    @contextmanager
    def recorded(model: Model, options: LoadOptions, run: Run) -> Iterator[LoadedModel]:
        asked.append((run.threads, options.predict))
        with load(model, options, run) as found:
            yield found

    monkeypatch.setattr(worker, "load", recorded)
    job = job_of(nano_path)
    list(worker.measure_job(replace(job, tests=job.tests[-1:], threads=1)))
    # What is timed as loading does not look around first.
    assert asked == [(1, True), (1, False), (1, False)]


class Child(bench._Child):
    """The latest child, for tests that do it harm."""

    latest: Child

    def __init__(self, job: SpeedJob) -> None:
        super().__init__(job)
        Child.latest = self


def test_a_model_that_dies_in_the_middle_is_told_and_the_next_goes_on(
    nano_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "_Child", Child)
    job = replace(job_of(nano_path), repetitions=1)
    # Long enough not to be over before the test kills it.
    doomed = replace(job, tests=(job.tests[0], *[bench.Test("decode", generated=200)] * 50))

    def deadly(event: Event) -> None:
        if isinstance(event, Progress) and event.item == "nano tg200":
            Child.latest._process.kill()

    kept: list[list[str]] = []
    made = measure(
        [doomed, replace(job, tests=job.tests[:2])],
        Run(listen=deadly),
        keep=lambda rows: kept.append([r.test for r in rows]),
    )
    [failure] = made.failures
    assert (failure.model, failure.exit_code) == ("nano", 1)
    assert failure.why == "the system killed the process, probably because memory ran out"
    assert kept[0][0] == "pp8" and kept[1] == ["pp8", "tg4"]
    assert [r.test for r in made.rows][-2:] == ["pp8", "tg4"] and not made.interrupted


def test_a_model_that_cannot_be_opened_is_told(nano_path: Path, tmp_path: Path) -> None:
    job = job_of(nano_path)
    missing = replace(job, model=replace(job.model, path=tmp_path / "gone.gguf"))
    made = measure([missing], Run())
    [failure] = made.failures
    assert failure.model == "nano" and "gone.gguf" in failure.why and made.rows == ()


def test_ctrl_c_keeps_what_is_measured(nano_path: Path) -> None:
    stop = Stop()

    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.item == "nano tg200":
            stop.set()

    job = job_of(nano_path)
    long = replace(job, tests=(job.tests[0], *[bench.Test("decode", generated=200)] * 50))
    kept: list[str] = []
    made = measure([long, job], Run(stop, interrupt), keep=lambda rows: kept.extend(r.test for r in rows))
    assert made.interrupted and made.failures == ()
    assert made.rows[0].test == "pp8" and made.rows[0].figures["tokens_per_second"].count == 2
    assert "load" not in kept and kept == [r.test for r in made.rows]


def test_nothing_of_the_user_s_folder_is_imported(
    nano_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "random.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    job = job_of(nano_path)
    assert measure([replace(job, tests=job.tests[:1])], Run()).failures == ()


COMMAND = ["bench", "speed", "nano", "-p", "8", "-n", "4", "--vote", "2", "-t", "1", "-r", "2"]


def test_the_command_and_its_files(tmp_path: Path) -> None:
    files = [word for name in ("csv", "rows", "markdown") for word in (f"--{name}", str(tmp_path / name))]
    done = CliRunner().invoke(app, [*COMMAND, "--json", *files])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["schema"], said["failed"], said["interrupted"]) == ("dsr.bench.speed/1", [], False)
    first = said["rows"][0]
    assert (first["model"], first["test"], first["count"]) == ("nano", "pp8", 2)
    assert first["tokens_per_second"] > 0 and first["stddev"] >= 0
    assert first["parameters"]["threads"] == 1 and first["conditions"]["engine"] == "0.3.36"
    tests = ["pp8", "tg4", "votes 2", "ttft8", "memory", "load"]
    assert [each["test"] for each in said["rows"]] == tests
    assert [json.loads(line) for line in (tmp_path / "rows").read_text().splitlines()] == said["rows"]
    table = list(csv.DictReader((tmp_path / "csv").read_text().splitlines()))
    assert [each["test"] for each in table] == tests
    assert table[0]["memory"].isdecimal() and table[4]["bytes"] == str(said["rows"][4]["bytes"])
    assert "| nano | 12.5 MiB | 1 | f16 | pp8 | " in (tmp_path / "markdown").read_text()
    with Measurements(paths.measurements_file()) as store:
        assert [kept.row.test for kept in store.list()] == tests[::-1]


def test_without_a_log_nothing_is_kept() -> None:
    done = CliRunner().invoke(app, [*COMMAND, "--no-log", "--quiet"])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[0].startswith("nano\tpp8\t")
    assert not paths.measurements_file().exists()


def test_rows_that_cannot_be_kept_are_shown_all_the_same() -> None:
    paths.measurements_file().mkdir(parents=True)
    done = CliRunner().invoke(app, [*COMMAND, "--quiet"])
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 6
    assert "not saved for dsr bench history" in " ".join(done.stderr.split())


def test_what_fails_ends_the_command_with_its_code(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = bench.SpeedBench((), (bench.SpeedFailure("nano", "no memory", 5),), interrupted=False)
    monkeypatch.setattr(bench, "measure", lambda *_, **__: failed)
    done = CliRunner().invoke(app, [*COMMAND, "--json"])
    assert done.exit_code == 5 and "nano was not measured to the end: no memory" in done.stderr
    assert json.loads(done.stdout)["failed"] == [{"model": "nano", "why": "no memory"}]


def test_ctrl_c_ends_the_command_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = bench.SpeedBench((row("pp8", {"tokens_per_second": Figure(5.0)}),), (), interrupted=True)
    monkeypatch.setattr(bench, "measure", lambda *_, **__: stopped)
    done = CliRunner().invoke(app, COMMAND)
    assert done.exit_code == 130 and "stopped; the measurements so far are saved" in done.stderr
    assert done.stdout.splitlines()[1].split() == ["pp8", "5.0", "t/s"]


def test_bad_ranges_end_before_anything_is_measured() -> None:
    for words, told in ((["--pp", "4-1"], "goes backwards"), (["--depth", "99999"], "the model's context has 2048")):
        done = CliRunner().invoke(app, ["bench", "speed", "nano", *words])
        assert done.exit_code == 2 and told in " ".join(done.stderr.split())


def test_a_table_shows_what_a_model_read_from_the_disk() -> None:
    figures = {"disk_in_memory": 0.43, "disk_bytes_per_token": 151 << 20, "disk_waiting": 0.61}
    rows = [row("tg128", {"tokens_per_second": Figure(4.8), **{name: Figure(each) for name, each in figures.items()}})]
    made = tables.table(rows)
    assert made.headings[-3:] == ("in memory", "read/token", "waiting")
    assert made.rows[0][-3:] == ("43%", "151.0 MiB", "61%")
    assert "in memory: the share of the needed experts" in tables.legend(rows)


def test_a_table_shows_what_tells_rows_apart() -> None:
    rows = [
        row("pp512", {"tokens_per_second": Figure(1234.5, 10.0, 4), "joules_per_token": Figure(0.01)}),
        row("load", {"seconds": Figure(0.0123, 0.001, 4)}),
        row("memory", {"bytes": Figure(1 << 20), "predicted_bytes": Figure(2 << 20)}, parameters={"threads": 2}),
    ]
    made = tables.table(rows)
    assert made.headings == ("threads", "KV", "test", "measured", "±", " ", "predicted", "tokens/J")
    assert made.rows == (
        ("1", "f16", "pp512", "1234", "20.0", "t/s", "", "100.0"),
        ("1", "f16", "load", "0.012", "0.002", "s", "", ""),
        ("2", "", "memory", "1.00 MiB", "", "", "2.00 MiB", ""),
    )
    assert "in memory" not in tables.legend(rows)
    assert tables.table(rows[:2]).headings[0] == "test"
    full = tables.table(rows[:1], full=True)
    assert full.rows[0][:4] == ("nano", "12.4 MiB", "1", "f16")


def test_what_disturbed_is_told_once_by_the_worst() -> None:
    calm = row("pp512", {"tokens_per_second": Figure(1.0)})
    loud = [
        replace(calm, test=test, conditions=replace(HERE, load=load, disturbed=str(load)))
        for test, load in (("a", 0.2), ("b", 0.7))
    ]
    assert tables.warnings([calm]) == []
    assert tables.warnings([calm, *loud]) == ["2 of 3 rows are doubtful; the worst is b: 0.7"]
