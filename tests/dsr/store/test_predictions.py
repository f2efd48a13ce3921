"""What a run was predicted to be, what it was, and what that teaches."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import runtime.machine.host
import runtime.machine.measure
import runtime.nodes.client
from dsr.chat.conversation import Conversation
from dsr.chat.show_answer import show_answer
from dsr.chat.summary import as_json
from dsr.chat.tools.rounds import Round
from dsr.loading import machine as this_machine
from dsr.loading.load import load
from dsr.loading.options import LoadOptions
from dsr.loading.predict import Predictor, waves
from dsr.plan.decide import decide
from dsr.plan.runnable import runnable_models
from dsr.store import paths, predictions
from dsr.store.predictions import Correction, Figures, PredictedRun
from dsr.ui.console import Console
from runtime.base.run import Run, Stop
from runtime.base.types import Completion, SamplingParams
from runtime.gguf.reader import read_card
from runtime.machine.machine import Device, Link, Machine
from runtime.placement.memory import need
from runtime.strategies.strategy import find
from tests.dsr.chat.chatting import open_model, stop_after
from tests.dsr.plan.planning import MIB, NANO, a_machine, cpu, gpu, nano


def forecast(**fields: Any) -> Predictor:
    card = read_card(NANO.path)
    return Predictor(card, a_machine(**fields), 2048, 8, "f16", 100 * MIB)


def completion(sample: int, tokens: int, slots: int = 1) -> Completion:
    return Completion(sample, "", "", (1,) * tokens, 0, "stop", 1.0, slots)


def test_a_sample_that_goes_on_alone_is_as_slow_as_one() -> None:
    expected = forecast()
    together, alone = expected.seconds([50, 50], 10), expected.seconds([100], 10)
    assert expected.seconds([50, 100], 10) == pytest.approx(together + alone / 2, rel=0.05)
    assert together < alone


def test_samples_of_one_wave_are_told_by_how_many_were_drawn_together() -> None:
    drawn = [completion(n, 40, 3) for n in range(3)] + [completion(3, 40, 1)]
    assert [[each.sample for each in wave] for wave in waves(drawn)] == [[0, 1, 2], [3]]
    assert waves([completion(0, 40, 2), completion(1, 40, 2), completion(2, 40, 2)]) == []


def test_a_run_is_compared_with_what_was_expected() -> None:
    run = forecast().compared("nano", [completion(0, 100)], 20, 0.5)
    assert run is not None
    assert run.measured.tokens_per_second == 200
    assert run.predicted.tokens_per_second == pytest.approx(100 / forecast().seconds([100], 20))
    assert run.predicted.memory == 100 * MIB
    assert run.measured.memory > 10 * MIB
    assert forecast().compared("nano", [completion(0, 31)], 20, 0.5) is None
    assert forecast().compared("nano", [], 20, 0.5) is None


def a_run(number: int = 0, predicted: float = 110.0, memory: int = 98, **changes: Any) -> PredictedRun:
    figures = Figures(predicted, memory), Figures(100.0, 100)
    return replace(PredictedRun(float(number), "nano", 2048, 1, "f16", *figures, predicted, 2, "here"), **changes)


def test_runs_are_kept_the_oldest_go_first_and_broken_lines_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "MOST_RUNS", 9)
    file = tmp_path / "state" / "predictions.jsonl"
    assert predictions.load(file) == ()
    predictions.add(file, a_run())
    with file.open("a") as lines:
        lines.write('{"at": 1}\nnot json\n[]\n')
        lines.write("[" * 100_000 + "\n")
        whole = json.loads(file.read_text().splitlines()[0])
        whole["measured"]["memory"] = 10**400
        lines.write(json.dumps(whole) + "\n")
    predictions.add(file, a_run(1))
    assert predictions.load(file) == (a_run(), a_run(1))
    for number in range(2, predictions.MOST_RUNS + 2):
        predictions.add(file, a_run(number))
    kept = predictions.load(file)
    assert (len(kept), kept[0].at, kept[-1].at) == (predictions.MOST_RUNS, 2.0, float(predictions.MOST_RUNS + 1))


def _add_many(path: Path, first: int) -> None:
    for number in range(first, first + 20):
        predictions.add(path, a_run(number))


def test_processes_that_add_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(path, first)) for first in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(run.at for run in predictions.load(path)) == [*range(20), *range(100, 120)]
    assert [each.name for each in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    predictions.add(tmp_path / "file" / "predictions.jsonl", a_run())


def test_errors_are_told_in_a_line() -> None:
    assert predictions.describe([]) is None
    assert predictions.describe([a_run()]) == "speed off by 10%, memory by 2% (1 run)"
    runs = [a_run(0, 110), a_run(1, 80, 104), a_run(2, 102, 100)]
    assert predictions.describe(runs) == ("speed off by 10%, memory by 2% (median of 3 runs; at most 20% and 4%)")


# What past runs teach


def reached(ratio: float, count: int = 1, **changes: Any) -> list[PredictedRun]:
    return [a_run(uncorrected=100 / ratio, **changes)] * count


def learnt(runs: list[PredictedRun], model: str = "nano", samples: int = 1) -> float:
    return predictions.correction(runs, "here", 2, model, samples).factor


def test_without_runs_nothing_is_corrected() -> None:
    assert predictions.correction([], "here", 2, "nano") == Correction()
    assert Correction().describe() == ""


def test_a_few_runs_move_little_and_many_most_of_the_way() -> None:
    factors = [learnt(reached(0.5, count, model="other")) for count in (1, 2, 5, 12)]
    assert factors == [pytest.approx(each, abs=0.001) for each in (0.794, 0.707, 0.610, 0.552)]
    factors = [learnt(reached(0.5, count)) for count in (1, 2, 5, 12)]
    assert factors == [pytest.approx(each, abs=0.001) for each in (0.614, 0.545, 0.508, 0.501)]


def test_runs_of_the_same_kind_count_more_than_others() -> None:
    mixed = reached(0.5, 5, model="other") + reached(1.0, 5)
    assert learnt(mixed, "other") < 0.65 < 0.8 < learnt(mixed) < 1
    assert learnt(reached(0.5, 5, samples=8), samples=8) < learnt(reached(0.5, 5, samples=8), samples=1)


def test_one_run_at_a_bad_moment_is_not_believed() -> None:
    assert learnt(reached(0.001)) == learnt(reached(0.25))
    assert learnt([*reached(1.0, 4), *reached(0.001)]) == 1.0


def test_the_latest_runs_count() -> None:
    assert learnt(reached(0.5, 30) + reached(1.0, 12)) == 1.0


@pytest.mark.parametrize("changes", [{"probe": "there"}, {"threads": 1}], ids=["another probe", "other threads"])
def test_runs_under_other_circumstances_teach_nothing(changes: dict[str, Any]) -> None:
    assert learnt(reached(0.5, 5, **changes)) == 1.0
    assert predictions.correction(reached(0.5, 5, probe=""), "", 2, "nano") == Correction()


def test_disturbed_runs_weigh_nothing() -> None:
    assert learnt(reached(0.5, 5, disturbed="other work took 25% of the processor")) == 1.0
    assert predictions.describe([a_run(disturbed="heat"), a_run(0, 120)]) == "speed off by 20%, memory by 2% (1 run)"
    assert predictions.describe([a_run(disturbed="heat")]) is None


@pytest.mark.parametrize(("weights", "factor"), [(500, 0.610), (1000, 0.610), (2000, 0.610), (2001, 1.0), (499, 1.0)])
def test_models_of_another_size_teach_nothing(weights: int, factor: float) -> None:
    runs = reached(0.5, 5, model="other", weights=1000)
    assert predictions.correction(runs, "here", 2, "nano", 1, weights).factor == pytest.approx(factor, abs=0.001)


def test_old_runs_without_a_size_teach_their_own_model_alone() -> None:
    runs = reached(0.5, 5)
    assert predictions.correction(runs, "here", 2, "nano", 1, 1000).factor == pytest.approx(0.508, abs=0.001)
    assert predictions.correction(runs, "here", 2, "other", 1, 1000).factor == 1.0


@given(st.lists(st.floats(1e-3, 1e3), max_size=30))
def test_a_correction_stays_within_what_the_runs_were(ratios: list[float]) -> None:
    runs = [run for ratio in ratios for run in reached(ratio)]
    assert min([1.0, *ratios]) * 0.999 <= learnt(runs) <= max([1.0, *ratios]) * 1.001


def test_what_was_learnt_is_said() -> None:
    assert predictions.correction(reached(0.5), "here", 2).describe() == (
        "1 run here reached 0.50 of the uncorrected speed; corrected by 0.79"
    )
    mixed = reached(0.5, 3, model="other") + reached(0.8, 2)
    assert predictions.correction(mixed, "here", 2, "nano", 1).describe() == (
        "5 runs here reached 0.50 of the uncorrected speed (0.80 in 2 like this one); corrected by 0.75"
    )


def test_lines_of_before_there_were_corrections_are_read(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    predictions.add(file, a_run())
    line = json.loads(file.read_text())
    for name in ("uncorrected", "threads", "probe"):
        del line[name]
    file.write_text(json.dumps(line))
    assert predictions.load(file) == (a_run(threads=0, probe=""),)
    for nonsense in ({"uncorrected": float("nan")}, {"threads": "many"}, {"uncorrected": 0}):
        file.write_text(json.dumps(line | nonsense))
        assert predictions.load(file) == ()


def taught(ratio: float = 0.5) -> tuple[Machine, list[PredictedRun]]:
    return replace(measured_here(2), probe="here"), reached(ratio, 12)


def test_a_plan_counts_in_what_was_learnt_and_says_so() -> None:
    machine, past = taught()
    naive, plan = decide(nano(), machine, LoadOptions()), decide(nano(), machine, LoadOptions(), past=past)
    factor = plan.correction.factor
    assert factor == pytest.approx(0.501, abs=0.001)
    assert plan.placement.tokens_per_second == pytest.approx(naive.placement.tokens_per_second * factor)
    assert plan.full_tokens_per_second == pytest.approx(naive.full_tokens_per_second * factor)
    assert plan.first_token_seconds == pytest.approx(naive.first_token_seconds / factor)
    assert plan.reasons[-1] == "12 runs here reached 0.50 of the uncorrected speed; corrected by 0.50"
    assert plan.json()["correction"] == {
        "factor": factor, "runs": 12, "ratio": 0.5, "alike": 12, "alike_ratio": 0.5
    }  # fmt: skip
    assert plan.json()["reasons"] == list(plan.reasons)
    assert naive.json()["correction"] is None
    assert naive.reasons == (
        *naive.placement.reasons,
        "dsr serve keeps up to 4.50 MiB of idle texts in addition",
    )


def test_what_would_run_is_corrected_as_well() -> None:
    machine, past = taught()
    before, after = (runnable_models(machine, LoadOptions(), (), past=runs)[0][0] for runs in ([], past))
    assert after.tokens_per_second == pytest.approx(before.tokens_per_second * 0.501, rel=0.001)


def test_where_a_graphics_card_takes_part_the_runs_of_the_processor_teach_nothing() -> None:
    machine, past = taught()
    plan = decide(nano(), replace(machine, devices=(*machine.devices, gpu()), links=()), LoadOptions(), past=past)
    assert plan.correction == Correction()


def test_a_plan_says_which_speeds_nobody_measured() -> None:
    def guessed(device: Device, **changes: Any) -> Device:
        return replace(device, speed=replace(device.speed, assumed=True), **changes)

    plan = decide(nano(), a_machine(cpu(bandwidth=1e8), guessed(gpu())), LoadOptions())
    assert plan.reasons[-1] == "the speeds of CUDA0 and of the link to it are assumed from its name, not measured"
    assert {each["name"]: each["assumed"] for each in plan.json()["devices"]} == {"CPU": False, "CUDA0": True}
    lent = guessed(gpu(), kind="cpu", node="10.0.0.7:50052")
    machine = Machine("test", (cpu(bandwidth=1e8), lent), (Link(lent.node, 1e-5, 1e10),))
    assert decide(nano(), machine, LoadOptions()).reasons[-1] == (
        "the speed of 10.0.0.7:50052 is assumed, not measured"
    )
    measured = decide(nano(), a_machine(cpu(bandwidth=1e8), gpu()), LoadOptions())
    assert not any("assumed" in each for each in measured.reasons)


def test_an_answer_teaches_the_next_forecast() -> None:
    machine, past = taught()
    expected = replace(forecast(), machine=machine)
    first = expected.compared("nano", [completion(0, 100)], 20, 0.5)
    assert first is not None
    assert first.predicted.tokens_per_second == first.uncorrected
    assert (first.threads, first.probe) == (2, "here")
    for run in past:
        predictions.add(paths.predictions_file(), run)
    second = expected.compared("nano", [completion(0, 100)], 20, 0.5)
    assert second is not None
    assert second.uncorrected == first.uncorrected
    assert second.predicted.tokens_per_second == pytest.approx(0.501 * first.uncorrected, rel=0.001)


def measured_here(threads: int, *more: Device) -> Machine:
    return a_machine(replace(cpu(), speed=replace(cpu().speed, threads=threads)), *more)


@pytest.mark.parametrize(
    ("machine", "draft", "known"),
    [
        (measured_here(1), None, True),
        (measured_here(2), None, False),
        (measured_here(1, gpu()), None, False),
        (None, None, False),
        (measured_here(1), "ngram", False),
    ],
    ids=["measured", "other threads", "more than a processor", "not measured", "drafts"],
)
def test_speed_is_predicted_only_where_it_was_measured(
    machine: Machine | None, draft: str | None, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_machine, "cached_machine", lambda *_, **__: machine)
    with load(NANO, LoadOptions(context=512, slots=2, draft=draft), Run(threads=1)) as model:
        assert (model.predictor is not None) is known
        if model.predictor is not None:
            assert (model.predictor.context, model.predictor.slots) == (512, 2)
            assert need(model.card, 512, 2).total <= model.predictor.memory < need(model.card, 512, 2).total + 20 * MIB


def test_figures_are_kept_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, list[float]]] = []

    def measure_machine(*_: object, figures: dict[str, list[float]], **__: object) -> Machine:
        asked.append(dict(figures))
        if not figures.get("speed"):
            figures["speed"] = [1.0]
        return a_machine()

    monkeypatch.setattr(runtime.machine.measure, "measure_machine", measure_machine)
    host = runtime.machine.host.probe()
    assert this_machine.cached_machine(host, None, 0) is None
    assert this_machine.measured_machine(host, None, 0) == a_machine()
    assert this_machine.cached_machine(host, None, 0) == a_machine()
    assert this_machine.cached_machine(host, None, 1) is None
    this_machine.measured_machine(host, None, 0, again=True)
    assert asked[1] == asked[-1] == {}
    (paths.cache_folder() / "speeds.json").write_text("[not json")
    assert this_machine.cached_machine(host, None, 0) is None


def foretold(reply: str, **parts: Any) -> Conversation:
    return Conversation(loaded=replace(open_model(reply, **parts), predictor=forecast()), params=SamplingParams())


def test_an_answer_is_told_and_kept_with_what_was_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    talk = foretold("A long answer, byte by byte, which is a token each.")
    talk.options.stats = True
    reply = show_answer(talk, talk.ask("x"), Console(), Stop())
    [run] = predictions.load(paths.predictions_file())
    assert reply.run == run
    assert (run.model, run.samples) == ("fake:1b", 1)
    assert f"predicted {run.predicted.tokens_per_second:.1f}, measured " in capsys.readouterr().err
    assert as_json(talk, [Round(reply)])["prediction"] == {
        "predicted": {"tokens_per_second": run.predicted.tokens_per_second, "memory": 100 * MIB},
        "measured": {"tokens_per_second": run.measured.tokens_per_second, "memory": run.measured.memory},
        "uncorrected": run.uncorrected,
    }


def test_a_vote_is_compared_sample_by_sample_and_search_is_not() -> None:
    talk = foretold("The answer is \\boxed{7}, and that is certain.", slots=4)
    talk.options.strategy = find("vote").configured(["n=4", "stop=none"])
    list(talk.ask("x"))
    assert talk.last is not None
    assert talk.last.run is not None
    assert talk.last.run.samples == 4
    talk.options.strategy = find("rounds").configured(["n=2"])
    list(talk.ask("x"))
    assert talk.last.run is None


def test_what_was_stopped_or_is_too_short_is_not_compared() -> None:
    talk = foretold("Short.")
    list(talk.ask("x"))
    assert talk.last is not None
    assert talk.last.run is None
    talk = foretold("A long answer, byte by byte, which is a token each.")
    stop_after(talk, 40)
    list(talk.ask("x"))
    assert talk.last is not None
    assert talk.last.stopped
    assert talk.last.run is None
