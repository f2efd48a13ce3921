"""The transformations that tables of families name. Each takes a weight, the model's facts and a layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from quant.convert.facts import Facts
from quant.convert.weights import (
    Joined,
    Mapped,
    Picked,
    PickedColumns,
    Reshaped,
    ScaledRows,
    Transposed,
    Weight,
    Zeros,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = NDArray[np.float32]

Transform = Callable[[Weight, Facts, int], Weight]


def cut(begin: str, count: str, step: int = 1) -> Transform:
    """`count` rows of each matrix (elements of a vector) from `begin` on, every `step`-th; both are expressions."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        first, rows = facts.number(begin, layer), facts.number(count, layer)
        length = weight.shape[-2] if len(weight.shape) > 1 else weight.shape[0]
        if first + (rows - 1) * step >= length:
            raise facts.config.bad(f"{rows} rows from {first} on do not fit into {length}")
        return Picked(weight, range(first, first + rows * step, step))

    return apply


def cut_columns(begin: str, count: str, step: int = 1) -> Transform:
    """The same of columns."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        first, columns = facts.number(begin, layer), facts.number(count, layer)
        if first + (columns - 1) * step >= weight.shape[-1]:
            raise facts.config.bad(f"{columns} columns from {first} on do not fit into {weight.shape[-1]}")
        return PickedColumns(weight, range(first, first + columns * step, step))

    return apply


def transpose(weight: Weight, facts: Facts, layer: int) -> Weight:
    """Rows and columns of each matrix exchanged."""
    return Transposed(weight)


def reshape(shape: str) -> Transform:
    """The same numbers as `shape`, such as "heads head hidden"."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        return Reshaped(weight, facts.dimensions(shape, layer))

    return apply


def rotary(heads: str) -> Transform:
    """The rotary halves of each head interleaved: row 2j + k of a head was row k * half + j.

    Checkpoints of Llama's kind rotate element j with element j + half; ggml's "norm" rotation wants pairs side by
    side (LlamaModel.permute in conversion/llama.py of llama.cpp)."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        count, rows = facts.number(heads, layer), weight.shape[0]
        if rows % (2 * count):
            raise facts.config.bad(f"{rows} rows of {count} heads cannot be rotated in pairs")
        facts.move(rows)
        half = rows // count // 2
        order = (head * 2 * half + k * half + j for head in range(count) for j in range(half) for k in range(2))
        return Picked(weight, tuple(order))

    return apply


def padded(rows: str) -> Transform:
    """Rows of zeros at the end, so that there are `rows`."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        lacking = facts.number(rows, layer) - weight.shape[0]
        return Joined((weight, Zeros((lacking, *weight.shape[1:])))) if lacking > 0 else weight

    return apply


def regroup(groups: str, each: str, length: str, *, begin: str = "0", columns: bool = False) -> Transform:
    """Heads that are grouped become tiled: head i of group g moves from place g * each + i to i * groups + g.

    Rows before `begin` stay where they are; with `columns` the columns move."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        first, count, many, size = (facts.number(each_, layer) for each_ in (begin, groups, each, length))
        facts.move(first + count * many * size)
        moved = (
            first + (group * many + number) * size + element
            for number in range(many)
            for group in range(count)
            for element in range(size)
        )
        order = (*range(first), *moved)
        return PickedColumns(weight, order) if columns else Picked(weight, order)

    return apply


def by_part(groups: str, *lengths: str, parts: tuple[int, ...]) -> Transform:
    """Rows that come group by group, each with a part of every length, come part by part; others than `parts` are
    left out."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        sizes = [facts.number(length, layer) for length in lengths]
        facts.move(facts.number(groups, layer) * sum(sizes))
        begins = [sum(sizes[:part]) for part in range(len(sizes))]
        order = tuple(
            group * sum(sizes) + begins[part] + row
            for part in parts
            for group in range(facts.number(groups, layer))
            for row in range(sizes[part])
        )
        return Picked(weight, order)

    return apply


def mapped(function: Callable[[Rows], Rows]) -> Transform:
    """Each number changed by `function`."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        return Mapped(weight, function)

    return apply


def plus(number: float) -> Transform:
    """`number` is added, as to norms that are stored as the difference from one."""
    return mapped(lambda rows: rows + number)


def scaled(key: str) -> Transform:
    """Multiplied by the number that config.json has under `key`."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        factor = facts.config.number(key)
        return Mapped(weight, lambda rows: rows * factor)

    return apply


def scaled_parts(key: str, *rows: str) -> Transform:
    """Multiplied by the numbers that config.json lists under `key`, one for each part of so many `rows`."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        factors = facts.config.numbers(key, len(rows))
        if len(factors) != len(rows):
            raise facts.config.bad(f"{key} has {len(factors)} numbers, not {len(rows)}")
        counts = [facts.number(each, layer) for each in rows]
        facts.move(sum(counts))
        return ScaledRows(weight, tuple(f for f, n in zip(factors, counts, strict=True) for _ in range(n)))

    return apply


def scaled_by(key: str, number: int) -> Transform:
    """Multiplied by one of the numbers that config.json lists under `key`."""

    def apply(weight: Weight, facts: Facts, layer: int) -> Weight:
        factor = facts.config.numbers(key, number + 1)[number]
        return Mapped(weight, lambda rows: rows * factor)

    return apply


def _negative_exponential(rows: Rows) -> Rows:
    """In float64, so that it is rounded once; torch's result differs by one unit of the last place in 1 % of cases."""
    import numpy as np

    return -np.exp(rows.astype(np.float64))


negative_exponential: Transform = mapped(_negative_exponential)
