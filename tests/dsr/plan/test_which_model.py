"""Which of several models with one name suits a machine."""

from __future__ import annotations

import pytest

from dsr.models.catalog import load
from dsr.models.gguf_names import QuantChoice
from dsr.models.references import sizes
from dsr.plan.estimate import estimated_card
from dsr.plan.quant_speed import resized, speed_on
from dsr.plan.suggest import suggestion
from dsr.plan.which_model import which_model
from runtime.machine.machine import Machine
from tests.dsr.plan.planning import a_machine, cpu

GIB = 1 << 30


def laptop(gib: float) -> Machine:
    return a_machine(cpu(int(gib * GIB), 40e9), disk_read=3e9)


def test_a_name_of_one_model_or_of_none_is_left_alone() -> None:
    assert [each.name for each in sizes("gpt-oss")] == ["gpt-oss:20b", "gpt-oss:120b"]
    for text in ("gpt-oss:20b", "qwq", "org/repo", "nano", "no-such", "./deepseek-r1", "deepseek-r1:7b:Q8_0"):
        assert sizes(text) == ()


def test_the_choice_is_explained_and_the_neighbours_are_named() -> None:
    chosen = which_model("deepseek-r1", sizes("deepseek-r1"), laptop(12), from_disk=True)
    assert chosen.entry.name == "deepseek-r1:8b"
    assert chosen.why.startswith(
        "deepseek-r1 means 7 models; deepseek-r1:8b suits this machine: DeepSeek-R1-Distill-Llama-8B "
        "(a distill of Llama-3.1-8B), ~"
    )
    smaller, larger, true = chosen.others
    assert smaller.startswith("smaller: deepseek-r1:1.5b (~") and "tokens/s" in smaller
    assert larger.startswith("larger: deepseek-r1:14b (")
    assert true == (
        "deepseek-r1:8b is a distill; the true DeepSeek-R1 (671B parameters, 37B active) is deepseek-r1:671b"
    )


def test_of_models_of_one_size_the_newest_is_taken_and_thinkers_come_first() -> None:
    chosen = which_model("qwen3", sizes("qwen3"), laptop(5.5), from_disk=True)
    assert chosen.entry.name == "qwen3-2507:4b"


def test_a_mixture_that_is_fast_is_better_than_a_dense_model_that_is_slow() -> None:
    chosen = suggestion(sizes("qwen3"), a_machine(cpu(28 * GIB, 56e9)))
    assert chosen is not None and chosen.name == "qwen3-2507:30b-a3b"


def test_where_none_fits_the_smallest_is_taken_from_the_disk_or_as_it_is() -> None:
    entries = sizes("gpt-oss")
    chosen = which_model("gpt-oss", entries, laptop(8), from_disk=True)
    assert "none fits into memory; gpt-oss:20b runs from the disk" in chosen.why
    assert chosen.others == ("larger: gpt-oss:120b (does not fit into memory)",)
    without = which_model("gpt-oss", entries, laptop(8), from_disk=False)
    assert "none fits into memory; the smallest is gpt-oss:20b, gpt-oss-20b" in without.why


def test_where_all_are_slow_it_says_so() -> None:
    chosen = which_model("gemma3", sizes("gemma3"), a_machine(cpu(16 * GIB, 5e9)), from_disk=True)
    assert "all are slow here; gemma3:4b is the fastest" in chosen.why


@pytest.mark.parametrize("other", ["Q4_K_M", "Q6_K"])
def test_the_speed_of_a_quantization_follows_from_the_header_of_another(other: str) -> None:
    entry = load().lookup("qwen3:8b")
    assert entry is not None
    machine = a_machine(cpu(64 * GIB, 55e9))
    read, true = estimated_card(entry, "Q8_0"), estimated_card(entry, other)
    speed = speed_on(lambda: machine)
    choice = QuantChoice(other, ("m.gguf",), true.weights_size)
    expected = speed(true, choice, 8192)
    assert speed(read, choice, 8192) == pytest.approx(expected, rel=0.03)
    assert resized(read, true.weights_size).weights_size == pytest.approx(true.weights_size, rel=1e-3)
    assert speed_on(lambda: None)(read, choice, 8192) == 0.0
