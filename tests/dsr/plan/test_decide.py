"""`dsr plan`: where a model goes, and what is said about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import runtime.machine.host
import runtime.machine.measure
import runtime.nodes.client
from dsr.cli import app
from dsr.loading.machine import read_machine
from dsr.loading.options import LoadOptions, RopeRequest
from dsr.models.catalog import load
from dsr.models.gguf_names import QuantChoice
from dsr.plan import report
from dsr.plan.decide import decide
from dsr.plan.nodes import add_nodes
from dsr.plan.planned_model import PlannedModel, from_catalogue
from runtime.base.errors import DoesNotFit, NetworkError, UsageError
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from runtime.machine.machine import Speed, free_for
from runtime.nodes.addresses import Address
from runtime.nodes.client import Node, NodeDevice
from runtime.placement.memory import need
from tests.dsr.plan.planning import GIB, MIB, a_machine, cpu, gpu, nano, tiny
from tests.gguf_writer import moe_metadata, moe_tensors, write

# Deciding


def test_on_one_processor_everything_is_there_and_the_context_is_the_models_own() -> None:
    plan = decide(nano(), a_machine(), LoadOptions())
    [held] = plan.devices
    assert (held.name, held.layers, held.experts, held.head, held.share) == ("CPU", (0, 1, 2, 3), (1, 2, 3), True, 1.0)
    assert plan.placement.request.context == 2048
    assert held.weights + held.expert_weights == 13_053_120
    assert held.expert_weights == 10_027_008
    assert held.kv_cache == need(nano().card, 2048).kv_cache
    assert plan.memory == need(nano().card, 2048).total


def test_where_memory_is_short_the_context_is_what_fits() -> None:
    total = need(nano().card, 2048).total
    plan = decide(nano(), a_machine(cpu(total)), LoadOptions(from_disk="off"))
    assert 256 <= plan.placement.request.context < 2048
    assert plan.memory <= total


def test_memory_is_not_filled_with_cache_that_nobody_asked_for() -> None:
    long = from_catalogue(next(e for e in load().entries if e.name == "deepseek-r1:7b"), "Q4_K_M")
    assert long.card.context_length == 131072
    assert decide(long, a_machine(cpu(64 * GIB)), LoadOptions()).placement.request.context == 16384
    assert decide(long, a_machine(cpu(64 * GIB), gpu(24 * GIB)), LoadOptions()).placement.request.context == 16384
    assert decide(long, a_machine(cpu(64 * GIB), gpu()), LoadOptions(100_000)).placement.request.context == 100_000


def test_a_graphics_card_takes_what_fits_and_the_shares_of_time_are_a_whole() -> None:
    plan = decide(nano(), a_machine(cpu(), gpu()), LoadOptions())
    assert {each.name for each in plan.devices} == {"CPU", "CUDA0"}
    assert sum(each.share for each in plan.devices) == pytest.approx(1)
    assert sorted(layer for each in plan.devices for layer in each.layers) == [0, 1, 2, 3]


def test_votes_share_one_context_with_room_for_each() -> None:
    plan = decide(nano(), a_machine(), LoadOptions().for_samples(8))
    assert plan.placement.request.context == 8 * 2048
    assert plan.placement.tokens_per_second > decide(nano(), a_machine(), LoadOptions()).placement.tokens_per_second


def test_a_long_context_is_slower_when_it_is_full() -> None:
    slow_attention = replace(cpu(), speed=Speed(20e9, {}, {}, attention={"F16": 1e8}))
    plan = decide(nano(), a_machine(slow_attention), LoadOptions())
    assert plan.full_tokens_per_second < plan.placement.tokens_per_second
    assert "tokens/s with a full context" in report.describe_speed(plan)


def test_a_smaller_cache_is_offered_where_it_is_faster() -> None:
    model = from_catalogue(next(e for e in load().entries if e.name == "qwen3:8b"), "Q4_K_M")
    plan = decide(model, a_machine(cpu(64 * GIB), gpu(8 * GIB)), LoadOptions(32768))
    assert any(text.startswith("--kv-type q8_0: ") for text in plan.alternatives)
    assert any(text.startswith("--ctx-size 8192: ") for text in plan.alternatives)
    same = replace(cpu(), speed=Speed(20e9, {}, {}, attention={"F16": 1e10, "Q8_0": 1e10}))
    assert not any("--kv-type" in text for text in decide(nano(), a_machine(same), LoadOptions()).alternatives)


def test_what_does_not_fit_says_by_how_much_and_what_would() -> None:
    model = from_catalogue(next(e for e in load().entries if e.name == "deepseek-r1:32b"), "Q4_K_M")
    with pytest.raises(DoesNotFit, match=r"^DeepSeek-R1-Distill-Qwen-32B: .* is missing") as caught:
        decide(model, a_machine(cpu(7 * GIB)), LoadOptions(8192, from_disk="off"))
    assert caught.value.missing == pytest.approx(need(model.card, 8192).total - 6.3 * GIB, rel=0.01)
    assert caught.value.hint is not None
    assert "dsr plan deepseek-r1-0528:8b should fit: DeepSeek-R1-0528-Qwen3-8B (a distill of" in caught.value.hint


def test_a_smaller_quantization_of_the_same_repository_is_named_first() -> None:
    small, large = nano(), nano()
    choices = tuple(QuantChoice(q, (f"{q}.gguf",), ByteCount(n * MIB)) for q, n in (("Q2_K", 4), ("Q4_K_M", 7)))
    total, off = need(small.card, 512).total, LoadOptions(512, from_disk="off")
    with pytest.raises(DoesNotFit) as caught:
        decide(replace(large, choices=choices), a_machine(cpu(free_for(total - 2 * MIB))), off)
    assert caught.value.hint is not None
    assert "Q4_K_M of the same model (7.00 MiB) should fit" in caught.value.hint


def test_a_larger_model_is_no_way_out() -> None:
    with pytest.raises(DoesNotFit) as caught:
        decide(nano(), a_machine(), LoadOptions(9_999_999))
    assert caught.value.hint is not None
    assert "should fit" not in caught.value.hint


# Words


def test_layers_are_told_as_ranges() -> None:
    assert report.ranges((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"
    assert report.ranges(()) == ""


@pytest.mark.parametrize(
    ("value", "said"),
    [(0.0004, "0.4 ms"), (0.05, "50 ms"), (0.5, "0.5 s"), (89.6, "90 s"), (600, "10 min"), (9000, "2.5 h"),
     (400_000, "4.6 days")],
)  # fmt: skip
def test_times_are_told_in_the_unit_that_people_use(value: float, said: str) -> None:
    assert report.seconds(value) == said


def test_speeds_have_the_digits_that_a_prediction_deserves() -> None:
    assert [report.figure(value) for value in (0.0423, 0.8, 4.23, 42.4, 99.6, 424.0, 3942.0)] == [
        "0.042", "0.8", "4.2", "42", "100", "420", "3940",
    ]  # fmt: skip


def test_columns_of_experts_are_shown_only_where_there_are_experts(tmp_path: Path) -> None:
    header_of, [row], right, _ = report.table(decide(nano(), a_machine(), LoadOptions()), None)
    assert header_of == ("DEVICE", "LAYERS", "WEIGHTS", "EXPERTS", "OF", "CACHE", "BUFFERS", "TIME")
    assert row[:5] == ("CPU", "0-3 head", "2.89 MiB", "9.56 MiB", "1-3")
    assert right == (2, 3, 4, 5, 6, 7)
    header_of, [row], _, _ = report.table(decide(tiny(tmp_path), a_machine(), LoadOptions()), None)
    assert header_of == ("DEVICE", "LAYERS", "WEIGHTS", "CACHE", "BUFFERS", "TIME")


def test_a_context_beyond_the_training_is_refused_or_scaled() -> None:
    with pytest.raises(DoesNotFit, match="a context of 4096 tokens is too long for Nano") as caught:
        decide(nano(), a_machine(), LoadOptions(4096))
    assert caught.value.hint == (
        "use --ctx-size 2048, or try --rope yarn:2 --ctx-size 4096, untested by the vendor: check the answers"
    )
    assert "note" not in dict(report.facts(decide(nano(), a_machine(), LoadOptions(4096).for_samples(2))))
    plan = decide(nano(), a_machine(), LoadOptions(4096, rope=RopeRequest()))
    assert dict(report.facts(plan))["note"] == (
        "YaRN with factor 2: a text may have 4096 tokens instead of 2048, and short texts get a little worse; "
        "it is untested by the vendor of Nano, so check long answers"
    )
    assert report.command(plan).endswith("-c 4096 -ngl 0 --rope-scaling yarn --rope-scale 2 --yarn-orig-ctx 2048")
    told = plan.json()
    assert (told["trained_context"], told["reachable_context"], told["yarn_factor"]) == (2048, 4096, 2)


def test_trained_and_reachable_length_are_told() -> None:
    plan = decide(nano(), a_machine(), LoadOptions())
    assert dict(report.facts(plan))["reach"] == (
        "2048 tokens, as trained; perhaps up to 4096 with --rope yarn:2, untested by its vendor"
    )
    told = plan.json()
    assert (told["trained_context"], told["reachable_context"], told["yarn_factor"]) == (2048, 4096, None)


def test_without_the_disks_speed_nobody_knows_how_long_loading_takes() -> None:
    assert dict(report.facts(decide(nano(), a_machine(), LoadOptions())))["loading"] == "13 ms"
    unknown = dict(report.facts(decide(nano(), a_machine(disk_read=0.0), LoadOptions())))["loading"]
    assert unknown == "unknown, because the speed of the disk is unknown"


def test_where_the_terminal_is_narrow_devices_are_numbered() -> None:
    plan = decide(nano(), a_machine(), LoadOptions())
    assert report.table(plan, 80)[3] == []
    _, [row], _, names = report.table(plan, 40)
    assert (row[0], names) == ("1", [("1", "CPU")])


# The command


@pytest.fixture
def machine_file(tmp_path: Path) -> Path:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(a_machine(cpu(), gpu()).to_json()))
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
    result = run("nano", "--machine", str(machine_file), "--vote", "4", "-c", "4096", "--kv-type", "q8_0")
    assert result.exit_code == 0
    out = result.stdout
    assert "with a context of 4096 tokens for 4 samples (KV cache: q8_0)" in out
    assert "DEVICE" in out
    assert "llama.cpp" in out
    assert "tokens/s of all 4 samples together" in out


def test_the_command_for_llama_cpp_takes_a_name_as_one_word(tmp_path: Path) -> None:
    model = tiny(tmp_path)
    plan = decide(model, a_machine(), LoadOptions())
    assert report.command(plan).startswith(f"llama-server -m {model.card.path.name} ")
    odd = tmp_path / 'my $(model) "x".gguf'
    odd.write_bytes(model.card.path.read_bytes())
    plan = decide(replace(model, card=read_card(odd)), a_machine(), LoadOptions())
    assert report.command(plan).startswith("llama-server -m 'my $(model) \"x\".gguf' ")


def test_what_does_not_fit_exits_with_5_and_says_so_in_json_too(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_text(json.dumps(a_machine(cpu(20 * MIB)).to_json()))
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
    assert body["schema"] == "dsr.plan.catalog/1"
    assert body["here"][0]["name"] == "nano"
    assert {"name", "quant", "memory_bytes", "tokens_per_second", "larger_quants"} <= set(body["catalogue"][0])
    assert "qwen3:8b" in run("--machine", str(machine_file)).stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nano", "--kv-type", "q9"), 2, "q9"),
        (("nosuchmodel",), 3, "no model is called 'nosuchmodel'"),
        (("nano", "--machine", "/no/such/file"), 3, "no such file"),
        (("nano", "--vote", "0"), 2, "--vote"),
    ],
)
def test_a_wrong_request_is_one_line(arguments: tuple[str, ...], code: int, said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_machine_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "machine.json"
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not a text file"):
        read_machine(file)
    file.write_text("{}")
    with pytest.raises(UsageError, match="machine"):
        read_machine(file)


def test_a_mixture_of_experts_keeps_its_experts_where_there_is_room(tmp_path: Path) -> None:
    path = write(tmp_path / "moe.gguf", moe_metadata(), moe_tensors())
    found = PlannedModel(str(path), "MoE", None, read_card(path))
    plan = decide(found, a_machine(), LoadOptions())
    assert plan.devices[0].expert_weights == 3 * 64 * 32 * 4 * 4


def test_nodes_are_counted_as_they_are_now(monkeypatch: pytest.MonkeyPatch, machine_file: Path) -> None:
    def ask(address: Address, **_: object) -> Node:
        if address.port == 1:
            raise NetworkError(f"{address}: nobody listens")
        return Node(address, (7, 0, 0), (NodeDevice(4 * GIB, 8 * GIB),), 1e-3, 1e9)

    monkeypatch.setattr(runtime.nodes.client, "ask", ask)
    machine = add_nodes(a_machine(), "10.0.0.7:50052")
    assert [(device.node, device.memory_free) for device in machine.devices] == [
        ("", 16 * GIB),
        ("10.0.0.7:50052", 4 * GIB),
    ]
    assert "10.0.0.7:50052" in report.describe_machine(machine)
    assert report.describe_machine(machine).count("10.0.0.7:50052") == 1
    result = run("nano", "--machine", str(machine_file), "--nodes", "10.0.0.7:1")
    assert (result.exit_code, "nobody listens" in result.stderr) == (6, True)


def test_a_link_of_a_machine_file_leads_to_one_of_its_devices(tmp_path: Path) -> None:
    link = {"to": "CUDA9", "round_trip": 1e-5, "bandwidth": 1e10}
    device = {"name": "CPU", "kind": "cpu", "memory_free": 1, "memory_total": 1}
    speed = {"bandwidth": 1e10, "one": {}, "many": {}}
    file = tmp_path / "machine.json"
    body = {"schema": "dsr.machine/1", "name": "box", "devices": [{**device, "speed": speed}], "links": [link]}
    file.write_text(json.dumps(body))
    with pytest.raises(UsageError, match=r"links\[0\].to: 'CUDA9' is not a device") as refused:
        read_machine(file)
    assert refused.value.hint == "known: CPU"
