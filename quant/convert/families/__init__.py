"""The families that can be converted, a module for the models of each vendor or kind."""

from __future__ import annotations

from quant.convert.families import (
    deepseek,
    gemma,
    gemma_elastic,
    granite,
    lfm2,
    llama,
    qwen,
    qwen_linear,
)
from quant.convert.family import Family

FAMILIES: tuple[Family, ...] = (
    *deepseek.FAMILIES,
    *gemma.FAMILIES,
    *gemma_elastic.FAMILIES,
    *granite.FAMILIES,
    *lfm2.FAMILIES,
    *llama.FAMILIES,
    *qwen.FAMILIES,
    *qwen_linear.FAMILIES,
)
