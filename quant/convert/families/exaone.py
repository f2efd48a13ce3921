"""EXAONE of LG AI: 3 and 3.5 are like Llama under other names; 4 and 4.5 have norms behind attention and network, and
in the 32B three of four layers attend to a window; K-EXAONE has such windows, and experts."""

from __future__ import annotations

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    attention,
    experts,
    feed_forward,
    fused_experts,
    linear,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.families.llama import ROPE_FACTORS
from quant.convert.families.qwen import FUSED
from quant.convert.family import Family, blk, both, f32, flag, neither, row, text, u32, under


def _rotated(facts: Facts) -> int:
    """Elements of a head that are rotated, of an even share of the hidden size (conversion/exaone.py of llama.cpp)."""
    return int(facts.number("even_head") * facts.config.rope.number("partial_rotary_factor", 1.0, least=0, below=2))


EXAONE3 = Family(
    "exaone",
    classes=("ExaoneForCausalLM",),
    # configuration_exaone.py of LGAI-EXAONE/EXAONE-3.5-2.4B-Instruct
    defaults={"rope_theta": 10000.0, "activation_function": "silu"},
    tensors=(
        ROPE_FACTORS,
        row("token_embd.weight", "transformer.wte.weight", "vocab hidden"),
        *under(
            "transformer.h.",
            (
                blk("attn_norm.weight", "ln_1.weight", "hidden"),
                blk("ffn_norm.weight", "ln_2.weight", "hidden"),
                *linear("attn_q", "attn.attention.q_proj", "heads*head", "hidden"),
                *linear("attn_k", "attn.attention.k_proj", "kv_heads*head", "hidden"),
                *linear("attn_v", "attn.attention.v_proj", "kv_heads*head", "hidden"),
                *linear("attn_output", "attn.attention.out_proj", "hidden", "heads*head"),
                *linear("ffn_gate", "mlp.c_fc_0", "ffn", "hidden"),
                *linear("ffn_up", "mlp.c_fc_1", "ffn", "hidden"),
                *linear("ffn_down", "mlp.c_proj", "hidden", "ffn"),
            ),
        ),
        row("output_norm.weight", "transformer.ln_f.weight", "hidden"),
        row("output.weight", "lm_head.weight", "vocab hidden", when="!tie_word_embeddings"),
        row("output.weight", "lm_head.weight", "vocab hidden", when="tie_word_embeddings", optional=True),
    ),
    keys=(
        u32("rope.dimension_count", _rotated),
        # The engine wants this name. llama.cpp's converter gives another one to the key of the published config.json.
        f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon", when="!rms_norm_eps"),
    ),
)


def _pattern(facts: Facts) -> list[bool] | None:
    """For each layer whether it attends to a window; from sliding_window_pattern ("LLLG" or 4) without layer_types."""
    config, layers = facts.config, range(facts.layers)
    if config.has("layer_types"):
        return [config.layer_types[layer] == "sliding_attention" for layer in layers]
    pattern = config.values.get("sliding_window_pattern")
    if isinstance(pattern, str) and pattern:
        return [pattern[layer % len(pattern)] == "L" for layer in layers]
    if type(pattern) is int and pattern > 0:
        return [(layer + 1) % pattern != 0 for layer in layers]
    return None


_WINDOWS = (
    u32("vocab_size", "vocab"),
    u32("attention.sliding_window", "sliding_window", when="sliding_window"),
    flag("attention.sliding_window_pattern", _pattern, when="sliding_window"),
)
_MTP = (r"mtp\..*",)

EXAONE4 = Family(
    "exaone4",
    classes=("Exaone4ForCausalLM", "Exaone4_5_ForConditionalGeneration"),
    # configuration_exaone4.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 10000.0, "max_position_embeddings": 2048},
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *attention(norm=True),
        blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden"),
        blk("post_ffw_norm.weight", "post_feedforward_layernorm.weight", "hidden"),
        *feed_forward(),
        *OUTPUT,
    ),
    keys=_WINDOWS,
    left_out=_MTP,
)


def _is_sparse(facts: Facts, layer: int) -> bool:
    return layer >= facts.number("dense_layers")


EXAONE_MOE = Family(
    "exaone-moe",
    classes=("ExaoneMoEForCausalLM", "ExaoneMoeForCausalLM"),
    # configuration_exaone_moe.py of transformers 5. The router's sigmoid is part of the model.
    defaults={
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 2048,
        "moe_intermediate_size": 1024,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "num_shared_experts": 1,
        "norm_topk_prob": True,
        "routed_scaling_factor": 2.5,
        "scoring_func": "sigmoid",
    },
    sizes={"dense_layers": "first_k_dense_replace|first_last_k_dense_replace=0"},
    tensors=(
        ROPE_FACTORS,
        *EMBEDDING,
        *NORMS,
        *attention(norm=True),
        *feed_forward(when=neither(_is_sparse)),
        *router(when=_is_sparse),
        blk("exp_probs_b.bias", "mlp.e_score_correction_bias", "experts", when=_is_sparse),
        *experts(when=both(_is_sparse, neither(FUSED))),
        *fused_experts(when=both(_is_sparse, FUSED)),
        *shared_experts(when=_is_sparse),
        *OUTPUT,
    ),
    keys=(
        *_WINDOWS,
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_count", "shared_experts"),
        u32("expert_shared_feed_forward_length", "shared_experts*expert_ffn"),
        f32("expert_weights_scale", "routed_scaling_factor"),
        flag("expert_weights_norm", "norm_topk_prob"),
        u32("leading_dense_block_count", "dense_layers"),
        u32("nextn_predict_layers", "mtp_layers"),
        text("rope.scaling.type", lambda facts: "none"),
    ),
    left_out=_MTP,
)

FAMILIES = (EXAONE3, EXAONE4, EXAONE_MOE)
