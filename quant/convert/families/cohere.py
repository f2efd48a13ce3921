"""Command R, R7B and A, and Aya, of Cohere: attention and network side by side, behind one norm without a bias."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT_NORM, attention, feed_forward
from quant.convert.facts import Facts
from quant.convert.family import Family, blk, f32, text, u32

# The defaults are those of transformers 4.57.
_DEFAULTS: dict[str, object] = {
    "layer_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "logit_scale": 0.0625,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_TENSORS = (
    *EMBEDDING,
    blk("attn_norm.weight", "input_layernorm.weight", "hidden"),
    *attention(),
    *feed_forward(),
    *OUTPUT_NORM,
)
_KEYS = (f32("logit_scale", "logit_scale"), text("rope.scaling.type", lambda facts: "none"))

COHERE = Family(
    "command-r",
    classes=("CohereForCausalLM",),
    defaults=_DEFAULTS,
    tensors=(
        *_TENSORS,
        blk("attn_q_norm.weight", "self_attn.q_norm.weight", "heads head", when="use_qk_norm"),
        blk("attn_k_norm.weight", "self_attn.k_norm.weight", "kv_heads head", when="use_qk_norm"),
    ),
    # model_max_length is the context that a model was trained for, where config.json has it.
    keys=(u32("context_length", "model_max_length", optional=True), *_KEYS),
)


def _rotated(facts: Facts) -> int:
    return int(facts.config.number("rotary_pct", 1.0, least=0, below=1.01) * facts.number("even_head"))


COHERE2 = Family(
    "cohere2",
    classes=("Cohere2ForCausalLM",),
    defaults={**_DEFAULTS, "sliding_window": 4096},
    tensors=_TENSORS,
    keys=(
        u32("attention.key_length", "head"),
        u32("attention.value_length", "head"),
        u32("attention.sliding_window", "sliding_window"),
        u32("vocab_size", "vocab"),
        u32("rope.dimension_count", _rotated),
        *_KEYS,
    ),
    left_out=(r".*\.bias",),  # zeros
)

FAMILIES = (COHERE, COHERE2)
