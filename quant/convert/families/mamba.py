"""Rows of state-space layers (Mamba-2), which several families mix with attention."""

from __future__ import annotations

from quant.convert.blocks import linear
from quant.convert.facts import Facts
from quant.convert.family import Row, When, blk
from quant.convert.transforms import negative_exponential, reshape


def _inner_of_group(facts: Facts, layer: int) -> int:
    inner, groups = facts.number("inner"), facts.number("groups")
    if inner % groups:
        raise facts.config.bad(f"{inner} elements cannot be divided among {groups} groups")
    return inner // groups


# A family names `inner` (elements inside of a layer), `groups`, `state`, `kernel` and `ssm_heads`.
SIZES = {"inner_of_group": _inner_of_group}


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
    grouped = blk("ssm_norm.weight", f"{of}.norm.weight", "inner", reshape("groups inner_of_group"), when=when)
    return (*rows, grouped) if norm else rows
