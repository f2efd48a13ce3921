"""What a trial may take, from the header; what is refused before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.base.errors import DoesNotFit, Incompatible
from runtime.base.run import Run
from runtime.base.types import ByteCount
from runtime.from_disk.units import FromDisk, units_of
from runtime.gguf.reader import read_card
from runtime.llama import trial_process
from runtime.placement import memory
from runtime.placement.trial import check_alignment, experts_on_disk, limits_of, try_file
from tests.gguf_writer import llama_metadata, write

MIB, GIB = 1 << 20, 1 << 30


def test_a_small_file_may_take_a_gibibyte_and_a_minute(tmp_path: Path) -> None:
    limits = limits_of(read_card(write(tmp_path / "small.gguf")), ByteCount(8 * GIB))
    assert GIB < limits.memory < 1.3 * GIB
    assert limits.seconds == pytest.approx(60, abs=1)
    assert limits.repack


def test_a_trial_takes_no_more_than_a_model_may(tmp_path: Path) -> None:
    card = read_card(write(tmp_path / "small.gguf"))
    assert limits_of(card, ByteCount(600 * MIB)).memory == 600 * MIB
    assert 256 * MIB < limits_of(card, ByteCount(70 * MIB)).memory < 330 * MIB


def test_copies_of_the_weights_are_left_out_where_they_have_no_room(nano_path: Path) -> None:
    card = read_card(nano_path)
    assert limits_of(card, ByteCount(GIB)).repack
    assert not limits_of(card, ByteCount(card.weights_size + 66 * MIB)).repack


def test_experts_without_room_stay_on_the_disk_in_the_trial(nano_path: Path) -> None:
    card = read_card(nano_path)
    need = memory.need(card, trial_process.CONTEXT, trial_process.SLOTS, drafted=trial_process.DRAFTED).total
    assert experts_on_disk(card, need, "f16", kv_full=False) is None
    opened = experts_on_disk(card, need - 1, "f16", kv_full=False)
    assert opened == FromDisk(4 * 4 * max(units_of(card).paged_sizes))  # four tokens, each with four experts
    assert experts_on_disk(card, need - 8 * MIB, "f16", kv_full=False) is None


def test_a_large_file_may_take_long(nano_path: Path) -> None:
    assert limits_of(read_card(nano_path), ByteCount(GIB)).seconds == 60 + nano_path.stat().st_size / 10e6


def test_what_does_not_fit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "wide.gguf", llama_metadata())
    with pytest.raises(DoesNotFit, match=r"wide\.gguf: the model needs .* in addition to its weights") as caught:
        limits_of(read_card(path), ByteCount(10 * MIB))
    assert caught.value.hint == "choose a smaller model, or close other programs"


def test_weights_that_the_engine_cannot_map_are_refused(tmp_path: Path) -> None:
    refused = set()
    for length in range(5, 37, 8):
        path = write(
            tmp_path / "narrow.gguf",
            llama_metadata(**{"general.name": "T" * length, "general.alignment": 8}),
            alignment=8,
        )
        card = read_card(path)
        first = card.tensors[0].offset % 32
        if first:
            with pytest.raises(Incompatible, match=r"narrow\.gguf: its weights begin at byte \d+, and the engine maps"):
                try_file(card, Run())
            refused.add(first)
        else:
            try_file(card, Run(threads=1))
    assert refused == {8, 16, 24}


@pytest.mark.parametrize("alignment", [32, 64, 4096])
def test_other_alignments_are_fine(tmp_path: Path, alignment: int) -> None:
    path = write(tmp_path / "a.gguf", llama_metadata(**{"general.alignment": alignment}), alignment=alignment)
    check_alignment(read_card(path))
