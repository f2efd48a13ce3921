"""Qwen3-Next and Qwen 3.5 and 3.6, dense and with experts: of every four layers three have linear attention (a gated
delta net), and one has full attention with a gate."""

from __future__ import annotations

from quant.convert.blocks import EMBEDDING, OUTPUT, experts, feed_forward, fused_experts, head_norms, linear, router
from quant.convert.facts import Facts, Size
from quant.convert.families.qwen import EXPERT_KEYS, SHARED_EXPERT
from quant.convert.family import Family, blk, flag, neither, row, stored, u32
from quant.convert.transforms import by_part, negative_exponential, plus, regroup, reshape

# configuration_qwen3_next.py and configuration_qwen3_5.py of transformers 5. A rotation of a quarter is the default.
_DEFAULTS: dict[str, object] = {
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "partial_rotary_factor": 0.25,
    "head_dim": 256,
    "full_attention_interval": 4,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
}
_EXPERTS: dict[str, object] = {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}


def _per_key(facts: Facts, layer: int) -> int:
    """How many heads of values one head of keys serves."""
    values, keys = facts.number("value_heads"), facts.number("key_heads")
    if values % keys:
        raise facts.config.bad(f"linear_num_value_heads {values} is not a multiple of linear_num_key_heads {keys}")
    return values // keys


_SIZES: dict[str, Size] = {
    "key": "linear_key_head_dim",
    "value": "linear_value_head_dim",
    "key_heads": "linear_num_key_heads",
    "value_heads": "linear_num_value_heads",
    "kernel": "linear_conv_kernel_dim",
    "interval": "full_attention_interval",
    "per_key": _per_key,
}


def _is_linear(facts: Facts, layer: int) -> bool:
    """Whether this layer has linear attention; layers for multi-token prediction have none."""
    if layer >= facts.layers:
        return False
    if facts.config.has("layer_types"):
        return facts.config.layer_types[layer] == "linear_attention"
    return (layer + 1) % facts.number("interval") != 0


_is_full = neither(_is_linear)
_PLUS_ONE = plus(1)  # these norms are stored as the difference from one
_SHARED_ROWS = (
    *EMBEDDING,
    blk("attn_norm.weight", "input_layernorm.weight", "hidden", _PLUS_ONE),
    blk("post_attention_norm.weight", "post_attention_layernorm.weight", "hidden", _PLUS_ONE),
    # the rows of a head: its query, then its gate
    *linear("attn_q", "self_attn.q_proj", "2*heads*head", "hidden", bias="attention_bias", when=_is_full),
    *linear("attn_k", "self_attn.k_proj", "kv_heads*head", "hidden", bias="attention_bias", when=_is_full),
    *linear("attn_v", "self_attn.v_proj", "kv_heads*head", "hidden", bias="attention_bias", when=_is_full),
    *linear("attn_output", "self_attn.o_proj", "hidden", "heads*head", bias="attention_bias", when=_is_full),
    *head_norms("self_attn", _PLUS_ONE, when=_is_full),
    blk("ssm_norm.weight", "linear_attn.norm.weight", "value", when=_is_linear),
    *(each if each.to != "output_norm.weight" else row(each.to, each.of, each.shape, _PLUS_ONE) for each in OUTPUT),
)
# The tensors that only the layer for multi-token prediction has. The checkpoint keeps them outside its layers.
_PREDICTION = (
    row("blk.{n}.nextn.eh_proj.weight", "mtp.fc.weight", "hidden 2*hidden"),
    row("blk.{n}.nextn.enorm.weight", "mtp.pre_fc_norm_embedding.weight", "hidden", _PLUS_ONE),
    row("blk.{n}.nextn.hnorm.weight", "mtp.pre_fc_norm_hidden.weight", "hidden", _PLUS_ONE),
    row("blk.{n}.nextn.shared_head_norm.weight", "mtp.norm.weight", "hidden", _PLUS_ONE),
)


def _recurrent(facts: Facts) -> list[bool]:
    return [_is_linear(facts, layer) for layer in range(facts.all_layers)]


def _rotated(facts: Facts) -> int:
    return int(facts.number("head") * facts.config.rope.number("partial_rotary_factor", 0.25, least=0, below=1.01))


_KEYS = (
    u32("nextn_predict_layers", "mtp_layers", when=lambda facts, layer: facts.number("mtp_layers") > 0),
    u32("ssm.conv_kernel", "kernel"),
    u32("ssm.state_size", "key"),
    u32("ssm.group_count", "key_heads"),
    u32("ssm.time_step_rank", "value_heads"),
    u32("ssm.inner_size", "value*value_heads"),
    flag("attention.recurrent_layers", _recurrent),
    u32("full_attention_interval", "interval"),
    u32("rope.dimension_count", _rotated),
)

# In Qwen3-Next, a head of keys has its queries, keys, values and gates (z) in one piece.
_PIECES = "key", "key", "per_key*value", "per_key*value"
_QKVZ = "2*key_heads*key+2*value_heads*value hidden"
_CONVOLUTION = "2*key_heads*key+value_heads*value 1 kernel"
QWEN3_NEXT = Family(
    "qwen3next",
    classes=("Qwen3NextForCausalLM",),
    # Its config.json does not name its layer for multi-token prediction.
    defaults={**_DEFAULTS, **_EXPERTS, "num_experts": 512, "num_experts_per_tok": 10, "mtp_num_hidden_layers": 1},
    sizes=_SIZES,
    tensors=(
        *_SHARED_ROWS,
        *(
            blk(
                f"{to}.weight",
                "linear_attn.in_proj_qkvz.weight",
                _QKVZ,
                by_part("key_heads", *_PIECES, parts=parts),
                when=_is_linear,
            )
            for to, parts in (("attn_qkv", (0, 1, 2)), ("attn_gate", (3,)))
        ),
        blk("ssm_ba.weight", "linear_attn.in_proj_ba.weight", "2*value_heads hidden", when=_is_linear),
        blk(
            "ssm_conv1d.weight",
            "linear_attn.conv1d.weight",
            _CONVOLUTION,
            reshape("2*key_heads*key+value_heads*value kernel"),
            when=_is_linear,
        ),
        blk("ssm_dt.bias", "linear_attn.dt_bias", "value_heads", when=_is_linear),
        blk("ssm_a", "linear_attn.A_log", "value_heads", negative_exponential, when=_is_linear),
        *linear("ssm_out", "linear_attn.out_proj", "hidden", "value_heads*value", when=_is_linear),
        *router(),
        *experts(when=neither(stored("model.layers.{n}.mlp.experts.gate_up_proj"))),
        *fused_experts(when=stored("model.layers.{n}.mlp.experts.gate_up_proj")),
        *SHARED_EXPERT,
    ),
    keys=(*_KEYS, *EXPERT_KEYS),
    has_mtp=True,
    mtp=_PREDICTION,
    mtp_layers="mtp.layers.",
)

# Qwen 3.5 has them apart, and the heads of values are grouped by their head of keys: ggml wants them tiled.
_TILED_HEADS = regroup("key_heads", "per_key", "1")
_TILED = regroup("key_heads", "per_key", "value")
_TILED_VALUES = regroup("key_heads", "per_key", "value", begin="2*key_heads*key")
_LINEAR = (
    *linear(
        "attn_qkv",
        "linear_attn.in_proj_qkv",
        "2*key_heads*key+value_heads*value",
        "hidden",
        _TILED_VALUES,
        when=_is_linear,
    ),
    *linear("attn_gate", "linear_attn.in_proj_z", "value_heads*value", "hidden", _TILED, when=_is_linear),
    *linear("ssm_beta", "linear_attn.in_proj_b", "value_heads", "hidden", _TILED_HEADS, when=_is_linear),
    *linear("ssm_alpha", "linear_attn.in_proj_a", "value_heads", "hidden", _TILED_HEADS, when=_is_linear),
    blk(
        "ssm_conv1d.weight",
        "linear_attn.conv1d.weight",
        _CONVOLUTION,
        reshape("2*key_heads*key+value_heads*value kernel"),
        _TILED_VALUES,
        when=_is_linear,
    ),
    blk("ssm_dt.bias", "linear_attn.dt_bias", "value_heads", _TILED_HEADS, when=_is_linear),
    blk("ssm_a", "linear_attn.A_log", "value_heads", negative_exponential, _TILED_HEADS, when=_is_linear),
    *linear(
        "ssm_out",
        "linear_attn.out_proj",
        "hidden",
        "value_heads*value",
        regroup("key_heads", "per_key", "value", columns=True),
        when=_is_linear,
    ),
)
# The engine needs the sections of the rotation for time, height and width; these are the models'.
_SECTIONS = (
    u32(
        "rope.dimension_sections",
        lambda facts: [11, 11, 10, 0],
        when=lambda facts, layer: not facts.config.rope.has("mrope_section"),
    ),
)
QWEN3_5 = Family(
    "qwen35",
    classes=("Qwen3_5ForCausalLM", "Qwen3_5ForConditionalGeneration"),
    defaults=_DEFAULTS,
    sizes=_SIZES,
    tensors=(*_SHARED_ROWS, *_LINEAR, *feed_forward()),
    keys=(*_KEYS, *_SECTIONS),
    has_mtp=True,
    mtp=_PREDICTION,
    mtp_layers="mtp.layers.",
)
# The experts of a layer are one tensor; in FP8 checkpoints and in layers for multi-token prediction they are apart.
_APART = stored("model.layers.{n}.mlp.experts.0.gate_proj.weight")
QWEN3_5_MOE = Family(
    "qwen35moe",
    classes=("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration"),
    defaults={**_DEFAULTS, **_EXPERTS, "num_experts": 256, "num_experts_per_tok": 8},
    sizes=_SIZES,
    tensors=(
        *_SHARED_ROWS,
        *_LINEAR,
        *router(),
        *experts(when=_APART),
        *fused_experts(when=neither(_APART)),
        *SHARED_EXPERT,
    ),
    keys=(*_KEYS, *EXPERT_KEYS, *_SECTIONS),
    has_mtp=True,
    mtp=_PREDICTION,
    mtp_layers="mtp.layers.",
)

FAMILIES = (QWEN3_NEXT, QWEN3_5, QWEN3_5_MOE)
