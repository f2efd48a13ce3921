"""The plan of a model that is larger than memory and runs from the disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dsr.cli import app
from dsr.loading.machine import read_machine
from dsr.loading.options import LoadOptions
from dsr.models.catalog import load
from dsr.models.gguf_names import QuantChoice
from dsr.plan import report
from dsr.plan.decide import Plan, decide
from dsr.plan.planned_model import PlannedModel, from_catalogue
from runtime.base.errors import DoesNotFit
from runtime.base.types import ByteCount
from runtime.gguf.reader import read_card
from runtime.machine.machine import free_for
from runtime.placement.memory import need
from tests.dsr.plan.planning import GIB, MIB, a_machine, cpu, gpu, nano
from tests.gguf_writer import llama_metadata, llama_tensors, write

WHOLE = 95_902_384  # bytes of nano with its context of 2048 tokens
EVEN, UNEVEN = (1.0,) * 16, (12.0,) * 4 + (1.0,) * 12  # picks of nano's 16 experts, of which a token uses 4


def short_of(model: PlannedModel, missing: int, **options: object) -> Plan:
    machine = a_machine(cpu(free_for(WHOLE - missing)), disk_read=1e8)
    return decide(model, machine, replace(LoadOptions(), **options))  # type: ignore[arg-type]


def test_a_model_that_does_not_fit_has_a_plan_with_its_speed_from_the_disk() -> None:
    plan = short_of(nano(), 14 * MIB)
    assert plan.from_disk is not None
    [held] = plan.devices
    assert held.expert_weights == plan.from_disk.plan.memory
    assert plan.memory == pytest.approx(WHOLE - 14 * MIB, abs=2)
    assert plan.from_disk.step.read > 0
    assert plan.tokens_per_second == plan.from_disk.step.tokens_per_second
    assert plan.tokens_per_second < decide(nano(), a_machine(), LoadOptions()).tokens_per_second
    assert plan.from_disk.twice.read == 0  # everything fits into twice the memory
    assert plan.load_seconds < plan.placement.load_seconds


def test_it_is_said_in_json_that_the_model_does_not_fit_and_runs_all_the_same() -> None:
    plan = short_of(nano(), 14 * MIB)
    body = plan.json()
    assert body["fits"] is False
    assert body["from_disk"]["on_disk_bytes"] == 10_027_008
    assert body["from_disk"]["smallest_cache_bytes"] == 2 * 4 * 221_184 + 21_060  # and the buffers of a token
    assert body["from_disk"]["use"] == "equal use of all experts"
    assert body["from_disk"]["hit_rate"] == body["from_disk"]["equal_use_hit_rate"]
    assert body["from_disk"]["compute_tokens_per_second"] > body["tokens_per_second"]
    assert decide(nano(), a_machine(), LoadOptions()).json()["from_disk"] is None


def test_of_several_profiles_the_least_favourable_counts() -> None:
    layers = (1, 2, 3)
    profiles = {"even": dict.fromkeys(layers, EVEN), "uneven": dict.fromkeys(layers, UNEVEN)}
    uneven = replace(nano(), profiles={"uneven": profiles["uneven"]})
    one, two = (short_of(replace(nano(), profiles=each), 14 * MIB) for each in (uneven.profiles, profiles))
    assert one.from_disk is not None
    assert two.from_disk is not None
    assert one.from_disk.use == "the profile of uneven"
    assert one.from_disk.step.hit_rate > one.from_disk.equal_use.hit_rate
    assert two.from_disk.use == "the profile of even"
    assert two.from_disk.step.hit_rate == pytest.approx(two.from_disk.equal_use.hit_rate)


def test_votes_read_an_expert_once_for_all() -> None:
    one, eight = (
        decide(nano(), a_machine(cpu(free_for(WHOLE - 17 * MIB)), disk_read=1e6), LoadOptions(2048, slots=slots))
        for slots in (1, 8)
    )
    assert one.from_disk is not None
    assert eight.from_disk is not None
    assert eight.from_disk.step.tokens == 8
    assert eight.from_disk.step.read / 8 < one.from_disk.step.read
    assert eight.tokens_per_second > one.tokens_per_second


def test_a_dense_model_reads_the_layers_on_the_disk_for_each_token(tmp_path: Path) -> None:
    metadata = llama_metadata(**{"llama.block_count": 12, "llama.context_length": 2048})
    card = read_card(write(tmp_path / "dense.gguf", metadata, llama_tensors(12)))
    whole = need(card, 2048).total
    plan = decide(PlannedModel("dense", "dense", "F32", card), a_machine(cpu(free_for(whole - 1))), LoadOptions(2048))
    assert plan.from_disk is not None
    assert plan.from_disk.plan.opened.layers == (1, 4, 7, 10)
    assert plan.json()["from_disk"]["layers_on_disk"] == [1, 4, 7, 10]
    assert "hits" in dict(report.facts(plan))


def test_off_and_machines_with_gpus_and_unknown_disks_are_as_before() -> None:
    small = cpu(free_for(WHOLE - 4 * MIB))
    for machine, options in (
        (a_machine(small), LoadOptions(2048, from_disk="off")),
        (a_machine(small, gpu(1)), LoadOptions(2048)),
        (a_machine(small, disk_read=0.0), LoadOptions(2048)),
    ):
        with pytest.raises(DoesNotFit, match="is missing"):
            decide(nano(), machine, options)
    with pytest.raises(DoesNotFit, match="is missing"):
        decide(nano(), a_machine(small), LoadOptions(2048), system="darwin")


def test_a_smaller_quantization_that_fits_is_named() -> None:
    choices = (QuantChoice("Q2_K", ("a.gguf",), ByteCount(4 * MIB)), QuantChoice("F32", ("b.gguf",), ByteCount(GIB)))
    assert short_of(replace(nano(), choices=choices), 14 * MIB).alternatives == (
        "Q2_K of the same model (4.00 MiB) fits into memory",
    )


def test_its_rows_say_what_is_read_and_what_bounds_the_speed() -> None:
    rows = dict(report.facts(short_of(nano(), 14 * MIB)))
    assert rows["fits"].startswith(
        "no, it runs from the disk: 72.2 MiB stay in memory, and 5.25 MiB cache experts, with a context of 2048 tokens"
    )
    assert rows["hits"].endswith("of the bytes that a token uses are in memory (equal use of all experts)")
    assert "for each token, at 95.4 MiB/s: at most" in rows["disk"]
    assert rows["more memory"].endswith("tokens/s with twice as much")


def test_a_sketch_of_the_catalogue_runs_from_the_disk_too() -> None:
    entry = next(each for each in load().entries if each.name == "deepseek-r1:671b")
    plan = decide(from_catalogue(entry, "Q2_K"), a_machine(cpu(64 * GIB, 60e9), disk_read=3.5e9), LoadOptions())
    assert plan.from_disk is not None
    assert plan.from_disk.plan.routed
    assert 0.1 < plan.tokens_per_second < 1


MACHINES = Path(__file__).parents[3] / "docs" / "machines"


@pytest.mark.parametrize(("gib", "disk"), [(32, 1e9), (64, 3.5e9), (128, 7e9), (192, 12e9)])
def test_the_four_homes_are_machines(gib: int, disk: float) -> None:
    machine = read_machine(MACHINES / f"home-{gib}.json")
    [home] = machine.devices
    assert (home.memory_total, machine.disk_read) == (gib * GIB, disk)


def test_the_command_ends_well_for_a_model_that_runs_from_the_disk() -> None:
    small = str(Path(__file__).with_name("small-machine.json"))
    made = CliRunner().invoke(app, ["plan", "nano", "--machine", small])
    assert made.exit_code == 0
    assert "no, it runs from the disk" in made.stdout
    refused = CliRunner().invoke(app, ["plan", "nano", "-c", "2048", "--from-disk", "off", "--machine", small])
    assert refused.exit_code == 5
