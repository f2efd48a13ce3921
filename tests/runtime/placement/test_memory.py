"""The arithmetic of memory, with the published sizes of real models."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runtime.base.errors import UsageError
from runtime.base.types import ByteCount
from runtime.gguf.card import ModelCard, layer_count
from runtime.gguf.header import TensorInfo
from runtime.gguf.reader import read_card
from runtime.gguf.types import BY_NAME
from runtime.gguf.values import ArrayValue
from runtime.placement.cache import CacheOptions, cache_bytes
from runtime.placement.cache_shape import cache_shape
from runtime.placement.memory import host_cache, largest_context, need, part_sizes, warning
from runtime.placement.repacked import repacked

NANO = Path(__file__).parents[3] / "dsr" / "data" / "nano.gguf"
MIB = 1 << 20


def card(**changes: Any) -> ModelCard:
    """R1-Distill-Qwen-7B, without its tensors."""
    facts: dict[str, Any] = {
        "files": (Path("7b.gguf"),),
        "size": ByteCount(0),
        "architecture": "qwen2",
        "name": "7B",
        "metadata": {},
        "tensors": (),
        "header_digest": "",
        "layers": 28,
        "nextn_layers": 0,
        "context_length": 131072,
        "embedding_length": 3584,
        "heads": 28,
        "kv_heads_per_layer": (4,) * 28,
        "key_length": 128,
        "value_length": 128,
        "rope_dimensions": 128,
        "q_lora_rank": 0,
        "kv_lora_rank": 0,
        "key_length_mla": 0,
        "value_length_mla": 0,
        "experts": 0,
        "experts_used": 0,
        "vocab_size": 152064,
        "bos_token": None,
        "eos_token": None,
        "template": None,
    }
    return ModelCard(**facts | changes)


def tensor(name: str, shape: tuple[int, ...], kind: str = "F16") -> TensorInfo:
    return TensorInfo(name, shape, kind, 0, ByteCount(math.prod(shape) // BY_NAME[kind].block * BY_NAME[kind].width))


R1 = card(
    architecture="deepseek2",
    layers=61,
    heads=128,
    kv_heads_per_layer=(1,) * 61,
    key_length=576,
    value_length=512,
    rope_dimensions=64,
    kv_lora_rank=512,
    key_length_mla=192,
    value_length_mla=128,
)


def per_token(model: ModelCard, kv_type: str = "f16") -> int:
    """Bytes of cache of one token."""
    return sum(cache_bytes(cache_shape(model), CacheOptions(256, kv_type=kv_type))) // 256


@pytest.mark.parametrize(
    ("kv_type", "size"), [("f32", 114688), ("f16", 57344), ("bf16", 57344), ("q8_0", 30464), ("q4_0", 16128)]
)
def test_grouped_heads(kv_type: str, size: int) -> None:
    assert per_token(card(), kv_type) == size


def test_latent_attention_keeps_the_latent_once() -> None:
    assert per_token(R1) == 70272


OLD_R1 = card(
    name="DeepSeek-R1",
    architecture="deepseek2",
    layers=61,
    heads=128,
    kv_heads_per_layer=(128,) * 61,
    key_length=192,
    value_length=128,
    rope_dimensions=64,
    kv_lora_rank=512,
)


def test_old_files_without_the_latent_keep_every_head() -> None:
    assert per_token(OLD_R1) == 4_997_120


def test_old_files_without_the_latent_are_warned_about() -> None:
    said = warning(OLD_R1)
    assert said is not None
    assert said.startswith("DeepSeek-R1 is an old conversion")
    assert "71 times" in said


def test_other_files_are_not_warned_about() -> None:
    assert warning(R1) is None
    assert warning(card()) is None


def test_layers_may_differ() -> None:
    assert per_token(card(layers=3, kv_heads_per_layer=(4, 0, 2))) == 6 * 256 * 2


def test_layers_for_further_tokens_have_no_cache() -> None:
    assert per_token(card(layers=29, nextn_layers=1, kv_heads_per_layer=(4,) * 29)) == 57344


def test_an_unknown_type_of_cache() -> None:
    with pytest.raises(UsageError, match="q4_K"):
        per_token(card(), "q4_K")


def test_windowed_layers_keep_what_their_sequences_see_and_one_batch() -> None:
    oss = card(
        architecture="gpt-oss",
        layers=24,
        kv_heads_per_layer=(8,) * 24,
        key_length=64,
        value_length=64,
        metadata={"gpt-oss.attention.sliding_window": 128},
    )
    each = 8 * 128 * 2  # bytes of a token in a layer
    assert need(oss, 131072, kv_full=True).kv_cache == 24 * each * 131072
    # Two sequences and a batch: 2 * 128 + 512 tokens; and one checkpoint of 128.
    assert need(oss, 131072).kv_cache == 12 * each * (131072 + 768 + 128)
    # Nine sequences and a batch, in steps of 256: 1792 tokens; and three checkpoints.
    assert need(oss, 131072, slots=8).kv_cache == 12 * each * (131072 + 1792 + 3 * 128)
    # Where that saves nothing, they keep the context, in cells that sequences share.
    assert need(oss, 768).kv_cache == 24 * each * 768
    assert need(oss, 4096, slots=28).kv_cache == 24 * each * 4096
    assert part_sizes(oss, 1024).kv_cache[:2] == (each * (768 + 128), each * 1024)


def test_a_recurrent_layer_keeps_a_state_of_each_sequence_and_checkpoint_in_place_of_a_cache() -> None:
    mixed = card(
        architecture="qwen3next",
        layers=2,
        kv_heads_per_layer=(2, 2),
        key_length=256,
        value_length=256,
        metadata={
            "qwen3next.ssm.conv_kernel": 4,
            "qwen3next.ssm.inner_size": 4096,
            "qwen3next.ssm.state_size": 128,
            "qwen3next.ssm.group_count": 16,
        },
        tensors=(tensor("blk.0.ssm_conv1d.weight", (4, 8192), "F32"), tensor("blk.1.attn_k.weight", (2048, 512))),
    )
    state = 3 * 8192 + 128 * 4096
    assert part_sizes(mixed, 1024, slots=8).kv_cache == ((9 + 3) * state * 4, 1024 * 2 * 512 * 2)
    assert part_sizes(mixed, 1024).kv_cache == ((2 + 1) * state * 4, 1024 * 2 * 512 * 2)


def test_the_parts_of_a_need_add_up() -> None:
    each = need(read_card(NANO), 2048)
    assert each.weights == 13_053_120
    assert each.kv_cache == 4 * (256 + 32) * 2 * 2048
    assert each.total == each.weights + each.kv_cache + each.compute
    assert each.beyond_weights == each.kv_cache + each.compute
    # The engine reports a compute buffer of 10.01 MiB; program, samplers and tables come on top: measured, 67 MiB.
    assert 74 * MIB < each.compute < 80 * MIB


def test_devices_together_hold_every_weight_once() -> None:
    nano = read_card(NANO)
    each = part_sizes(nano, 2048)
    whole = need(nano, 2048)
    home = each.need([0, 1], [0, 1, 2, 3], head=False, local=True)
    other = each.need([2, 3], [], head=True, local=False)
    assert home.weights + other.weights == whole.weights
    assert home.kv_cache + other.kv_cache == whole.kv_cache
    assert home.kv_cache == other.kv_cache > 0
    assert other.compute < home.compute <= whole.compute


def test_a_device_that_holds_nothing_needs_nothing() -> None:
    assert part_sizes(R1, 4096).need([], [], head=False, local=False).total == 0


def test_a_tied_head_away_from_home_is_a_copy() -> None:
    embedding = tensor("token_embd.weight", (64, 1000), "F16")
    each = part_sizes(card(tensors=(embedding,), layers=0, kv_heads_per_layer=()), 512)
    assert each.need([], [], head=True, local=True).weights == 128_000
    assert each.need([], [], head=True, local=False).weights == 128_000
    assert each.need([], [], head=False, local=True).weights == 128_000


def test_tables_that_are_looked_up_lie_with_the_embedding() -> None:
    table, embedding = tensor("per_layer_token_embd.weight", (256, 1000)), tensor("token_embd.weight", (64, 1000))
    each = part_sizes(card(tensors=(embedding, table), layers=0, kv_heads_per_layer=()), 512)
    assert (each.embedding, each.head, each.shared) == (640_000, 128_000, 128_000)
    assert each.need([], [], head=True, local=True).weights == 640_000
    assert each.need([], [], head=True, local=False).weights == 128_000
    norm = tensor("token_embd_norm.weight", (64,))  # LFM2's name for the norm before the head
    assert part_sizes(card(tensors=(norm,), layers=0, kv_heads_per_layer=()), 512).embedding == 0


def test_buffers_follow_the_graph_that_the_engine_reserves() -> None:
    layer = (tensor("blk.0.ffn_up.weight", (1024, 3072)), tensor("blk.0.ffn_down.weight", (3072, 1024)))
    small = {"layers": 2, "kv_heads_per_layer": (4, 4), "heads": 16, "key_length": 64, "value_length": 64}
    facts = {**small, "embedding_length": 1024, "vocab_size": 1000, "tensors": layer}
    mask = 527 * 4096 * 2  # 512 tokens, as a multiple of 17 sequences
    assert part_sizes(card(**facts), 4096).attention_buffer == 527 * (4 * 1024 + 3072 + 6) * 4 + mask
    gated = (*layer, tensor("blk.0.ffn_gate.weight", (1024, 3072)))
    with_gate = card(**{**facts, "tensors": gated})
    assert part_sizes(with_gate, 4096).attention_buffer == 527 * (4 * 1024 + 3 * 3072 + 6) * 4 + mask
    # Keys of blocks are rotated, and ggml places the rest another way.
    assert part_sizes(with_gate, 4096, kv_type="q8_0").attention_buffer == 527 * (3 * 1024 + 3 * 3072 + 6) * 4 + mask
    # The output of attention lies behind the queries.
    wide = card(**{**facts, "tensors": gated, "heads": 24})
    assert part_sizes(wide, 4096).attention_buffer == 527 * (3 * 1024 + 24 * 64 + 3 * 3072 + 6) * 4 + mask
    # The product of a narrow gate and up lies where the queries were.
    narrow = tuple(
        tensor(f"blk.0.ffn_{name}.weight", shape)
        for name, shape in (("up", (1024, 2048)), ("gate", (1024, 2048)), ("down", (2048, 1024)))
    )
    reused = card(**{**facts, "tensors": narrow})
    assert part_sizes(reused, 4096).attention_buffer == 527 * (4 * 1024 + 2 * 2048 + 6) * 4 + mask
    # One layer alone frees its mask before its network.
    single = card(**{**facts, "tensors": gated, "layers": 1, "kv_heads_per_layer": (4,)})
    assert part_sizes(single, 4096).attention_buffer == 527 * (4 * 1024 + 3 * 3072 + 6) * 4


def test_layers_for_further_tokens_are_not_loaded() -> None:
    blocks = tuple(tensor(f"blk.{n}.ffn_down.weight", (64, 64), "F16") for n in range(3))
    ahead = card(layers=3, nextn_layers=1, kv_heads_per_layer=(1,) * 3, tensors=blocks)
    assert layer_count(ahead) == 2
    assert need(ahead, 512).weights == 2 * 8192


def test_layers_for_further_tokens_take_weights_a_cache_and_buffers_when_they_draft() -> None:
    blocks = tuple(tensor(f"blk.{n}.ffn_down.weight", (64, 64), "F16") for n in range(3))
    ahead = card(layers=3, nextn_layers=1, kv_heads_per_layer=(1,) * 3, tensors=blocks)
    without, used = need(ahead, 512), need(ahead, 512, mtp=True)
    assert used.weights - without.weights == 8192
    assert used.kv_cache == without.kv_cache * 3 // 2
    hidden = 3 * 512 * ahead.embedding_length * 4
    assert used.compute - without.compute > hidden + 2 * ahead.vocab_size * 4
    assert used.reason == f"{without.reason}; a second context for the layers that predict ahead"
    state = tensor("blk.0.ssm_a", (2,), "F32")
    ssm = {
        f"{ahead.architecture}.ssm.{key}": n for key, n in (("conv_kernel", 4), ("inner_size", 64), ("state_size", 32))
    }
    recurrent = replace(ahead, tensors=(*blocks, state), metadata=ssm)
    kept = need(recurrent, 512, drafted=4, mtp=True).kv_cache - need(recurrent, 512, mtp=True).kv_cache
    assert kept == 4 * 2 * (3 * 64 + 32 * 64) * 4  # two sequences
    exactly = need(ahead, 1024, mtp=True).total
    of_both = partial(need, ahead, mtp=True)
    assert largest_context(of_both, exactly, 8192) == 1024
    assert largest_context(of_both, exactly - 1, 8192) == 768
    assert largest_context(partial(need, ahead), exactly, 8192) > 1024


@pytest.mark.parametrize(
    ("features", "types"),
    [
        (("avx2", "avx512f"), ("Q4_0", "Q4_K", "Q2_K")),
        (("avx2",), ("Q4_0", "Q4_K")),
        (("asimd", "asimddp"), ("Q4_0", "Q4_K", "Q6_K", "Q8_0")),
        (("sse4_1",), ()),
    ],
)
def test_the_types_that_a_cpu_keeps_a_second_time(features: tuple[str, ...], types: tuple[str, ...]) -> None:
    for kind in ("Q4_0", "Q4_1", "Q4_K", "Q2_K", "Q6_K", "Q8_0", "F16"):
        one = tensor("blk.0.ffn_down.weight", (256, 64), kind)
        assert repacked(card(tensors=(one,)), features) == (one.size if kind in types else 0)


def test_what_is_not_multiplied_or_has_odd_rows_is_not_repacked() -> None:
    kept = (
        tensor("token_embd.weight", (256, 64), "Q4_0"),
        tensor("blk.0.attn_k_b.weight", (256, 64, 4), "Q4_0"),
        tensor("blk.0.attn_k.weight", (256, 12), "Q4_0"),
        tensor("output.weight", (256, 64), "Q4_0"),
        tensor("blk.0.ffn_up_exps.weight", (256, 64, 4), "Q4_0"),
    )
    assert repacked(card(tensors=kept), ("avx2",)) == kept[3].size + kept[4].size
    tied = tuple(each for each in kept if each.name != "output.weight")
    assert repacked(card(tensors=tied), ("avx2",)) == kept[0].size + kept[4].size


def test_what_amx_keeps_a_second_time() -> None:
    server = ("avx2", "avx512f", "amx_tile", "amx_int8")
    matrices = (
        tensor("blk.0.attn_q.weight", (256, 64), "Q8_0"),  # 64 rows of 8 blocks, four bytes more for each
        tensor("blk.0.attn_k.weight", (256, 48), "Q8_0"),  # half a tile is left over
        tensor("blk.0.attn_v.weight", (256, 40), "Q4_0"),  # not in tiles, but in groups of eight rows
        tensor("blk.0.ffn_up_exps.weight", (256, 64, 4), "Q4_K"),
    )
    sizes = [each.size for each in matrices]
    assert repacked(card(tensors=matrices), server) == sizes[0] + 64 * 8 * 4 + sizes[2] + sizes[3]


def test_a_model_with_latent_attention_keeps_nothing_twice_on_a_cpu_with_amx() -> None:
    latent = (
        tensor("blk.0.attn_k_b.weight", (256, 64, 4), "Q4_0"),
        tensor("blk.0.attn_output.weight", (256, 64), "Q4_0"),
    )
    assert repacked(card(tensors=latent), ("avx2", "amx_int8")) == 0
    assert repacked(card(tensors=latent), ("avx2",)) == latent[1].size


def test_the_cache_grows_in_steps_of_256_tokens() -> None:
    assert need(card(), 1).kv_cache == need(card(), 256).kv_cache == 256 * 57344
    assert need(card(), 257).kv_cache == 512 * 57344


def test_more_slots_need_more_logits_and_samplers() -> None:
    # The graph of 17 sequences has as many tokens as that of 31: 527.
    more = need(card(), 4096, slots=15).compute - need(card(), 4096, slots=1).compute
    assert more == 14 * 152064 * (4 + 12)


def test_a_checked_draft_needs_a_row_of_logits_for_each_token() -> None:
    assert need(card(), 4096, drafted=16).compute - need(card(), 4096).compute == 15 * 152064 * 4
    assert need(card(), 4096, slots=8, drafted=4) == need(card(), 4096, slots=8)


def test_the_largest_context_fits_and_the_next_does_not() -> None:
    available = 4 << 30
    context = largest_context(partial(need, card()), available, 131072)
    assert 0 < context < 131072
    assert context % 256 == 0
    assert need(card(), context).total <= available < need(card(), context + 256).total


def test_the_largest_context_ends_at_the_longest() -> None:
    need_of = partial(need, card())
    assert largest_context(need_of, 1 << 40, 1000) == 1000
    assert largest_context(need_of, 1 << 40, 131072) == 131072
    assert largest_context(need_of, 1000, 131072) == 0


def test_keys_and_values_of_different_types() -> None:
    assert per_token(card(), "k=q8_0,v=q4_0") == (30464 + 16128) // 2
    assert per_token(card(), "k=f16,v=q8_0") == (57344 + 30464) // 2


WINDOWS = {  # layers of 12 with a window, as src/models/ of llama.cpp has them
    "gemma2": (4096, "0 2 4 6 8 10"),
    "gemma3": (512, "0 1 2 3 4 6 7 8 9 10"),
    "gpt-oss": (512, "0 2 4 6 8 10"),
    "cohere2": (512, "0 1 2 4 5 6 8 9 10"),
    "cohere2moe": (512, "1 2 3 5 6 7 9 10 11"),
    "smallthinker": (4096, "1 2 3 5 6 7 9 10 11"),
    "llama4": (8192, "0 1 2 4 5 6 8 9 10"),
    "plamo3": (512, "0 1 2 3 4 5 6 8 9 10 11"),
    "exaone4": (0, ""),
    "llama": (0, ""),
}


@pytest.mark.parametrize("architecture", WINDOWS)
def test_the_layers_with_a_window_are_those_of_the_architecture(architecture: str) -> None:
    size, layers = WINDOWS[architecture]
    given = {} if architecture == "gemma2" else {f"{architecture}.attention.sliding_window": 512}
    model = card(architecture=architecture, layers=12, kv_heads_per_layer=(1,) * 12, metadata=given)
    shape = cache_shape(model)
    assert shape.window == size
    assert [n for n, each in enumerate(shape.layers) if each.windowed] == list(map(int, layers.split()))


def test_a_file_may_say_which_layers_have_a_window() -> None:
    said: dict[str, Any] = {"gemma4.attention.sliding_window": 1024, "gemma4.attention.key_length_swa": 256}
    said |= {"gemma4.attention.value_length_swa": 128, "gemma4.attention.shared_kv_layers": 2}
    said["gemma4.attention.sliding_window_pattern"] = ArrayValue("bool", 6, bytes([1, 1, 0, 1, 1, 0]))
    mixed = card(
        architecture="gemma4", layers=6, kv_heads_per_layer=(2,) * 6, key_length=512, value_length=512, metadata=said
    )
    assert [(each.keys, each.values, each.windowed) for each in cache_shape(mixed).layers] == [
        (512, 256, True), (512, 256, True), (1024, 1024, False), (512, 256, True), (0, 0, True), (0, 0, False),
    ]  # fmt: skip
    every = replace(mixed, metadata=said | {"gemma4.attention.sliding_window_pattern": 3})
    assert [each.windowed for each in cache_shape(every).layers] == [True, True, False] * 2


def indexed(architecture: str, **said: Any) -> list[tuple[int, int, int, int]]:
    """Keys, values, indexer keys and indexer values of four layers with latent attention."""
    keys = {"attention.indexer.key_length": 128, "attention.indexer.top_k": 2048, **said}
    model = card(
        architecture=architecture,
        layers=4,
        kv_heads_per_layer=(1,) * 4,
        key_length=576,
        value_length=512,
        kv_lora_rank=512,
        key_length_mla=192,
        value_length_mla=128,
        metadata={f"{architecture}.{key}": value for key, value in keys.items()},
    )
    return [(each.keys, each.values, each.index_keys, each.index_values) for each in cache_shape(model).layers]


def test_an_indexer_caches_keys_of_its_own() -> None:
    with_one, without = (576, 0, 128, 0), (576, 0, 0, 0)
    assert indexed("deepseek2") == [without] * 4
    assert indexed("deepseek32") == [with_one] * 4
    types = ArrayValue("u32", 4, b"\1\0\0\0" + bytes(8) + b"\1\0\0\0")
    assert indexed("glm-dsa", **{"attention.indexer.types": types}) == [with_one, without, without, with_one]
    assert indexed("hy_v4") == [without] * 4  # a file with indexers says where
    assert indexed("glm5-next", **{"attention.indexer.kpool": 4}) == [(576, 0, 3 * 128, 0)] * 4


def test_compressed_caches_have_cells_rows_and_states_for_each_sequence() -> None:
    ratios = ArrayValue("u32", 3, b"".join(n.to_bytes(4, "little") for n in (0, 4, 128)))
    model = card(
        architecture="deepseek4",
        layers=3,
        kv_heads_per_layer=(1,) * 3,
        key_length=512,
        value_length=512,
        metadata={"deepseek4.attention.compress_ratios": ratios, "deepseek4.attention.indexer.key_length": 128},
    )
    # Two sequences of 4096 tokens; 1024 rows of four tokens, 256 of 128; states are float32.
    cells = 2 * 4096 * 512 * 2
    sparse = 2 * (1024 * (512 + 128) * 2 + 2 * 8 * (1024 + 256) * 4)
    heavy = 2 * (256 * 512 * 2 + 2 * 128 * 512 * 4)
    assert cache_bytes(cache_shape(model), CacheOptions(4096)) == (cells, cells + sparse, cells + heavy)


def test_llama_4_without_chunks_has_no_window() -> None:
    model = card(architecture="llama4", metadata={"llama4.attention.sliding_window": 0})
    assert cache_shape(model).window == 0
    assert cache_shape(replace(model, metadata={})).window == 8192


# Idle texts of a server


@pytest.mark.parametrize(("left", "size"), [(9_000, 300), (1_100, 275), (0, 0), (-500, 0)])
def test_idle_texts_take_as_much_as_the_cache_and_a_quarter_of_what_is_left(left: int, size: int) -> None:
    assert host_cache(300, left) == size
