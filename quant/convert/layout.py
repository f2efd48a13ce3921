"""The layout of one model: its family's table with the numbers of its config.json."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from quant.convert.facts import Facts
from quant.convert.family import Family, Row, holds
from quant.convert.weights import Joined, Stored, Values, Weight

_STACKED = "{e}", "{g}"


@dataclass(frozen=True, slots=True)
class Target:
    """One tensor of the GGUF, its shape in ggml order. `after` names what llama.cpp's converter has seen when it
    writes this one, which decides the order; an `optional` one is left out when the checkpoint does not have it, and
    `early` ones come first."""

    name: str
    weight: Weight
    after: tuple[str, ...]
    optional: bool = False
    early: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        return self.weight.shape[::-1]


@dataclass(frozen=True, slots=True)
class Layout:
    """`targets` in the table's order; `sources` are the shapes of the stored tensors, by the names of the table."""

    targets: tuple[Target, ...]
    sources: dict[str, tuple[int, ...]]


def lay_out(family: Family, facts: Facts) -> Layout:
    """The tensors of a model. Raises BadModelFile for sizes that contradict each other."""
    targets: list[Target] = []
    sources: dict[str, tuple[int, ...]] = {}
    for each, layer in _rows(family, facts):
        if each.values is not None:
            values = each.values(facts)
            targets += [Target(each.to, Values(values), ())] if values else []
            continue
        weight = _stored(each, facts, layer)
        for name, shape in _shapes(each, facts, layer):
            sources[name] = shape
        for transform in each.by:
            weight = transform(weight, facts, layer)
        targets.append(Target(_named(each.to, facts, layer), weight, weight.sources, each.optional, each.early))
    return Layout(tuple(_in_groups(targets)), sources)


def _rows(family: Family, facts: Facts) -> Iterator[tuple[Row, int]]:
    """The rows that count, for each layer that has them."""
    outside = [each for each in family.tensors if not each.in_layers]
    inside = [each for each in family.tensors if each.in_layers]
    yield from ((each, 0) for each in outside if holds(each.when, facts))
    for layer in range(facts.all_layers):
        rows = inside + list(family.mtp if layer >= facts.layers else ())
        yield from ((each, layer) for each in rows if holds(each.when, facts, layer))


def _stored(each: Row, facts: Facts, layer: int) -> Weight:
    """The stored tensors of a row as one weight: joined, or stacked."""
    shapes = _shapes(each, facts, layer)
    parts = tuple(Stored(name, shape) for name, shape in shapes)
    if any(mark in name for name in each.of for mark in _STACKED):
        return Joined(parts, stack=True)
    return parts[0] if len(parts) == 1 else Joined(parts)


def _shapes(each: Row, facts: Facts, layer: int) -> list[tuple[str, tuple[int, ...]]]:
    """The stored tensors of a row, with their shapes."""
    described = each.shape.split(";")
    found = []
    for number, name in enumerate(each.of):
        shape = facts.dimensions(described[min(number, len(described) - 1)], layer)
        if min(shape) < 1:
            raise facts.config.bad(f"its sizes leave nothing of the tensor {_named(name, facts, layer)!r}")
        count = facts.experts(layer) if "{e}" in name else facts.number("expert_groups") if "{g}" in name else 1
        found += [(_named(name, facts, layer, expert), shape) for expert in range(count)]
    return found


def _named(name: str, facts: Facts, layer: int, expert: int = 0) -> str:
    mtp = str(layer - facts.layers)
    return name.replace("{n}", str(layer)).replace("{m}", mtp).replace("{e}", str(expert)).replace("{g}", str(expert))


def _in_groups(targets: list[Target]) -> Iterator[Target]:
    """llama.cpp's converter writes the stacks of a layer's experts together, once the last matrix has been seen."""
    groups: dict[str, tuple[str, ...]] = defaultdict(tuple)
    for target in targets:
        groups[_group(target)] += target.after
    for target in targets:
        group = _group(target)
        yield replace(target, after=groups[group]) if group else target


def _group(target: Target) -> str:
    """The common beginning of the names of the experts that are stacked; "" for other tensors."""
    found = re.match(r".*\.(?:chunk_)?experts\.", target.after[0]) if len(target.after) > 1 else None
    return found[0] if found else ""
