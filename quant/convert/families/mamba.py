"""Mamba and Mamba-2, and the rows of their layers, which several families mix with attention."""

from __future__ import annotations

from quant.convert.blocks import linear
from quant.convert.facts import Facts, Size
from quant.convert.family import Family, Row, When, blk, f32, flag, row, u32, under
from quant.convert.transforms import negative_exponential, reshape


def _inner_of_group(facts: Facts, layer: int) -> int:
    inner, groups = facts.number("inner"), facts.number("groups")
    if inner % groups:
        raise facts.config.bad(f"{inner} elements cannot be divided among {groups} groups")
    return inner // groups


# A family names `inner` (elements inside of a layer), `groups`, `state`, `kernel` and `ssm_heads`.
SIZES: dict[str, Size] = {"inner_of_group": _inner_of_group}
BY_GROUP = reshape("groups inner_of_group")


def mamba2(of: str, *, bias: When = False, norm: bool = True, when: When = True) -> tuple[Row, ...]:
    """A Mamba-2 layer; `bias` is that of its projections (Mamba2Model in conversion/mamba.py of llama.cpp)."""
    convolved = "inner+2*groups*state"
    rows = (
        *linear("ssm_in", f"{of}.in_proj", "2*inner+2*groups*state+ssm_heads", "hidden", bias=bias, when=when),
        blk(
            "ssm_conv1d.weight",
            f"{of}.conv1d.weight",
            f"{convolved} 1 kernel",
            reshape(f"{convolved} kernel"),
            when=when,
        ),
        blk("ssm_conv1d.bias", f"{of}.conv1d.bias", convolved, when=when),
        blk("ssm_dt.bias", f"{of}.dt_bias", "ssm_heads", when=when),
        blk("ssm_a", f"{of}.A_log", "ssm_heads", negative_exponential, reshape("ssm_heads 1"), when=when),
        blk("ssm_d", f"{of}.D", "ssm_heads", reshape("ssm_heads 1"), when=when),
        *linear("ssm_out", f"{of}.out_proj", "hidden", "inner", bias=bias, when=when),
    )
    grouped = blk("ssm_norm.weight", f"{of}.norm.weight", "inner", BY_GROUP, when=when)
    return (*rows, grouped) if norm else rows


# The names that the library of Mamba has, which stands for a stack of layers without attention.
_FRAME = (
    row("token_embd.weight", "backbone.embeddings.weight", "vocab hidden"),
    blk("attn_norm.weight", "norm.weight", "hidden"),
    row("output_norm.weight", "backbone.norm_f.weight", "hidden"),
    row("output.weight", "lm_head.weight", "vocab hidden", when="!tie_word_embeddings"),
)
# Mamba-Codestral puts a word before them.
_RENAMES = (("model.backbone", "backbone"), ("model.lm_head", "lm_head"))
_WITHOUT = (
    "context_length", "feed_forward_length", "attention.head_count", "attention.head_count_kv", "rope",
    "attention.key_length", "attention.layer_norm_epsilon", "attention.layer_norm_rms_epsilon",
)  # fmt: skip
_KEYS = (
    u32("context_length", lambda facts: 2**20),  # as long as one likes
    # The engine wants these, and does not use them.
    u32("feed_forward_length", lambda facts: 0),
    u32("attention.head_count", lambda facts: 0),
    u32("ssm.conv_kernel", "kernel"),
    u32("ssm.inner_size", "inner"),
    u32("ssm.state_size", "state"),
    f32("attention.layer_norm_rms_epsilon", "layer_norm_epsilon"),
)

MAMBA2 = Family(
    "mamba2",
    classes=("Mamba2ForCausalLM",),
    # configuration_mamba2.py of transformers 4.57
    defaults={
        "expand": 2,
        "n_groups": 8,
        "state_size": 128,
        "conv_kernel": 4,
        "head_dim": 64,
        "num_heads": 128,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
    },
    sizes={
        **SIZES,
        "inner": lambda facts, layer: facts.number("expand*hidden"),
        "groups": "n_groups",
        "state": "state_size",
        "kernel": "conv_kernel",
        "ssm_heads": "num_heads",
    },
    without=_WITHOUT,
    renames=_RENAMES,
    tensors=under("backbone.layers.", (*_FRAME, *mamba2("mixer", bias="use_bias"))),
    keys=(*_KEYS, u32("ssm.time_step_rank", "ssm_heads"), u32("ssm.group_count", "groups")),
    left_out=(r"lm_head\.weight",),
)


def time_step_rank(key: str) -> Size:
    """The rank of the time step: what config.json has under `key`, or "auto", a sixteenth of the hidden size."""

    def rank(facts: Facts, layer: int) -> int:
        automatic = facts.config.values.get(key) in (None, "auto")
        return -(facts.number("hidden") // -16) if automatic else facts.config.integer(key)

    return rank


def mamba1(of: str, *, bias: When = False, when: When = True) -> tuple[Row, ...]:
    """A Mamba layer of the first kind (MambaModel in conversion/mamba.py of llama.cpp)."""
    return (
        *linear("ssm_in", f"{of}.in_proj", "2*inner", "hidden", bias=bias, when=when),
        blk("ssm_conv1d.weight", f"{of}.conv1d.weight", "inner 1 kernel", reshape("inner kernel"), when=when),
        blk("ssm_conv1d.bias", f"{of}.conv1d.bias", "inner", when=when),
        blk("ssm_x.weight", f"{of}.x_proj.weight", "rank+2*state inner", when=when),
        blk("ssm_dt.weight", f"{of}.dt_proj.weight", "inner rank", when=when),
        blk("ssm_dt.bias", f"{of}.dt_proj.bias", "inner", when=when),
        blk("ssm_a", f"{of}.A_log", "inner state", negative_exponential, when=when),
        blk("ssm_d", f"{of}.D", "inner", when=when),
        *linear("ssm_out", f"{of}.out_proj", "hidden", "inner", bias=bias, when=when),
    )


MAMBA = Family(
    "mamba",
    classes=("MambaForCausalLM", "FalconMambaForCausalLM"),
    # configuration_mamba.py of transformers 4.57
    defaults={
        "expand": 2,
        "state_size": 16,
        "conv_kernel": 4,
        "layer_norm_epsilon": 1e-5,
        "use_bias": False,
        "tie_word_embeddings": True,
    },
    sizes={
        "inner": lambda facts, layer: facts.number("expand*hidden"),
        "state": "state_size",
        "kernel": "conv_kernel",
        "rank": time_step_rank("time_step_rank"),
    },
    without=_WITHOUT,
    renames=_RENAMES,
    tensors=under("backbone.layers.", (*_FRAME, *mamba1("mixer", bias="use_bias"))),
    keys=(
        *_KEYS,
        u32("ssm.time_step_rank", "rank"),
        # Falcon Mamba normalises the time step and both inputs, without weights.
        flag("ssm.dt_b_c_rms", lambda facts: facts.config.text("model_type") == "falcon_mamba"),
    ),
    left_out=(r"lm_head\.weight",),
)

FAMILIES = (MAMBA, MAMBA2)
