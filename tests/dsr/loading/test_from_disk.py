"""Whether a model that is larger than memory runs from the disk, and how the memory is divided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dsr.loading import from_disk
from dsr.loading.from_disk import Fit, disk_plan, fit, fit_on_host
from dsr.loading.options import LoadOptions, LoraRequest
from dsr.loading.predict import Predictor
from dsr.loading.profiled_picks import profiled_picks
from dsr.loading.reach import settled
from dsr.store import paths
from quant.experts.profile import Profile, ProfileStore, router_digest
from quant.measure.imatrix import Routing
from runtime.base.errors import DoesNotFit, UsageError
from runtime.base.types import ByteCount
from runtime.from_disk.forecast import DiskLayer
from runtime.from_disk.units import FromDisk
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.machine.machine import Device, Machine, Speed, free_for
from runtime.nodes.addresses import parse_list
from runtime.placement.memory import need
from tests.dsr.loading.loading import host
from tests.gguf_writer import llama_metadata, llama_tensors, write

# nano takes 95,902,384 bytes with its context of 2048 tokens; 10,027,008 of them are routed experts: 3 layers with 16
# experts, each of 3 slices of 69,632 bytes, of which a token uses 4. In whole pages: 3 * 18 * 4096 bytes.
WHOLE, EXPERTS, PAGED = 95_902_384, 10_027_008, 221_184
# Without routed experts and working buffers, which take this much for each token of a pass.
RESIDENT, ROW = 75_698_864, 21_060


@pytest.fixture
def nano_card(nano_path: Path) -> ModelCard:
    return read_card(nano_path)


def test_a_model_that_fits_is_not_run_from_the_disk(nano_card: ModelCard) -> None:
    assert fit(nano_card, ByteCount(WHOLE), LoadOptions(), system="linux") == Fit(2048)
    assert fit(nano_card, ByteCount(WHOLE), LoadOptions(2048), system="linux") == Fit(2048)


def test_the_memory_that_every_token_leaves_holds_experts(nano_card: ModelCard) -> None:
    found = fit(nano_card, ByteCount(WHOLE - 4_000_000), LoadOptions(), system="linux")
    assert found.context == 2048
    plan = found.from_disk
    assert plan is not None
    assert plan.opened == FromDisk(WHOLE - 4_000_000 - RESIDENT, row_bytes=ROW, spare=5_105_688)
    assert plan.layers == (DiskLayer(PAGED, 16, 4),) * 3
    assert (plan.resident, plan.on_disk, plan.smallest) == (RESIDENT, EXPERTS, 2 * 4 * PAGED + ROW)
    assert plan.memory == 3 * 16 * PAGED  # all of them, until a pass has many tokens
    assert plan.line() == "runs from the disk: 72.2 MiB stay in memory, and 10.1 MiB hold a part of 9.56 MiB of experts"
    assert plan.chunk == 512


def test_the_forecast_counts_memory_that_experts_take_beyond_the_plan(nano_card: ModelCard) -> None:
    memory = RESIDENT + 12 * PAGED + ROW
    plan = disk_plan(nano_card, ByteCount(memory), LoadOptions(2048))
    assert plan.memory == 12 * PAGED  # 8 of them come and go: 4 of 48 stay
    assert (plan.opened.spare, plan.beyond) == (4_354_118, 4_354_119)  # a twentieth of what is free, each
    without = replace(plan, beyond=0)
    assert without.forecast(1.0, 0.0).hit_rate == pytest.approx(4 / 48)
    assert plan.forecast(1.0, 0.0).hit_rate == pytest.approx((4 + 4_354_119 / PAGED) / 48)
    assert without.whole == RESIDENT + 12 * PAGED and plan.whole == without.whole + 4_354_119
    # Once the model is open, the system says how much there really is.
    opened = plan.with_free(plan.opened.memory + 4_354_118 + 2 * PAGED)
    assert opened.beyond == 2 * PAGED
    assert opened.forecast(1.0, 0.0).hit_rate == pytest.approx(6 / 48)
    assert plan.with_free(0).beyond == 0
    assert plan.with_free(1 << 40).whole == RESIDENT + 48 * PAGED


def test_no_more_memory_is_asked_for_than_the_experts_take(nano_card: ModelCard) -> None:
    plan = disk_plan(nano_card, ByteCount(1 << 40), LoadOptions())
    assert plan.opened.memory == 3 * 16 * PAGED + 2048 * plan.opened.row_bytes
    assert plan.memory == 3 * 16 * PAGED


def test_a_model_without_room_for_one_token_is_refused_with_what_it_needs(nano_card: ModelCard) -> None:
    least = RESIDENT + 8 * PAGED + ROW
    assert fit(nano_card, ByteCount(least), LoadOptions(2048), system="linux").from_disk is not None
    with pytest.raises(
        DoesNotFit, match=r"Nano needs 91.5 MiB, or 73.9 MiB if it runs from the disk, and 73.9 MiB"
    ) as it:
        fit(nano_card, ByteCount(least - 1), LoadOptions(2048), system="linux")
    assert it.value.missing == 1
    assert it.value.hint == (
        "choose a smaller quantization or a smaller model; to let the system map the file, very slowly: --from-disk off"
    )


def test_a_few_tokens_of_context_are_better_than_nothing(nano_card: ModelCard, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise DoesNotFit("nothing of it can stay on the disk")

    monkeypatch.setattr(from_disk, "disk_plan", refuse)
    assert fit(nano_card, ByteCount(86_000_000), LoadOptions(), system="linux") == Fit(256)


@pytest.mark.parametrize(
    ("available", "chunk"),
    [
        (78_000_000, 2),  # 2.3 MB: two tokens use 8 experts of a layer, which holds 16
        (80_000_000, 36),  # all experts of a layer, and the working buffers of 36 tokens
        (95_000_000, 512),
        (110_000_000, 1024),
        (200_000_000, 2048),  # the context
    ],
)
def test_passes_are_as_long_as_memory_allows(nano_card: ModelCard, available: int, chunk: int) -> None:
    plan = disk_plan(nano_card, ByteCount(available), LoadOptions())
    assert plan.chunk == chunk
    if chunk > 512:  # two layers have room beside the buffers of such a pass, so that one can be read ahead
        assert plan.opened.room(chunk) >= 2 * 16 * PAGED


def test_a_plan_says_why_a_prompt_is_read_in_small_parts(nano_card: ModelCard) -> None:
    plan = disk_plan(nano_card, ByteCount(80_000_000), LoadOptions())
    assert plan.reasons[-1] == (
        "memory has room to read a prompt 36 tokens at a time; with more room, dsr would read it faster"
    )


def test_off_is_as_before(nano_card: ModelCard) -> None:
    off = LoadOptions(from_disk="off")
    assert fit(nano_card, ByteCount(WHOLE - 4_000_000), off, system="linux") == Fit(768)
    with pytest.raises(DoesNotFit, match="Nano needs") as caught:
        fit(nano_card, ByteCount(80_000_000), off, system="linux")
    assert "force it with --ctx-size 2048" in (caught.value.hint or "")
    assert fit(nano_card, ByteCount(WHOLE - 4_000_000), replace(off, context=2048), system="linux") == Fit(2048)
    with pytest.raises(UsageError, match="--from-disk must be auto or off, not 'on'"):
        LoadOptions(from_disk="on")


def test_an_asked_context_is_never_shortened(nano_card: ModelCard) -> None:
    asked = settled(LoadOptions(2048, usual_context=512), nano_card, None)
    found = fit(nano_card, ByteCount(WHOLE - 4_000_000), asked, system="linux")
    assert found.context == 2048
    assert found.from_disk is not None
    assert found.from_disk.asked
    with pytest.raises(DoesNotFit, match="a context of 100000 tokens needs"):
        fit(nano_card, ByteCount(WHOLE), LoadOptions(100_000), system="linux")


def test_a_usual_context_gives_way_before_the_weights_go_to_the_disk(tmp_path: Path) -> None:
    metadata = llama_metadata(**{"llama.context_length": 65536, "llama.block_count": 12})
    long = read_card(write(tmp_path / "m.gguf", metadata, llama_tensors(12)))
    usual = settled(LoadOptions(usual_context=32768), long, None)
    available = need(long, 16384).total
    assert fit(long, available, usual, system="linux") == Fit(16384)
    asked = settled(LoadOptions(32768, usual_context=8192), long, None)
    found = fit(long, ByteCount(need(long, 32768).total - 1), asked, system="linux")
    assert found.context == 32768
    assert found.from_disk is not None


def test_a_long_context_leaves_room_for_weights(nano_card: ModelCard) -> None:
    long = replace(nano_card, context_length=65536)  # 2,304 bytes for each token
    plan = disk_plan(long, ByteCount(130_000_000), LoadOptions())
    # 8192 tokens take 18.9 MB of the 31 MB that cache and experts share; 2048 tokens take an eighth of theirs.
    assert (plan.context, plan.is_shortened) == (2048, True)
    assert plan.reasons[-1] == (
        "the context has 2048 of 65536 tokens, so that more weights stay in memory; --ctx-size changes it"
    )
    assert plan.line().endswith("; context 2048 of 65536 tokens")


def test_a_dense_model_leaves_as_few_layers_on_the_disk_as_it_can(tmp_path: Path) -> None:
    card = read_card(write(tmp_path / "m.gguf", llama_metadata(**{"llama.block_count": 12}), llama_tensors(12)))
    layer = 122_880  # bytes of the matrices of one layer, of float32: 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 weights
    paged = (2 * 5 + 2 * 3 + 3 * 7) * 4096  # seven matrices of 4, 2 and 6 pages, with one more each
    whole = fit(card, ByteCount(1 << 40), LoadOptions(), system="linux")
    assert whole.from_disk is None
    plan = disk_plan(card, ByteCount(need(card, 2048).total - 1), LoadOptions(2048))
    assert plan.opened.layers == (1, 4, 7, 10)  # four, since three must be in memory, spread over the model
    assert plan.layers == (DiskLayer(paged),) * 4
    assert plan.on_disk == 4 * layer
    assert plan.smallest == 3 * paged + plan.opened.row_bytes
    with pytest.raises(DoesNotFit, match="if it runs from the disk"):
        disk_plan(card, ByteCount(plan.resident - 10 * layer), LoadOptions(2048))


@pytest.mark.parametrize(
    ("options", "system", "why"),
    [
        (LoadOptions(), "darwin", "on Linux only"),
        (LoadOptions(), "win32", "on Linux only"),
        (LoadOptions(draft="mtp"), "linux", "with --draft mtp yet"),
        (LoadOptions(nodes=parse_list("10.0.0.2")), "linux", "with nodes or a GPU yet"),
        (LoadOptions(lora=(LoraRequest(Path("a.gguf")),)), "linux", "with --lora yet"),
    ],
)
def test_where_dsr_cannot_the_system_maps_the_file_and_that_is_said(
    nano_card: ModelCard, options: LoadOptions, system: str, why: str
) -> None:
    mapped = fit(nano_card, ByteCount(WHOLE - 4_000_000), replace(options, context=2048), system=system)
    assert mapped.from_disk is None
    assert why in mapped.why_not
    with pytest.raises(DoesNotFit) as caught:
        fit(nano_card, ByteCount(70_000_000), options, system=system)
    assert why in (caught.value.hint or "")


def test_on_this_computer_a_tenth_of_the_memory_stays_free(nano_card: ModelCard) -> None:
    assert fit_on_host(nano_card, host(free_for(WHOLE)), LoadOptions()) == Fit(2048)


def test_the_prediction_of_a_run_from_the_disk_adds_reading(nano_card: ModelCard) -> None:
    plan = disk_plan(nano_card, ByteCount(WHOLE - 4_000_000), LoadOptions())
    cpu = Device("CPU", "cpu", 60_000_000, 60_000_000, Speed(1e9, {}, {}))
    machine = Machine("test", (cpu,), disk_read=1e6)
    slow = Predictor(nano_card, machine, 2048, 1, "f16", 0, disk=plan)
    memory = Predictor(nano_card, machine.with_any_memory(), 2048, 1, "f16", 0)
    computing = memory.seconds([2], 100) / 2
    assert slow.seconds([2], 100) / 2 == pytest.approx(plan.forecast(1e6, computing).seconds)
    with pytest.raises(UsageError, match="the speed of the disk is unknown"):
        replace(slow, machine=replace(machine, disk_read=0.0)).seconds([2], 100)


def test_the_cache_begins_with_the_experts_of_the_profiled_tasks(nano_card: ModelCard) -> None:
    plan = disk_plan(nano_card, ByteCount(WHOLE - 4_000_000), LoadOptions())
    one = dict.fromkeys((1, 2, 3), (3.0, 1.0, *[0.0] * 14))
    other = {**one, 3: (0.0,) * 16}
    assert plan.seeded({}) == plan
    assert plan.seeded({"a": one}).opened.seed == (0.75, 0.25, *[0.0] * 14) * 3
    both = plan.seeded({"a": one, "b": other}).opened.seed
    assert plan.seeded({"a": one}).layers[0].picks == (0.75, 0.25, *[0.0] * 14)  # the forecast expects the same use
    assert both[:2] == (0.75, 0.25)
    assert both[32:34] == (0.40625, 0.15625)  # a layer that no text reached counts as equal use


def test_profiles_of_a_model_are_found_by_its_routers(nano_card: ModelCard, tmp_path: Path) -> None:
    assert profiled_picks(nano_card) == {}
    assert profiled_picks(read_card(write(tmp_path / "dense.gguf", llama_metadata(), llama_tensors()))) == {}
    routing = {n: Routing(np.arange(16), *(np.ones(16) for _ in range(4))) for n in (1, 2, 3)}
    profile = Profile("sums", routing, 10, 4, np.zeros((0, 2), np.float32), "a test", "text")
    ProfileStore(paths.experts_folder()).put(router_digest(nano_card), profile)
    assert profiled_picks(nano_card) == {"sums": dict.fromkeys((1, 2, 3), tuple(map(float, range(16))))}
    assert profiled_picks(replace(nano_card, experts=8)) == {}
