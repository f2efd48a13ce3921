"""IBM's Granite 3 and 4: dense, with experts, and hybrids of Mamba-2 and attention."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, NORMS, OUTPUT, attention, feed_forward
from quant.convert.facts import Facts, Size
from quant.convert.families import mamba
from quant.convert.families.llama import VOCABULARY_AND_ROTATION
from quant.convert.family import Family, Row, When, blk, both, f32, flag, neither, u32
from quant.convert.metadata import by_layer
from quant.convert.transforms import cut

# configuration_granite.py and its relatives of transformers 4.57
_DEFAULTS = {"rms_norm_eps": 1e-6, "rope_theta": 10000.0, "head_dim": None}
_DEFAULTS |= dict.fromkeys(
    ("attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling"), 1.0
)
_WITHOUT = ("attention.key_length",)
_SCALES = (
    f32("attention.scale", "attention_multiplier", when="attention_multiplier"),
    f32("embedding_scale", "embedding_multiplier", when="embedding_multiplier"),
    f32("residual_scale", "residual_multiplier", when="residual_multiplier"),
    f32("logit_scale", "logits_scaling", when="logits_scaling"),
)
_KEYS = (*VOCABULARY_AND_ROTATION, *_SCALES)
_SHARED_WIDTH = u32("expert_shared_feed_forward_length", "shared_intermediate_size", when="shared_intermediate_size")


def _joint(prefix: str, suffix: str, ffn: str, *, when: When, experts: str = "") -> tuple[Row, ...]:
    """A network whose gate and way up are one matrix, here cut in two; `experts` as the first of the dimensions."""
    both_shape, shape = f"{experts} 2*{ffn} hidden".strip(), f"{experts} hidden {ffn}".strip()
    return (
        blk(f"ffn_gate{suffix}.weight", f"{prefix}.input_linear.weight", both_shape, cut("0", ffn), when=when),
        blk(f"ffn_up{suffix}.weight", f"{prefix}.input_linear.weight", both_shape, cut(ffn, ffn), when=when),
        blk(f"ffn_down{suffix}.weight", f"{prefix}.output_linear.weight", shape, when=when),
    )


_EXPERTS: When = "num_local_experts"
_MIXTURE = (
    blk("ffn_gate_inp.weight", "block_sparse_moe.router.layer.weight", "experts hidden", when=_EXPERTS),
    *_joint("block_sparse_moe", "_exps", "ffn", when=_EXPERTS, experts="experts"),
    *_joint("shared_mlp", "_shexp", "shared_intermediate_size", when=both(_EXPERTS, "shared_intermediate_size")),
    *_joint("shared_mlp", "", "shared_intermediate_size", when=neither(_EXPERTS)),
)
_ATTENTION = attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias")

GRANITE = Family(
    "granite",
    classes=("GraniteForCausalLM",),
    defaults=_DEFAULTS,
    without=_WITHOUT,
    tensors=(*EMBEDDING, *NORMS, *_ATTENTION, *feed_forward(bias="mlp_bias"), *OUTPUT),
    keys=_KEYS,
)
_MOE_DEFAULTS = {**_DEFAULTS, "num_local_experts": 8, "num_experts_per_tok": 2}
GRANITE_MOE = Family(
    "granitemoe",
    classes=("GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"),
    defaults=_MOE_DEFAULTS,
    without=_WITHOUT,
    tensors=(*EMBEDDING, *NORMS, *_ATTENTION, *_MIXTURE, *OUTPUT),
    keys=(*_KEYS, _SHARED_WIDTH),
)

_HYBRID = ("GraniteMoeHybridForCausalLM",)
_HYBRID_DEFAULTS = {**_MOE_DEFAULTS, "shared_intermediate_size": 1024, "mamba_n_groups": 1, "mamba_d_state": 256}
_HYBRID_DEFAULTS |= {"mamba_d_conv": 4, "mamba_expand": 2, "mamba_n_heads": 128, "mamba_proj_bias": False}


def _is_recurrent(facts: Facts, layer: int) -> bool:
    return facts.config.layer_types[layer] not in ("attention", "full_attention")  # the latter of transformers 5


def _has_recurrence(facts: Facts, layer: int) -> bool:
    return any(_is_recurrent(facts, each) for each in range(facts.layers))


_HYBRID_SIZES: dict[str, Size] = {
    **mamba.SIZES,
    "inner": lambda facts, layer: facts.number("mamba_expand*hidden"),
    "groups": "mamba_n_groups",
    "state": "mamba_d_state",
    "kernel": "mamba_d_conv",
    "ssm_heads": "mamba_n_heads",
    "kv_heads": lambda facts, layer: 0 if _is_recurrent(facts, layer) else facts.number("num_key_value_heads"),
}
_HYBRID_KEYS = (
    *_KEYS,
    _SHARED_WIDTH,
    u32("attention.head_count_kv", by_layer("kv_heads")),
    u32("ssm.conv_kernel", "kernel"),
    u32("ssm.state_size", "state"),
    u32("ssm.group_count", "groups"),
    u32("ssm.inner_size", "inner"),
    u32("ssm.time_step_rank", "ssm_heads"),  # llama.cpp takes this key for the number of heads
    u32("rope.dimension_count", "attn_rotary_emb", when="attn_rotary_emb"),
)
GRANITE_HYBRID = Family(
    "granitehybrid",
    classes=_HYBRID,
    when=_has_recurrence,
    defaults=_HYBRID_DEFAULTS,
    sizes=_HYBRID_SIZES,
    without=_WITHOUT,
    tensors=(
        *EMBEDDING,
        *NORMS,
        *attention(in_pairs=True, bias="attention_bias", output_bias="attention_bias", when=neither(_is_recurrent)),
        *mamba.mamba2("mamba", bias="mamba_proj_bias", when=_is_recurrent),
        *_MIXTURE,
        *OUTPUT,
    ),
    # Without rotation any length is possible.
    keys=(
        *_HYBRID_KEYS,
        flag("rope.scaling.finetuned", lambda facts: False),
        u32("context_length", lambda facts: 2**20),
    ),
)
# Those of its models that have attention in every layer are stored as Granite 3's.
GRANITE_4_MOE = Family(
    "granitemoe",
    classes=_HYBRID,
    when="num_experts_per_tok",
    defaults=_HYBRID_DEFAULTS,
    sizes=_HYBRID_SIZES,
    without=_WITHOUT,
    tensors=GRANITE_MOE.tensors,
    keys=(*_HYBRID_KEYS, flag("rope.scaling.finetuned", lambda facts: True)),
)
GRANITE_4 = Family(
    "granite",
    classes=_HYBRID,
    defaults=_HYBRID_DEFAULTS,
    sizes=_HYBRID_SIZES,
    without=_WITHOUT,
    tensors=GRANITE_MOE.tensors,
    keys=(*_HYBRID_KEYS, flag("rope.scaling.finetuned", lambda facts: True)),
)

FAMILIES = (GRANITE, GRANITE_MOE, GRANITE_HYBRID, GRANITE_4_MOE, GRANITE_4)
