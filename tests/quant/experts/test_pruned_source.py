"""Pruned files: their bytes, and that the engine computes the same as with the other experts masked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from quant.convert.conversion import source_of
from quant.experts.prune_plan import PrunePlan, plan_random
from quant.experts.pruned_metadata import KeptExperts, read_kept_experts
from quant.experts.pruned_source import PrunedSource, _runs
from quant.recipe.recipe import load
from quant.recipe.recipe import plan as recipe_plan
from quant.sources.checkpoint import open_checkpoint
from quant.sources.source import GgufSource
from quant.write.execute import quantize
from runtime.base.errors import Aborted, UsageError
from runtime.base.events import Event, Listener, Progress, ignore
from runtime.base.run import Run, Stop
from runtime.gguf.card import ModelCard
from runtime.gguf.reader import read_card
from runtime.llama.masked_experts import MaskedScorer
from tests.nextn import with_mtp
from tests.quant import tiny, tiny_models

TOKENS = [9, 250, 17, 101, 44, 180, 12, 77, 203, 5, 66, 31]
NANO_KEPT = {1: (0, 2, 3, 5, 8, 9, 11, 15), 2: (1, 2, 4, 6, 7, 10, 12, 13), 3: (0, 1, 2, 3, 4, 5, 6, 7)}


def prune(
    source: Path, out: Path, plan: PrunePlan, stop: Stop | None = None, listen: Listener = ignore, **options: Any
) -> Path:
    with GgufSource(source) as model:
        pruned = PrunedSource(model, plan)
        written = quantize(pruned, pruned.file_plan(), out, Run(stop or Stop(), listen, threads=2), **options)
    return written[0]


def keeping(card: ModelCard, kept: Mapping[int, Sequence[int]] | int, active: int | None = None) -> PrunePlan:
    """A plan that keeps these experts in each layer; for a number, the first ones."""
    number = kept if isinstance(kept, int) else len(next(iter(kept.values())))
    made = plan_random(card, number, 0, active)
    chosen = dict.fromkeys(made.kept, tuple(range(kept))) if isinstance(kept, int) else kept
    return replace(made, kept=MappingProxyType({layer: tuple(numbers) for layer, numbers in chosen.items()}))


def logits(
    path: Path, kept: Mapping[int, Sequence[int]] | None = None, metadata: Mapping[str, int] | None = None
) -> NDArray[np.float32]:
    """The engine's logits for TOKENS, (tokens, vocabulary), with all experts but `kept` masked."""
    with MaskedScorer(path, window=512, metadata=metadata) as model:
        model.keep(kept, read_card(path).experts)
        return np.concatenate([block.copy() for block in model.score(TOKENS)])


def apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The largest difference between two sets of logits, relative to their spread."""
    return float(np.abs(one - other).max() / other.std())


def stored(path: Path) -> dict[str, NDArray[np.uint8]]:
    with GgufSource(path) as source:
        return {tensor.name: source.stored_rows(tensor, 0, tensor.rows) for tensor in source.tensors}


def converted(folder: Path, make: Any, kind: str = "f16") -> Path:
    make(folder / "checkpoint")
    source = source_of(open_checkpoint(folder / "checkpoint"))
    return quantize(source, recipe_plan(load(kind), source), folder / "original.gguf", Run(threads=2))[0]


@pytest.fixture(scope="module", params=["q8_0", "f16", "q4_k"])
def nano(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, nano_path: Path) -> Path:
    """The embedded model in several types."""
    if request.param == "q8_0":
        return nano_path
    with GgufSource(nano_path) as source:
        made = recipe_plan(load(request.param), source)
        out = tmp_path_factory.mktemp("nano") / f"{request.param}.gguf"
        return quantize(source, made, out, Run(threads=2), allow_requantize=True)[0]


# Experts among other tensors: a correction of the shape (experts, 1), a router in Gemma's own form, experts in a
# narrower space, layers without experts between.
OTHERS = ("Ernie4_5_MoeForCausalLM", "Gemma4ForCausalLM-moe", "NemotronHForCausalLM-latent", "JambaForCausalLM")


@pytest.fixture(params=["qwen3_moe", "mixtral", "deepseek_v2", "deepseek_v3", *OTHERS])
def tiny_path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param in OTHERS:
        return converted(tmp_path, partial(tiny_models.make_tiny, request.param))
    if request.param == "deepseek_v2":  # the engine takes one with plain queries for the Lite model by its layers
        monkeypatch.setitem(tiny._BASE, "num_hidden_layers", 27)
    return converted(tmp_path, tiny.CASES[request.param][0])


def test_all_experts_are_the_same_bytes_and_the_same_logits(nano: Path, tmp_path: Path) -> None:
    out = prune(nano, tmp_path / "out.gguf", keeping(read_card(nano), 16))
    before, after = stored(nano), stored(out)
    assert list(before) == list(after)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.array_equal(logits(out), logits(nano))


def test_half_the_experts_compute_what_a_masked_router_does(nano: Path, tmp_path: Path) -> None:
    card = read_card(nano)
    out = prune(nano, tmp_path / "out.gguf", keeping(card, NANO_KEPT))
    assert {tensor.name: tensor.type for tensor in read_card(out).tensors} == {
        tensor.name: tensor.type for tensor in card.tensors
    }
    pruned, masked, whole = logits(out), logits(nano, NANO_KEPT), logits(nano)
    assert apart(pruned, masked) < 0.01
    assert apart(pruned, whole) > 0.1


def test_half_the_experts_compute_what_the_bias_can_forbid(nano_path: Path, tmp_path: Path) -> None:
    out = prune(nano_path, tmp_path / "out.gguf", keeping(read_card(nano_path), NANO_KEPT))
    masked = tmp_path / "masked.gguf"
    shutil.copy(nano_path, masked)
    with masked.open("r+b") as file:
        for tensor in read_card(nano_path).tensors:
            if tensor.name.endswith("exp_probs_b.bias"):
                file.seek(tensor.offset)
                bias = np.frombuffer(file.read(tensor.size), np.float32).copy()
                bias[[n for n in range(16) if n not in NANO_KEPT[int(tensor.name.split(".")[1])]]] = -1e30
                file.seek(tensor.offset)
                file.write(bias.tobytes())
    assert apart(logits(out), logits(masked)) < 0.01


def test_every_architecture_computes_what_a_masked_router_does(tiny_path: Path, tmp_path: Path) -> None:
    card = read_card(tiny_path)
    whole = prune(tiny_path, tmp_path / "whole.gguf", keeping(card, card.experts))
    assert np.array_equal(logits(whole), logits(tiny_path))
    plan = plan_random(card, 7 if card.experts == 11 else 3, seed=3)
    groups = {f"{card.architecture}.expert_group_count": 1} if plan.grouping else {}
    out = prune(tiny_path, tmp_path / "out.gguf", plan)
    assert read_card(out).experts == plan.keep
    assert apart(logits(out), logits(tiny_path, plan.kept, groups)) < 0.01
    assert apart(logits(out), logits(tiny_path)) > 0.1


@pytest.mark.parametrize(("keep", "groups", "used"), [(4, 2, 1), (6, 2, 1), (5, 1, 0)])
def test_groups_stay_or_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int, groups: int, used: int
) -> None:
    monkeypatch.setitem(tiny._MLA, "n_routed_experts", 8)
    path = converted(tmp_path, tiny.deepseek_v3)
    card = read_card(path)
    plan = plan_random(card, keep, seed=1)
    out = prune(path, tmp_path / "out.gguf", plan)
    metadata = read_card(out).metadata
    assert plan.groups == groups
    assert metadata.get("deepseek2.expert_group_count", 1) == groups
    assert metadata.get("deepseek2.expert_group_used_count", 0) == used
    given_up = {} if groups > 1 else {"deepseek2.expert_group_count": 1}
    assert apart(logits(out), logits(path, plan.kept, given_up)) < 0.01


def test_fewer_active_experts(nano_path: Path, tmp_path: Path) -> None:
    out = prune(nano_path, tmp_path / "out.gguf", keeping(read_card(nano_path), NANO_KEPT, active=2))
    assert read_card(out).experts_used == 2
    masked = logits(nano_path, NANO_KEPT, {"deepseek2.expert_used_count": 2})
    assert apart(logits(out), masked) < 0.01


def test_fewer_active_experts_leave_the_width_of_an_expert(tmp_path: Path) -> None:
    from tests.gguf_writer import moe_metadata, moe_tensors, write

    metadata = moe_metadata(**{"qwen3moe.expert_feed_forward_length": None, "qwen3moe.feed_forward_length": 64})
    path = write(tmp_path / "old.gguf", metadata, moe_tensors())
    out = prune(path, tmp_path / "out.gguf", keeping(read_card(path), 2, active=1))
    assert read_card(out).metadata["qwen3moe.expert_feed_forward_length"] == 32
    assert "general.file_type" not in read_card(out).metadata


def test_an_mtp_layer_is_cut_to_the_same_number(tmp_path: Path, nano_path: Path) -> None:
    path = with_mtp(tmp_path / "mtp.gguf", nano_path)
    out = prune(path, tmp_path / "out.gguf", plan_random(read_card(path), 8, 0))
    assert {tensor.shape[-1] for tensor in read_card(out).tensors if "_exps." in tensor.name} == {8}
    assert "blk.4.ffn_down_exps.weight" in stored(out)
    assert np.isfinite(logits(out)).all()


def test_the_stored_bytes_are_those_of_the_kept_experts(nano: Path, tmp_path: Path) -> None:
    out = prune(nano, tmp_path / "out.gguf", keeping(read_card(nano), NANO_KEPT))
    before, after = stored(nano), stored(out)
    for layer, kept in NANO_KEPT.items():
        for name in ("ffn_up_exps.weight", "ffn_gate_exps.weight", "ffn_down_exps.weight", "ffn_gate_inp.weight"):
            wanted = before[f"blk.{layer}.{name}"].reshape(16, -1)[list(kept)]
            assert np.array_equal(after[f"blk.{layer}.{name}"].reshape(8, -1), wanted)
        bias = before[f"blk.{layer}.exp_probs_b.bias"].view(np.float32)[0, list(kept)]
        assert np.array_equal(after[f"blk.{layer}.exp_probs_b.bias"].view(np.float32)[0], bias)
    assert np.array_equal(before["blk.0.ffn_down.weight"], after["blk.0.ffn_down.weight"])


def test_the_size_is_as_predicted(nano: Path, tmp_path: Path) -> None:
    for keep in (16, 11, 4):
        plan = plan_random(read_card(nano), keep, 0)
        with GgufSource(nano) as source:
            promised = PrunedSource(source, plan).file_plan().bytes
        out = prune(nano, tmp_path / f"{keep}.gguf", plan)
        assert out.stat().st_size == promised
        assert read_card(out).weights_size == plan.weights_after


def test_shards_are_one_model(nano_path: Path, tmp_path: Path) -> None:
    with GgufSource(nano_path) as source:
        whole = PrunedSource(source, keeping(source.card, 16))
        parts = quantize(whole, whole.file_plan(), tmp_path / "split.gguf", Run(threads=1), split_max_size=4_000_000)
    assert len(parts) > 2
    plan = keeping(read_card(parts[0]), NANO_KEPT)
    out = prune(parts[0], tmp_path / "out.gguf", plan)
    wanted = stored(prune(nano_path, tmp_path / "one.gguf", plan))
    found = stored(out)
    assert list(found) == list(wanted)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_the_file_says_what_was_removed(nano_path: Path, tmp_path: Path) -> None:
    plan = replace(
        keeping(read_card(nano_path), NANO_KEPT, active=3),
        tasks=("größer", "b"),
        profiles=("d1", "d2"),
        score="mass",
        lost_weight=0.25,
    )
    card = read_card(prune(nano_path, tmp_path / "out.gguf", plan))
    assert read_kept_experts(card) == KeptExperts(16, NANO_KEPT, 4, ("größer", "b"), ("d1", "d2"), "mass", "", 0.25)
    assert card.metadata["general.size_label"] == "8x3.4M"
    assert card.metadata["general.file_type"] == 7
    assert read_kept_experts(read_card(nano_path)) is None


def test_experts_of_a_file_pruned_twice_keep_their_first_numbers(nano_path: Path, tmp_path: Path) -> None:
    once = prune(nano_path, tmp_path / "once.gguf", keeping(read_card(nano_path), NANO_KEPT, active=3))
    twice = prune(once, tmp_path / "twice.gguf", keeping(read_card(once), dict.fromkeys((1, 2, 3), (0, 3, 7))))
    found = read_kept_experts(read_card(twice))
    assert found is not None
    assert found.kept == {1: (0, 5, 15), 2: (1, 6, 13), 3: (0, 3, 7)}
    assert (found.experts, found.active_before) == (16, 4)
    assert apart(logits(twice), logits(nano_path, found.kept, {"deepseek2.expert_used_count": 3})) < 0.01


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("experts", b"\x08\0\0\0\x01\0\0\0\0\0\0\0x"),  # a text
        ("experts", b"\x04\0\0\0\x02\0\0\0"),  # fewer than were kept
        ("layers", b"\x09\0\0\0\x05\0\0\0\0\0\0\0\0\0\0\0"),  # none
        ("layers", b"\x09\0\0\0\x05\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0"),  # one with all experts
        ("lost", b"\x08\0\0\0\x01\0\0\0\0\0\0\0x"),  # a text
    ],
)
def test_contradicting_keys_are_ignored(nano_path: Path, tmp_path: Path, key: str, encoded: bytes) -> None:
    with GgufSource(nano_path) as source:
        made = PrunedSource(source, keeping(source.card, NANO_KEPT)).file_plan()
        entries = tuple(
            replace(entry, encoded=encoded) if entry.key == f"dsr.pruned.{key}" else entry for entry in made.metadata
        )
        plan = replace(made, metadata=entries)
        out = quantize(
            PrunedSource(source, keeping(source.card, NANO_KEPT)), plan, tmp_path / "o.gguf", Run(threads=1)
        )[0]
    assert read_kept_experts(read_card(out)) is None


def test_a_stopped_run_resumes(nano_path: Path, tmp_path: Path) -> None:
    plan, out, stop = keeping(read_card(nano_path), NANO_KEPT), tmp_path / "out.gguf", Stop()

    def listen(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 2_000_000:
            stop.set()

    with pytest.raises(Aborted, match="the same command continues"):
        prune(nano_path, out, plan, stop=stop, listen=listen)
    assert not out.exists()
    moves: list[Progress] = []
    prune(nano_path, out, plan, listen=lambda event: moves.append(event) if isinstance(event, Progress) else None)
    assert moves[0].done > 0
    assert out.read_bytes() == prune(nano_path, tmp_path / "again.gguf", plan).read_bytes()


_KILLED = """
import os, signal, sys
from pathlib import Path
from runtime.base.events import Progress
from runtime.gguf.reader import read_card
from tests.quant.experts.test_pruned_source import NANO_KEPT, keeping, prune

def listen(event):
    if isinstance(event, Progress) and event.done > 2_000_000:
        os.kill(os.getpid(), signal.SIGKILL)

source, out = map(Path, sys.argv[1:])
prune(source, out, keeping(read_card(source), NANO_KEPT), listen=listen)
"""


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_killed_run_leaves_no_final_file_and_resumes(nano_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    killed = subprocess.run([sys.executable, "-c", _KILLED, nano_path, out], cwd=Path(__file__).parents[3])
    assert killed.returncode == -9
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "out.gguf.journal",
        "out.gguf.journal.lock",
        "out.gguf.partial",
    ]
    plan = keeping(read_card(nano_path), NANO_KEPT)
    prune(nano_path, out, plan)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    assert out.read_bytes() == prune(nano_path, tmp_path / "again.gguf", plan).read_bytes()


def test_the_model_itself_and_what_exists_are_never_overwritten(nano_path: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    shutil.copy(nano_path, model)
    plan = keeping(read_card(model), NANO_KEPT)
    with pytest.raises(UsageError, match="is the source itself"):
        prune(model, model, plan, force=True)
    other = tmp_path / "other.gguf"
    other.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        prune(model, other, plan)
    assert other.read_text() == "mine"
    assert model.read_bytes() == nano_path.read_bytes()


@given(st.sets(st.integers(0, 9), min_size=1), st.integers(1, 4), st.data())
def test_runs_are_the_rows_of_the_kept_experts(kept: set[int], height: int, data: st.DataObject) -> None:
    numbers = sorted(kept)
    end = data.draw(st.integers(1, len(numbers) * height))
    first = data.draw(st.integers(0, end - 1))
    rows = [expert * height + row for expert in numbers for row in range(height)]
    runs = list(_runs(numbers, height, first, end))
    assert [start + n for start, count in runs for n in range(count)] == rows[first:end]
    assert all(one[0] + one[1] < other[0] for one, other in pairwise(runs))
