"""DeepSeek V2 to V3.2, Kimi K2 (under the class of DeepSeek V3) and K2.5: compressed attention (MLA) in its absorbed
form, leading dense layers, shared and routed experts; V3.2 chooses tokens with an indexer (section 2.1 of arXiv
2512.02556)."""

from __future__ import annotations

from dataclasses import replace

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    UNTIED_OUTPUT,
    experts,
    feed_forward,
    linear,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.family import Family, Row, When, blk, both, f32, flag, neither, u32
from quant.convert.transforms import cut, reshape, transpose

# configuration_deepseek_v2.py and configuration_deepseek_v3.py of transformers 4.57. V3 has the router's bias always.
_BOTH: dict[str, object] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "kv_lora_rank": 512,
    "q_lora_rank": 1536,
    "moe_layer_freq": 1,
}
_BOTH |= {"qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128}
DEFAULTS_2 = _BOTH | {"first_k_dense_replace": 0, "n_routed_experts": 64, "n_shared_experts": 2}
DEFAULTS_2 |= {"routed_scaling_factor": 1.0, "norm_topk_prob": False, "topk_method": "greedy"}
DEFAULTS_2 |= {"moe_intermediate_size": 1407}
DEFAULTS_3 = _BOTH | {"first_k_dense_replace": 3, "n_routed_experts": 256, "n_shared_experts": 1}
DEFAULTS_3 |= {"routed_scaling_factor": 2.5, "norm_topk_prob": True, "topk_method": "noaux_tc"}
DEFAULTS_3 |= {"moe_intermediate_size": 2048, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4}

SIZES = {
    "key_rank": "kv_lora_rank",
    "query_rank": "q_lora_rank",
    "plain": "qk_nope_head_dim",  # elements of a head without rotation
    "rotated": "qk_rope_head_dim",
    "value": "v_head_dim",
    "dense_layers": "first_k_dense_replace=0",
}


def is_sparse(facts: Facts, layer: int) -> bool:
    """Whether this layer has experts (DeepseekV3DecoderLayer in modeling_deepseek.py of deepseek-ai/DeepSeek-V3)"""
    config = facts.config
    if not config.has("n_routed_experts"):
        return False
    return layer >= facts.number("dense_layers") and layer % config.integer("moe_layer_freq") == 0


def _has_router_bias(facts: Facts, layer: int) -> bool:
    return facts.config.text("topk_method") == "noaux_tc"


# Per head, kv_b has `plain` rows for the keys and `value` rows for the values, each of `key_rank` elements. The
# absorbed form has two matrices, the keys' transposed per head (src/models/deepseek2.cpp of llama.cpp).
_BY_HEAD = reshape("heads plain+value key_rank")
_KV_B = "heads*plain+heads*value key_rank"
ATTENTION = (
    *linear("attn_q_a", "self_attn.q_a_proj", "query_rank", "hidden", bias="attention_bias", when="q_lora_rank"),
    blk("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", "query_rank", when="q_lora_rank"),
    *linear("attn_q_b", "self_attn.q_b_proj", "heads*plain+heads*rotated", "query_rank", when="q_lora_rank"),
    *linear("attn_q", "self_attn.q_proj", "heads*plain+heads*rotated", "hidden", when="!q_lora_rank"),
    *linear("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", "key_rank+rotated", "hidden", bias="attention_bias"),
    blk("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", "key_rank"),
    blk("attn_k_b.weight", "self_attn.kv_b_proj.weight", _KV_B, _BY_HEAD, cut("0", "plain"), transpose),
    blk("attn_v_b.weight", "self_attn.kv_b_proj.weight", _KV_B, _BY_HEAD, cut("plain", "value")),
    *linear("attn_output", "self_attn.o_proj", "hidden", "heads*value", bias="attention_bias"),
)
MIXTURE = (
    *router(when=is_sparse),
    blk(
        "exp_probs_b.bias",
        "mlp.gate.e_score_correction_bias",
        "experts",
        when=both(is_sparse, _has_router_bias),
    ),
    *experts(when=is_sparse),
    *shared_experts(when=both(is_sparse, "n_shared_experts")),
    *feed_forward(when=neither(is_sparse)),
)
# The other tensors of a layer for multi-token prediction: its embeddings and output, which are copies, and what joins
# the hidden state with the next token's embedding (section 2.2 of arXiv 2412.19437). llama.cpp's converter leaves these
# layers out for V3 and keeps them for V3.2; the engine reads them of both, under the same names.
PREDICTION = (
    blk("nextn.embed_tokens.weight", "embed_tokens.weight", "vocab hidden"),
    blk("nextn.enorm.weight", "enorm.weight", "hidden"),
    blk("nextn.hnorm.weight", "hnorm.weight", "hidden"),
    blk("nextn.eh_proj.weight", "eh_proj.weight", "hidden 2*hidden"),
    blk("nextn.shared_head_norm.weight", "shared_head.norm.weight", "hidden"),
    blk("nextn.shared_head_head.weight", "shared_head.head.weight", "vocab hidden"),
)


def _dense_layers(facts: Facts) -> int:
    config = facts.config
    return config.integer("first_k_dense_replace", 0 if config.has("n_routed_experts") else facts.layers, least=0)


PREDICTING = u32("nextn_predict_layers", "mtp_layers", when=lambda facts, layer: facts.number("mtp_layers") > 0)
KEYS = (
    # The engine sees one key-value head, as long as the compressed state and the rotary part together.
    u32("attention.head_count_kv", lambda facts: 1),
    u32("attention.key_length", "key_rank+rotated"),
    u32("attention.value_length", "key_rank"),
    u32("leading_dense_block_count", _dense_layers),
    u32("vocab_size", "vocab"),
    u32("attention.q_lora_rank", "query_rank", when="q_lora_rank"),
    u32("attention.kv_lora_rank", "key_rank"),
    u32("attention.key_length_mla", "plain+rotated"),
    u32("attention.value_length_mla", "value"),
    u32("expert_feed_forward_length", "expert_ffn"),
    u32("expert_shared_count", "shared_experts"),
    f32("expert_weights_scale", "routed_scaling_factor", optional=True),
    flag("expert_weights_norm", "norm_topk_prob", when="norm_topk_prob"),
    u32("rope.dimension_count", "rotated"),
    # A tenth, unlike elsewhere in GGUF: the engine reads it so for this architecture (llama.cpp, #17945).
    f32(
        "rope.scaling.yarn_log_multiplier",
        lambda facts: 0.1 * facts.config.rope.number("mscale_all_dim"),
        when=lambda facts, layer: facts.config.rope.has("mscale_all_dim"),
    ),
    PREDICTING,
)
TENSORS = (*EMBEDDING, *NORMS, *ATTENTION, *MIXTURE, *UNTIED_OUTPUT)

DEEPSEEK2 = Family(
    "deepseek2",
    classes=("DeepseekV2ForCausalLM",),
    defaults=DEFAULTS_2,
    sizes=SIZES,
    tensors=TENSORS,
    keys=KEYS,
    left_out=(r"lm_head\.weight",),
)
DEEPSEEK3 = replace(DEEPSEEK2, classes=("DeepseekV3ForCausalLM",), defaults=DEFAULTS_3, has_mtp=True, mtp=PREDICTION)
KIMI25 = replace(DEEPSEEK3, classes=("KimiK25ForConditionalGeneration",), has_mtp=False, mtp=())

# Tencent's Youtu-LLM: the same attention without experts.
YOUTU = Family(
    "deepseek2",
    classes=("YoutuForCausalLM",),
    defaults=_BOTH | {"tie_word_embeddings": True},
    sizes=SIZES | {"expert_ffn": "moe_intermediate_size|intermediate_size"},
    tensors=TENSORS,
    keys=KEYS,
    left_out=(r"lm_head\.weight",),
)

INDEXER_SIZES = {"index_heads": "index_n_heads", "index_head": "index_head_dim"}


def indexer(when: When = True) -> tuple[Row, ...]:
    """What scores the earlier tokens, of which attention sees the best ones."""
    of = "self_attn.indexer"
    return (
        blk("indexer.attn_q_b.weight", f"{of}.wq_b.weight", "index_heads*index_head query_rank", when=when),
        blk("indexer.attn_k.weight", f"{of}.wk.weight", "index_head hidden", when=when),
        blk("indexer.k_norm.weight", f"{of}.k_norm.weight", "index_head", when=when),
        blk("indexer.k_norm.bias", f"{of}.k_norm.bias", "index_head", when=when),
        blk("indexer.proj.weight", f"{of}.weights_proj.weight", "index_heads hidden", when=when),
    )


INDEXER_KEYS = (
    u32("attention.indexer.head_count", "index_heads"),
    u32("attention.indexer.key_length", "index_head"),
    u32("attention.indexer.top_k", "index_topk"),
)
DEEPSEEK32 = replace(
    DEEPSEEK3,
    architecture="deepseek32",
    classes=("DeepseekV32ForCausalLM",),
    sizes=SIZES | INDEXER_SIZES,
    tensors=(*TENSORS, *indexer()),
    keys=(*KEYS, *INDEXER_KEYS),
)

FAMILIES = (DEEPSEEK2, DEEPSEEK3, KIMI25, YOUTU, DEEPSEEK32)
