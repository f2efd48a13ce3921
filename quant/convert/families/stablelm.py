"""StableLM 2 (1.6B and Zephyr 3B): norms with biases, a part of each head is rotated."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT, attention, feed_forward
from quant.convert.facts import Facts
from quant.convert.families.gemma import OTHER_THETA
from quant.convert.family import Family, blk, flag, row, u32


def _rotated(facts: Facts) -> int:
    return int(facts.config.rope.number("partial_rotary_factor", 0.25, least=0, below=1.01) * facts.number("head"))


STABLELM = Family(
    "stablelm",
    classes=("StableLmForCausalLM", "StableLMEpochForCausalLM"),
    # configuration_stablelm.py of transformers 4.57; models with qk_layernorm (12B) are refused by their tensors
    defaults={"layer_norm_eps": 1e-5, "max_position_embeddings": 4096, "partial_rotary_factor": 0.25},
    tensors=(
        *EMBEDDING,
        *(
            blk(f"{to}.{kind}", f"{of}.{kind}", "hidden")
            for to, of in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"))
            for kind in ("weight", "bias")
        ),
        *attention(bias="use_qkv_bias"),
        *feed_forward(),
        *OUTPUT,
        row("output_norm.bias", "model.norm.bias", "hidden"),
    ),
    keys=(
        OTHER_THETA,
        u32("rope.dimension_count", _rotated),
        flag("use_parallel_residual", lambda facts: facts.config.flag("use_parallel_residual")),
    ),
    without=("rope",),
)

FAMILIES = (STABLELM,)
