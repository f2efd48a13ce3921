"""Headers with the shapes of published models: a strict check that refuses one of these is worth nothing.

The facts are those of each model's config.json and of llama.cpp's converter (the modules of `conversion/`); only the
vocabulary is made short, and the layers are made few.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runtime.gguf.reader import card_from_headers, parse_header
from runtime.placement.memory import need
from tests.gguf_writer import VOCABULARY, T, V, header, llama_metadata

LAYERS = 3
TOKENIZER = {key: value for key, value in llama_metadata().items() if key.startswith("tokenizer.")}
SENTENCEPIECE = {
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.pre": "default",
    "tokenizer.ggml.scores": [0.0] * 8,
    "tokenizer.ggml.merges": None,
}


def metadata(architecture: str, facts: dict[str, Any], **others: Any) -> dict[str, Any]:
    own = {f"{architecture}.{key}": value for key, value in facts.items()}
    common = {f"{architecture}.block_count": LAYERS, f"{architecture}.attention.layer_norm_rms_epsilon": 1e-6}
    both = {"general.architecture": architecture, **common, **own, **TOKENIZER, **others}
    return {key: value for key, value in both.items() if value is not None}


def outside(width: int, *others: T, tied: bool = False) -> list[T]:
    output = [] if tied else [T("output.weight", (width, 8))]
    return [T("token_embd.weight", (width, 8)), T("output_norm.weight", (width,)), *output, *others]


def in_each_layer(*tensors: tuple[str, tuple[int, ...]], layers: range = range(LAYERS)) -> list[T]:
    return [T(f"blk.{n}.{name}", shape) for n in layers for name, shape in tensors]


def attention(width: int, queries: int, keys: int, *, bias: bool = False) -> list[tuple[str, tuple[int, ...]]]:
    biases = [("attn_q.bias", (queries,)), ("attn_k.bias", (keys,)), ("attn_v.bias", (keys,))]
    return [
        ("attn_norm.weight", (width,)),
        ("attn_q.weight", (width, queries)),
        ("attn_k.weight", (width, keys)),
        ("attn_v.weight", (width, keys)),
        ("attn_output.weight", (queries, width)),
        *(biases if bias else []),
    ]


def dense(width: int, inner: int) -> list[tuple[str, tuple[int, ...]]]:
    return [
        ("ffn_norm.weight", (width,)),
        ("ffn_gate.weight", (width, inner)),
        ("ffn_up.weight", (width, inner)),
        ("ffn_down.weight", (inner, width)),
    ]


def experts(width: int, inner: int, count: int, shared: int = 0) -> list[tuple[str, tuple[int, ...]]]:
    routed = [
        ("ffn_norm.weight", (width,)),
        ("ffn_gate_inp.weight", (width, count)),
        ("ffn_gate_exps.weight", (width, inner, count)),
        ("ffn_up_exps.weight", (width, inner, count)),
        ("ffn_down_exps.weight", (inner, width, count)),
    ]
    always = [
        ("ffn_gate_shexp.weight", (width, shared)),
        ("ffn_up_shexp.weight", (width, shared)),
        ("ffn_down_shexp.weight", (shared, width)),
    ]
    return routed + (always if shared else [])


def sizes(width: int, heads: int, kv_heads: int, inner: int, **more: Any) -> dict[str, Any]:
    return {
        "context_length": 131072,
        "embedding_length": width,
        "feed_forward_length": inner,
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        **{key.replace("__", "."): value for key, value in more.items()},
    }


LLAMA_2 = (  # a vocabulary of SentencePiece, no number of rotary dimensions
    metadata("llama", sizes(4096, 32, 32, 11008), **SENTENCEPIECE),
    outside(4096) + in_each_layer(*attention(4096, 4096, 4096), *dense(4096, 11008)),
)
LLAMA_3_2_1B = (  # tied embeddings, factors of the rotary frequencies
    metadata("llama", sizes(2048, 32, 8, 8192, rope__dimension_count=64, rope__freq_base=500000.0)),
    outside(2048, T("rope_freqs.weight", (32,)), tied=True)
    + in_each_layer(*attention(2048, 2048, 512), *dense(2048, 8192)),
)
MISTRAL_NEMO = (  # heads that are not width / heads long
    metadata("llama", sizes(5120, 32, 8, 14336, attention__key_length=128, attention__value_length=128)),
    outside(5120) + in_each_layer(*attention(5120, 4096, 1024), *dense(5120, 14336)),
)
MIXTRAL = (
    metadata("llama", sizes(4096, 32, 8, 14336, expert_count=8, expert_used_count=2), **SENTENCEPIECE),
    outside(4096) + in_each_layer(*attention(4096, 4096, 1024), *experts(4096, 14336, 8)),
)
R1_DISTILL_QWEN_1_5B = (
    metadata("qwen2", sizes(1536, 12, 2, 8960)),
    outside(1536) + in_each_layer(*attention(1536, 1536, 256, bias=True), *dense(1536, 8960)),
)
_QWEN3_NORMS = (("attn_q_norm.weight", (128,)), ("attn_k_norm.weight", (128,)))
QWEN3_0_6B = (
    metadata("qwen3", sizes(1024, 16, 8, 3072, attention__key_length=128, attention__value_length=128)),
    outside(1024, tied=True) + in_each_layer(*attention(1024, 2048, 1024), *_QWEN3_NORMS, *dense(1024, 3072)),
)
QWEN3_30B_A3B = (
    metadata(
        "qwen3moe",
        sizes(
            2048, 32, 4, 6144, attention__key_length=128, attention__value_length=128,
            expert_count=128, expert_used_count=8, expert_feed_forward_length=768,
        ),
    ),
    outside(2048) + in_each_layer(*attention(2048, 4096, 512), *_QWEN3_NORMS, *experts(2048, 768, 128)),
)  # fmt: skip
PHI_4 = (  # queries, keys and values in one tensor, gate and up in one
    metadata("phi3", sizes(5120, 40, 10, 17920, rope__dimension_count=128, attention__sliding_window=0)),
    outside(5120)
    + in_each_layer(
        ("attn_norm.weight", (5120,)), ("attn_qkv.weight", (5120, 7680)), ("attn_output.weight", (5120, 5120)),
        ("ffn_norm.weight", (5120,)), ("ffn_up.weight", (5120, 35840)), ("ffn_down.weight", (17920, 5120)),
    ),
)  # fmt: skip
PHI_4_MINI = (  # tied, three quarters of each head rotated, LongRoPE factors
    metadata(
        "phi3",
        sizes(
            3072, 24, 8, 8192, rope__dimension_count=96, rope__scaling__original_context_length=4096,
            rope__scaling__attn_factor=1.19, attention__sliding_window=262144,
        ),
    ),
    outside(3072, T("rope_factors_long.weight", (48,)), T("rope_factors_short.weight", (48,)), tied=True)
    + in_each_layer(
        ("attn_norm.weight", (3072,)), ("attn_qkv.weight", (3072, 5120)), ("attn_output.weight", (3072, 3072)),
        ("ffn_norm.weight", (3072,)), ("ffn_up.weight", (3072, 16384)), ("ffn_down.weight", (8192, 3072)),
    ),
)  # fmt: skip
GPT_OSS_20B = (
    metadata(
        "gpt-oss",
        sizes(
            2880, 64, 8, 2880, attention__key_length=64, attention__value_length=64, attention__sliding_window=128,
            expert_count=32, expert_used_count=4, expert_feed_forward_length=2880,
            rope__scaling__type="yarn", rope__scaling__factor=32.0, rope__scaling__original_context_length=4096,
        ),
    ),
    outside(2880)
    + in_each_layer(
        *attention(2880, 4096, 512, bias=True), ("attn_output.bias", (2880,)), ("attn_sinks.weight", (64,)),
        ("post_attention_norm.weight", (2880,)), *experts(2880, 2880, 32)[1:], ("ffn_gate_inp.bias", (32,)),
        ("ffn_gate_exps.bias", (2880, 32)), ("ffn_up_exps.bias", (2880, 32)), ("ffn_down_exps.bias", (2880, 32)),
    ),
)  # fmt: skip
_DEEPSEEK_EXPERTS = {
    "expert_count": 256, "expert_used_count": 8, "expert_shared_count": 1, "expert_feed_forward_length": 2048,
    "expert_group_count": 8, "expert_group_used_count": 4, "expert_gating_func": 2, "expert_weights_norm": True,
    "leading_dense_block_count": 1, "attention.q_lora_rank": 1536, "attention.kv_lora_rank": 512,
    "rope.dimension_count": 64, "rope.scaling.type": "yarn", "rope.scaling.factor": 40.0,
}  # fmt: skip
_DEEPSEEK_LAYERS = [
    *in_each_layer(*dense(7168, 18432), layers=range(1)),
    *in_each_layer(*experts(7168, 2048, 256, shared=2048), ("exp_probs_b.bias", (256,)), layers=range(1, LAYERS)),
]
_DEEPSEEK_QUERIES = (
    ("attn_norm.weight", (7168,)), ("attn_q_a.weight", (7168, 1536)), ("attn_q_a_norm.weight", (1536,)),
    ("attn_q_b.weight", (1536, 128 * 192)), ("attn_kv_a_mqa.weight", (7168, 576)), ("attn_kv_a_norm.weight", (512,)),
    ("attn_output.weight", (128 * 128, 7168)),
)  # fmt: skip
DEEPSEEK_R1 = (  # the key and value projections in two, as converted since April 2025
    metadata(
        "deepseek2",
        sizes(7168, 128, 1, 18432, attention__key_length=576, attention__value_length=512)
        | {"attention.key_length_mla": 192, "attention.value_length_mla": 128}
        | _DEEPSEEK_EXPERTS,
    ),
    outside(7168)
    + _DEEPSEEK_LAYERS
    + in_each_layer(*_DEEPSEEK_QUERIES, ("attn_k_b.weight", (128, 512, 128)), ("attn_v_b.weight", (512, 128, 128))),
)
DEEPSEEK_R1_OLD = (  # as converted in January 2025
    metadata(
        "deepseek2",
        sizes(7168, 128, 128, 18432, attention__key_length=192, attention__value_length=128) | _DEEPSEEK_EXPERTS,
    ),
    outside(7168) + _DEEPSEEK_LAYERS + in_each_layer(*_DEEPSEEK_QUERIES, ("attn_kv_b.weight", (512, 128 * 256))),
)
DEEPSEEK_R1_WITH_MTP = (  # the layer that predicts a further token is counted, its tensors are there too
    DEEPSEEK_R1[0] | {"deepseek2.block_count": LAYERS + 1, "deepseek2.nextn_predict_layers": 1},
    DEEPSEEK_R1[1]
    + in_each_layer(
        *_DEEPSEEK_QUERIES, ("attn_k_b.weight", (128, 512, 128)), ("attn_v_b.weight", (512, 128, 128)),
        *experts(7168, 2048, 256, shared=2048), ("nextn.eh_proj.weight", (14336, 7168)),
        ("nextn.embed_tokens.weight", (7168, 8)), ("nextn.enorm.weight", (7168,)), ("nextn.hnorm.weight", (7168,)),
        ("nextn.shared_head_head.weight", (7168, 8)), ("nextn.shared_head_norm.weight", (7168,)),
        layers=range(LAYERS, LAYERS + 1),
    ),
)  # fmt: skip
DEEPSEEK_V2_LITE = (  # no compression of the queries, softmax gating, one group
    metadata(
        "deepseek2",
        sizes(2048, 16, 1, 10944, attention__key_length=576, attention__value_length=512)
        | {
            "attention.key_length_mla": 192, "attention.value_length_mla": 128, "attention.kv_lora_rank": 512,
            "rope.dimension_count": 64, "expert_count": 64, "expert_used_count": 6, "expert_shared_count": 2,
            "expert_feed_forward_length": 1408, "leading_dense_block_count": 1,
        },
    ),
    outside(2048)
    + in_each_layer(
        ("attn_norm.weight", (2048,)), ("attn_q.weight", (2048, 16 * 192)), ("attn_kv_a_mqa.weight", (2048, 576)),
        ("attn_kv_a_norm.weight", (512,)), ("attn_k_b.weight", (128, 512, 16)), ("attn_v_b.weight", (512, 128, 16)),
        ("attn_output.weight", (2048, 2048)),
    )
    + in_each_layer(*dense(2048, 10944), layers=range(1))
    + in_each_layer(*experts(2048, 1408, 64, shared=2816), layers=range(1, LAYERS)),
)  # fmt: skip
NEMOTRON_SUPER = (  # pruned: layers without attention, others without keys of their own
    metadata(
        "deci",
        sizes(8192, 64, 8, 28672)
        | {
            "attention.head_count": V("i32", [64, 0, 64], array=True),
            "attention.head_count_kv": V("i32", [8, 0, 0], array=True),
            "feed_forward_length": V("i32", [28672, 14336, 0], array=True),
            "rope.dimension_count": 128,
        },
    ),
    outside(8192) + in_each_layer(*attention(8192, 8192, 1024), layers=range(1)),
)


@pytest.mark.parametrize(
    ("model", "heads", "kv_bytes"),
    [
        pytest.param(LLAMA_2, 32, 3 * 2 * 4096 * 2, id="Llama 2 7B"),
        pytest.param(LLAMA_3_2_1B, 32, 3 * 2 * 512 * 2, id="Llama 3.2 1B"),
        pytest.param(MISTRAL_NEMO, 32, 3 * 2 * 1024 * 2, id="Mistral Nemo"),
        pytest.param(MIXTRAL, 32, 3 * 2 * 1024 * 2, id="Mixtral 8x7B"),
        pytest.param(R1_DISTILL_QWEN_1_5B, 12, 3 * 2 * 256 * 2, id="R1 Distill Qwen 1.5B"),
        pytest.param(QWEN3_0_6B, 16, 3 * 2 * 1024 * 2, id="Qwen3 0.6B"),
        pytest.param(QWEN3_30B_A3B, 32, 3 * 2 * 512 * 2, id="Qwen3 30B A3B"),
        pytest.param(PHI_4, 40, 3 * 2 * 1280 * 2, id="Phi-4-reasoning"),
        pytest.param(PHI_4_MINI, 24, 3 * 2 * 1024 * 2, id="Phi-4-mini-reasoning"),
        pytest.param(DEEPSEEK_R1, 128, 3 * 576 * 2, id="DeepSeek-R1"),
        pytest.param(DEEPSEEK_R1_OLD, 128, 3 * 128 * (192 + 128) * 2, id="DeepSeek-R1 of January 2025"),
        pytest.param(DEEPSEEK_R1_WITH_MTP, 128, 3 * 576 * 2, id="DeepSeek-R1 with MTP"),
        pytest.param(DEEPSEEK_V2_LITE, 16, 3 * 576 * 2, id="DeepSeek-V2-Lite"),
        pytest.param(NEMOTRON_SUPER, 64, 2 * 1024 * 2, id="Llama Nemotron Super"),
    ],
)
def test_a_published_model_passes_and_its_cache_is_known(
    model: tuple[dict[str, Any], list[T]], heads: int, kv_bytes: int
) -> None:
    path = Path("model.gguf")
    card = card_from_headers((path,), (parse_header(header(*model), 1 << 50, path),))
    assert (card.heads, card.vocab_size) == (heads, len(VOCABULARY))
    assert need(card, 2048).kv_cache - need(card, 1024).kv_cache == 1024 * kv_bytes


def test_gpt_oss_passes_and_every_second_layer_keeps_its_window_alone() -> None:
    path = Path("model.gguf")
    card = card_from_headers((path,), (parse_header(header(*GPT_OSS_20B), 1 << 50, path),))
    # One full layer, and two with the windows of two sequences, the room of a batch, and a checkpoint.
    cells = 4096 + 2 * (2 * 128 + 512) + 2 * 128
    assert need(card, 4096).kv_cache == cells * 2 * 512 * 2
