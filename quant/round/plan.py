"""The decision which tensors of a plan are rounded with correction of their errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace

from quant.plan import ORIGINAL_TYPES, Effort, QuantPlan, TensorPlan
from quant.round.grids import TYPES
from quant.round.rounded_file import PREFIX, STAGED, RoundedFile, tokens_read
from runtime.base.types import counted


def plan_rounding(
    plan: QuantPlan,
    effort: Effort,
    *,
    datasets: Sequence[str],
    tokens: int = 0,
    weights: Container[str] | None = None,
) -> QuantPlan:
    """`plan` with the effort of each tensor, the keys of the file, and a warning about tensors that cannot be rounded.

    `weights` names the matrices with second moments; None if that is not known yet. `tokens` is known with them."""
    kept: Counter[str] = Counter()
    tensors = []
    for tensor in plan.tensors:
        reason = not_rounded(tensor, weights)
        if reason is None:
            tensors.append(replace(tensor, rounding=effort))
        else:
            kept[reason] += 1
            tensors.append(tensor)
    del kept[""]
    warnings = plan.warnings
    if kept:
        told = ", ".join(f"{reason}: {count}" for reason, count in kept.most_common())
        warnings = (*warnings, f"{counted(kept.total(), 'quantized tensor')} cannot correct errors ({told})")
    rounded = sum(1 for tensor in tensors if tensor.rounding)
    known = RoundedFile(effort, rounded, tokens, tuple(dict.fromkeys(datasets)))
    metadata = (*(entry for entry in plan.metadata if not entry.key.startswith(PREFIX)), *known.entries())
    return replace(plan, tensors=tuple(tensors), metadata=metadata, warnings=warnings)


def staged(plan: QuantPlan, tokens: int) -> QuantPlan:
    """A rounded plan as one whose matrices correct the errors of those before them, too, as `tokens` show them."""
    new = {entry.key: entry for entry in (STAGED, tokens_read(tokens))}
    return replace(plan, metadata=tuple(new.get(entry.key, entry) for entry in plan.metadata))


def not_rounded(tensor: TensorPlan, weights: Container[str] | None) -> str | None:
    """Why a tensor keeps the engine's rounding; "" where nothing is rounded, None for one that is corrected."""
    if tensor.target in ORIGINAL_TYPES or tensor.target == tensor.stored:
        return ""
    if tensor.role == "embedding":
        return "rows that are looked up"
    if tensor.target not in TYPES:
        return f"{tensor.target} has no grid"
    if weights is not None and tensor.name not in weights:
        return "no second moments"
    return None
