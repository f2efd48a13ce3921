"""DeepSeek-R1, 671B weights, on four machines that stand in homes: what is decided and what is said about it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dsr.quantize.decide import decide
from quant.open_source import open_source
from quant.recipe import recipe
from runtime.base.errors import DoesNotFit
from runtime.gguf.card import ModelCard
from runtime.machine.machine import Device, Link, Machine, Speed
from runtime.placement.place import PlacementRequest, default_split, place

CONFIG = Path(__file__).parents[2] / "quant" / "configs" / "deepseek-r1.json"
GIB = 1 << 30
TYPES = ("F32", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0")
WANTED = PlacementRequest(8192, filled=512)


def cpu(gib: int, gigabytes: float, node: str = "") -> Device:
    """Its kernels keep up with seven tenths of its memory."""
    rates = dict.fromkeys(TYPES, gigabytes * 0.7e9)
    slower = {name: rate / 2.5 for name, rate in rates.items()}
    speed = Speed(
        gigabytes * 1e9, rates, slower, per_layer=4e-5, per_expert_layer=4e-5, attention={"F16": gigabytes * 1e9}
    )
    return Device("CPU", "cpu", gib * GIB, gib * GIB, speed, node)


def gpu(gib: int, gigabytes: float) -> Device:
    rates = dict.fromkeys(TYPES, gigabytes * 0.6e9)
    speed = Speed(gigabytes * 1e9, rates, rates, per_layer=2e-5, per_expert_layer=2e-5, attention={"F16": 2e13})
    return Device("CUDA0", "gpu", gib * GIB, 24 * GIB, speed)


PCIE = Link("CUDA0", 2e-5, 20e9)
LAPTOP = Machine("laptop", (cpu(13, 60),), disk_read=3e9)
DESKTOP = Machine("desktop", (cpu(60, 70), gpu(23, 1000)), (PCIE,), disk_read=6e9)
WORKSTATION = Machine("workstation", (cpu(248, 200), gpu(23, 1000)), (PCIE,), disk_read=6e9)
NODES = Machine(
    "three nodes",
    (cpu(122, 80), cpu(122, 75, "10.0.0.2:50052"), cpu(122, 85, "10.0.0.3:50052")),
    tuple(Link(f"10.0.0.{n}:50052", 3e-4, 117e6) for n in (2, 3)),
    disk_read=3e9,
)


@pytest.fixture(scope="module")
def r1(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    """As the recipe ud-q2_k_xl would make it: 2.70 bits per weight."""
    folder = tmp_path_factory.mktemp("r1")
    shutil.copy(CONFIG, folder / "config.json")
    with open_source(folder, weights=False) as source:
        card = decide(source, recipe.load("ud-q2_k_xl")).plan.card()
    assert card is not None
    return card


def refused(card: ModelCard, machine: Machine) -> list[str]:
    with pytest.raises(DoesNotFit) as error:
        place(card, machine, WANTED)
    return [error.value.message, *(error.value.hint or "").split("; ")]


def test_a_laptop_of_16_gib(r1: ModelCard) -> None:
    assert refused(r1, LAPTOP) == [
        "a context of 8192 tokens needs 212.2 GiB of memory, but 13.0 GiB can be used: 199.2 GiB is missing",
        "another node with 226.1 GiB of free memory is enough",
        "reading weights from the disk for every token would give 0.37 tokens/s",
    ]


def test_a_desktop_of_64_gib_with_a_gpu_of_24(r1: ModelCard) -> None:
    assert refused(r1, DESKTOP) == [
        "a context of 8192 tokens needs 212.2 GiB of memory, but 83.0 GiB can be used: 129.6 GiB is missing",
        "91 of the 256 experts of each layer fit: dsr experts prune keeps those of a task",
        "another node with 148.9 GiB of free memory is enough",
        "reading weights from the disk for every token would give 1.12 tokens/s",
    ]


def test_a_workstation_of_256_gib_with_a_gpu_of_24(r1: ModelCard) -> None:
    found = place(r1, WORKSTATION, WANTED)
    assert found.reasons == (
        "the model needs 211.1 GiB for weights (201.2 GiB of them routed experts) and 549.0 MiB for the KV cache (8192 "
        "tokens, f16); free memory: 248.0 GiB on this machine's CPU, 23.0 GiB on CUDA0",
        "CUDA0 holds layers 0-60 (3 of them with their routed experts) and the head, 20.7 GiB of 23.0 GiB: a whole "
        "layer takes 469 us there, 2.27 ms on this machine's CPU; the round trip takes 22.9 us",
        "the 55 layers of routed experts (layers 3-57) stay on this machine's CPU: they take 190.9 GiB, and CUDA0 has "
        "23.0 GiB; the attention and dense parts (8.70 GiB) go to the GPU first, because every token uses them and "
        "only some of the experts",
        "a step takes 67.9 ms, 63% of it memory bandwidth; this machine's CPU takes 71%",
    )
    assert found.alternatives == ("this machine's CPU alone: 6.84 tokens/s", "llama.cpp's own split: 7.62 tokens/s")
    assert found.flags == (
        "-c 8192",
        "-ngl 62",
        '-ot "blk\\.([3-9]|1[0-9]|2[0-9]|3[0-9]|4[0-9]|5[0-7])\\.ffn_.*_exps=CPU"',
    )
    assert found.tokens_per_second == pytest.approx(14.72, abs=0.01)
    assert default_split(r1, WORKSTATION, WANTED).tokens_per_second == pytest.approx(7.62, abs=0.01)


def test_three_nodes_of_128_gib_on_gigabit_ethernet(r1: ModelCard) -> None:
    """Two of them do: the third would add its way there and back, and nothing else."""
    found = place(r1, NODES, WANTED)
    assert found.reasons == (
        "the model needs 211.1 GiB for weights (201.2 GiB of them routed experts) and 549.0 MiB for the KV cache (8192 "
        "tokens, f16); free memory: 122.0 GiB on this machine's CPU, 122.0 GiB on CPU of 10.0.0.2:50052, 122.0 GiB on "
        "CPU of 10.0.0.3:50052",
        "CPU of 10.0.0.3:50052 holds layers 28-60, 118.8 GiB of 122.0 GiB: a whole layer takes 5.22 ms there, 5.55 ms "
        "on this machine's CPU; the round trip takes 790 us",
        "layers 0-27 stay on this machine's CPU: the rest fills CPU of 10.0.0.3:50052",
        "CPU of 10.0.0.2:50052 is unused, because a step is shorter without it: a layer takes 5.91 ms there and "
        "the round trip 790 us, 5.55 ms on this machine's CPU",
        "a step takes 348 ms, 59% of it memory bandwidth; this machine's CPU takes 50%",
    )
    assert found.alternatives == (
        "this machine's CPU alone: 0.732 tokens/s, 90.2 GiB of it from the disk",
        "llama.cpp's own split: 2.74 tokens/s",
    )
    assert found.flags == ("-c 8192", "-ngl 34", '-ot "^output=CPU"', "--rpc 10.0.0.3:50052")
    assert found.tokens_per_second == pytest.approx(2.870, abs=0.001)
