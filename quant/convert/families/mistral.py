"""Mistral AI: Mistral, Magistral, Devstral (llama in llama.cpp), Mistral Small 3 and Ministral 3 (mistral3), and
Mistral 4 (mistral4, with DeepSeek's compressed attention)."""

from __future__ import annotations

from quant.convert.blocks import (
    EMBEDDING,
    NORMS,
    OUTPUT,
    UNTIED_OUTPUT,
    attention,
    feed_forward,
    router,
    shared_experts,
)
from quant.convert.families import deepseek
from quant.convert.families.llama import ROPE_FACTORS, VOCABULARY_AND_ROTATION
from quant.convert.family import Family, blk, f32

# configuration_mistral.py of transformers 4.57
_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "num_key_value_heads": 8}
_TENSORS = (
    ROPE_FACTORS,
    *EMBEDDING,
    *NORMS,
    *attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias"),
    *feed_forward(),
    *OUTPUT,
)

MISTRAL = Family(
    "llama",
    classes=("MistralForCausalLM",),
    defaults=_DEFAULTS,
    tensors=_TENSORS,
    keys=VOCABULARY_AND_ROTATION,
)

_MULTIMODAL = "Mistral3ForConditionalGeneration"


def _is(kind: str):  # type: ignore[no-untyped-def]
    return lambda facts, layer: facts.config.text("model_type") == kind


MISTRAL4 = Family(
    "mistral4",
    classes=(_MULTIMODAL, "Mistral4ForCausalLM"),
    when=_is("mistral4"),
    # configuration_mistral4.py of transformers 5
    defaults=deepseek.DEFAULTS_3
    | {
        "kv_lora_rank": 256,
        "q_lora_rank": 1024,
        "qk_nope_head_dim": 64,
        "n_routed_experts": 128,
        "num_experts_per_tok": 4,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
        "first_k_dense_replace": 0,
    },
    sizes=deepseek.SIZES,
    tensors=(
        *EMBEDDING,
        *NORMS,
        *deepseek.ATTENTION,
        *router(when=deepseek.is_sparse),
        blk("ffn_gate_up_exps.weight", "mlp.experts.gate_up_proj", "experts 2*expert_ffn hidden"),
        blk("ffn_down_exps.weight", "mlp.experts.down_proj", "experts hidden expert_ffn"),
        *shared_experts(when="n_shared_experts"),
        *UNTIED_OUTPUT,
    ),
    keys=deepseek.KEYS,
    left_out=(r"lm_head\.weight",),
)
MISTRAL3 = Family(
    "mistral3",
    classes=(_MULTIMODAL, "Ministral3ForCausalLM"),
    defaults=_DEFAULTS | {"rms_norm_eps": 1e-5},
    tensors=_TENSORS,
    keys=(
        *VOCABULARY_AND_ROTATION,
        # Ministral 3 scales queries by position, as Llama 4 does.
        f32(
            "rope.scaling.yarn_log_multiplier",
            lambda facts: facts.config.rope.number("mscale_all_dim"),
            when=_is("ministral3"),
        ),
        f32(
            "attention.temperature_scale",
            lambda facts: facts.config.rope.number("llama_4_scaling_beta"),
            when=_is("ministral3"),
        ),
    ),
)

FAMILIES = (MISTRAL, MISTRAL4, MISTRAL3)
