"""The models that dsr knows by name, from families/*.toml, with the source of each fact."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib import resources
from typing import Any, Literal, get_args

from dsr.models.name_parts import parts, size_of
from dsr.models.shape import Shape
from runtime.base.errors import UsageError
from runtime.gguf.rope import Yarn

Thinking = Literal["always", "optional", "none"]

# Levels of effort as a person names them, the least first; the template has its own words for them.
EFFORTS = ("minimal", "low", "medium", "high", "max")

# Every fact of these names a document in `source`, or is listed in `unverified`.
FACTS = (
    "base", "parameters", "active_parameters", "layers", "shape", "context", "yarn", "licence", "gguf", "original",
    "thinking", "effort", "system_prompt", "sampling", "quants", "mtp", "draft", "released",
)  # fmt: skip

_NEWEST_MONTHS = 6


class CatalogError(Exception):
    """A file of the catalogue is wrong. This is a bug of dsr, so it is not a DsrError. Names the entry and the key."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Values for sampling, such as a vendor's recommendation; None where there is none. The names are those of
    `SamplingParams`."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    penalty_last_n: int | None = None
    dry_multiplier: float | None = None
    dry_base: float | None = None
    dry_allowed_length: int | None = None
    dry_penalty_last_n: int | None = None
    xtc_probability: float | None = None
    xtc_threshold: float | None = None
    typical_p: float | None = None
    top_n_sigma: float | None = None
    dynatemp_range: float | None = None
    dynatemp_exponent: float | None = None

    @property
    def given(self) -> dict[str, float]:
        """The values that are there, by name."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in named if value is not None}


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """One model. `names[0]` is its short name; `model` its real name, `base` the model it was trained from.

    `parameters` and `active_parameters` are counts, rounded as the vendor rounds them. `context` is what the vendor
    states, in tokens; `shape` is what a plan without the header needs of the layers; `yarn` is the scaling of positions
    that the vendor has tried for longer texts. `gguf`, `original` and `mtp` are repositories on the Hugging Face hub;
    `mtp` has GGUF files with the layers that draft for the model. `draft` is the short name of a smaller model that can
    draft for it. `quants` are quantizations to prefer, the best first. `released` is a month, as in 2026-04. `source`
    pairs a fact with the document that states it; `unverified` names the facts nobody checked.
    """

    names: tuple[str, ...]
    model: str
    family: str
    parameters: int
    active_parameters: int
    gguf: str
    original: str
    licence: str
    thinking: Thinking
    base: str | None = None
    distill: bool = False
    system_prompt: bool = True
    effort: tuple[str, ...] = ()
    layers: int | None = None
    shape: Shape | None = None
    context: int | None = None
    yarn: Yarn | None = None
    sampling: Sampling = Sampling()
    quants: tuple[str, ...] = ()
    mtp: str | None = None
    draft: str | None = None
    released: str | None = None
    source: tuple[tuple[str, str], ...] = ()
    unverified: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def reach(self) -> int | None:
        """The most tokens of one text that the vendor has tried; None if unknown."""
        return self.yarn.reach if self.yarn is not None else self.context

    def verified(self, fact: str) -> bool:
        """Whether a document states the fact."""
        return fact not in self.unverified

    def describe(self) -> str:
        """The real name, and the base model of a distill or the parameters: 'deepseek-r1:7b' is a distill of Qwen."""
        if self.distill:
            return f"{self.model} (a distill of {self.base})"
        active = ""
        if self.active_parameters != self.parameters:
            active = f", {parameter_count(self.active_parameters)} active"
        return f"{self.model} ({parameter_count(self.parameters)} parameters{active})"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The models, family by family, the most used first."""

    entries: tuple[CatalogEntry, ...]

    @property
    def newest(self) -> tuple[CatalogEntry, ...]:
        """The models of the half year before the newest release in the catalogue, which ages with dsr."""
        return self.of_last(_NEWEST_MONTHS)

    def of_last(self, months: int) -> tuple[CatalogEntry, ...]:
        """The models released in the last `months` before the newest release in the catalogue."""
        released = [(each, _month(each.released)) for each in self.entries if each.released]
        latest = max((month for _, month in released), default=0)
        return tuple(each for each, month in released if month > latest - months)

    def of_family(self, name: str) -> tuple[CatalogEntry, ...]:
        """The entries of one family, by its name in any case; else of all families whose names begin like that.

        "gemma" finds gemma4, gemma3 and gemma3n. Raises UsageError with the nearest names.
        """
        wanted, known = name.casefold(), list(dict.fromkeys(each.family for each in self.entries))
        families = [wanted] if wanted in known else [each for each in known if wanted and each.startswith(wanted)]
        if not families:
            near = difflib.get_close_matches(wanted[:100], known, n=3, cutoff=0.6)
            listed = "to see the families: dsr list --catalog"
            raise UsageError(
                f"no family of models is called {name!r}", hint=f"did you mean {', '.join(near)}?" if near else listed
            )
        return tuple(each for each in self.entries if each.family in families)

    def lookup(self, name: str) -> CatalogEntry | None:
        """The entry with this short name or real model name, in any case.

        None for a name that several tags share: `deepseek-r1` is also the true model's name, but whoever types it
        may expect a download of 5 GB or one of 400 GB. The caller shows the `tags` and lets the user say which.
        """
        wanted = name.casefold()
        named = next((e for e in self.entries if wanted in e.names), None)
        if named or self.tags(name):
            return named
        return next((e for e in self.entries if wanted == e.model.casefold()), None)

    def tags(self, name: str) -> tuple[CatalogEntry, ...]:
        """Every entry called `name:something`."""
        prefix = name.casefold() + ":"
        return tuple(e for e in self.entries if any(n.startswith(prefix) for n in e.names))

    def suggest(self, name: str) -> list[str]:
        """Up to five short names that look like `name`, the closest first; if it tells a size, the closest in size."""
        owner = {n: e for e in self.entries for n in (*e.names, e.model.casefold())}
        wanted = name.casefold().rpartition("/")[2][:100]
        base = wanted.partition(":")[0]
        close = [owner[n] for n in difflib.get_close_matches(wanted, owner, n=5, cutoff=0.6)]
        found = list(dict.fromkeys([*close, *self.tags(base)]))
        size = max((size_of(part) or 0.0 for part in parts(wanted)), default=0.0)
        if size and found:
            bases = {e.name: e.name.partition(":")[0] for e in self.entries}
            near = difflib.get_close_matches(base, dict.fromkeys(bases.values()), n=5, cutoff=0.6)
            found = list(dict.fromkeys([*found, *(e for e in self.entries if bases[e.name] in near)]))
            found.sort(key=lambda each: (bases[each.name] != base, abs(math.log(each.parameters / size))))
        return [each.name for each in found[:5]]

    def entry_for_repo(self, repo: str) -> CatalogEntry | None:
        """The entry whose GGUF files or original weights are kept in this repository."""
        wanted = repo.casefold()
        return next((e for e in self.entries if wanted in _repositories(e)), None)


def _repositories(entry: CatalogEntry) -> tuple[str, ...]:
    return tuple(repo.casefold() for repo in (entry.gguf, entry.original, entry.mtp) if repo)


def _month(text: str) -> int:
    """Months since year 0: '2026-04' -> 24316."""
    year, month = text.split("-")
    return int(year) * 12 + int(month)


def parameter_count(count: int) -> str:
    """8_200_000_000 -> '8.2B'; 671_000_000_000 -> '671B'; 12_000_000 -> '12M'."""
    value, unit = (count / 1e9, "B") if count >= 1e8 else (count / 1e6, "M")
    return f"{value:.1f}".removesuffix(".0") + unit


@cache
def load() -> Catalog:
    """The catalogue in the package."""
    folder = resources.files("dsr.models").joinpath("families")
    files = sorted((each for each in folder.iterdir() if each.name.endswith(".toml")), key=lambda each: each.name)
    return read(each.read_text(encoding="utf-8") for each in files)


def read(texts: Iterable[str]) -> Catalog:
    """Parse strictly: an unknown key, a missing fact or a fact without a source is a CatalogError.

    Each text has a table of families in it, with their `place`: the family most used at home is first.
    """
    entries: list[CatalogEntry] = []
    places: dict[str, int] = {}
    for text in texts:
        table = tomllib.loads(text)
        documents, models, families = (table.pop(key, {}) for key in ("documents", "model", "family"))
        if table:
            raise CatalogError(f"unknown table {next(iter(table))!r}")
        places |= families
        entries += [_entry(row, documents) for row in models]
    if len(set(places.values())) < len(places):
        raise CatalogError("family: two families have one place")
    for entry in entries:
        if entry.family not in places:
            raise CatalogError(f"{entry.name}: family: {entry.family!r} is not one of {', '.join(places)}")
    _check_names(entries)
    return Catalog(tuple(sorted(entries, key=lambda entry: places[entry.family])))


def _check_names(entries: Iterable[CatalogEntry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        for name in {*entry.names, entry.model.casefold()}:
            if name in seen:
                raise CatalogError(f"{entry.name}: {name!r} already names {seen[name]}")
            seen[name] = entry.name
    for entry in entries:
        if entry.draft is not None and entry.draft not in seen:
            raise CatalogError(f"{entry.name}: draft: {entry.draft!r} is not in the catalogue")


def _entry(row: Mapping[str, Any], documents: Mapping[str, str]) -> CatalogEntry:
    names = row.get("names")
    if not isinstance(names, list) or not names:
        raise CatalogError(f"{row.get('model', '?')}: names: at least one is needed")
    label = names[0]
    known = {f.name for f in fields(CatalogEntry)}
    for key in row:
        if key not in known:
            raise CatalogError(f"{label}: unknown key {key!r}")
    for key in ("model", "family", "parameters", "gguf", "original", "licence", "thinking"):
        if key not in row:
            raise CatalogError(f"{label}: missing key {key!r}")
    values = {
        **row,
        "names": tuple(names),
        "active_parameters": row.get("active_parameters", row["parameters"]),
        "sampling": _sampling(label, row.get("sampling", {})),
        "yarn": _yarn(label, row["yarn"]) if "yarn" in row else None,
        "shape": _shape(label, row["shape"]) if "shape" in row else None,
        **{key: tuple(row.get(key, ())) for key in ("effort", "quants", "unverified")},
        "source": _sources(label, row.get("source", {}), documents),
    }
    entry = CatalogEntry(**values)
    _check(entry, row)
    return entry


def _sampling(label: str, row: Mapping[str, Any]) -> Sampling:
    known = {f.name for f in fields(Sampling)}
    for key in row:
        if key not in known:
            raise CatalogError(f"{label}: unknown key 'sampling.{key}'")
    return Sampling(**row)


def _yarn(label: str, row: Mapping[str, Any]) -> Yarn:
    if set(row) != {"factor", "original"}:
        raise CatalogError(f"{label}: yarn has a factor and an original length")
    try:
        return Yarn(float(row["factor"]), int(row["original"]))
    except UsageError as error:
        raise CatalogError(f"{label}: yarn: {error.message}") from None


def _shape(label: str, row: Mapping[str, Any]) -> Shape:
    known = {f.name for f in fields(Shape)}
    for key in row:
        if key not in known:
            raise CatalogError(f"{label}: unknown key 'shape.{key}'")
    try:
        return Shape(**row)
    except (TypeError, UsageError) as error:
        raise CatalogError(f"{label}: shape: {error}") from None


def _sources(label: str, row: Mapping[str, list[str]], documents: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """In the file one document lists its facts; here each fact has its document."""
    for document in row:
        if document not in documents:
            raise CatalogError(f"{label}: source: unknown document {document!r}")
    return tuple((fact, documents[document]) for document, facts in row.items() for fact in facts)


def _check(entry: CatalogEntry, row: Mapping[str, Any]) -> None:
    sourced = {fact for fact, _ in entry.source}
    for fact in (*sourced, *entry.unverified):
        if fact not in FACTS:
            raise CatalogError(f"{entry.name}: source: {fact!r} is not a fact")
        if fact not in row:
            raise CatalogError(f"{entry.name}: source: there is no {fact!r} in this entry")
    for fact in FACTS:
        if fact in row and (fact in sourced) == (fact in entry.unverified):
            raise CatalogError(f"{entry.name}: {fact!r} needs a source or a place in 'unverified', not both")
    for name in entry.names:
        if name != name.casefold():
            raise CatalogError(f"{entry.name}: names: {name!r} must be lower case")
    if entry.thinking not in get_args(Thinking):
        raise CatalogError(f"{entry.name}: thinking: {entry.thinking!r} is not one of {', '.join(get_args(Thinking))}")
    if list(entry.effort) != [each for each in EFFORTS if each in entry.effort]:
        raise CatalogError(f"{entry.name}: effort: must be some of {', '.join(EFFORTS)}, in this order")
    if entry.released is not None and not re.fullmatch(r"20\d\d-(0[1-9]|1[0-2])", entry.released):
        raise CatalogError(f"{entry.name}: released: {entry.released!r} is not a month such as 2026-04")
    if entry.distill and not entry.base:
        raise CatalogError(f"{entry.name}: base: a distill must name its base model")
    if not 0 < entry.active_parameters <= entry.parameters:
        raise CatalogError(f"{entry.name}: active_parameters: must be positive and at most 'parameters'")
