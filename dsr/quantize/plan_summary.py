"""A plan in a few lines: its tensors by role and type, the layers in words, and the memory to run the file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quant.plan import QuantPlan, TensorPlan
from runtime.base.types import ByteCount
from runtime.gguf.tensor_name import ROLES, TensorRole
from runtime.placement.memory import need

CONTEXTS = (4096, 32768)


@dataclass(frozen=True, slots=True)
class Portion:
    """The tensors of one role and one type. `part` divides routed experts into "gate/up" and "down". `layers` is empty
    for tensors outside the layers."""

    role: TensorRole
    part: str
    type: str
    layers: tuple[int, ...]
    parameters: int
    size: ByteCount

    @property
    def bits_per_weight(self) -> float:
        return self.size * 8 / self.parameters


def portions(plan: QuantPlan) -> tuple[Portion, ...]:
    """The plan by role and type, large types first within a role."""
    found: dict[tuple[TensorRole, str, str], list[TensorPlan]] = {}
    for tensor in plan.tensors:
        role = tensor.role
        part = "" if role != "routed experts" else "down" if "ffn_down" in tensor.name else "gate/up"
        found.setdefault((role, part, tensor.target), []).append(tensor)
    rows = [
        Portion(
            role=role,
            part=part,
            type=target,
            layers=tuple(sorted({tensor.layer for tensor in tensors if tensor.layer is not None})),
            parameters=sum(tensor.parameters for tensor in tensors),
            size=ByteCount(sum(tensor.bytes for tensor in tensors)),
        )
        for (role, part, target), tensors in found.items()
    ]
    return tuple(sorted(rows, key=lambda row: (ROLES.index(row.role), row.part, -row.bits_per_weight, row.type)))


def layers_in_words(layers: Sequence[int]) -> str:
    """(3, 4, 5, 6, 10, 15, 20) reads '3-6, 10-20 by 5'."""
    parts, rest = [], list(layers)
    while rest:
        step = rest[1] - rest[0] if len(rest) > 1 else 1
        count = 1
        while count < len(rest) and rest[count] - rest[count - 1] == step:
            count += 1
        if count < 3 and step > 1:  # two numbers far apart are no series: the second may begin one
            count = 1
        series = rest[:count]
        parts.append(str(series[0]) if count == 1 else f"{series[0]}-{series[-1]}" + (f" by {step}" * (step > 1)))
        rest = rest[count:]
    return ", ".join(parts)


def layers_of_row(row: Portion, rows: Sequence[Portion]) -> str:
    """The layers of a row: '3-6, 10', or 'the rest' for a long list whose complement other rows show."""
    words = layers_in_words(row.layers)
    others = [other for other in rows if (other.role, other.part) == (row.role, row.part) and other is not row]
    apart = not any(set(row.layers) & set(other.layers) for other in others)
    largest = all(row.parameters >= other.parameters for other in others)
    return "the rest" if others and apart and largest and words.count(",") > 1 else words


def memory_in_words(plan: QuantPlan) -> str | None:
    """The memory to run the file, in words; None where its header does not tell."""
    card = plan.card()
    if card is None:
        return None
    contexts = dict.fromkeys(min(context, card.context_length) for context in CONTEXTS)
    return ", ".join(f"{need(card, context).total} at {context} tokens of context" for context in contexts)
