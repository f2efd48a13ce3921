"""The families that can be converted, a module for the models of each vendor or kind."""

from __future__ import annotations

from quant.convert.families import (
    arcee,
    bailing,
    deci,
    deepseek,
    ernie,
    gemma,
    gemma_elastic,
    glm,
    granite,
    hunyuan,
    lfm2,
    llama,
    minimax,
    mistral,
    others,
    qwen,
    qwen_linear,
)
from quant.convert.family import Family

FAMILIES: tuple[Family, ...] = (
    *arcee.FAMILIES,
    *bailing.FAMILIES,
    *deci.FAMILIES,
    *deepseek.FAMILIES,
    *ernie.FAMILIES,
    *gemma.FAMILIES,
    *gemma_elastic.FAMILIES,
    *glm.FAMILIES,
    *granite.FAMILIES,
    *hunyuan.FAMILIES,
    *lfm2.FAMILIES,
    *llama.FAMILIES,
    *minimax.FAMILIES,
    *mistral.FAMILIES,
    *others.FAMILIES,
    *qwen.FAMILIES,
    *qwen_linear.FAMILIES,
)
