"""LFM2 and LFM2.5 of Liquid AI, dense and with experts: most layers are short convolutions, some have attention."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, SIGMOID, experts, linear
from quant.convert.facts import Facts
from quant.convert.family import Family, Row, When, blk, neither, row, u32
from quant.convert.transforms import reshape


def _is_convolution(facts: Facts, layer: int) -> bool:
    return facts.config.layer_types[layer] != "full_attention"


def _kv_heads(facts: Facts, layer: int) -> int:
    return 0 if _is_convolution(facts, layer) else facts.number("num_key_value_heads")


def _ffn(facts: Facts, layer: int) -> int:
    """The inner width, which the configuration may ask to be adjusted (Lfm2MLP in modeling_lfm2.py of transformers)"""
    config = facts.config
    width = config.integer("block_ff_dim" if config.has("block_ff_dim") else "intermediate_size")
    if not config.flag("block_auto_adjust_ff_dim"):
        return width
    multiple = config.integer("block_multiple_of")
    adjusted = int(config.number("block_ffn_dim_multiplier", 1.0, least=0, below=1e4) * int(2 * width / 3))
    return multiple * -(-adjusted // multiple)


def _network(ffn: str, when: When = True) -> tuple[Row, ...]:
    """w1 is the gate, w2 the way down, w3 the way up."""
    return (
        *linear("ffn_gate", "feed_forward.w1", ffn, "hidden", when=when),
        *linear("ffn_up", "feed_forward.w3", ffn, "hidden", when=when),
        *linear("ffn_down", "feed_forward.w2", "hidden", ffn, when=when),
    )


_SHARED_ROWS = (
    *EMBEDDING,
    row("token_embd_norm.weight", "model.embedding_norm.weight", "hidden"),
    blk("attn_norm.weight", "operator_norm.weight", "hidden"),
    blk("ffn_norm.weight", "ffn_norm.weight", "hidden"),
    *linear("attn_q", "self_attn.q_proj", "heads*head", "hidden", when=neither(_is_convolution)),
    *linear("attn_k", "self_attn.k_proj", "kv_heads*head", "hidden", when=neither(_is_convolution)),
    *linear("attn_v", "self_attn.v_proj", "kv_heads*head", "hidden", when=neither(_is_convolution)),
    *linear("attn_output", "self_attn.out_proj", "hidden", "heads*head", when=neither(_is_convolution)),
    blk("attn_q_norm.weight", "self_attn.q_layernorm.weight", "head", when=neither(_is_convolution)),
    blk("attn_k_norm.weight", "self_attn.k_layernorm.weight", "head", when=neither(_is_convolution)),
    blk(
        "shortconv.conv.weight",
        "conv.conv.weight",
        "hidden 1 conv_L_cache",
        reshape("hidden conv_L_cache"),
        when=_is_convolution,
    ),
    *linear("shortconv.in_proj", "conv.in_proj", "3*hidden", "hidden", bias="conv_bias", when=_is_convolution),
    *linear("shortconv.out_proj", "conv.out_proj", "hidden", "hidden", bias="conv_bias", when=_is_convolution),
)
_SHARED_KEYS = (u32("vocab_size", "vocab"), u32("shortconv.l_cache", "conv_L_cache"))
# configuration_lfm2.py and configuration_lfm2_moe.py of transformers 4.57
_DEFAULTS = {"norm_eps": 1e-5, "rope_theta": 1e6, "conv_L_cache": 3, "conv_bias": False, "tie_word_embeddings": True}
_DEFAULTS |= {"num_key_value_heads": 8}

LFM2 = Family(
    "lfm2",
    classes=("Lfm2ForCausalLM", "LFM2ForCausalLM", "Lfm2VlForConditionalGeneration"),
    defaults={**_DEFAULTS, "block_multiple_of": 256, "block_ffn_dim_multiplier": 1.0, "block_auto_adjust_ff_dim": True},
    sizes={"kv_heads": _kv_heads, "ffn": _ffn},
    tensors=(*_SHARED_ROWS, *_network("ffn")),
    keys=_SHARED_KEYS,
)


def _is_dense(facts: Facts, layer: int) -> bool:
    return layer < facts.number("num_dense_layers")


LFM2_MOE = Family(
    "lfm2moe",
    classes=("Lfm2MoeForCausalLM",),
    defaults={
        **_DEFAULTS,
        "moe_intermediate_size": 1792,
        "num_dense_layers": 2,
        "num_experts": 32,
        "num_experts_per_tok": 4,
        "use_expert_bias": True,
    },
    sizes={"kv_heads": _kv_heads},
    tensors=(
        *_SHARED_ROWS,
        *_network("ffn", when=_is_dense),
        blk("ffn_gate_inp.weight", "feed_forward.gate.weight", "experts hidden", when=neither(_is_dense)),
        blk(
            "exp_probs_b.bias",
            "feed_forward.expert_bias",
            "experts",
            when=lambda facts, layer: facts.config.flag("use_expert_bias") and not _is_dense(facts, layer),
        ),
        *experts(
            "feed_forward.experts", names=("w1", "w2", "w3"), order=("gate", "down", "up"), when=neither(_is_dense)
        ),
    ),
    keys=(
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("leading_dense_block_count", "num_dense_layers"),
        u32("expert_gating_func", lambda facts: SIGMOID),
        *_SHARED_KEYS,
    ),
)

FAMILIES = (LFM2, LFM2_MOE)
