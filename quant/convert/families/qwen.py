"""Qwen 2, 2.5 and 3, and the R1 distillations of Qwen."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, experts, feed_forward, router
from quant.convert.facts import Facts
from quant.convert.family import Family, neither, u32

QWEN2 = Family(
    "qwen2",
    classes=("Qwen2ForCausalLM",),
    # configuration_qwen2.py of transformers 4.57
    defaults={"rms_norm_eps": 1e-6, "rope_theta": 10000.0},
    sentencepiece=True,
    tensors=(*EMBEDDING, *NORMS, *attention(bias=True), *feed_forward(), *OUTPUT),
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
    },
    tensors=(
        *EMBEDDING,
        *NORMS,
        *_ATTENTION_3,
        *router(when=_is_sparse),
        *experts(when=_is_sparse),
        *feed_forward(when=neither(_is_sparse)),
        *OUTPUT,
    ),
    keys=(
        u32("expert_feed_forward_length", "expert_ffn"),
        u32("expert_shared_feed_forward_length", "shared_expert_intermediate_size", optional=True),
    ),
)

FAMILIES = (QWEN2, QWEN3, QWEN3_MOE)
