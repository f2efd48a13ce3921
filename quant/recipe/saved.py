"""Writes a plan as a recipe, which people can read and change and `quant.recipe.recipe` can read."""

from __future__ import annotations

import json
from collections import Counter

from quant.gguf.writer import integers
from quant.plan import QuantPlan, TensorPlan
from quant.recipe.mixtures import MIXTURES


def recipe_text(plan: QuantPlan, summary: str, source: str) -> str:
    """TOML with one rule for each type, which names its tensors. `source` says where the figures are from."""
    by_type: dict[str, list[TensorPlan]] = {}
    for tensor in plan.tensors:
        if tensor.rule != "not quantized":
            by_type.setdefault(tensor.target, []).append(tensor)
    lines = [f"summary = {_string(summary)}", f'label = "{_label(plan)}"']
    for target, tensors in by_type.items():
        reasons = Counter(tensor.rule.split(":")[0] for tensor in tensors)
        names = ",\n".join(f"    {_string(tensor.name)}" for tensor in tensors)
        lines += [
            "\n[[rule]]",
            f"name = [\n{names},\n]",
            f'type = "{target.lower()}"',
            f"why = {_string(reasons.most_common(1)[0][0])}",
            f"source = {_string(source)}",
        ]
    return "\n".join(lines) + "\n"


def _label(plan: QuantPlan) -> str:
    """The mixture by whose number the plan's own metadata has readers name the file."""
    number = next(integers(entry)[0] for entry in plan.metadata if entry.key == "general.file_type")
    return next(each.name for each in MIXTURES.values() if each.file_type == number)


def _string(text: str) -> str:
    """TOML's basic strings have JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
