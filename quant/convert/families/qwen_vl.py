"""The language models of Qwen2-VL, Qwen2.5-VL and Qwen3-VL. Their rotation has sections for time, height and width."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, feed_forward, router
from quant.convert.facts import Facts
from quant.convert.family import Family, blk, u32
from quant.convert.transforms import cut_columns, transpose

# configuration_qwen2_vl.py, configuration_qwen2_5_vl.py, configuration_qwen3_vl.py of transformers 4.57
_DEFAULTS: dict[str, object] = {"rms_norm_eps": 1e-6, "rope_theta": 1e6}
QWEN2_VL = Family(
    "qwen2vl",
    classes=("Qwen2VLForConditionalGeneration", "Qwen2_5_VLForConditionalGeneration"),
    defaults=_DEFAULTS,
    tensors=(*EMBEDDING, *NORMS, *attention(bias=True), *feed_forward(), *OUTPUT),
)


def _deepstack(facts: Facts) -> int:
    """How many layers get features of the image besides the first."""
    vision = facts.config.values.get("vision_config")
    found = vision.get("deepstack_visual_indexes", [8, 16, 24]) if isinstance(vision, dict) else []
    if not isinstance(found, list) or len(found) > facts.layers:
        raise facts.config.bad("deepstack_visual_indexes is not a list of layers")
    return len(found)


_DEFAULTS_3 = {**_DEFAULTS, "rope_theta": 5e6, "head_dim": 128}
_ATTENTION_3 = attention(bias="attention_bias", output_bias="attention_bias", norm=True)
_DEEPSTACK = u32("n_deepstack_layers", _deepstack)
QWEN3_VL = Family(
    "qwen3vl",
    classes=("Qwen3VLForConditionalGeneration",),
    defaults=_DEFAULTS_3,
    tensors=(*EMBEDDING, *NORMS, *_ATTENTION_3, *feed_forward(), *OUTPUT),
    keys=(_DEEPSTACK,),
)
# Here the experts of a layer are one tensor, with rows for inputs.
_JOINT = "experts hidden 2*expert_ffn"
QWEN3_VL_MOE = Family(
    "qwen3vlmoe",
    classes=("Qwen3VLMoeForConditionalGeneration",),
    defaults={**_DEFAULTS_3, "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768},
    tensors=(
        *EMBEDDING,
        *NORMS,
        *_ATTENTION_3,
        *router(),
        blk("ffn_down_exps.weight", "mlp.experts.down_proj", "experts expert_ffn hidden", transpose),
        blk("ffn_gate_exps.weight", "mlp.experts.gate_up_proj", _JOINT, cut_columns("0", "expert_ffn"), transpose),
        blk(
            "ffn_up_exps.weight", "mlp.experts.gate_up_proj", _JOINT, cut_columns("expert_ffn", "expert_ffn"), transpose
        ),
        *OUTPUT,
    ),
    keys=(u32("expert_feed_forward_length", "expert_ffn"), _DEEPSTACK),
)

FAMILIES = (QWEN2_VL, QWEN3_VL, QWEN3_VL_MOE)
