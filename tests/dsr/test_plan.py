"""`dsr plan`: where a model goes, what is said about it, and what would run at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import runtime.hardware
import runtime.probing
import runtime.rpc
from dsr import library, paths, predictions
from dsr.catalog import load
from dsr.cli import app
from dsr.console import Console
from dsr.gguf_names import QuantChoice
from dsr.http import Patience
from dsr.hub import Hub
from dsr.predictions import Correction, Figures, Run
from dsr.services import opening
from dsr.services.chat import Conversation, Manner
from dsr.services.plan import machine as this_machine
from dsr.services.plan import subject, words
from dsr.services.plan.deciding import PlanRequest, decide
from dsr.services.plan.forecast import Forecast, waves
from dsr.services.plan.machine import described
from dsr.services.plan.nodes import with_nodes
from dsr.services.plan.sketch import mixtures, sketched
from dsr.services.plan.subject import Subject, from_catalogue
from dsr.services.plan.survey import survey
from dsr.services.report import as_json
from dsr.services.strategies import chosen
from dsr.services.telling import tell
from runtime.backend import Stop
from runtime.errors import BadModelFile, DoesNotFit, NetworkError, NotFound, UsageError
from runtime.gguf import read_card
from runtime.memory import need
from runtime.nodes import Address
from runtime.rpc import LentDevice, Node
from runtime.site import Device, Link, Site, Speed, free_for
from runtime.types import ByteCount, Completion, SamplingParams
from tests.dsr.chatting import open_model, stop_after
from tests.gguf_writer import header, llama_metadata, llama_tensors, moe_metadata, moe_tensors, write
from tests.hub_server import HubServer

MIB, GIB = 1 << 20, 1 << 30
NANO = library.find("nano")


def cpu(memory: int = 16 * GIB, bandwidth: float = 20e9) -> Device:
    return Device("CPU", "cpu", memory, memory, Speed(bandwidth, {}, {}, per_layer=1e-5))


def gpu(memory: int = 8 * GIB) -> Device:
    return Device("CUDA0", "gpu", memory, memory, Speed(400e9, {}, {}, per_layer=1e-5))


def a_site(*devices: Device, **fields: Any) -> Site:
    links = (Link("CUDA0", 1e-5, 1e10),) if len(devices) > 1 else ()
    return Site("test", devices or (cpu(),), links, disk_read=fields.pop("disk_read", 1e9), **fields)


def nano() -> Subject:
    return Subject("nano", "nano", "Q8_0", read_card(NANO.path))


def tiny(tmp_path: Path, **metadata: Any) -> Subject:
    path = write(tmp_path / "tiny-F32.gguf", llama_metadata(**metadata), llama_tensors())
    return Subject(str(path), "Tiny", "F32", read_card(path))


# Deciding


def test_on_one_processor_everything_is_there_and_the_context_is_the_models_own() -> None:
    plan = decide(nano(), a_site(), PlanRequest())
    [held] = plan.holdings
    assert (held.name, held.layers, held.experts, held.head, held.share) == ("CPU", (0, 1, 2, 3), (1, 2, 3), True, 1.0)
    assert plan.placement.wanted.context == 2048
    assert held.weights + held.expert_weights == 13_053_120
    assert held.expert_weights == 10_027_008
    assert held.kv_cache == need(nano().card, 2048).kv_cache
    assert plan.memory == need(nano().card, 2048).total


def test_where_memory_is_short_the_context_is_what_fits() -> None:
    total = need(nano().card, 2048).total
    plan = decide(nano(), a_site(cpu(total)), PlanRequest())
    assert 256 <= plan.placement.wanted.context < 2048
    assert plan.memory <= total


def test_a_machine_with_more_than_a_processor_is_not_filled_with_cache() -> None:
    long = from_catalogue(next(e for e in load().entries if e.name == "deepseek-r1:7b"), "Q4_K_M")
    assert long.card.context_length == 131072
    assert decide(long, a_site(cpu(64 * GIB)), PlanRequest()).placement.wanted.context == 131072
    assert decide(long, a_site(cpu(64 * GIB), gpu(24 * GIB)), PlanRequest()).placement.wanted.context == 32768
    assert decide(long, a_site(cpu(64 * GIB), gpu()), PlanRequest(100_000)).placement.wanted.context == 100_000


def test_a_graphics_card_takes_what_fits_and_the_shares_of_time_are_a_whole() -> None:
    plan = decide(nano(), a_site(cpu(), gpu()), PlanRequest())
    assert {each.name for each in plan.holdings} == {"CPU", "CUDA0"}
    assert sum(each.share for each in plan.holdings) == pytest.approx(1)
    assert sorted(layer for each in plan.holdings for layer in each.layers) == [0, 1, 2, 3]


def test_votes_share_one_context_with_room_for_each() -> None:
    plan = decide(nano(), a_site(), PlanRequest(samples=8))
    assert plan.placement.wanted.context == 8 * 2048
    assert plan.placement.tokens_per_second > decide(nano(), a_site(), PlanRequest()).placement.tokens_per_second


def test_a_long_context_is_slower_when_it_is_full() -> None:
    slow_attention = replace(cpu(), speed=Speed(20e9, {}, {}, attention={"F16": 1e8}))
    plan = decide(nano(), a_site(slow_attention), PlanRequest())
    assert plan.full_tokens_per_second < plan.placement.tokens_per_second
    assert "when the context is full" in words.speed_in_words(plan)


def test_a_smaller_cache_is_offered_where_it_is_faster() -> None:
    model = from_catalogue(next(e for e in load().entries if e.name == "qwen3:8b"), "Q4_K_M")
    plan = decide(model, a_site(cpu(64 * GIB), gpu(8 * GIB)), PlanRequest(32768))
    assert any(text.startswith("--kv-type q8_0: ") for text in plan.alternatives)
    assert any(text.startswith("--ctx-size 8192: ") for text in plan.alternatives)
    same = replace(cpu(), speed=Speed(20e9, {}, {}, attention={"F16": 1e10, "Q8_0": 1e10}))
    assert not any("--kv-type" in text for text in decide(nano(), a_site(same), PlanRequest()).alternatives)


def test_what_does_not_fit_says_by_how_much_and_what_would() -> None:
    model = from_catalogue(next(e for e in load().entries if e.name == "deepseek-r1:32b"), "Q4_K_M")
    with pytest.raises(DoesNotFit, match=r"^DeepSeek-R1-Distill-Qwen-32B: .* is missing") as caught:
        decide(model, a_site(cpu(7 * GIB)), PlanRequest(8192))
    assert caught.value.missing == pytest.approx(need(model.card, 8192).total - 6.3 * GIB, rel=0.01)
    assert caught.value.hint is not None
    assert "dsr plan deepseek-r1-0528:8b should fit: DeepSeek-R1-0528-Qwen3-8B (a distill of" in caught.value.hint


def test_a_smaller_quantization_of_the_same_repository_is_named_first() -> None:
    small, large = nano(), nano()
    choices = tuple(QuantChoice(q, (f"{q}.gguf",), ByteCount(n * MIB)) for q, n in (("Q2_K", 4), ("Q4_K_M", 7)))
    total = need(small.card, 512).total
    with pytest.raises(DoesNotFit) as caught:
        decide(replace(large, choices=choices), a_site(cpu(free_for(total - 2 * MIB))), PlanRequest(512))
    assert caught.value.hint is not None
    assert "Q4_K_M of the same model, 7.00 MiB, should fit" in caught.value.hint


def test_a_larger_model_is_no_way_out() -> None:
    with pytest.raises(DoesNotFit) as caught:
        decide(nano(), a_site(), PlanRequest(9_999_999))
    assert caught.value.hint is not None
    assert "should fit" not in caught.value.hint


# The model


@pytest.fixture
def server() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add("org/nano", {"nano-Q8_0.gguf": NANO.path.read_bytes(), "nano-Q2_K.gguf": NANO.path.read_bytes()})
        yield hub


@pytest.fixture
def hub(server: HubServer, tmp_path: Path) -> Hub:
    return Hub(server.url, tmp_path / "hub", patience=Patience(tries=1, stall_seconds=0.5, sleep=lambda seconds: None))


def test_a_model_on_the_hub_is_planned_from_its_header_and_nothing_is_kept(hub: Hub, tmp_path: Path) -> None:
    found = subject.find("org/nano:Q2_K", hub, 8 * GIB)
    assert (found.reference, found.quant, found.card.layers) == ("org/nano:Q2_K", "Q2_K", 4)
    assert found.origin == "its header on the hub (org/nano); nothing was downloaded"
    assert [choice.quant for choice in found.choices] == ["Q2_K", "Q8_0"]
    assert not (tmp_path / "hub").exists()


def test_without_a_quantization_it_is_the_largest_that_fits_or_else_the_smallest(hub: Hub) -> None:
    assert subject.find("org/nano", hub, 8 * GIB).quant == "Q8_0"
    assert subject.find("org/nano", hub, 1 * MIB).quant == "Q2_K"


def test_without_the_hub_the_catalogue_has_to_do_and_that_is_said(tmp_path: Path) -> None:
    said: list[Any] = []
    nowhere = Hub("http://127.0.0.1:9", tmp_path, offline=True)
    found = subject.find("qwen3:8b:Q8_0", nowhere, 8 * GIB, said.append)
    assert found.origin == "the catalogue's figures, not the model's header: take it as an estimate"
    assert found.card.weights_size == pytest.approx(8.2e9 * 8.5 / 8, rel=0.01)
    assert "HF_HUB_OFFLINE" in said[0].text
    assert subject.find("gpt-oss:20b", nowhere, 8 * GIB).quant == "MXFP4"
    assert [subject.find("qwen3:8b", nowhere, int(free * GIB)).quant for free in (1, 5.2, 64)] == [
        "Q2_K",
        "Q3_K_M",
        "Q4_K_M",
    ]
    with pytest.raises(NetworkError):
        subject.find("some/repository", nowhere, 8 * GIB)
    with pytest.raises(NotFound, match="what Q4_0 would weigh can only be read on the hub"):
        subject.find("qwen3:8b:Q4_0", nowhere, 8 * GIB)


def test_a_file_of_which_only_the_header_is_here_can_be_planned(tmp_path: Path, hub: Hub) -> None:
    path = tmp_path / "cut-Q8_0.gguf"
    path.write_bytes(header(llama_metadata(), llama_tensors()))
    found = subject.find(str(path), hub, GIB)
    assert found.origin == "the file's header: its weights are not here"
    assert found.card.size == found.card.weights_size
    path.write_bytes(NANO.path.read_bytes()[:1000])
    with pytest.raises(BadModelFile):
        subject.find(str(path), hub, GIB)


@pytest.mark.parametrize("entry", load().entries, ids=lambda entry: entry.name)
def test_a_sketch_has_the_weights_that_the_catalogue_tells(entry: Any) -> None:
    for quant in mixtures(entry):
        card = sketched(entry, quant)
        assert card.parameters == pytest.approx(entry.parameters, rel=0.03)
        # Half of what a token meets is guessed to be routed; DeepSeek V2 Lite is off most.
        assert card.active_parameters == pytest.approx(entry.active_parameters, rel=0.25)
        assert need(card, 8192).total > card.weights_size


def test_a_sketch_weighs_about_what_published_files_do() -> None:
    """Qwen3-8B-Q4_K_M.gguf has 5.03 GB, gpt-oss-20b-mxfp4.gguf 12.1 GB, DeepSeek-R1-Q4_K_M 404 GB (their pages)."""
    sizes = {("qwen3:8b", "Q4_K_M"): 5.03e9, ("gpt-oss:20b", "MXFP4"): 12.1e9, ("deepseek-r1:671b", "Q4_K_M"): 404e9}
    for (name, quant), size in sizes.items():
        entry = next(e for e in load().entries if e.name == name)
        assert sketched(entry, quant).weights_size == pytest.approx(size, rel=0.05)


# What can I run?


def test_the_survey_ranks_what_fits_the_slow_last(monkeypatch: pytest.MonkeyPatch) -> None:
    here, catalogue = survey(a_site(cpu(free_for(12 * GIB))), PlanRequest())
    assert [row.name for row in here] == ["nano"]
    assert not here[0].estimated
    by_name = {row.name: row for row in catalogue}
    assert "deepseek-r1:671b" not in by_name
    assert by_name["qwen3:8b"].quant == "Q4_K_M"
    assert by_name["qwen3:8b"].larger == ("Q5_K_M", "Q6_K", "Q8_0")
    assert all(row.memory <= 12 * GIB and row.estimated for row in catalogue)
    fast = [row.tokens_per_second >= 5 for row in catalogue]
    assert fast == sorted(fast, reverse=True)
    parameters = [row.parameters for row, is_fast in zip(catalogue, fast, strict=True) if is_fast]
    assert parameters == sorted(parameters, reverse=True)


def test_where_the_usual_quantization_does_not_fit_a_smaller_one_is_named() -> None:
    _, catalogue = survey(a_site(cpu(free_for(15 * GIB))), PlanRequest(2048))
    by_name = {row.name: row for row in catalogue}
    assert by_name["deepseek-r1:32b"].quant in ("Q2_K", "Q3_K_M")


def test_where_nothing_fits_the_survey_is_empty() -> None:
    assert survey(a_site(cpu(8 * MIB)), PlanRequest()) == ((), ())


# Words


def test_layers_are_told_as_ranges() -> None:
    assert words.ranges((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert words.ranges(()) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0004, "0.4 ms"), (0.05, "50 ms"), (0.5, "0.5 s"), (89.6, "90 s"), (600, "10 min"), (9000, "2.5 h"),
     (400_000, "4.6 days")],
)  # fmt: skip
def test_times_are_told_in_the_unit_that_people_use(value: float, said: str) -> None:
    assert words.seconds(value) == said


def test_speeds_have_the_digits_that_a_prediction_deserves() -> None:
    assert [words.figure(value) for value in (0.0423, 0.8, 4.23, 42.4, 99.6, 424.0, 3942.0)] == [
        "0.042", "0.8", "4.2", "42", "100", "420", "3940",
    ]  # fmt: skip


def test_columns_of_experts_are_shown_only_where_there_are_experts(tmp_path: Path) -> None:
    header_of, [row], right, _ = words.table(decide(nano(), a_site(), PlanRequest()), None)
    assert header_of == ("DEVICE", "LAYERS", "WEIGHTS", "EXPERTS", "OF", "CACHE", "BUFFERS", "TIME")
    assert row[:5] == ("CPU", "0-3 head", "2.89 MiB", "9.56 MiB", "1-3")
    assert right == (2, 3, 4, 5, 6, 7)
    header_of, [row], _, _ = words.table(decide(tiny(tmp_path), a_site(), PlanRequest()), None)
    assert header_of == ("DEVICE", "LAYERS", "WEIGHTS", "CACHE", "BUFFERS", "TIME")


def test_a_context_beyond_the_training_is_noted() -> None:
    assert ("note", "the model was trained for 2048 tokens: beyond that it gets worse") in words.facts(
        decide(nano(), a_site(), PlanRequest(4096))
    )
    assert "note" not in dict(words.facts(decide(nano(), a_site(), PlanRequest(4096, samples=2))))


def test_without_the_disks_speed_nobody_knows_how_long_loading_takes() -> None:
    assert dict(words.facts(decide(nano(), a_site(), PlanRequest())))["loading"] == "13 ms"
    unknown = dict(words.facts(decide(nano(), a_site(disk_read=0.0), PlanRequest())))["loading"]
    assert unknown == "not known, as the disk's speed is not"


def test_where_the_terminal_is_narrow_devices_are_numbered() -> None:
    plan = decide(nano(), a_site(), PlanRequest())
    assert words.table(plan, 80)[3] == []
    _, [row], _, names = words.table(plan, 40)
    assert (row[0], names) == ("1", [("1", "CPU")])


# The command


@pytest.fixture
def machine_file(tmp_path: Path) -> Path:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(a_site(cpu(), gpu()).to_json()))
    return file


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["plan", *arguments])


def test_the_json_has_the_documented_keys(machine_file: Path) -> None:
    result = run("nano", "--machine", str(machine_file), "--json")
    assert result.exit_code == 0, result.output
    body = json.loads(result.stdout)
    assert (body["schema"], body["fits"], body["context"], body["kv_type"]) == ("dsr.plan/1", True, 2048, "f16")
    assert body["memory_bytes"] == sum(device["bytes"] for device in body["devices"])
    assert body["tokens_per_second"] > 0
    assert isinstance(body["binding"], str)
    assert all(isinstance(reason, str) for reason in body["reasons"])
    assert {"name", "layers", "experts", "bytes", "share"} <= set(body["devices"][0])
    assert "-c 2048" in body["flags"]


def test_for_people_it_is_a_table_with_reasons_and_flags(machine_file: Path) -> None:
    result = run("nano", "--machine", str(machine_file), "--votes", "4", "-c", "4096", "--kv-type", "q8_0")
    assert result.exit_code == 0
    out = result.stdout
    assert "with a context of 4096 tokens for 4 samples (q8_0 cache)" in out
    assert "DEVICE" in out
    assert "llama.cpp" in out
    assert "tokens/s of all 4 samples together" in out


def test_what_does_not_fit_exits_with_5_and_says_so_in_json_too(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(a_site(cpu(20 * MIB)).to_json()))
    result = run("nano", "--machine", str(file), "--json")
    assert result.exit_code == 5
    body = json.loads(result.stdout)
    assert (body["schema"], body["fits"]) == ("dsr.plan/1", False)
    assert body["missing_bytes"] > 0
    assert "is missing" in result.stderr
    assert run("nano", "--machine", str(file)).stdout == ""


def test_without_a_model_it_says_what_would_run(machine_file: Path) -> None:
    result = run("--machine", str(machine_file), "--json")
    body = json.loads(result.stdout)
    assert body["schema"] == "dsr.plan-catalog/1"
    assert body["here"][0]["name"] == "nano"
    assert {"name", "quant", "memory_bytes", "tokens_per_second", "larger_quants"} <= set(body["catalogue"][0])
    assert "qwen3:8b" in run("--machine", str(machine_file)).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nano", "--kv-type", "q9"), 2, "q9"),
        (("nosuchmodel",), 3, "no model is called 'nosuchmodel'"),
        (("nano", "--machine", "/no/such/file"), 3, "no such file"),
        (("nano", "--votes", "0"), 2, "--votes"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_machine_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot be read"):
        described(file)
    file.write_text("{}")
    with pytest.raises(UsageError, match="machine"):
        described(file)


def test_a_mixture_of_experts_keeps_its_experts_where_there_is_room(tmp_path: Path) -> None:
    path = write(tmp_path / "moe.gguf", moe_metadata(), moe_tensors())
    found = Subject(str(path), "MoE", None, read_card(path))
    plan = decide(found, a_site(), PlanRequest())
    assert plan.holdings[0].expert_weights == 3 * 64 * 32 * 4 * 4


def test_nodes_are_counted_as_they_are_now(monkeypatch: pytest.MonkeyPatch, machine_file: Path) -> None:
    def ask(address: Address, **_: object) -> Node:
        if address.port == 1:
            raise NetworkError(f"{address}: nobody listens")
        return Node(address, (7, 0, 0), (LentDevice(4 * GIB, 8 * GIB),), 1e-3, 1e9)

    monkeypatch.setattr(runtime.rpc, "ask", ask)
    site = with_nodes(a_site(), "10.0.0.7:50052")
    assert [(device.node, device.memory_free) for device in site.devices] == [
        ("", 16 * GIB),
        ("10.0.0.7:50052", 4 * GIB),
    ]
    assert "10.0.0.7:50052" in words.machine_in_words(site)
    assert words.machine_in_words(site).count("10.0.0.7:50052") == 1
    result = run("nano", "--machine", str(machine_file), "--nodes", "10.0.0.7:1")
    assert (result.exit_code, "nobody listens" in result.stderr) == (6, True)


# Predicted against measured


def forecast(**fields: Any) -> Forecast:
    card = read_card(NANO.path)
    return Forecast(card, a_site(**fields), 2048, 8, "f16", 100 * MIB)


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


def a_run(number: int = 0, predicted: float = 110.0, memory: int = 98, **changes: Any) -> Run:
    figures = Figures(predicted, memory), Figures(100.0, 100)
    return replace(Run(float(number), "nano", 2048, 1, "f16", *figures, predicted, 2, "here"), **changes)


def test_runs_are_kept_the_oldest_go_first_and_broken_lines_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "KEPT", 9)
    file = tmp_path / "state" / "predictions.jsonl"
    assert predictions.load(file) == ()
    predictions.keep(file, a_run())
    with file.open("a") as lines:
        lines.write('{"at": 1}\nnot json\n[]\n')
    predictions.keep(file, a_run(1))
    assert predictions.load(file) == (a_run(), a_run(1))
    for number in range(2, predictions.KEPT + 2):
        predictions.keep(file, a_run(number))
    kept = predictions.load(file)
    assert (len(kept), kept[0].at, kept[-1].at) == (predictions.KEPT, 2.0, float(predictions.KEPT + 1))


def test_a_place_that_cannot_be_written_is_no_reason_to_fail(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    predictions.keep(tmp_path / "file" / "predictions.jsonl", a_run())


def test_errors_are_told_in_a_line() -> None:
    assert predictions.in_words([]) is None
    assert predictions.in_words([a_run()]) == "of one run: speed off by 10%, memory by 2%"
    runs = [a_run(0, 110), a_run(1, 80, 104), a_run(2, 102, 100)]
    assert predictions.in_words(runs) == (
        "of 3 runs: speed off by 10%, memory by 2% in the middle; at most by 20% and 4%"
    )


# What past runs teach


def reached(ratio: float, count: int = 1, **changes: Any) -> list[Run]:
    return [a_run(uncorrected=100 / ratio, **changes)] * count


def learnt(runs: list[Run], model: str = "nano", samples: int = 1) -> float:
    return predictions.correction(runs, "here", 2, model, samples).factor


def test_without_runs_nothing_is_corrected() -> None:
    assert predictions.correction([], "here", 2, "nano") == Correction()
    assert Correction().in_words() == ""


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


@given(st.lists(st.floats(1e-3, 1e3), max_size=30))
def test_a_correction_stays_within_what_the_runs_were(ratios: list[float]) -> None:
    runs = [run for ratio in ratios for run in reached(ratio)]
    assert min([1.0, *ratios]) * 0.999 <= learnt(runs) <= max([1.0, *ratios]) * 1.001


def test_what_was_learnt_is_said() -> None:
    assert predictions.correction(reached(0.5), "here", 2).in_words() == (
        "1 run here was 0.50 of what the probes say; 0.79 is counted in"
    )
    mixed = reached(0.5, 3, model="other") + reached(0.8, 2)
    assert predictions.correction(mixed, "here", 2, "nano", 1).in_words() == (
        "5 runs here were 0.50 of what the probes say (0.80 in 2 like this one); 0.75 is counted in"
    )


def test_lines_of_before_there_were_corrections_are_read(tmp_path: Path) -> None:
    file = tmp_path / "predictions.jsonl"
    predictions.keep(file, a_run())
    line = json.loads(file.read_text())
    for name in ("uncorrected", "threads", "probe"):
        del line[name]
    file.write_text(json.dumps(line))
    assert predictions.load(file) == (a_run(threads=0, probe=""),)
    for nonsense in ({"uncorrected": float("nan")}, {"threads": "many"}, {"uncorrected": 0}):
        file.write_text(json.dumps(line | nonsense))
        assert predictions.load(file) == ()


def taught(ratio: float = 0.5) -> tuple[Site, list[Run]]:
    return replace(measured_here(2), probe="here"), reached(ratio, 12)


def test_a_plan_counts_in_what_was_learnt_and_says_so() -> None:
    site, past = taught()
    naive, plan = decide(nano(), site, PlanRequest()), decide(nano(), site, PlanRequest(), past=past)
    factor = plan.learnt.factor
    assert factor == pytest.approx(0.501, abs=0.001)
    assert plan.placement.tokens_per_second == pytest.approx(naive.placement.tokens_per_second * factor)
    assert plan.full_tokens_per_second == pytest.approx(naive.full_tokens_per_second * factor)
    assert plan.first_token_seconds == pytest.approx(naive.first_token_seconds / factor)
    assert plan.reasons[-1] == "12 runs here were 0.50 of what the probes say; 0.50 is counted in"
    assert plan.json()["correction"] == {
        "factor": factor, "runs": 12, "ratio": 0.5, "alike": 12, "alike_ratio": 0.5
    }  # fmt: skip
    assert plan.json()["reasons"] == list(plan.reasons)
    assert naive.json()["correction"] is None
    assert naive.reasons == naive.placement.reasons


def test_what_would_run_is_corrected_as_well() -> None:
    site, past = taught()
    before, after = (survey(site, PlanRequest(), (), past=runs)[0][0] for runs in ([], past))
    assert after.tokens_per_second == pytest.approx(before.tokens_per_second * 0.501, rel=0.001)


def test_where_a_graphics_card_takes_part_the_runs_of_the_processor_teach_nothing() -> None:
    site, past = taught()
    plan = decide(nano(), replace(site, devices=(*site.devices, gpu()), links=()), PlanRequest(), past=past)
    assert plan.learnt == Correction()


def test_a_plan_says_which_speeds_nobody_measured() -> None:
    def guessed(device: Device, **changes: Any) -> Device:
        return replace(device, speed=replace(device.speed, assumed=True), **changes)

    plan = decide(nano(), a_site(cpu(bandwidth=1e8), guessed(gpu())), PlanRequest())
    assert plan.reasons[-1] == "the speed of CUDA0 and of the link to it is assumed from its name, not measured"
    assert {each["name"]: each["assumed"] for each in plan.json()["devices"]} == {"CPU": False, "CUDA0": True}
    lent = guessed(gpu(), kind="cpu", node="10.0.0.7:50052")
    site = Site("test", (cpu(bandwidth=1e8), lent), (Link(lent.node, 1e-5, 1e10),))
    assert decide(nano(), site, PlanRequest()).reasons[-1] == ("the speed of 10.0.0.7:50052 is assumed, not measured")
    measured = decide(nano(), a_site(cpu(bandwidth=1e8), gpu()), PlanRequest())
    assert not any("assumed" in each for each in measured.reasons)


def test_an_answer_teaches_the_next_forecast() -> None:
    site, past = taught()
    expected = replace(forecast(), site=site)
    first = expected.compared("nano", [completion(0, 100)], 20, 0.5)
    assert first is not None
    assert first.predicted.tokens_per_second == first.uncorrected
    assert (first.threads, first.probe) == (2, "here")
    for run in past:
        predictions.keep(paths.predictions_file(), run)
    second = expected.compared("nano", [completion(0, 100)], 20, 0.5)
    assert second is not None
    assert second.uncorrected == first.uncorrected
    assert second.predicted.tokens_per_second == pytest.approx(0.501 * first.uncorrected, rel=0.001)


def measured_here(threads: int, *more: Device) -> Site:
    return a_site(replace(cpu(), speed=replace(cpu().speed, threads=threads)), *more)


@pytest.mark.parametrize(
    ("site", "draft", "known"),
    [
        (measured_here(1), None, True),
        (measured_here(2), None, False),
        (measured_here(1, gpu()), None, False),
        (None, None, False),
        (measured_here(1), "ngram", False),
    ],
    ids=["measured", "other threads", "more than a processor", "not measured", "drafts"],
)
def test_a_forecast_is_made_where_something_can_be_foretold(
    site: Site | None, draft: str | None, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(this_machine, "known", lambda *_: site)
    with opening.opened(NANO, opening.OpenRequest(context=512, threads=1, slots=2, draft=draft)) as model:
        assert (model.forecast is not None) is known
        if model.forecast is not None:
            assert (model.forecast.context, model.forecast.slots) == (512, 2)
            assert need(model.card, 512, 2).total <= model.forecast.memory < need(model.card, 512, 2).total + 20 * MIB


def test_figures_are_kept_and_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, list[float]]] = []

    def measure_site(*_: object, figures: dict[str, list[float]], **__: object) -> Site:
        asked.append(dict(figures))
        if not figures.get("speed"):
            figures["speed"] = [1.0]
        return a_site()

    monkeypatch.setattr(runtime.probing, "measure_site", measure_site)
    machine = runtime.hardware.probe()
    assert this_machine.known(machine, None, 0) is None
    assert this_machine.measured(machine, None, 0) == a_site()
    assert this_machine.known(machine, None, 0) == a_site()
    assert this_machine.known(machine, None, 1) is None
    this_machine.measured(machine, None, 0, again=True)
    assert asked[1] == asked[-1] == {}
    (paths.cache_folder() / "speeds.json").write_text("[not json")
    assert this_machine.known(machine, None, 0) is None


def foretold(reply: str, **parts: Any) -> Conversation:
    return Conversation(model=replace(open_model(reply, **parts), forecast=forecast()), params=SamplingParams())


def test_an_answer_is_told_and_kept_with_what_was_predicted(capsys: pytest.CaptureFixture[str]) -> None:
    talk = foretold("A long answer, byte by byte, which is a token each.")
    reply = tell(talk, talk.ask("x"), Console(), Stop(), Manner(stats=True))
    [run] = predictions.load(paths.predictions_file())
    assert reply.run == run
    assert (run.model, run.samples) == ("fake:1b", 1)
    assert f"predicted {run.predicted.tokens_per_second:.1f}, measured " in capsys.readouterr().err
    assert as_json(talk, reply)["prediction"] == {
        "predicted": {"tokens_per_second": run.predicted.tokens_per_second, "memory": 100 * MIB},
        "measured": {"tokens_per_second": run.measured.tokens_per_second, "memory": run.measured.memory},
        "uncorrected": run.uncorrected,
    }


def test_a_vote_is_compared_sample_by_sample_and_search_is_not() -> None:
    talk = foretold("The answer is \\boxed{7}, and that is certain.", slots=4)
    talk.strategy = chosen("vote", ["n=4", "stop=none"])
    list(talk.ask("x"))
    assert talk.last is not None
    assert talk.last.run is not None
    assert talk.last.run.samples == 4
    talk.strategy = chosen("rounds", ["n=2"])
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
