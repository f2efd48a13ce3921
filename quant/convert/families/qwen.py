"""Qwen 2, 2.5 and 3, the R1 distillations of Qwen, and MiMo 7B, which is like Qwen 2."""

from __future__ import annotations

from dataclasses import replace

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    attention,
    experts,
    feed_forward,
    fused_experts,
    router,
    shared_experts,
)
from quant.convert.facts import Facts
from quant.convert.family import Family, blk, both, f32, neither, stored, u32

QWEN2 = Family(
    "qwen2",
    # llama.cpp's converter takes MiMo 7B (MiMoForCausalLM, a class derived from Qwen 2's) under the name of Qwen 2.
    classes=("Qwen2ForCausalLM", "MiMoForCausalLM"),
    # configuration_qwen2.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    tensors=(*EMBEDDING, *NORMS, *attention(bias=True), *feed_forward(), *OUTPUT),
    left_out=(r"model\.mtp_layers\..*",),  # MiMo's layer for multi-token prediction, which the engine lacks
)

# configuration_qwen3.py of transformers 4.57
_DEFAULTS_3 = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "head_dim": 128}
_ATTENTION_3 = attention(bias="attention_bias", output_bias="attention_bias", norm=True)

QWEN3 = Family(
    "qwen3",
    classes=("Qwen3ForCausalLM",),
    defaults=_DEFAULTS_3,
    tensors=(*EMBEDDING, *NORMS, *_ATTENTION_3, *feed_forward(), *OUTPUT),
)


# transformers 5 saves the experts of a layer as one tensor.
FUSED = stored("model.layers.{n}.mlp.experts.gate_up_proj")


def _is_sparse(facts: Facts, layer: int) -> bool:
    """Whether this layer has experts (Qwen3MoeDecoderLayer in modeling_qwen3_moe.py of transformers)"""
    config = facts.config
    return layer not in config.integers("mlp_only_layers") and (layer + 1) % config.integer("decoder_sparse_step") == 0


QWEN3_MOE = Family(
    "qwen3moe",
    classes=("Qwen3MoeForCausalLM",),
    # configuration_qwen3_moe.py of transformers 4.57
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "decoder_sparse_step": 1,
        "norm_topk_prob": False,
    },
    tensors=(
        *EMBEDDING,
        *NORMS,
        *_ATTENTION_3,
        *router(when=_is_sparse),
        *experts(when=both(_is_sparse, neither(FUSED))),
        *fused_experts(when=both(_is_sparse, FUSED)),
        *feed_forward(when=neither(_is_sparse)),
        *OUTPUT,
    ),
    keys=(
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size", optional=True),
    ),
)

# The expert that every token uses, and the gate that weighs it
SHARED_EXPERT = (
    blk("ffn_gate_inp_shexp.weight", "mlp.shared_expert_gate.weight", "1 hidden"),
    *shared_experts("mlp.shared_expert", "shared_expert_intermediate_size"),
)
EXPERT_KEYS = (
    u32("expert_feed_forward_length", "expert_ffn"),
    u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size"),
)

QWEN2_MOE = Family(
    "qwen2moe",
    classes=("Qwen2MoeForCausalLM",),
    # configuration_qwen2_moe.py of transformers 4.57. The engine has no layers without experts for it, as has no
    # published model: mlp_only_layers is empty and decoder_sparse_step 1.
    defaults={
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632,
        "qkv_bias": True,
    },
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(bias="qkv_bias"),
        *router(),
        *experts(when=neither(FUSED)),
        *fused_experts(when=FUSED),
        *SHARED_EXPERT,
        *OUTPUT,
    ),
    keys=EXPERT_KEYS,
)

# GroveMoE adds a small expert for each two of Qwen 3's. llama.cpp's converter has these numbers built in, too.
_GROUP, _GROUP_SCALE = 2, 0.05  # modeling_grove_moe.py of inclusionAI/GroveMoE-Inst
_CHUNKS = tuple(
    replace(each, to=each.to.replace("_exps.", "_chexps."), of=tuple(name.replace("{e}", "{g}") for name in each.of))
    for each in experts("mlp.chunk_experts", "head")
)


def _groups(facts: Facts, layer: int) -> int:
    count = facts.experts(layer)
    if count % _GROUP:
        raise facts.config.bad(f"{facts.key('experts')} {count} is not a multiple of {_GROUP}")
    return count // _GROUP


GROVE_MOE = replace(
    QWEN3_MOE,
    architecture="grovemoe",
    sizes={"expert_groups": _groups},
    classes=("GroveMoeForCausalLM",),
    tensors=(*EMBEDDING, *NORMS, *_ATTENTION_3, *router(), *experts(), *_CHUNKS, *OUTPUT),
    keys=(
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_chunk_feed_forward_length", "head"),
        u32("experts_per_group", lambda facts: _GROUP),
        f32("expert_group_scale", lambda facts: _GROUP_SCALE),
    ),
    left_out=(r"model\.layers\.\d+\.mlp\.expert_bias",),
)

FAMILIES = (QWEN2, QWEN2_MOE, QWEN3, QWEN3_MOE, GROVE_MOE)
