"""Recipes: rules as data that give each tensor its type, each with its reason and source. Reads and writes them.

A recipe is a TOML file. Its rules name tensors by role (`runtime.gguf.tensor_name`), by name and by layer; the first
that matches decides and is recorded in the plan. `include` puts the rules of other recipes behind its own:

    summary = "what it is good for"
    label = "q4_k_m"                  # the standard mixture by which readers of the file call it
    round = "best"                    # how errors of rounding are corrected, unless --round is given; left out: "off"
    include = ["_moe_frame"]

    [[rule]]
    role = "routed experts"           # or several: ["attention", "output"]
    name = "ffn_down_exps"            # without layer and ".weight", or whole; * stands for anything
    layers = "first 2 moe"            # see quant.recipe.layer_choice
    type = "q6_k"
    why = "..."
    source = "..."

A rule without role, name and layers is for every tensor. No rule can quantize norms, routers and vectors. Sources carry
marks: [V] read in the named source, [A] from an abstract or a page about it, [C] computed from shapes and published
sizes, [M] from memory, so a hypothesis.

The standard mixtures of `quant.recipe.mixtures` are recipes too, by their names, but their rules are code.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, get_args

from quant.gguf.writer import integers
from quant.plan import EFFORTS, Effort, QuantPlan, TensorPlan, make_plan, planned
from quant.recipe import mixtures
from quant.recipe.layer_choice import SPELLINGS, is_layer_choice, select_layers
from quant.recipe.mixtures import Mixture, engine_order, kept_type, quantizable
from quant.recipe.overrides import NONE, Overrides, check_used
from quant.sources.source import Source, TensorSpec
from runtime.base.errors import NotFound, UsageError
from runtime.base.texts import parse_toml, read_text
from runtime.gguf.tensor_name import TensorRole, parse_name
from runtime.gguf.types import BY_NAME, NOT_FOR_WEIGHTS

_RECIPE_KEYS = ("summary", "label", "round", "include", "rule")
_RULE_KEYS = ("role", "name", "layers", "type", "why", "source")
_REQUIRED = ("type", "why", "source")
_PLAIN = {
    "f32": "plain conversion: exact",
    "bf16": "plain conversion: lossless for BF16, FP8",
    "f16": "plain conversion: half precision",
    "q8_0": "plain conversion: hardly a loss",
}
_TYPES = {name.lower(): name for name in BY_NAME if name not in NOT_FOR_WEIGHTS}


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of the recipe `recipe`. A tensor needs one of `roles` and one of `names`; empty means any."""

    recipe: str
    type: str
    why: str
    source: str
    roles: tuple[TensorRole, ...] = ()
    names: tuple[str, ...] = ()
    layers: str = ""

    def __str__(self) -> str:
        conditions = (" or ".join(self.roles), " or ".join(self.names), self.layers)
        return f"{self.recipe}: {', '.join(filter(None, conditions)) or 'all else'}"

    def fits(self, name: str, role: TensorRole) -> bool:
        """Whether the rule is for this name and role. The layer is not checked."""
        if self.roles and role not in self.roles:
            return False
        bare = parse_name(name).stem
        return not self.names or any(fnmatchcase(name, each) or fnmatchcase(bare, each) for each in self.names)


@dataclass(frozen=True, slots=True)
class Recipe:
    """`label` is the standard mixture whose number other programs show. `rules` contain the included ones; `rounding`
    is not taken from them."""

    name: str
    summary: str
    label: Mixture
    rules: tuple[Rule, ...]
    rounding: Effort = "off"

    @property
    def for_experts(self) -> bool:
        return any("routed experts" in rule.roles for rule in self.rules)


AnyRecipe = Recipe | Mixture


def rounding_of(recipe: AnyRecipe) -> Effort:
    """How a recipe corrects errors of rounding. A standard mixture does not, so that it gives llama.cpp's bytes."""
    return recipe.rounding if isinstance(recipe, Recipe) else "off"


def names() -> tuple[str, ...]:
    """Every recipe that comes with dsr: plain conversions, our own, the standard mixtures."""
    return tuple(dict.fromkeys((*_PLAIN, *_shipped(), *mixtures.MIXTURES)))


def summary(name: str) -> str:
    """One line about a recipe of `names`."""
    if name in _PLAIN:
        return _PLAIN[name]
    if name in mixtures.MIXTURES:
        return f"standard mixture, mostly {mixtures.MIXTURES[name].base}"
    return _file_recipe(name, _shipped()[name]).summary


def source_text(name: str) -> str:
    """Returns the text of a recipe's file, or a sentence about a standard mixture. Raises the errors of `load`."""
    found = load(name)
    if isinstance(found, Recipe):
        place = _place(name)
        assert place is not None
        return place.read_text(encoding="utf-8")
    if found.name in _PLAIN:
        return f"{found.name}: {_PLAIN[found.name]}. Vectors, norms and the router stay F32.\n"
    return (
        f"{found.name}: {summary(found.name)}.\n"
        "Its rules are those of llama.cpp (src/llama-quant.cpp). They are code: quant/recipe/mixtures.py. "
        "--dry-run shows the types they give.\n"
    )


def load(name: str) -> AnyRecipe:
    """A recipe by its name in any case, or by the path of a file (with a "/" or ending in .toml).

    Raises UsageError (no such name; a file that is wrong, naming file and key), NotFound (no such file)."""
    place = _place(name)
    if place is not None:
        return _file_recipe(_stem(name), place)
    key = name.lower()
    try:
        return mixtures.mixture(key)
    except UsageError:
        near = difflib.get_close_matches(key, names(), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"there is no recipe {name!r}", hint=f"{hint}dsr quantize --list-recipes shows them; a file needs its path"
        ) from None


def plan(recipe: AnyRecipe, source: Source, overrides: Overrides = NONE) -> QuantPlan:
    """The plan that `recipe` makes for `source`, where `overrides` name no other type.

    Raises UsageError for a tensor that no rule is for, and for overrides that cannot be or change nothing."""
    if isinstance(recipe, Mixture):
        return mixtures.standard(recipe.name, source, overrides)
    if overrides.pure:
        raise UsageError(
            f"--pure is for standard mixtures, and {recipe.name} gives each kind of tensor its type",
            hint=f"--recipe {recipe.label.name} --pure",
        )
    check_used(overrides, [tensor.name for tensor in source.tensors if quantizable(tensor)])
    tensors = assign(recipe, source.tensors, overrides)
    made = make_plan(tensors, source, recipe.label.file_type)
    if recipe.for_experts and not any(tensor.role == "routed experts" for tensor in tensors):
        warning = f"{recipe.name} is for mixtures of experts, and this model is none: its low types are not used"
        return replace(made, warnings=(warning, *made.warnings))
    return made


def is_for_experts(recipe: AnyRecipe) -> bool:
    """Whether a recipe has low types for routed experts only: a dense model gets none of them."""
    return isinstance(recipe, Recipe) and recipe.for_experts


def assign(recipe: Recipe, tensors: Sequence[TensorSpec], overrides: Overrides = NONE) -> tuple[TensorPlan, ...]:
    """Each tensor in its type, in the engine's order. Raises UsageError for a tensor that no rule is for."""
    routed = {_layer(tensor) for tensor in tensors if tensor.role == "routed experts"}
    layers = 1 + max(map(_layer, tensors), default=-1)
    tied = all(tensor.name != "output.weight" for tensor in tensors)
    rules = [(rule, select_layers(rule.layers, layers, routed) if rule.layers else None) for rule in recipe.rules]

    def decide(tensor: TensorSpec) -> TensorPlan:
        if not quantizable(tensor):
            return planned(tensor, kept_type(tensor), "not quantized")
        if named := mixtures.overridden(tensor, overrides):
            return named
        # A model without an output matrix uses the embedding for its output too, which needs more bits.
        role: TensorRole = "output" if tied and tensor.name == "token_embd.weight" else tensor.role
        for rule, wanted in rules:
            if rule.fits(tensor.name, role) and (wanted is None or _layer(tensor) in wanted):
                return planned(tensor, rule.type, str(rule))
        raise UsageError(
            f"{recipe.name}: no rule is for {tensor.name} ({role})",
            hint="end the recipe with a rule that has no role, name or layers",
        )

    return tuple(decide(tensor) for tensor in sorted(tensors, key=engine_order))


def _layer(tensor: TensorSpec) -> int:
    """Its number, -1 outside of layers."""
    return engine_order(tensor)[0]


def _shipped() -> dict[str, Traversable]:
    """The recipes that come as files; those with a leading underscore are for `include` only."""
    folder = resources.files("quant.recipe") / "builtin"
    files = {each.name.removesuffix(".toml"): each for each in folder.iterdir() if each.name.endswith(".toml")}
    return {name: files[name] for name in sorted(files) if not name.startswith("_")}


def _place(name: str) -> Traversable | None:
    """The file of a recipe; None for one that is code, or unknown."""
    if name.endswith(".toml") or "/" in name or "\\" in name:
        return Path(name).expanduser()
    return _shipped().get(name.lower())


def _stem(name: str) -> str:
    return Path(name).name.removesuffix(".toml").lower()


def _file_recipe(name: str, place: Traversable) -> Recipe:
    rules, values = _read(place, name, ())
    label = _text(values, "label", place, "")
    if label.lower() not in mixtures.MIXTURES:
        raise _wrong(place, "label", label, mixtures.MIXTURES)
    return Recipe(name, _text(values, "summary", place, ""), mixtures.mixture(label), rules, _rounding(values, place))


def _rounding(values: Mapping[str, Any], place: Traversable) -> Effort:
    asked = _text(values, "round", place, "") or "off"
    for effort in EFFORTS:
        if effort == asked.lower():
            return effort
    raise _wrong(place, "round", asked, EFFORTS)


def _read(place: Traversable, name: str, within: tuple[str, ...]) -> tuple[tuple[Rule, ...], Mapping[str, Any]]:
    """The rules of a file with those it includes behind them, and its other values. `within` includes it."""
    values = _toml(place)
    _only(values, _RECIPE_KEYS, place, "")
    rules = values.get("rule", [])
    if not isinstance(rules, list) or not all(isinstance(each, dict) for each in rules):
        raise UsageError(f"{place}: rule must be [[rule]] tables", hint="see dsr quantize --show-recipe moe-q4")
    found = [_rule(each, number, place, name) for number, each in enumerate(rules, 1)]
    for included in _texts(values, "include", place, ""):
        other, other_name = _included(included, place), _stem(included)
        if str(other) in (*within, str(place)):
            raise UsageError(f"{place}: include: {included} includes it in turn")
        found += _read(other, other_name, (*within, str(place)))[0]
    return tuple(found), values


def _included(name: str, place: Traversable) -> Traversable:
    """A recipe's file by name, or by a path from the file that includes it."""
    if name.endswith(".toml"):
        return (place.parent if isinstance(place, Path) else Path()) / Path(name).expanduser()
    other = resources.files("quant.recipe") / "builtin" / f"{name}.toml"
    if "/" in name or "\\" in name or not other.is_file():
        raise _wrong(place, "include", name, _shipped())
    return other


def _rule(values: Mapping[str, Any], number: int, place: Traversable, name: str) -> Rule:
    where = f" in rule {number}"
    _only(values, _RULE_KEYS, place, where)
    missing = [key for key in _REQUIRED if not _text(values, key, place, where)]
    if missing:
        raise UsageError(f"{place}: {missing[0]} is missing{where}", hint=f"a rule needs {', '.join(_REQUIRED)}")
    roles = _texts(values, "role", place, where)
    for role in roles:
        if role not in get_args(TensorRole):
            raise _wrong(place, "role", role, get_args(TensorRole), where)
    layers, kind = _text(values, "layers", place, where), _text(values, "type", place, where)
    if layers and not is_layer_choice(layers):
        raise UsageError(f"{place}: layers{where}: {layers!r} is not understood", hint=f"as in {SPELLINGS}")
    if kind.lower() not in _TYPES:
        raise _wrong(place, "type", kind, _TYPES, where)
    return Rule(
        recipe=name,
        type=_TYPES[kind.lower()],
        why=values["why"],
        source=values["source"],
        roles=tuple(role for role in get_args(TensorRole) if role in roles),
        names=_texts(values, "name", place, where),
        layers=" ".join(layers.split()),
    )


def _toml(place: Traversable) -> Mapping[str, Any]:
    try:
        text = read_text(place) if isinstance(place, Path) else place.read_text(encoding="utf-8")
    except NotFound as error:
        raise NotFound(error.message, hint="dsr quantize --list-recipes shows the names") from None
    return parse_toml(text, str(place))


def _only(values: Mapping[str, Any], known: Sequence[str], place: Traversable, where: str) -> None:
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise UsageError(f"{place}: the key {key!r}{where} is not known", hint=hint)


def _wrong(place: Traversable, key: str, value: str, known: Iterable[str], where: str = "") -> UsageError:
    listed = tuple(known)
    near = difflib.get_close_matches(value.lower(), listed, n=1)
    hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(listed)}"
    return UsageError(f"{place}: {key}{where} cannot be {value!r}", hint=hint)


def _text(values: Mapping[str, Any], key: str, place: Traversable, where: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        raise UsageError(f"{place}: {key}{where} is not a text")
    return value


def _texts(values: Mapping[str, Any], key: str, place: Traversable, where: str) -> tuple[str, ...]:
    """A text, or a list of texts."""
    value = values.get(key, [])
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(each, str) and each for each in listed):
        raise UsageError(f"{place}: {key}{where} is neither a text nor a list of texts")
    return tuple(listed)


def recipe_text(plan: QuantPlan, summary: str, source: str) -> str:
    """Returns a plan as TOML with one rule for each type, which names its tensors. `source` is the source of each
    rule."""
    by_type: dict[str, list[TensorPlan]] = {}
    for tensor in plan.tensors:
        if tensor.rule != "not quantized":
            by_type.setdefault(tensor.target, []).append(tensor)
    lines = [f"summary = {_toml_string(summary)}", f'label = "{_label(plan)}"']
    rounding = next((tensor.rounding for tensor in plan.tensors if tensor.rounding), "")
    lines += [f'round = "{rounding}"'] if rounding else []
    for target, tensors in by_type.items():
        reasons = Counter(tensor.rule.split(":")[0] for tensor in tensors)
        names = ",\n".join(f"    {_toml_string(tensor.name)}" for tensor in tensors)
        lines += [
            "\n[[rule]]",
            f"name = [\n{names},\n]",
            f'type = "{target.lower()}"',
            f"why = {_toml_string(reasons.most_common(1)[0][0])}",
            f"source = {_toml_string(source)}",
        ]
    return "\n".join(lines) + "\n"


def _label(plan: QuantPlan) -> str:
    """Returns the mixture whose number is in the plan's metadata, so that other programs show it."""
    number = next(integers(entry)[0] for entry in plan.metadata if entry.key == "general.file_type")
    return next(each.name for each in mixtures.MIXTURES.values() if each.file_type == number)


def _toml_string(text: str) -> str:
    """TOML's basic strings have JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
