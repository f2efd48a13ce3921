"""A family of models as data: the table of its tensors, the table of its metadata, and what its config.json means.

`quant/convert/families/` has the tables; docs/architecture.md shows in six steps how to add one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from quant.convert.facts import Facts, Size
from quant.convert.transforms import Transform
from runtime.base.quoted import spelled

# Whether a row counts, for a model and a layer: a key of config.json that must be there and neither false nor zero
# ("!key": the opposite), or a function.
When = bool | str | Callable[[Facts, int], bool]
Kind = Literal["u32", "i32", "f32", "bool", "text"]


@dataclass(frozen=True, slots=True)
class Row:
    """One tensor of the GGUF: its name, the stored tensors that it is made of, and how.

    Names contain {n} for the number of a layer, and `of` {e} for that of an expert, or {g} for that of a group of
    experts (there are `expert_groups`): these tensors are stacked. `shape` is that of each stored tensor, in the
    checkpoint's order ("heads*head hidden"); several are joined along their first dimension, and each has a shape of
    its own behind ";". `by` are applied one after the other. An `optional` row may be missing; `early` ones come before
    all others. `values` are the numbers of a tensor that no checkpoint has; none leave it out.
    """

    to: str
    of: tuple[str, ...]
    shape: str
    by: tuple[Transform, ...] = ()
    when: When = True
    optional: bool = False
    values: Callable[[Facts], tuple[float, ...]] | None = None
    early: bool = False

    @property
    def in_layers(self) -> bool:
        return "{n}" in self.to


@dataclass(frozen=True, slots=True)
class Key:
    """One entry of the metadata. `name` lacks the architecture; a name with a leading dot is whole ("tokenizer.x").

    `value`: an expression of sizes for u32 and i32, a key of config.json for others, or a function, which may give a
    list with a value for each layer. An `optional` key is left out where config.json has nothing.
    """

    name: str
    kind: Kind
    value: str | Callable[[Facts], Any]
    when: When = True
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of model is converted.

    `architecture` is its name in GGUF, `classes` are its names in config.json; where several families have a class,
    the first counts whose `when` holds. `defaults` are config.json's values where it has none (transformers'
    configuration classes). `sizes` adds to quant.convert.facts.SIZES.
    `keys` come behind the standard ones, of which those in `without` are left out. `renames` are texts in names of
    stored tensors and their replacements; `left_out` are regular expressions for names that no row needs.
    `has_mtp`: models may have layers for multi-token prediction, which can be kept; `mtp` are the rows that only those
    have, and {m} is their number. `mtp_layers` is the beginning of their names where they are counted by themselves.
    `suppresses`: tokens without an embedding must never be drawn.
    `numbers` are keys with a number for each layer, and the tensors of one element that have these numbers.
    `rope_types` are the kinds of rope_scaling that its own keys describe.
    """

    architecture: str
    classes: tuple[str, ...]
    tensors: tuple[Row, ...]
    keys: tuple[Key, ...] = ()
    when: When = True
    defaults: Mapping[str, Any] | None = None
    sizes: Mapping[str, Size] | None = None
    without: tuple[str, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    has_mtp: bool = False
    mtp: tuple[Row, ...] = ()
    mtp_layers: str = ""
    numbers: tuple[tuple[str, str], ...] = ()
    rope_types: tuple[str, ...] = ()
    suppresses: bool = False


def holds(when: When, facts: Facts, layer: int = 0) -> bool:
    """Whether a condition is met."""
    if isinstance(when, bool):
        return when
    if isinstance(when, str):
        key = when.removeprefix("!")
        value = facts.config.values.get(key)
        if isinstance(value, str):
            raise facts.config.bad(f"{key} is {spelled(value)}, neither true nor false")
        return bool(value) != when.startswith("!")
    return when(facts, layer)


def either(first: When, second: When) -> When:
    return lambda facts, layer: holds(first, facts, layer) or holds(second, facts, layer)


def both(first: When, second: When) -> When:
    return lambda facts, layer: holds(first, facts, layer) and holds(second, facts, layer)


def neither(when: When) -> When:
    """The opposite."""
    return lambda facts, layer: not holds(when, facts, layer)


def stored(name: str) -> When:
    """Whether the checkpoint has the tensor `name`, with {n} for the layer: some models are published in two forms.
    A config.json alone has none."""
    return lambda facts, layer: name.replace("{n}", str(layer)) in facts.stored


def row(
    to: str, of: str | tuple[str, ...], shape: str, *by: Transform, when: When = True, optional: bool = False
) -> Row:
    """A tensor under its full names."""
    return Row(to, (of,) if isinstance(of, str) else of, shape, by, when, optional)


def blk(
    to: str, of: str | tuple[str, ...], shape: str, *by: Transform, when: When = True, optional: bool = False
) -> Row:
    """A tensor of every layer: names without "blk.{n}." and "model.layers.{n}."."""
    names = (of,) if isinstance(of, str) else of
    return Row(f"blk.{{n}}.{to}", tuple(f"model.layers.{{n}}.{name}" for name in names), shape, by, when, optional)


def under(prefix: str, rows: Iterable[Row]) -> tuple[Row, ...]:
    """Rows of layers that the checkpoint has under another prefix than "model.layers."."""
    return tuple(replace(each, of=tuple(name.replace("model.layers.", prefix) for name in each.of)) for each in rows)


def where(when: When, rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows, if this holds as well."""
    return tuple(replace(each, when=when if each.when is True else both(each.when, when)) for each in rows)


def made(to: str, values: Callable[[Facts], tuple[float, ...]]) -> Row:
    """A tensor that follows from config.json; no numbers leave it out."""
    return Row(to, (), "", values=values)


def u32(name: str, value: str | Callable[[Facts], Any], *, when: When = True, optional: bool = False) -> Key:
    return Key(name, "u32", value, when, optional)


def i32(name: str, value: str | Callable[[Facts], Any], *, when: When = True, optional: bool = False) -> Key:
    return Key(name, "i32", value, when, optional)


def f32(name: str, value: str | Callable[[Facts], Any], *, when: When = True, optional: bool = False) -> Key:
    return Key(name, "f32", value, when, optional)


def flag(name: str, value: str | Callable[[Facts], Any], *, when: When = True, optional: bool = False) -> Key:
    return Key(name, "bool", value, when, optional)


def text(name: str, value: str | Callable[[Facts], Any], *, when: When = True, optional: bool = False) -> Key:
    return Key(name, "text", value, when, optional)
